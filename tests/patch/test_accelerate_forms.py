"""accelerate: convolutions that have a faster form on the CPU, float32: the same numbers and gradients, layouts and refusals."""

import copy

import pytest
import torch
from dispatched import Called
from tolerances import assert_close
from torch import nn

import fastgan
from fastgan.ops import conv_forms
from fastgan.patch import layers


@pytest.fixture(autouse=True)
def winograd(monkeypatch):
    """As where it pays, whatever the instruction set here."""
    monkeypatch.setattr(layers, "gains", lambda _, module, recorded, x=None: not recorded or not module.transposed)


pytestmark = pytest.mark.skipif(not conv_forms.is_fast("conv3x3"), reason="no AVX2 or AVX-512 kernels")


def block(act=nn.ReLU):
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(64, 64, 3),
        nn.InstanceNorm2d(64),
        act(),
        nn.Conv2d(64, 64, 3, padding=1),
        act(),
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_three_by_three(layout):
    net = block()
    twin = copy.deepcopy(net)
    report = fastgan.accelerate(twin)
    lines = dict(report.replaced)
    assert "Winograd" in lines["1"] and "Winograd" in lines["4"]
    x = torch.randn(2, 64, 17, 16).contiguous(memory_format=layout).requires_grad_()
    with torch.no_grad(), Called() as called:
        y = twin(x)
    assert called.names.count("fastgan::conv3x3") == 2
    assert_close(y, net(x))
    assert y.stride() == net(x).stride()
    for seen, wanted in zip(*(torch.autograd.grad(n(x).square().sum(), x) for n in (twin, net)), strict=True):
        assert_close(seen, wanted, 1e-4)
    fastgan.unpatch(report)
    assert torch.equal(twin(x), net(x))


def test_last_layer_by_columns():
    net = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(32, 3, 7), nn.Tanh())
    twin = copy.deepcopy(net)
    assert "column" in dict(fastgan.accelerate(twin).replaced)["1"]
    x = torch.randn(2, 32, 12, 11)
    with torch.no_grad():
        assert_close(twin(x), net(x))
    for seen, wanted in zip(*(torch.autograd.grad(n(x).sum(), list(n.parameters())) for n in (twin, net)), strict=True):
        assert_close(seen, wanted, 1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"padding": 1, "output_padding": 1, "bias": False}, {"padding": 0}]
)
def test_last_layer_of_a_generator(options, layout):
    net = nn.Sequential(nn.ConvTranspose2d(16, 3, 4, stride=2, **options), nn.Tanh())
    twin = copy.deepcopy(net)
    report = fastgan.accelerate(twin)
    x = torch.randn(3, 16, 11, 13).contiguous(memory_format=layout)
    with torch.no_grad(), Called() as called:
        y = twin(x)
    folds = options["padding"] > 0  # else it may be the first layer
    assert ("fastgan::conv_to_image" in called.names) == folds
    assert ("all taps" in dict(report.replaced)["0"]) == folds
    assert_close(y, net(x))
    assert y.stride() == net(x).stride()
    with Called() as called:
        recorded = twin(x)
    assert "fastgan::conv_to_image" not in called.names
    assert_close(recorded, net(x))


@pytest.mark.skipif(not conv_forms.has_turned_product(), reason="torch without oneDNN's linear layer")
def test_small_images_by_rows():
    def layer():
        return nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False)

    net = nn.Sequential(layer(), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 256, 1), layer(), nn.ReLU()).eval()
    twin = copy.deepcopy(net)
    report = fastgan.accelerate(twin)
    assert ("0", "weight channels last") in report.replaced
    x = torch.randn(3, 256, 4, 4)
    with torch.no_grad(), Called() as called:
        y = twin(x)
    assert called.names.count("aten::_embedding_bag_forward_only") == 1  # the second layer's images are 8x8
    assert_close(y, net(x))
    assert y.is_contiguous()
    assert ("0", "a matrix product where its input is 4x4 or smaller") in report.replaced
    fastgan.unpatch(report)
    assert torch.equal(twin(x), net(x))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.Conv2d(64, 64, 3, groups=2),
        nn.Conv2d(64, 64, 3, dilation=2),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.Conv2d(64, 64, 3).double(),
        nn.Conv2d(8, 64, 3),
        nn.Conv2d(64, 64, (3, 1)),
    ],
    ids=repr,
)
def test_others_stay(conv):
    net = nn.Sequential(conv, nn.ReLU())
    x = torch.randn(2, conv.in_channels, 18, 18, dtype=conv.weight.dtype)
    with torch.no_grad():
        wanted = net(x)
        fastgan.accelerate(net)
        with Called() as called:
            found = net(x)
    assert "fastgan::conv3x3" not in called.names
    assert_close(found, wanted)


def test_what_the_module_refuses_is_refused_alike():
    net = block()
    fastgan.accelerate(net)
    for wrong in (torch.randn(2, 63, 17, 16), torch.randn(2, 64, 17, 16, dtype=torch.float64)):
        with pytest.raises(RuntimeError):
            net(wrong)


def test_a_hook_sees_what_the_layer_computes():
    net = block()
    fastgan.accelerate(net)
    seen = []
    net[1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    with torch.no_grad(), Called() as called:
        net(torch.randn(2, 64, 17, 16))
    assert len(seen) == 1 and called.names.count("fastgan::conv3x3") == 2
