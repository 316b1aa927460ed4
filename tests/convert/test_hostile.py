"""Files for `fastgan convert` and `fastgan sample` that are damaged, or ask for more than they hold."""

import json
import os
import resource
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastgan import convert
from fastgan.cli import main
from fastgan.convert import UnknownNetwork, UnsafePickle
from fastgan.models import r3gan, stylegan2, stylegan3
from fastgan.untrusted import BadFile

SIZES = dict(z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=1, channel_base=32, channel_max=4)
R3GAN = dict(
    NoiseDimension=4, WidthPerStage=[4, 4], CardinalityPerStage=[2, 2], BlocksPerStage=[1, 1], ExpansionFactor=2
)


@pytest.fixture
def converted(tmp_path):
    torch.save(r3gan.Generator.from_reference(**R3GAN).state_dict(), tmp_path / "r.pt")
    return convert.convert(tmp_path / "r.pt", tmp_path / "r.safetensors")


def test_a_flipped_bit_is_found(converted):
    """In every byte that decides what is loaded; elsewhere (white space, the checksum's own name) nothing changes."""
    whole = converted.read_bytes()
    before = convert.load(converted)[1]["generator"].state_dict()
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(0, header, 3), *range(header, len(whole), 97)]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        converted.write_bytes(damaged)
        try:
            after = convert.load(converted, say=lambda text: None)[1]["generator"].state_dict()
        except BadFile as error:
            assert "r.safetensors" in str(error)
        else:
            assert at < header and all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_the_checksum_is_required_to_fit_and_not_to_be(converted, capsys):
    state = load_file(converted)
    about = {"model": "r3gan.generator", "arguments": R3GAN}
    older = converted.with_name("older.safetensors")
    save_file(state, older, metadata={"fastgan": json.dumps(about)})
    convert.load(older)
    assert "older.safetensors holds no checksum" in capsys.readouterr().err
    save_file(state, older, metadata={"fastgan": json.dumps(about), "sha256": "0" * 64})
    for use in (convert.load, convert.read):
        with pytest.raises(BadFile, match="does not match its SHA-256"):
            use(older)
    name = next(iter(state))
    save_file(state | {name: state[name] + 1}, converted, metadata=_header(converted))
    with pytest.raises(BadFile, match="does not match its SHA-256"):
        convert.load(converted)


def _header(path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_argument_that_json_has_no_word_for_is_refused(tmp_path, value):
    torch.save(r3gan.Generator.from_reference(**R3GAN).state_dict(), tmp_path / "r.pt")
    with pytest.raises(convert.UnknownNetwork, match=f"constructor argument {value} is not plain data"):
        convert.convert(tmp_path / "r.pt", tmp_path / "r.safetensors", arguments={"extra": value})
    assert [path.name for path in tmp_path.iterdir()] == ["r.pt"]


def test_a_converted_file_keeps_its_arguments(tmp_path):
    torch.save(stylegan2.Generator.from_reference(**SIZES).state_dict(), tmp_path / "s.pt")
    out = convert.convert(tmp_path / "s.pt", tmp_path / "s.safetensors", arguments={"conv_clamp": 7.0})
    assert convert.read(out).arguments["conv_clamp"] == 7.0


def test_every_truncation(converted):
    whole = converted.read_bytes()
    for size in [*range(0, 200, 9), *range(200, len(whole) - 1, 499)]:
        converted.write_bytes(whole[:size])
        for use in (convert.load, convert.read):
            with pytest.raises(BadFile, match=r"r\.safetensors"):
                use(converted)


BOMBS = {
    "stylegan2.generator": [
        dict(img_resolution=2**20),
        dict(img_resolution=2**13),
        dict(img_resolution=2**10000),
        dict(img_resolution=-8),
        dict(img_resolution="8"),
        dict(img_resolution=8.5),
        dict(img_resolution=None),
        dict(w_dim=10**6),
        dict(w_dim=10**4),
        dict(z_dim=2**62),
        dict(z_dim=True),
        dict(c_dim=10**9),
        dict(channel_base=2**60, channel_max=2**60),
        dict(channel_base=1),
        dict(mapping_kwargs={"num_layers": 10**6}),
        dict(mapping_kwargs={"num_layers": 200, "layer_features": 10**4}),
        dict(mapping_kwargs=[1]),
        dict(mapping_kwargs={"unheard": 1}),
        dict(num_fp16_res=-(10**9)),
        dict(kernel_size=10**6),
        dict(resample_filter=[1] * 10**4),
        dict(resample_filter=[[[1]]]),
        dict(resample_filter="13"),
        dict(activation="__class__"),
        dict(conv_clamp="x"),
        dict(architecture=["skip"]),
        {"unheard": 1},
    ],
    "stylegan3.generator": [
        dict(num_layers=10**6),
        dict(num_layers=250),
        dict(filter_size=10**9),
        dict(margin_size=10**9),
        dict(lrelu_upsampling=10**9),
        dict(first_cutoff=float("nan")),
        dict(first_cutoff=-1.0),
        dict(first_stopband=1e300),
        dict(last_stopband_rel=0),
        dict(num_critical=0),
    ],
    "r3gan.generator": [
        dict(BlocksPerStage=[10**6, 1]),
        dict(WidthPerStage=[4] * 2000),
        dict(WidthPerStage=[10**7, 10**7]),
        dict(WidthPerStage=4),
        dict(WidthPerStage=[]),
        dict(WidthPerStage=["4", "4"]),
        dict(CardinalityPerStage=[0, 0]),
        dict(ExpansionFactor=10**9),
        dict(KernelSize=10**6 + 1),
        dict(NoiseDimension=-1),
        dict(ConditionDimension=10**9),
        dict(FP16Stages=[5]),
        dict(FP16Stages="all"),
        dict(ResamplingFilter=[]),
    ],
}
ORIGINALS = {
    "stylegan2.generator": (stylegan2.Generator, SIZES),
    "stylegan3.generator": (stylegan3.Generator, SIZES | dict(img_resolution=16, num_layers=4)),
    "r3gan.generator": (r3gan.Generator, R3GAN),
}


@pytest.mark.parametrize(
    ("model", "change"), [(m, c) for m, cs in BOMBS.items() for c in cs], ids=lambda v: str(v)[:40]
)
def test_arguments_that_ask_for_more_than_the_file_holds(model, change, tmp_path):
    network, arguments = ORIGINALS[model]
    path = tmp_path / "bomb.safetensors"
    about = {"model": model, "arguments": arguments | change}
    save_file(network.from_reference(**arguments).state_dict(), path, metadata={"fastgan": json.dumps(about)})
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UnknownNetwork, match=r"bomb\.safetensors") as caught:
        convert.load(path, say=lambda text: None)
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "about",
    ["", "{", "5", "null", "[" * 10**5, '{"model": 5, "arguments": {}}', '{"model": "x.generator", "arguments": {}}',
     '{"model": "dcgan.generator", "arguments": {}}', '{"model": "stylegan2.generator", "arguments": []}'],
    ids=lambda v: v[:40],
)  # fmt: skip
def test_headers_that_describe_nothing(about, tmp_path):
    path = tmp_path / "h.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"fastgan": about})
    with pytest.raises(BadFile, match=r"h\.safetensors"):
        convert.load(path)


