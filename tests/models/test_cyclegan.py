"""CycleGAN's and pix2pix's networks: layout of published checkpoints, shapes, and the computation against plain torch."""

import pytest
import torch
import torch.nn.functional as F

from fastgan import models
from fastgan.models.cyclegan import NORMS, ReflectionPad2d


def layout(network) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def conv(name, outputs, inputs, kernel, bias=True, transposed=False):
    shape = (inputs, outputs, kernel, kernel) if transposed else (outputs, inputs, kernel, kernel)
    return {f"{name}.weight": shape} | ({f"{name}.bias": (outputs,)} if bias else {})


def batch_norm(name, channels):
    vectors = {f"{name}.{key}": (channels,) for key in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{name}.num_batches_tracked": ()}


def test_resnet9_layout():
    expected = conv("model.1", 64, 3, 7) | conv("model.4", 128, 64, 3) | conv("model.7", 256, 128, 3)
    for block in range(10, 19):
        expected |= conv(f"model.{block}.conv_block.1", 256, 256, 3) | conv(f"model.{block}.conv_block.5", 256, 256, 3)
    expected |= conv("model.19", 128, 256, 3, transposed=True) | conv("model.22", 64, 128, 3, transposed=True)
    expected |= conv("model.26", 3, 64, 7)
    network = models.build("cyclegan.generator")
    assert layout(network) == expected
    # Some published files carry running statistics that instance normalisation never used.
    state = network.state_dict() | {f"model.2.{key}": torch.zeros(64) for key in ("running_mean", "running_var")}
    network.load_state_dict(state)


def test_resnet_with_dropout_and_batch_norm_shifts_the_second_convolution():
    names = layout(models.build("cyclegan.generator", blocks=6, norm="batch", dropout=True))
    expected = conv("model.10.conv_block.1", 256, 256, 3, bias=False) | batch_norm("model.10.conv_block.2", 256)
    expected |= conv("model.10.conv_block.6", 256, 256, 3, bias=False) | batch_norm("model.10.conv_block.7", 256)
    assert expected.items() <= names.items()
    assert "model.23.weight" in names and "model.23.bias" in names  # the last convolution of six blocks


def test_unet256_layout():
    prefix, inner = "model", [64, 128, 256, 512, 512, 512, 512, 512]
    expected = conv("model.model.0", 64, 3, 4, bias=False) | conv("model.model.3", 3, 128, 4, transposed=True)
    for depth in range(1, 8):
        prefix += ".model.1" if depth == 1 else ".model.3"
        outer, below = inner[depth - 1], inner[depth]
        expected |= conv(f"{prefix}.model.1", below, outer, 4, bias=False)
        if depth == 7:
            expected |= conv(f"{prefix}.model.3", outer, below, 4, bias=False, transposed=True)
            expected |= batch_norm(f"{prefix}.model.4", outer)
        else:
            expected |= batch_norm(f"{prefix}.model.2", below)
            expected |= conv(f"{prefix}.model.5", outer, 2 * below, 4, bias=False, transposed=True)
            expected |= batch_norm(f"{prefix}.model.6", outer)
    assert layout(models.build("pix2pix.generator")) == expected


def test_patch_and_pixel_discriminator_layout():
    expected = conv("model.0", 64, 3, 4) | conv("model.2", 128, 64, 4) | conv("model.5", 256, 128, 4)
    expected |= conv("model.8", 512, 256, 4) | conv("model.11", 1, 512, 4)
    assert layout(models.build("cyclegan.discriminator")) == expected
    expected = conv("net.0", 64, 6, 1) | conv("net.2", 128, 64, 1, bias=False) | batch_norm("net.3", 128)
    expected |= conv("net.5", 1, 128, 1, bias=False)
    assert layout(models.build("cyclegan.discriminator", in_channels=6, layers=0, norm="batch")) == expected


def plain_resnet(state, x, blocks):
    """The paper's generator in torch.nn.functional, from the published layout."""

    def convolve(name, x, **options):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def pad(x, n):
        return F.pad(x, (n, n, n, n), mode="reflect")

    x = F.relu(F.instance_norm(convolve("model.1", pad(x, 3))))
    x = F.relu(F.instance_norm(convolve("model.4", x, stride=2, padding=1)))
    x = F.relu(F.instance_norm(convolve("model.7", x, stride=2, padding=1)))
    for i in range(10, 10 + blocks):
        y = F.relu(F.instance_norm(convolve(f"model.{i}.conv_block.1", pad(x, 1))))
        x = x + F.instance_norm(convolve(f"model.{i}.conv_block.5", pad(y, 1)))
    for name in (f"model.{10 + blocks}", f"model.{13 + blocks}"):
        x = F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], 2, 1, 1)
        x = F.relu(F.instance_norm(x))
    return torch.tanh(convolve(f"model.{17 + blocks}", pad(x, 3)))


