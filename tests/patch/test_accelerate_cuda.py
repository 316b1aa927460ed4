"""What `accelerate` does for modules on a GPU, by what the CPU can compute of it: steps under autocast, layouts."""

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastgan
from fastgan import ops
from fastgan.patch import layers, pairs

accelerate = importlib.import_module("fastgan.patch.accelerate")  # the package has the function by that name
ACTS = [nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Sigmoid(), nn.ELU(), nn.SELU(), nn.SiLU()]
ROUNDINGS = 8 * torch.finfo(torch.bfloat16).eps  # of sums of 36 products, through two layers and a normalisation


@pytest.fixture
def autocast(monkeypatch):
    monkeypatch.setattr(layers, "AUTOCAST", {"cpu"})
    monkeypatch.setattr(pairs, "AUTOCAST", {"cpu"})
    monkeypatch.setattr(pairs, "ON_CPU", True)
    monkeypatch.setattr(layers, "pays", lambda *_: True)
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: type(act).__name__)
def test_steps_under_autocast(act, autocast, monkeypatch):
    """One kernel for the norm, its affine map and the activation, and one for bias and activation, in 16 bits as torch's own."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3),
        copy.deepcopy(act),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.InstanceNorm2d(8, affine=True),
        copy.deepcopy(act),
    )
    fused, x, called = copy.deepcopy(net), torch.randn(2, 4, 9, 9), []
    fastgan.accelerate(fused)
    for name in ("norm_act", "bias_act"):
        op = getattr(ops, name)
        spy = lambda *a, op=op, name=name, **k: (called.append((name, a[0].dtype)), op(*a, **k))[1]  # noqa: E731
        monkeypatch.setattr(ops, name, spy)
    with autocast:
        expected, found = net(x), fused(x)
    assert called == [("bias_act", torch.bfloat16), ("norm_act", torch.bfloat16)]
    assert found.dtype == expected.dtype == torch.bfloat16
    exact = copy.deepcopy(net).double()
    wide = exact(x.double())
    scale = wide.abs().max()
    assert (found - wide).abs().max() <= (expected - wide).abs().max() + ROUNDINGS * scale
    for y in (expected.float(), found.float(), wide):
        y.square().sum().backward()
    for ours, theirs, best in zip(fused.parameters(), net.parameters(), exact.parameters(), strict=True):
        assert ours.grad.dtype == torch.float32
        error, accepted = ((g.grad - best.grad).abs().max() for g in (ours, theirs))
        assert error <= 2 * accepted + ROUNDINGS * best.grad.abs().max()


def test_softplus_is_left_to_autocast(autocast):
    """On a GPU its result is float32 there, and the ops' would not be."""
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Softplus())
    with autocast:
        assert not pairs.fuses(pairs.activation(net[1]), torch.device("cpu"))
        assert pairs.fuses(pairs.activation(nn.ReLU()), torch.device("cpu"))
    assert pairs.fuses(pairs.activation(net[1]), torch.device("cpu"))


def test_weights_for_tensor_cores(monkeypatch):
    """Laid out are those whose channels fill rows of 16 bytes; never where torch was told to compute in float32."""
    weights = {
        name: torch.empty(shape)
        for name, shape in {"8x16": (16, 8, 3, 3), "3": (16, 3, 3, 3), "1": (1, 16, 4, 4)}.items()
    }
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert [name for name, w in weights.items() if accelerate._on_tensor_cores(w)] == ["8x16"]
    assert not accelerate._on_tensor_cores(weights["8x16"].double())
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert not accelerate._on_tensor_cores(weights["8x16"])
    assert accelerate._on_tensor_cores(weights["8x16"].half())


def test_layers_that_are_laid_out(monkeypatch):
    monkeypatch.setattr(accelerate, "_faster_on_cpu", lambda module: accelerate._on_tensor_cores(module.weight))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 8, 4, 2, 1),
                        nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 1))  # fmt: skip
    x = torch.randn(2, 3, 9, 9)
    expected = net(x)
    report = fastgan.accelerate(net)
    laid_out = [name for name, what in report.replaced if what == "weight channels last"]
    assert laid_out == ["2", "4"]
    y = net(x)
    assert y.is_contiguous()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    fastgan.unpatch(report)
    assert all(p.is_contiguous() for p in net.parameters())


class Blur(nn.Module):
    """A filter as a layer, and one that the forward makes of a buffer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 4, groups=4, bias=False).requires_grad_(False)
        self.layer.weight.copy_(torch.tensor([1.0, 3, 3, 1]).expand(4, 1, 4, 4) / 32)
        self.register_buffer("kernel", self.layer.weight[:1].clone().repeat(4, 1, 1, 1))

    def forward(self, x):
        x = F.conv2d(self.layer(x), self.kernel, padding=2, groups=x.shape[1])
        return F.conv2d(x, self.kernel[:1].repeat(4, 1, 1, 1), groups=x.shape[1])


@torch.no_grad()
def test_a_gpu_is_asked_once_whether_a_filter_is_that_of_all_channels(monkeypatch):
    """The answer waits for the GPU. The weight that is made anew in each call is left to torch."""
    monkeypatch.setattr(layers, "ASKED", set())
    asked, filtered = [], []
    equal, upfirdn2d = torch.equal, ops.upfirdn2d
    net, x = Blur(), torch.randn(2, 4, 16, 16)
    fused = copy.deepcopy(net)
    assert len(fastgan.accelerate(fused).replaced) >= 2
    monkeypatch.setattr(torch, "equal", lambda *t: asked.append(1) or equal(*t))
    monkeypatch.setattr(ops, "upfirdn2d", lambda *a, **k: filtered.append(1) or upfirdn2d(*a, **k))
    for _ in range(5):
        torch.testing.assert_close(fused(x), net(x))
    assert (len(asked), len(filtered)) == (2, 8)
    for module in (net, fused):  # no longer one filter
        module.layer.weight[1].mul_(2)
        module.kernel[2] = 1
    for _ in range(3):
        torch.testing.assert_close(fused(x), net(x))
    assert (len(asked), len(filtered)) == (4, 8)
