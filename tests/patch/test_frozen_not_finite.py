"""accelerate(freeze=True): NaN and infinities lie where the network has them, whatever computes the convolution and what it takes
along."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan
from fastgan.patch.frozen.convolutions import Convolution

CONVOLUTIONS = {  # which of ours computes it here, the layer, the input
    "winograd": ("winograd", lambda: nn.Conv2d(16, 16, 3, padding=1), (2, 16, 16, 16)),
    "winograd, quarters": ("winograd", lambda: nn.ConvTranspose2d(16, 3, 4, 2, 1), (2, 16, 16, 16)),
    "direct": ("direct", lambda: nn.Conv2d(16, 16, 3, 2, 1), (2, 16, 13, 11)),
    "direct, 1x1": ("direct", lambda: nn.Conv2d(16, 20, 1), (2, 16, 6, 5)),
    "direct, transposed": ("direct", lambda: nn.ConvTranspose2d(16, 16, 4, 2, 1), (2, 16, 5, 5)),
    "direct, signals": ("direct", lambda: nn.Conv1d(32, 16, 5, padding=2), (2, 32, 40)),
    "oneDNN": ("", lambda: nn.Conv2d(4, 8, 3, padding=1), (2, 4, 9, 9)),
    "oneDNN, groups": ("", lambda: nn.Conv2d(8, 8, 3, groups=8, padding=1), (2, 8, 9, 9)),
    "oneDNN, transposed": ("", lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1), (2, 4, 5, 5)),
}


def per_channel(y):
    slopes = torch.linspace(0, 1, y.shape[1])  # the first is 0
    return F.prelu(y, slopes)


ACTS = {
    "none": lambda y: y,
    "relu": F.relu,
    "leaky": F.leaky_relu,
    "leaky 0": lambda y: F.leaky_relu(y, 0.0),
    "prelu": lambda y: F.prelu(y, torch.full((1,), 0.25)),
    "prelu by channel": per_channel,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "hardtanh": lambda y: F.hardtanh(y, -0.5, 0.7),
    "above": lambda y: y.clamp(min=0.1),
    "elu": F.elu,
}


class Net(nn.Module):
    def __init__(self, layer, act, noisy=False):
        super().__init__()
        self.layer, self.act, self.noisy = layer, act, noisy

    def forward(self, x, other=None):
        y = self.layer(x)
        y = y if other is None else y + other
        return self.act(y + 0.1 * torch.randn(y.shape) if self.noisy else y)


def recorded(net, *inputs):
    twin = copy.deepcopy(net)
    fastgan.accelerate(twin, freeze=True)
    for _ in range(2):
        twin(*inputs)
    assert vars(twin)["forward"].refused == ""
    return twin


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("form", CONVOLUTIONS)
@torch.no_grad()
def test_places(form, act, adds):
    _, build, shape = CONVOLUTIONS[form]
    torch.manual_seed(0)
    layer, x = build(), torch.randn(shape)
    net = Net(layer, ACTS[act]).eval()
    inputs = [x, torch.randn_like(layer(x))] if adds else [x]
    twin = recorded(net, *inputs)
    for i in range(len(inputs)):
        for value in (torch.inf, -torch.inf, torch.nan):
            spoiled = [t.clone() for t in inputs]
            spoiled[i][tuple(n // 2 for n in inputs[i].shape)] = value
            torch.testing.assert_close(twin(*spoiled), net(*spoiled), rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("form", CONVOLUTIONS)
def test_forms(form):
    """The table names what computes each here, where the kernels are those of AVX2 or better."""
    how, build, shape = CONVOLUTIONS[form]
    layer = build()
    turned = isinstance(layer, nn.ConvTranspose2d)
    arguments = (layer.stride, layer.padding, layer.dilation, turned, layer.output_padding, layer.groups)
    found = Convolution(layer.weight, layer.bias, arguments, shape)
    fast = torch.ops.fastgan.cpu_level("") in ("avx2", "avx512")
    assert (found.winograd, found.direct) == (fast and how == "winograd", fast and how == "direct")


@torch.no_grad()
def test_noise_is_drawn_once():
    torch.manual_seed(0)
    net = Net(nn.Conv2d(16, 16, 3, padding=1), torch.tanh, noisy=True).eval()
    x = torch.randn(2, 16, 16, 16)
    twin = recorded(net, x)
    x[1, 3, 4, 5] = torch.inf
    results = []
    for network in (net, twin):
        torch.manual_seed(1)
        results += [network(x), torch.rand(())]
    torch.testing.assert_close(results[2:], results[:2], equal_nan=True)
