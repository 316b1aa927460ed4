"""Files of Real-ESRGAN, GFP-GAN, CycleGAN, pix2pix and of discriminators -> safetensors -> the same pictures; sampling them."""

import numpy as np
import pytest
import torch
from golden import golden_model
from PIL import Image
from stylegan_golden import close

from fastgan import convert, models
from fastgan.cli import main
from fastgan.convert import UnknownNetwork, rosinality
from fastgan.models import stylegan2

NETWORKS = {
    "esrgan.generator": dict(width=8, blocks=2, growth=4, scale=2),
    "esrgan.compact": dict(width=8, convolutions=3, scale=3),
    "gfpgan.clean": dict(resolution=64, style=8, mapping=2, narrow=1 / 64),
    "gfpgan.original": dict(resolution=64, style=8, mapping=2, narrow=1 / 64, multiplier=1, half=False),
    "cyclegan.generator": dict(width=4, blocks=2),
    "cyclegan.generator batch": dict(width=4, blocks=3, norm="batch", dropout=True, in_channels=1, out_channels=3),
    "pix2pix.generator": dict(width=4, downs=6),
    "pix2pix.generator instance": dict(width=4, downs=5, norm="instance"),
    "esrgan.discriminator": dict(width=4),
    "cyclegan.discriminator": dict(width=4, layers=2),
    "cyclegan.discriminator pixel": dict(width=4, layers=0, norm="batch", in_channels=6),
}


def made(name):
    network = models.build(name.split()[0], **NETWORKS[name]).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.1)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_tell_the_network_and_its_arguments(name, tmp_path):
    network = made(name)
    held = {"params_ema": network.state_dict(), "params": made(name).state_dict()}
    torch.save(held if "gan." in name and "cycle" not in name else network.state_dict(), tmp_path / "n.pth")
    found = convert.read(tmp_path / "n.pth", "G_ema")
    again = found.build()
    assert found.model == name.split()[0]
    for key, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    config = getattr(network, "config", None)
    assert config is None or again.config == config or "gfpgan" in name
    size = getattr(config, "resolution", 64)
    x = torch.randn(1, NETWORKS[name].get("in_channels", 3), size, size)
    fixed = {"noise_mode": "const"} if "gfpgan" in name else {}
    assert torch.equal(again(x, **fixed), network(x, **fixed))


def test_plain_weights_are_taken_where_no_average_is_and_where_they_are_asked_for(tmp_path):
    plain, average = (made("esrgan.compact").state_dict() for _ in range(2))
    torch.save({"params": plain}, tmp_path / "plain.pth")
    torch.save({"params": plain, "params_ema": average}, tmp_path / "both.pth")
    for file, network, expected in (("plain", "G_ema", plain), ("both", "G_ema", average), ("both", "G", plain)):
        state = convert.read(tmp_path / f"{file}.pth", network).state
        assert torch.equal(state["body.0.weight"], expected["body.0.weight"])


def test_activations_without_names_must_be_told(tmp_path):
    network = models.build("esrgan.compact", width=8, convolutions=3, act="leakyrelu")
    torch.save(network.state_dict(), tmp_path / "n.pth")
    with pytest.raises(UnknownNetwork, match=r"body\.1\.weight"):
        convert.read(tmp_path / "n.pth").build()
    again = convert.read(tmp_path / "n.pth", arguments={"act_type": "leakyrelu"}).build()
    assert again.config == network.config


def test_running_statistics_of_instance_normalisation_are_left_out(tmp_path):
    state = made("cyclegan.generator").state_dict()
    state |= {"model.2.running_mean": torch.zeros(4), "model.2.running_var": torch.ones(4)}
    torch.save(state, tmp_path / "n.pth")
    assert not any("running" in name for name in convert.read(tmp_path / "n.pth").build().state_dict())


@pytest.mark.golden
@pytest.mark.parametrize("file", ["basicsr_stylegan2_discriminator", "nlayer_discriminator"])
def test_golden_discriminators(file, tmp_path):
    _, arrays = golden_model(file)
    torch.save({n.removeprefix("sd/"): t for n, t in arrays.items() if n.startswith("sd/")}, tmp_path / "d.pth")
    network = convert.read(tmp_path / "d.pth", "D").build()
    x = arrays["in/x"].requires_grad_()
    y = network(x, None) if isinstance(network, stylegan2.Discriminator) else network(x)
    close(y, arrays["out/y"])
    (gx,) = torch.autograd.grad((y * arrays["in/gy"]).sum(), x)
    close(gx, arrays["out/gx"], 1e-4)
    if "out/y_train_mode" in arrays:
        close(network.train()(x), arrays["out/y_train_mode"])
        for name, buffer in network.named_buffers():
            close(buffer, arrays[f"out/after_train/{name.replace('model', 'main')}"])