def plain_unet(state, x, downs):
    """Isola et al.'s U-Net as published: the leaky ReLU in place, so that the skips carry its result."""

    def level(prefix, x, depth):
        names = [f"{prefix}.model.{i}" for i in range(8)]
        if depth == 0:
            y = F.conv2d(x, state[f"{names[0]}.weight"], state.get(f"{names[0]}.bias"), 2, 1)
            y = level(names[1], y, 1)
            return torch.tanh(
                F.conv_transpose2d(F.relu(y), state[f"{names[3]}.weight"], state[f"{names[3]}.bias"], 2, 1)
            )
        x = F.leaky_relu(x, 0.2)
        y = F.conv2d(x, state[f"{names[1]}.weight"], state.get(f"{names[1]}.bias"), 2, 1)
        up = 3
        if depth < downs - 1:
            y = level(names[3], F.instance_norm(y), depth + 1)
            up = 5
        y = F.conv_transpose2d(F.relu(y), state[f"{names[up]}.weight"], state.get(f"{names[up]}.bias"), 2, 1)
        return torch.cat([x, F.instance_norm(y)], 1)

    return level("model", x, 0)


def test_resnet_computes_the_paper():
    torch.manual_seed(0)
    network = models.build("cyclegan.generator", width=8, blocks=2).double()
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(network(x), plain_resnet(network.state_dict(), x, 2), rtol=1e-9, atol=1e-12)


def test_unet_computes_the_paper():
    torch.manual_seed(0)
    network = models.build("pix2pix.generator", width=4, downs=5, norm="instance", dropout=False).double()
    x = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    torch.testing.assert_close(network(x), plain_unet(network.state_dict(), x, 5), rtol=1e-9, atol=1e-12)


def test_patch_size_is_70():
    """One logit depends on 70x70 pixels: the gradient's extent, without normalisation, which sees the whole image."""
    network = models.build("cyclegan.discriminator", width=4, norm="none")
    x = torch.randn(1, 3, 256, 256, requires_grad=True)
    logits = network(x)
    assert logits.shape == (1, 1, 30, 30)
    (gradient,) = torch.autograd.grad(logits[0, 0, 15, 15], x)
    rows = (gradient.abs().amax((0, 1, 3)) > 1e-5 * gradient.abs().max()).nonzero()  # cuDNN's zeros are rounded sums
    assert rows.max() - rows.min() + 1 == 70


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_trains(norm):
    generator = models.build("pix2pix.generator", width=4, downs=5, norm=norm)
    discriminator = models.build("cyclegan.discriminator", in_channels=6, width=4, layers=2, norm=norm)
    x = torch.randn(2, 3, 32, 32)
    discriminator(torch.cat([x, generator(x)], 1)).mean().backward()
    assert all(p.grad is not None for p in [*generator.parameters(), *discriminator.parameters()])


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="multiples of 4"):
        models.build("cyclegan.generator", width=4, blocks=1)(torch.zeros(1, 3, 18, 16))
    with pytest.raises(ValueError, match="multiples of 32"):
        models.build("pix2pix.generator", width=4, downs=5)(torch.zeros(1, 3, 16, 32))
    with pytest.raises(ValueError, match="instance, batch, none"):
        models.build("cyclegan.discriminator", norm="layer")
    with pytest.raises(ValueError, match="at least 5"):
        models.build("pix2pix.generator", downs=4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_reflection_is_torchs_to_any_order_and_keeps_no_input(layout):
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    pad, plain = ReflectionPad2d((1, 2, 3, 0)), torch.nn.ReflectionPad2d((1, 2, 3, 0))
    assert torch.equal(pad(x), plain(x))
    dy = torch.randn_like(plain(x))
    assert torch.equal(*(torch.autograd.grad(f(x), x, dy)[0] for f in (pad, plain)))
    assert torch.autograd.gradcheck(pad, x) and torch.autograd.gradgradcheck(pad, x)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        pad(x)
    assert not kept


def test_reflection_under_transforms():
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    pad, plain = ReflectionPad2d((1, 2, 3, 0)), torch.nn.ReflectionPad2d((1, 2, 3, 0))

    def loss(f, x):
        return f(x).pow(3).sum()

    expected = torch.autograd.grad(loss(plain, x), x)[0]
    torch.testing.assert_close(torch.func.grad(lambda x: loss(pad, x))(x), expected)
    each = torch.vmap(torch.func.grad(lambda x: loss(pad, x[None])))(x)
    torch.testing.assert_close(each, expected)
    tangent = torch.randn_like(x)
    torch.testing.assert_close(torch.func.jvp(pad, (x,), (tangent,))[1], plain(tangent))
    y = pad(x)  # recorded before, differentiated inside
    basis = torch.eye(y.numel(), dtype=torch.float64).view(-1, *y.shape)[:7]
    rows = torch.vmap(lambda dy: torch.autograd.grad(y, x, dy, retain_graph=True)[0])(basis)
    wanted = torch.stack([torch.autograd.grad(plain(x), x, dy)[0] for dy in basis])
    torch.testing.assert_close(rows, wanted)


@pytest.mark.parametrize("network", ["cyclegan.generator", "cyclegan.discriminator", "pix2pix.generator"])
def test_networks_under_transforms(network):
    options = dict(downs=5, dropout=False) if network.startswith("pix2pix") else {}
    network, x = models.build(network, width=4, **options).eval(), torch.randn(2, 3, 32, 32, requires_grad=True)
    torch.testing.assert_close(torch.vmap(lambda x: network(x[None])[0])(x), network(x))
    expected = torch.autograd.grad(network(x).square().sum(), x)[0]
    found = torch.vmap(torch.func.grad(lambda x: network(x[None]).square().sum()))(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
