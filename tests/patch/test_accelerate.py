"""accelerate: the same numbers to any order, the same objects afterwards, and no more than can be proven."""

import copy

import pytest
import torch
import torch.nn.functional as F
from accelerated import check, replaced
from tolerances import assert_close
from torch import nn

import fastgan
from fastgan.patch import layers


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch):
    """Steps are chosen as where every op has its kernel, whatever is compiled here."""
    monkeypatch.setattr(layers, "has_kernel", lambda op, device: True)
    monkeypatch.setattr(layers, "pays", lambda *_: True)  # small images too


ACTIVATIONS = [nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.1), nn.LeakyReLU(0.3, inplace=True), nn.Tanh(), nn.Sigmoid(),
               nn.ELU(), nn.SELU(), nn.Softplus(), nn.SiLU(), nn.SiLU(inplace=True)]  # fmt: skip


@pytest.mark.parametrize("act", ACTIVATIONS, ids=repr)
def test_convolution_and_activation(act):
    # The inplace forms of torch write over what the second derivative needs, in the original too: compare with the other.
    act = copy.deepcopy(act)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), act, nn.ConvTranspose2d(8, 5, 3, 2, padding=1, bias=False), copy.deepcopy(act)
    )
    report = check(net, torch.randn(2, 3, 5, 7), second=not getattr(act, "inplace", False))
    gains = not getattr(act, "inplace", False) and not isinstance(act, nn.Softplus)
    assert list(replaced(report)) == ["0 + 1", "2 + 3"] * gains
    assert gains or all("nothing to gain" in why or "cannot compute in place" in why for _, why in report.refused)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (3, 6)),
        (nn.Linear(6, 4), (2, 3, 6)),
        (nn.Conv1d(3, 4, 3), (2, 3, 8)),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 5, 5)),
        (nn.Conv2d(4, 4, 3, 2, groups=2, padding=1), (4, 5, 5)),
        (nn.Conv3d(2, 3, 2), (1, 2, 3, 4, 3)),
        (nn.ConvTranspose1d(3, 4, 4, 2, 1), (2, 3, 5)),
        (nn.ConvTranspose2d(6, 3, 4, 2, 1), (2, 6, 5, 4)),
        (nn.ConvTranspose2d(6, 5, 4, 2, 1, output_padding=1, bias=False), (2, 6, 5, 4)),
        (nn.ConvTranspose2d(6, 2, 6, 3, 2), (1, 6, 2, 3)),
        (nn.ConvTranspose2d(6, 8, 4), (3, 6, 1, 1)),
        (nn.ConvTranspose2d(6, 8, 4), (3, 6, 2, 1)),
        (nn.ConvTranspose2d(6, 8, (4, 3), (2, 1), bias=False), (3, 6, 1, 1)),
        (nn.ConvTranspose3d(2, 3, 2), (1, 2, 3, 4, 3)),
        (nn.BatchNorm2d(3).eval(), (2, 3, 4, 4)),
        (nn.GroupNorm(1, 3), (2, 3, 4, 4)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("act", [True, False])
def test_layers(layer, shape, act):
    report = check(nn.Sequential(copy.deepcopy(layer), *[nn.LeakyReLU(0.2)] * act), torch.randn(shape))
    few = getattr(layer, "out_channels", 5) <= 4
    assert ("0 + 1" in replaced(report)) == (act and not few)


@pytest.mark.parametrize("norm", [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d])
@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm(norm, affine):
    dims = int(norm.__name__[-2])
    layer = norm(3, affine=affine, eps=1e-3)
    if affine:
        nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    report = check(nn.Sequential(layer, nn.Tanh(), norm(3)), torch.randn(2, 3, *(3, 4, 2)[:dims]))
    assert replaced(report)["0 + 1"] == f"{norm.__name__} + tanh -> norm_act"
    assert replaced(report)["2"] == "instance norm -> norm_act"


class ResnetBlock(nn.Module):
    def __init__(self, channels=4):
        super().__init__()
        conv = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=False), nn.InstanceNorm2d(channels)]
        self.conv_block = nn.Sequential(*conv, nn.ReLU(True), *copy.deepcopy(conv))

    def forward(self, x):
        return x + self.conv_block(x)