def with_header(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        struct.pack("<Q", 2**63),
        with_header(b"[]"),
        with_header(b"{" * 1000),
        with_header(b'{"a":' * 10**5),
        with_header(b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}', b"1234"),
        with_header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', b"1234"),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', b"1234"),
        with_header(b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        with_header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"1234"),
    ],
    ids=range(11),
)
def test_files_that_are_no_safetensors(content, tmp_path, capsys):
    path = tmp_path / "n.safetensors"
    path.write_bytes(content)
    for use in (convert.load, convert.read):
        with pytest.raises(BadFile, match=r"n\.safetensors"):
            use(path)
    assert main(["sample", str(path)]) == 1
    assert "traceback" not in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {0: torch.zeros(1)},
        {"g_ema": 5},
        {"g_ema": []},
        {"g_ema": {}},
        {"g_ema": {"x": 5}},
        {"g_ema": {5: torch.zeros(1)}},
        {"g_ema": torch.zeros(2, 2)},
        {"synthesis.b4.const": torch.zeros(())},
        {"synthesis.b4.const": torch.zeros(1), "synthesis.b4.conv1.weight": torch.zeros(())},
        {"synthesis.input.freqs": torch.zeros(1), "synthesis.L0_8_8.weight": torch.zeros(1)},
        {"synthesis.input.freqs": torch.zeros(1), f"synthesis.L{'9' * 5000}_8_8.weight": torch.zeros(1)},
        {"synthesis.input.freqs": torch.zeros(1), "synthesis.L999999999_8_8.weight": torch.zeros(1)},
        {"AggregationLayer.Layer.weight": torch.zeros(1), "MainLayers.0.Layers.1.LinearLayer2.Layer.weight": torch.zeros(4, 0)},
        {"AggregationLayer.Layer.weight": torch.zeros(1), "MainLayers.999999999.x": torch.zeros(1)},
        {"b4.fc.weight": torch.zeros(1), "b4.conv.weight": torch.zeros(2)},
        {"final_linear.1.weight": torch.zeros(1), "convs.0.0.weight": torch.zeros(1), "convs.99999.x": torch.zeros(1)},
        {"conv1.conv.modulation.weight": torch.zeros(1), "input.input": torch.zeros(1)},
        {"conv1.conv.modulation.weight": torch.zeros(1), "input.input": torch.zeros(1), "style.1.bias": torch.zeros(1)},
        {"\x1b[2J" + "x" * 10**5: torch.zeros(1)},
        [1, 2],
        "text",
        None,
    ],
    ids=range(23),
)  # fmt: skip
def test_tensors_of_no_network(state, tmp_path):
    path = tmp_path / "odd.pt"
    torch.save(state, path)
    with pytest.raises(UnknownNetwork, match=r"odd\.pt") as caught:
        convert.read(path)
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


def test_a_whole_model_says_what_to_do(tmp_path, capsys):
    torch.save(r3gan.Generator.from_reference(**R3GAN), tmp_path / "m.pt")
    assert main(["convert", str(tmp_path / "m.pt"), str(tmp_path / "out.safetensors")]) == 1
    said = capsys.readouterr().err
    assert "fastgan.models.r3gan.Generator" in said and "not run" in said and "state_dict()" in said
    assert "weights_only=False" not in said


def test_what_is_no_file(tmp_path):
    for name in ("p.pt", "p.pkl", "p.safetensors"):
        os.mkfifo(tmp_path / name)
        (tmp_path / f"folder-{name}").mkdir()
        with pytest.raises(BadFile, match="no ordinary file"):
            convert.read(tmp_path / name)
        with pytest.raises(BadFile, match="a folder"):
            convert.read(tmp_path / f"folder-{name}")
    (tmp_path / "t.pt").write_bytes(b"x" * 257 + b"ustar" + b"x" * 300)
    with pytest.raises(UnsafePickle, match="tar archive"):
        convert.read(tmp_path / "t.pt")


def test_outputs_that_cannot_be_written(converted, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    for out in (tmp_path / "file" / "x.safetensors", tmp_path / "folder.safetensors"):
        with pytest.raises(ValueError, match="cannot be written"):
            convert.convert(converted, out)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
