"""Checkpoints of other projects -> safetensors -> the same pictures; what cannot be read says why."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file
from snapshot import by_reference, persistent, randomise, stand_ins, write_snapshot

from fastgan import convert
from fastgan.cli import main
from fastgan.convert import UnknownNetwork, UnsafePickle
from fastgan.models import r3gan

R3GAN = dict(
    NoiseDimension=8,
    WidthPerStage=[16, 16, 8],
    CardinalityPerStage=[4, 4, 2],
    BlocksPerStage=[1, 2, 1],
    ExpansionFactor=2,
)


class Wrapped(torch.nn.Module):
    """R3GAN's training code puts its networks under `Model`."""

    def __init__(self, model):
        super().__init__()
        self.Model = model


Wrapped.__name__ = "Generator"


@pytest.mark.parametrize("condition", [{}, dict(ConditionDimension=5, ConditionEmbeddingDimension=3)])
def test_r3gan_snapshot(tmp_path, monkeypatch, condition):
    stand_ins(monkeypatch)
    net = randomise(r3gan.Generator.from_reference(**R3GAN, **condition))
    path = write_snapshot(tmp_path / "s.pkl", G_ema=by_reference(Wrapped(net), monkeypatch), cur_nimg=1000)
    out = convert.convert(path, tmp_path / "r.safetensors")
    recipe, networks = convert.load(out)
    z, labels = recipe.latents([3, 7]), recipe.labels([3, 7])
    assert labels is None if not condition else labels.tolist() == [3, 2]
    expected = net(z, None if labels is None else torch.nn.functional.one_hot(labels, 5).float())
    torch.testing.assert_close(recipe.sample(networks, [3, 7]), expected, rtol=0, atol=0)
    about = json.loads((tmp_path / "r.json").read_text())
    assert about["model"] == "r3gan.generator" and about["arguments"]["BlocksPerStage"] == [1, 2, 1]


@pytest.mark.parametrize("content", ['{"resblock": "1"}', "[]", "no JSON", None])
def test_a_json_that_is_not_ours_is_kept(tmp_path, content):
    torch.save(r3gan.Generator.from_reference(**R3GAN).state_dict(), tmp_path / "r.pt")
    beside = tmp_path / "config.json"
    beside.mkdir() if content is None else beside.write_text(content)
    with pytest.raises(
        FileExistsError, match=r"config\.json is there, and would be replaced with .*config\.safetensors"
    ):
        convert.convert(tmp_path / "r.pt", tmp_path / "config.safetensors")
    assert content is None or beside.read_text() == content
    assert {path.name for path in tmp_path.iterdir()} == {"r.pt", "config.json"}


def test_a_second_conversion_replaces_the_first_ones_files(tmp_path):
    torch.save(r3gan.Generator.from_reference(**R3GAN).state_dict(), tmp_path / "r.pt")
    out = convert.convert(tmp_path / "r.pt", tmp_path / "r.safetensors")
    os.rename(tmp_path / "r.pt", tmp_path / "s.pt")
    convert.convert(tmp_path / "s.pt", out)
    assert json.loads((tmp_path / "r.json").read_text())["source"] == "s.pt"


def test_plain_state_dict_in_every_container(tmp_path):
    net = randomise(r3gan.Generator.from_reference(**R3GAN))
    torch.save(net.state_dict(), tmp_path / "zip.pt")
    torch.save(net.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"g_ema": net.state_dict(), "step": 3}, tmp_path / "held.pt")
    torch.save({f"module.{n}": t for n, t in net.state_dict().items()}, tmp_path / "parallel.pt")
    for name in ("zip.pt", "old.pth", "held.pt", "parallel.pt"):
        out = convert.convert(tmp_path / name, tmp_path / "x.safetensors")
        for key, tensor in load_file(out).items():
            torch.testing.assert_close(tensor, net.state_dict()[key], rtol=0, atol=0)
    again = convert.read(out)
    assert again.model == "r3gan.generator"


