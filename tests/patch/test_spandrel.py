"""GAN architectures of the package spandrel, which loads upscalers and restorers of all kinds: random weights, accelerated, equal
in values and gradients, and back as they were. Two that are built here too have the same names and give the same pictures."""

import copy
import importlib

import pytest
import torch

import fastgan
from fastgan import convert
from fastgan.models import esrgan, gfpgan

pytest.importorskip("spandrel")

# name: (module:class, arguments, side of the image)
NETWORKS = {
    "ESRGAN": ("ESRGAN:ESRGAN", dict(num_filters=16, num_blocks=2), 24),
    "Real-ESRGAN x2": ("ESRGAN:ESRGAN", dict(in_nc=12, num_filters=16, num_blocks=2, scale=4, shuffle_factor=2), 24),
    "Real-ESRGAN compact": ("Compact:Compact", dict(num_feat=16, num_conv=4), 24),
    "GFPGAN": ("GFPGAN:GFPGAN", dict(out_size=64, num_style_feat=32, num_mlp=2, narrow=1 / 16), 64),
    "SwiftSRGAN": ("SwiftSRGAN:SwiftSRGAN", dict(num_channels=16, num_blocks=2), 24),
    "SPAN": ("SPAN:SPAN", dict(num_in_ch=3, num_out_ch=3, feature_channels=16), 24),
    "Real-CUGAN": ("RealCUGAN:UpCunet2x", {}, 40),
    "MM-RealSR": (
        "MMRealSR:MMRealSR",
        dict(num_in_ch=3, num_out_ch=3, num_feat=16, num_block=1, num_grow_ch=8, num_feats=[8] * 4, num_blocks=[1] * 4),
        24,
    ),
    "LaMa": ("LaMa:LaMa", dict(in_nc=4), 64),
    "RestoreFormer": (
        "RestoreFormer:RestoreFormer",
        dict(n_embed=32, embed_dim=32, ch=32, ch_mult=(1, 2), num_res_blocks=1, resolution=32, z_channels=32),
        32,
    ),
}


def build(name):
    path, arguments, side = NETWORKS[name]
    module, _, kind = path.partition(":")
    torch.manual_seed(0)
    network = getattr(importlib.import_module(f"spandrel.architectures.{module}"), kind)(**arguments).eval()
    inputs = [torch.rand(1, 3, side, side)]
    if name == "LaMa":
        inputs.append((torch.rand(1, 1, side, side) > 0.5).float())
    return network, inputs


def run(network, inputs):
    """Values, and the gradient in the picture."""
    torch.manual_seed(1)  # GFPGAN's noise
    x = inputs[0].clone().requires_grad_()
    y = network(x, *inputs[1:])
    y = y[0] if isinstance(y, tuple | list) else y
    (g,) = torch.autograd.grad(y.square().sum(), x)
    with torch.no_grad():
        torch.manual_seed(1)
        served = network(*inputs)
    return y.detach(), g, served[0] if isinstance(served, tuple | list) else served


def near(found, expected, tolerance):
    scale = expected.abs().max()
    assert scale > 0 and (found - expected).abs().max() <= tolerance * scale


# LaMa is the one whose smallest size is large.
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "LaMa")) for n in NETWORKS])
def test_accelerated_is_equal_and_taken_back(name):
    network, inputs = build(name)
    expected, state = run(network, inputs), copy.deepcopy(network.state_dict())
    report = fastgan.accelerate(network)
    for found, plain, tolerance in zip(run(network, inputs), expected, (1e-5, 1e-4, 1e-5), strict=True):
        near(found, plain, tolerance)
    fastgan.unpatch(report)
    for found, plain in zip(run(network, inputs), expected, strict=True):
        assert torch.equal(found, plain)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_some_layers_are_replaced():
    replaced = {name: len(fastgan.accelerate(build(name)[0]).replaced) for name in ("Real-CUGAN", "RestoreFormer")}
    assert any(replaced.values()), replaced


@pytest.mark.parametrize(("name", "kind"), [("Real-ESRGAN compact", esrgan.Compact), ("GFPGAN", gfpgan.Clean)])
def test_the_same_weights_give_the_same_pictures_here(name, kind, tmp_path):
    """GFPGAN at a size where `channel_multiplier` and `narrow` tell the widths apart, through its file."""
    network, inputs = build(name)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "n.pth")
    ours = convert.read(tmp_path / "n.pth").build()
    assert isinstance(ours, kind)
    with torch.no_grad():
        if name == "GFPGAN":
            expected = network(*inputs, randomize_noise=False)
            expected = expected[0] if isinstance(expected, tuple | list) else expected
            near(ours(*inputs, noise_mode="const"), expected, 2e-5)
        else:
            near(ours(*inputs), network(*inputs), 2e-5)
