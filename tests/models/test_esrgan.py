"""The upscalers and their discriminator: published names, numbers against plain torch and recorded ones, sizes, second order."""

import copy

import pytest
import torch
import torch.nn.functional as F
from golden import golden_model
from stylegan_golden import check_gradient_norms, close
from tolerances import assert_close

from fastgan import models
from fastgan.models.esrgan import Compact, Discriminator, Generator

NETWORKS = {"rrdbnet": Generator, "srvgg_net_compact": Compact, "unet_discriminator_sn": Discriminator}
GOLDEN = ("rrdbnet_x4", "rrdbnet_x2", "srvgg_prelu_x4", "srvgg_leakyrelu_x2", "unet_discriminator_sn")
SMALL = dict(width=6, blocks=1, growth=4)


@pytest.mark.golden
@pytest.mark.parametrize("file", GOLDEN)
def test_golden(file):
    meta, arrays = golden_model(file)
    network = NETWORKS[meta["model"]].from_reference(**meta["constructor_kwargs"]).eval()
    network.load_state_dict({n.removeprefix("sd/"): t for n, t in arrays.items() if n.startswith("sd/")}, strict=True)
    x = arrays["in/x"].requires_grad_()
    y = network(x)
    close(y, arrays["out/y"])
    s = (y * arrays["in/gy"]).sum()
    (gx,) = torch.autograd.grad(s, x, retain_graph=True)
    close(gx, arrays["out/gx"], 1e-4)
    check_gradient_norms(network, s, meta)
    if "out/y_train_mode" in arrays:
        close(network.train()(x), arrays["out/y_train_mode"])
        for buffer, value in network.named_buffers():
            close(value, arrays[f"out/after_train/{buffer}"])


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 16_697_987), (dict(scale=2), 16_703_171), (dict(blocks=6), 4_467_779)],
)
def test_parameters_of_the_published_upscalers(options, count):
    with torch.device("meta"):
        network = models.build("esrgan", **options)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("convolutions", "count"), [(16, 621_424), (32, 1_213_296)])
def test_parameters_of_the_published_compact_networks(convolutions, count):
    assert sum(p.numel() for p in models.build("esrgan.compact", convolutions=convolutions).parameters()) == count


def test_parameters_of_the_published_discriminator():
    assert sum(p.numel() for p in models.build("esrgan.discriminator").parameters()) == 4_376_897


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_generator_against_plain_torch(scale):
    network = models.build("esrgan", scale=scale, **SMALL).double()
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)

    def plain(x):
        s = dict(network.named_modules())

        def conv(name, x):
            return F.conv2d(x, s[name].weight, s[name].bias, padding=1)

        f = conv("conv_first", F.pixel_unshuffle(x, 4 // scale))
        block = y = f
        for rdb in ("rdb1", "rdb2", "rdb3"):
            maps = [y]
            for i in range(1, 5):
                maps.append(F.leaky_relu(conv(f"body.0.{rdb}.conv{i}", torch.cat(maps, 1)), 0.2))
            y = y + 0.2 * conv(f"body.0.{rdb}.conv5", torch.cat(maps, 1))
        f = f + conv("conv_body", block + 0.2 * y)
        for up in ("conv_up1", "conv_up2"):
            f = F.leaky_relu(conv(up, f.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
        return conv("conv_last", F.leaky_relu(conv("conv_hr", f), 0.2))

    found = network(x)
    assert found.shape == (2, 3, 8 * scale, 12 * scale)
    assert_close(found, plain(x))


@pytest.mark.parametrize("skip", [False, True])
def test_discriminator_against_plain_torch_and_its_second_order(skip):
    network = models.build("esrgan.discriminator", width=4, skip=skip).double().eval()
    x = torch.randn(2, 3, 16, 8, dtype=torch.float64, requires_grad=True)

    def plain(x):
        def conv(i, x, stride=1):
            m = getattr(network, f"conv{i}")
            sigma = m.weight_u @ m.weight_orig.flatten(1) @ m.weight_v
            return F.leaky_relu(F.conv2d(x, m.weight_orig / sigma, stride=stride, padding=1), 0.2)

        x0 = F.leaky_relu(network.conv0(x), 0.2)
        x1 = conv(1, x0, 2)
        x2 = conv(2, x1, 2)
        y = conv(3, x2, 2)
        for i, level in ((4, x2), (5, x1), (6, x0)):
            y = conv(i, F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)) + skip * level
        return network.conv9(conv(8, conv(7, y)))

    penalties = []
    for f in (network, plain):
        y = f(x)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        penalties.append((y, g, *torch.autograd.grad(g.square().sum(), [*network.parameters()])))
    for found, expected in zip(*penalties, strict=True):
        assert_close(found, expected)


def test_training_moves_the_vectors_towards_spectral_norm_one_and_copies_survive():
    network = models.build("esrgan.discriminator", width=4)
    x = torch.randn(1, 3, 8, 8)
    for _ in range(30):
        network(x).sum().backward()
    with torch.no_grad():
        for _ in range(200):  # as slow as the two largest singular values are close
            network(x)
    conv = network.conv4
    sigma = torch.linalg.matrix_norm(conv.weight_orig.detach().flatten(1), 2)
    assert_close(conv.weight_u @ conv.weight_orig.flatten(1) @ conv.weight_v, sigma, 1e-3)
    copied = copy.deepcopy(network).eval()
    assert_close(copied(x), network.eval()(x))


def test_two_calls_before_one_backward():
    network = models.build("esrgan.discriminator", width=4)
    x = torch.randn(1, 3, 8, 8)
    (network(x).mean() - network(-x).mean()).backward()


@pytest.mark.parametrize(
    ("name", "options", "size", "message"),
    [
        ("esrgan", dict(scale=3), None, "scale is 3, expected 1, 2 or 4"),
        ("esrgan", dict(scale=2, **SMALL), (3, 5, 4), "needs sides divisible by 2"),
        ("esrgan.compact", dict(act="swish"), None, "act is 'swish'"),
        ("esrgan.compact", dict(out_channels=1), None, "as many channels in as out"),
        ("esrgan.discriminator", dict(width=2), (3, 12, 8), "sides divisible by 8"),
    ],
)
def test_errors(name, options, size, message):
    with pytest.raises(ValueError, match=message):
        network = models.build(name, **options)
        network(torch.randn(1, *size))