def rosinality_state():
    """A state_dict in the rosinality layout, 8 pixels, channels of 4."""
    torch.manual_seed(0)

    def conv(name, outputs, kernel):
        shapes = {"weight": (1, outputs, 4, kernel, kernel), "modulation.weight": (4, 6), "modulation.bias": (4,)}
        return {f"{name}.conv.{part}": torch.randn(shape) for part, shape in shapes.items()}

    state = {"input.input": torch.randn(1, 4, 4, 4)}
    for i in (1, 2):
        state |= {f"style.{i}.weight": torch.randn(6, 6), f"style.{i}.bias": torch.randn(6)}
    for i, name in enumerate(("conv1", "convs.0", "convs.1")):
        state |= conv(name, 4, 3) | {f"{name}.noise.weight": torch.randn(1), f"{name}.activate.bias": torch.randn(4)}
        state[f"noises.noise_{i}"] = torch.randn(1, 1, 8 if i else 4, 8 if i else 4)
    for name in ("to_rgb1", "to_rgbs.0"):
        state |= conv(name, 3, 1) | {f"{name}.bias": torch.randn(1, 3, 1, 1)}
    return state


@pytest.mark.parametrize("repeated", [False, True])
def test_the_decoder_of_psp_and_e4e(tmp_path, repeated):
    state, average = rosinality_state(), torch.randn(6)
    torch.save({"g_ema": state, "latent_avg": average}, tmp_path / "plain.pt")
    inside = {f"decoder.{n}": t for n, t in state.items()} | {"encoder.input_layer.0.weight": torch.zeros(3)}
    kept = average.repeat(4, 1) if repeated else average
    torch.save({"state_dict": inside, "latent_avg": kept, "opts": {"device": "cuda", "lr": 1e-4}}, tmp_path / "psp.pt")
    plain, psp = (convert.read(tmp_path / f"{name}.pt") for name in ("plain", "psp"))
    assert plain.arguments == psp.arguments and not psp.measure_average
    networks = [found.build() for found in (plain, psp)]
    z = torch.randn(2, 6)
    assert torch.equal(*(network(z, None, truncation_psi=0.5, noise_mode="const") for network in networks))


def test_means_of_layers_that_differ_are_no_mean():
    assert rosinality.one_average(torch.eye(3)) is None


def test_sampling_converted_networks(tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)).save(source / "x.png")
    for name in ("esrgan.generator", "gfpgan.clean", "pix2pix.generator"):
        torch.save({"params_ema": made(name).state_dict()}, tmp_path / "n.pth")
        file = tmp_path / f"{name}.safetensors"
        assert main(["convert", str(tmp_path / "n.pth"), str(file)]) == 0
        assert "--input" in capsys.readouterr().out
        more = ["--tile", "16", "--overlap", "4"] if "esrgan" in name else []
        assert main(["sample", str(file), "--input", str(source), "--out", str(tmp_path / name), *more]) == 0
        size = {"esrgan.generator": (60, 40), "gfpgan.clean": (64, 64), "pix2pix.generator": (64, 64)}[name]
        with Image.open(tmp_path / name / "x.png") as picture:
            assert picture.size == size and picture.mode == ("RGBA" if "esrgan" in name else "RGB")
    larger = ["sample", str(tmp_path / "esrgan.generator.safetensors"), "--input", str(source), "--direction", "BtoA"]
    assert main(larger) == 1 and "esrgan.generator has no way back: leave it out" in capsys.readouterr().err
    assert main(["sample", str(file)]) == 1
    assert "--input FOLDER" in capsys.readouterr().err
    assert main(["sample", str(file), "--input", str(source), "--tile", "64"]) == 1
    assert "--tile is nothing for pix2pix.generator" in capsys.readouterr().err
    assert main(["sample", str(file), "--input", str(source), "--direction", "BtoA"]) == 1
    assert "one direction" in capsys.readouterr().err