def test_refusals_name_what_is_wrong(tmp_path):
    torch.save({"weird.weight": torch.zeros(3)}, tmp_path / "weird.pt")
    with pytest.raises(UnknownNetwork, match=r"weird\.weight"):
        convert.read(tmp_path / "weird.pt")
    torch.save({"d": {"x": torch.zeros(1)}}, tmp_path / "no_g.pt")
    with pytest.raises(UnknownNetwork, match="holds no network G_ema; it holds d"):
        convert.read(tmp_path / "no_g.pt")
    torch.save({"g_ema": torch.nn.Linear(1, 1)}, tmp_path / "module.pt")
    with pytest.raises(UnsafePickle, match="Linear"):
        convert.read(tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"\.safetensors"):
        convert.convert(tmp_path / "weird.pt", tmp_path / "out.pt")
    with pytest.raises(ValueError, match="G_ema, G, D"):
        convert.read(tmp_path / "weird.pt", "E")
    net = r3gan.Discriminator(r3gan.Config())
    torch.save({"D": net.state_dict()}, tmp_path / "d.pt")
    out = convert.convert(tmp_path / "d.pt", tmp_path / "d.safetensors", "D")
    with pytest.raises(UnknownNetwork, match="only generators"):
        convert.load(out)
    state = r3gan.Generator.from_reference(**R3GAN).state_dict()
    state["AggregationLayer.Layer.weight"] = torch.zeros(3, 9, 1, 1)
    torch.save(state, tmp_path / "bent.pt")
    with pytest.raises(UnknownNetwork, match=r"AggregationLayer\.Layer\.weight"):
        convert.read(tmp_path / "bent.pt").build()


def run(capsys, *argv: str) -> str:
    code = main(list(argv))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_command_line(tmp_path, capsys):
    from PIL import Image

    net = randomise(r3gan.Generator.from_reference(**R3GAN, ConditionDimension=5, ConditionEmbeddingDimension=3))
    torch.save(net.state_dict(), tmp_path / "r.pt")
    out = tmp_path / "r.safetensors"
    assert "fastgan sample" in run(capsys, "convert", str(tmp_path / "r.pt"), str(out))
    picture = run(capsys, "sample", str(out), "--seeds", "0-3").strip()
    assert picture == str(tmp_path / "r-seeds-0-3.png") and Image.open(picture).size[0] > 64
    walk = run(capsys, "sample", str(out), "--seeds", "0-2", "--interpolate", "4", "--class-label", "2").strip()
    assert walk.endswith("r-walk-0-2.gif") and Image.open(walk).n_frames == 12
    assert main(["sample", str(out), "--class-label", "9"]) == 1
    assert "expected 0 to 4" in capsys.readouterr().err
    assert main(["sample", str(out), "--truncation", "0.5"]) == 1
    assert "no truncation" in capsys.readouterr().err
    assert main(["sample", str(out), "--mix", "4,5"]) == 1
    assert "no styles to mix" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "r.pt")]) == 1
    assert "fastgan convert" in capsys.readouterr().err


def test_stages_that_training_ran_in_half_precision(tmp_path, monkeypatch, capsys):
    """A snapshot marks them; converted they run in float32, which is said, with how to have them as in training."""
    stand_ins(monkeypatch)
    net = randomise(r3gan.Generator.from_reference(**R3GAN))
    whole = by_reference(Wrapped(net), monkeypatch)
    for number, stage in whole._modules["Model"]._modules["MainLayers"]._modules.items():
        stage.DataType = torch.bfloat16 if int(number) else torch.float32
    path = write_snapshot(tmp_path / "s.pkl", G_ema=whole)
    out = convert.convert(path, tmp_path / "r.safetensors")
    said = capsys.readouterr().err
    assert "bfloat16" in said and "float32" in said and """--config '{"FP16Stages": [1, 2]}'""" in said
    assert not any(stage.bf16 for stage in convert.load(out)[1]["generator"].MainLayers)
    out = convert.convert(path, out, arguments={"FP16Stages": [1, 2]})
    assert "FP16Stages" not in capsys.readouterr().err
    assert [stage.bf16 for stage in convert.load(out)[1]["generator"].MainLayers] == [False, True, True]


def test_stages_that_the_constructor_was_told(tmp_path, monkeypatch):
    stand_ins(monkeypatch)
    net = randomise(r3gan.Generator.from_reference(**R3GAN, FP16Stages=[-1]))
    path = write_snapshot(tmp_path / "s.pkl", G_ema=persistent(net, **R3GAN, FP16Stages=[-1]))
    recipe, networks = convert.load(convert.convert(path, tmp_path / "r.safetensors"))
    z = recipe.latents([3])
    assert torch.equal(recipe.sample(networks, [3]), net(z, None))
    assert networks["generator"].config.bf16_stages == 1


@pytest.mark.parametrize("prefixes", ["module.", "_orig_mod.", "module._orig_mod.", "Model.module."])
def test_names_that_wrappers_leave(prefixes, tmp_path):
    net = randomise(r3gan.Generator.from_reference(**R3GAN))
    torch.save({prefixes + n: t for n, t in net.state_dict().items()}, tmp_path / "w.pt")
    assert convert.read(tmp_path / "w.pt").state.keys() == net.state_dict().keys()
