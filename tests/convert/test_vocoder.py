"""Published vocoders: any form of weight normalisation, config.json beside the file, and speech from it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastgan import convert, models
from fastgan.cli import main
from fastgan.convert.network import checksum
from fastgan.data.wav import decode, write_wav
from fastgan.nn import fold_weight_norm
from fastgan.untrusted import read_tensors

CONFIG = {
    "resblock": "1",
    "upsample_rates": [8, 8],
    "upsample_kernel_sizes": [16, 16],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
    "activation": "snakebeta",
    "snake_logscale": True,
    "num_mels": 80,
    "sampling_rate": 8000,
    "n_fft": 256,
    "hop_size": 64,
    "win_size": 256,
    "fmin": 0,
    "fmax": None,
}


def parametrized(state):
    newer = "parametrizations.weight.original"
    return {n.replace("weight_g", f"{newer}0").replace("weight_v", f"{newer}1"): t for n, t in state.items()}


@pytest.mark.parametrize("form", ["old", "newer", "folded"])
@pytest.mark.parametrize("name", ["hifigan", "bigvgan"])
def test_a_published_file_speaks(name, form, tmp_path, capsys):
    network = models.network_class(name).from_reference(**CONFIG)
    mel = torch.randn(1, 80, 9)
    with torch.no_grad():
        expected = network(mel)
    state = network.state_dict()
    state = {"old": lambda: state, "newer": lambda: parametrized(state)}.get(
        form, lambda: fold_weight_norm(network).state_dict()
    )()
    source, out = tmp_path / "g_00000010", tmp_path / "out.safetensors"
    torch.save({"generator": state}, source)
    assert main(["convert", str(source), str(out)]) == 1
    assert "config.json beside it" in capsys.readouterr().err and not out.exists()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert main(["convert", str(source), str(out)]) == 0
    assert f"{name}.generator" in (said := capsys.readouterr().out) and "--input FOLDER" in said
    speaker, networks = convert.load(out)
    with torch.no_grad():
        assert torch.allclose(networks["generator"](mel), expected, atol=1e-5)
    assert speaker.heard(networks)(torch.zeros(1, 6400)).shape == (1, 80, 100)
    write_wav(tmp_path / "x.wav", 0.3 * np.sin(np.arange(5000) * 0.2)[None], 8000)
    assert main(["sample", str(out), "--input", str(tmp_path / "x.wav"), "--out", str(tmp_path / "spoken")]) == 0
    made, rate = decode((tmp_path / "spoken" / "x.wav").read_bytes(), ".wav")
    assert made.shape == (1, 5000) and rate == 8000
    np.save(tmp_path / "mel.npy", mel[0].numpy())
    assert main(["sample", str(out), "--mel", str(tmp_path / "mel.npy"), "--out", str(tmp_path / "mel.wav")]) == 0
    assert main(["sample", str(out)]) == 1
    assert "--input FOLDER or --mel FILE.npy instead of seeds" in capsys.readouterr().err


def test_a_config_that_does_not_fit_is_refused(tmp_path):
    network = models.network_class("hifigan").from_reference(**CONFIG)
    torch.save({"generator": network.state_dict()}, tmp_path / "g_1")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"upsample_initial_channel": 32}))
    with pytest.raises(convert.UnknownNetwork):
        convert.convert(tmp_path / "g_1", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(hop_size=32), "hop_size is 32, and the network's frames have 64"),
        (dict(num_mels=40), "num_mels is 40, and the network's frames have 80"),
        (dict(sampling_rate="8000"), "sampling_rate is '8000', expected a positive integer"),
        (dict(win_size=0), "win_size is 0, expected a positive integer"),
        (dict(n_fft=10**9), "ask for more than the file's"),
        (dict(win_size=512), "hop 64 and window 512"),
        (dict(fmin=5000), "5000 to 4000.0 Hz"),
        (dict(resblock_dilation_sizes=[[0, 3, 5]]), "dilations is"),
    ],
)
def test_a_spectrogram_that_is_not_the_network_s(changed, message, tmp_path):
    """Refused when it is converted, and of a file that says so before it takes memory."""
    network = models.network_class("hifigan").from_reference(**CONFIG)
    torch.save({"generator": network.state_dict()}, tmp_path / "g_1")
    good = convert.convert(tmp_path / "g_1", tmp_path / "good.safetensors", arguments=CONFIG)
    with pytest.raises(convert.UnknownNetwork, match=message):
        convert.convert(tmp_path / "g_1", tmp_path / "out.safetensors", arguments=CONFIG | changed)
    assert not (tmp_path / "out.safetensors").exists()
    tensors, header = read_tensors(good)
    text = json.dumps(json.loads(header["fastgan"]) | {"arguments": CONFIG | changed})
    save_file(tensors, good, metadata={"fastgan": text, "sha256": checksum(text, tensors)})
    with pytest.raises(convert.UnknownNetwork, match=message):
        convert.load(good)


def test_weights_that_are_0_and_no_numbers(tmp_path, capsys):
    network = fold_weight_norm(models.network_class("hifigan").from_reference(**CONFIG))
    network.ups[0].weight.data[0] = 0
    mel = torch.randn(1, 80, 9)
    with torch.no_grad():
        expected = network(mel)
    torch.save({"generator": network.state_dict()}, tmp_path / "g_1")
    out = convert.convert(tmp_path / "g_1", tmp_path / "out.safetensors", arguments=CONFIG)
    with torch.no_grad():
        assert torch.allclose(convert.load(out)[1]["generator"](mel), expected, atol=1e-5)
    network.conv_pre.bias.data[0] = torch.nan
    torch.save({"generator": network.state_dict()}, tmp_path / "g_1")
    out = convert.convert(tmp_path / "g_1", tmp_path / "out.safetensors", arguments=CONFIG)
    np.save(tmp_path / "mel.npy", mel[0].numpy())
    said = tmp_path / "said.wav"
    assert main(["sample", str(out), "--mel", str(tmp_path / "mel.npy"), "--out", str(said)]) == 1
    assert "NaN or Inf" in capsys.readouterr().err and not said.exists()


def test_options_complete_what_config_json_lacks(tmp_path):
    network = models.network_class("hifigan").from_reference(**CONFIG)
    torch.save({"generator": network.state_dict()}, tmp_path / "g_1")
    out = convert.convert(tmp_path / "g_1", tmp_path / "out.safetensors", arguments=CONFIG)
    assert convert.load(out)[0].data == {"rate": 8000}