class Stem(nn.Module):
    """Attributes and functions instead of a Sequential."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 6, 3, padding=1), nn.InstanceNorm2d(4), nn.LeakyReLU(0.2)
        self.last, self.slope = nn.Conv2d(6, 5, 1), 0.1

    def forward(self, x):
        h = self.act(self.norm(x)) + x
        h = F.leaky_relu(self.conv(h), self.slope)
        return torch.tanh(self.last(h)).mul(2)


def test_residual_block():
    report = check(nn.Sequential(nn.Conv2d(3, 4, 1), ResnetBlock(), ResnetBlock()), torch.randn(2, 3, 5, 5))
    assert replaced(report)["1.conv_block"] == "residual, with instance norm"
    assert replaced(report)["1.conv_block.2 + 1.conv_block.3"] == "InstanceNorm2d + relu -> norm_act"


def test_residual_reaches_the_op(monkeypatch):
    seen = []
    monkeypatch.setattr(layers, "norm", lambda m, x, act="linear", alpha=0, residual=None: seen.append(residual) or x)
    block, x = ResnetBlock(), torch.randn(1, 4, 5, 5)
    fastgan.accelerate(block)
    block(x)
    assert len(seen) == 2 and seen[0] is None and seen[1] is x


def test_straight_forward():
    net = Stem()
    report = check(net, torch.randn(2, 4, 5, 5))
    found = replaced(report)
    assert "InstanceNorm2d + LeakyReLU -> norm_act" in found["norm"]
    assert "Conv2d + leaky_relu in place" in found["conv"] and "Conv2d + tanh in place" in found["last"]
    x = torch.randn(2, 4, 5, 5).double()
    fastgan.accelerate(net)
    net.slope = 0.5  # read at each call
    twin = Stem().double()
    twin.load_state_dict(net.state_dict())
    twin.slope = 0.5
    assert_close(net(x), twin(x))
    net.norm = twin.norm = nn.BatchNorm2d(4).double()  # replaced children are called
    assert_close(net(x), twin(x))


class EqualConv2d(nn.Module):
    def __init__(self, inputs, outputs, size, stride=1, padding=0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.randn(outputs))
        self.scale, self.stride, self.padding = (inputs * size**2) ** -0.5, stride, padding

    def forward(self, input):
        return F.conv2d(input, self.weight * self.scale, bias=self.bias, stride=self.stride, padding=self.padding)


class EqualLinear(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.randn(outputs))
        self.scale, self.lr_mul = inputs**-0.5 * 0.01, 0.01

    def forward(self, input):
        return F.relu(F.linear(input, self.weight * self.scale, bias=self.bias * self.lr_mul))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (EqualConv2d(4, 5, 3, 2, 1), (1, 4, 3, 3)),
        (EqualConv2d(4, 5, 3), (2, 4, 9, 9)),
        (EqualLinear(6, 40), (2, 6)),
    ],
)
def test_equalised_layers(layer, shape):
    report = check(layer, torch.randn(shape))
    assert replaced(report)["weight"].startswith("equalised ")
    fastgan.accelerate(layer)
    x = torch.randn(shape).double()
    before = layer(x)
    layer.scale *= 2
    assert not torch.allclose(layer(x), before)


def filter_layer(kind, taps, **options):
    layer = kind(3, 3, taps.shape, groups=3, bias=False, **options)
    layer.weight.requires_grad_(False).copy_(taps)
    return layer


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.Conv2d, {}),
        (nn.Conv2d, {"stride": 2, "padding": 1}),
        (nn.Conv2d, {"stride": (1, 3), "padding": (2, 0)}),
        (nn.ConvTranspose2d, {"stride": 2, "padding": 1}),
        (nn.ConvTranspose2d, {"stride": (3, 2), "padding": (0, 1), "output_padding": (2, 1)}),
        (nn.ConvTranspose2d, {}),
    ],
)
def test_fixed_filters(kind, options):
    taps = torch.randn(4, 3)
    layer = filter_layer(kind, taps, **options)
    report = check(nn.Sequential(layer, nn.Identity()), torch.randn(2, 3, 7, 6))
    assert "-> upfirdn2d" in replaced(report)["0"]


def test_filters_that_differ_or_are_learnt_after_all():
    net = nn.Sequential(filter_layer(nn.Conv2d, torch.randn(3, 3))).double()
    x = torch.randn(1, 3, 6, 6).double()
    fastgan.accelerate(net)
    net[0].weight[1] *= 2
    assert torch.equal(net(x), F.conv2d(x, net[0].weight, groups=3))
    net[0].weight.requires_grad_(True)
    net(x).sum().backward()
    assert net[0].weight.grad is not None


@pytest.mark.parametrize("kind", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_norm(kind):
    """Weights computed from others, by a hook or a parametrisation: fused, and computed once per call."""
    torch.manual_seed(0)
    net = nn.Sequential(kind(nn.Conv2d(3, 8, 3)), nn.LeakyReLU(0.1)).double()
    twin, x = copy.deepcopy(net), torch.randn(2, 3, 5, 5).double()
    report = fastgan.accelerate(net)
    assert list(replaced(report)) == ["0 + 1"]
    for _ in range(3):  # a step of the power iteration each
        assert_close(net(x), twin(x))
    net.eval(), twin.eval()
    with torch.no_grad():
        assert_close(net(x), twin(x))
    assert all(torch.equal(v, twin.state_dict()[k]) for k, v in net.state_dict().items())
