"""patch_ops on the Snake activations and anti-aliasing filters of vocoders and codecs, in the layouts that hold them."""

import copy
import gc
import importlib
import sys
import weakref

import pytest
import torch
from stand_in_families import FILTER, PACKAGE, PROJECT, RESAMPLE
from tolerances import assert_close

import fastgan
from fastgan import nn, ops


def randomised(net):
    torch.manual_seed(1)
    for parameter in net.parameters():
        parameter.data.normal_(0, 0.4).add_(0.1)
    return net


def results(net, x):
    """Output, and the gradients of its squares with respect to the input and the parameters."""
    y = net(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *net.parameters()])]


@pytest.mark.parametrize("logscale", [True, False])
@pytest.mark.parametrize("length", [1, 2, 37])
def test_networks_built_before_are_served_and_restored(project, logscale, length):
    project(PROJECT)
    bigvgan = importlib.import_module("bigvgan")
    net = randomised(bigvgan.Net(logscale=logscale)).double()
    names, x = list(net.state_dict()), torch.randn(2, 4, length, dtype=torch.float64, requires_grad=True)
    expected = results(net, x)
    act = bigvgan.TorchActivation1d
    forward = vars(act)["forward"]
    report = fastgan.patch_ops("alias_free_activation")
    more = fastgan.patch_ops("activations")
    assert {line.where for line in more.replaced} == {"activations.Snake.forward", "activations.SnakeBeta.forward"}
    for y, e in zip(results(net, x), expected, strict=True):
        assert_close(y, e, 1e-7)
    assert list(net.state_dict()) == names and "acts.1.downsample.lowpass.filter" in names
    assert fastgan.patch_ops("activations").refused == [
        ("activations.Snake", "already fastgan's"),
        ("activations.SnakeBeta", "already fastgan's"),
    ]
    fastgan.unpatch(more)
    fastgan.unpatch(report)
    assert vars(act)["forward"] is forward and f"{PACKAGE}.cuda.activation1d" not in sys.modules
    for y, e in zip(results(net, x), expected, strict=True):
        assert torch.equal(y, e)


def test_it_is_the_fused_op_that_runs(project, monkeypatch):
    project(PROJECT)
    fastgan.patch_ops("alias_free_activation")
    net, x = importlib.import_module("bigvgan").Net(), torch.randn(1, 4, 9)
    called = []
    fused = ops.filtered_snake
    monkeypatch.setattr(ops, "filtered_snake", lambda *args: called.append(args) or fused(*args))
    net(x)
    count = len(called)
    assert count >= 2
    net(x)
    assert len(called) == count + 2, "each object is probed once"


def test_the_kernel_that_would_compile_is_provided(project):
    project(PROJECT)
    report = fastgan.patch_ops("alias_free_activation")
    bigvgan = importlib.import_module("bigvgan")
    net, plain = bigvgan.Net(use_cuda_kernel=True), bigvgan.Net()
    assert dict(report.replaced)[f"{PACKAGE}.cuda.activation1d.Activation1d"].startswith("provided (importing it would")
    plain.load_state_dict(randomised(net).state_dict())
    x = torch.randn(2, 4, 31, requires_grad=True)
    for y, e in zip(results(net, x), results(plain, x), strict=True):
        assert_close(y, e, 1e-5)
    activation1d = sys.modules[f"{PACKAGE}.cuda.activation1d"]
    assert activation1d.Activation1d(nn.Snake(2), fused=False)(x[:, :2]).shape == (2, 2, 31)
    with pytest.raises(RuntimeError, match="its kernel is not built"):
        activation1d.FusedAntiAliasActivation()


def test_what_is_something_else_runs_as_it_did(project):
    """Another activation inside, a hook, a part that was exchanged later, other filters."""
    project(PROJECT)
    act = importlib.import_module(f"{PACKAGE}.torch.act")
    snake = importlib.import_module("activations").SnakeBeta
    x = torch.randn(1, 3, 17)
    leaky, hooked, changed, filtered = (
        act.Activation1d(torch.nn.LeakyReLU()),
        *(act.Activation1d(randomised(snake(3, alpha_logscale=True))) for _ in range(3)),
    )
    filtered.upsample.filter.mul_(0.5)
    expected = leaky(x), filtered(x)
    with fastgan.patched("alias_free_activation"):
        assert torch.equal(leaky(x), expected[0])
        assert_close(filtered(x), expected[1], 1e-5)
        fused, seen = hooked(x), []
        hooked.act.register_forward_hook(lambda module, inputs, output: seen.append(output))
        assert_close(hooked(x), fused, 1e-5)
        assert seen[0].shape == (1, 3, 34)
        changed(x)
        changed.act = torch.nn.Identity()
        plain = changed(x)
    assert torch.equal(plain, changed(x))


def test_what_was_decided_keeps_no_module(project):
    project(PROJECT)
    act, snake = importlib.import_module(f"{PACKAGE}.torch.act"), importlib.import_module("activations").SnakeBeta
    with fastgan.patched("alias_free_activation"), fastgan.patched("activations"):
        modules = [snake(3), act.Activation1d(snake(3))]
        for module in modules:
            module(torch.randn(1, 3, 17))
        gone = [weakref.ref(module) for module in modules]
        del module, modules
        gc.collect()
        assert [one() for one in gone] == [None, None]


def test_a_copy_by_structure(project):
    """Other names, filters that are buffers of the resamplers themselves, logarithms without a switch, calls in one line."""
    source = RESAMPLE.replace("from .filter import taps", "from taps import taps").replace(
        'self.register_buffer("filter", taps())', 'self.register_buffer("filter", taps(), persistent=False)'
    )
    source += """
    class Mine(torch.nn.Module):
        def __init__(self, activation, up_ratio=2, down_ratio=2):
            super().__init__()
            self.function = activation
            self.wide, self.narrow = UpSample1d(up_ratio), LowPassFilter1d()

        def forward(self, hidden):
            return self.narrow(self.function(self.wide(hidden)))

    class Wave(torch.nn.Module):
        def __init__(self, in_features, alpha=1.0):
            super().__init__()
            self.alpha = torch.nn.Parameter(torch.zeros(in_features) * alpha)
            self.beta = torch.nn.Parameter(torch.zeros(in_features) * alpha)

        def forward(self, hidden):
            alpha, beta = (p.exp()[None, :, None] for p in (self.alpha, self.beta))
            return hidden + torch.sin(hidden * alpha).pow(2) / (beta + 1e-9)

    class Other(Wave):
        def forward(self, hidden):
            return hidden + torch.sin(hidden * self.alpha[None, :, None])

    class Aliased(Mine):
        def forward(self, hidden):
            return self.narrow(self.function(self.wide(2 * hidden)))

    class Inherited(Mine):
        pass
"""
    project({"taps.py": FILTER, "token2wav.py": source})
    module = importlib.import_module("token2wav")
    net, x = randomised(module.Inherited(module.Wave(3))), torch.randn(2, 3, 40)
    expected = net(x)
    report = fastgan.patch_ops(module)
    assert [line.where for line in report.replaced] == ["token2wav.Mine.forward", "token2wav.Wave.forward"]
    why = "on random numbers it does not compute what its name says"
    assert dict(report.refused) == {"token2wav.Other": why, "token2wav.Aliased": why}
    assert_close(net(x), expected, 1e-5)
    assert_close(copy.deepcopy(net)(x), expected, 1e-5)
    fastgan.unpatch(report)
    assert torch.equal(net(x), expected)


def test_snake_of_a_codec(project):
    project(
        {
            "dac/__init__.py": "",
            "dac/nn/__init__.py": "",
            "dac/nn/layers.py": """
                import torch

                @torch.jit.script
                def snake(x, alpha):
                    shape = x.shape
                    x = x.reshape(shape[0], shape[1], -1)
                    x = x + (alpha + 1e-9).reciprocal() * torch.sin(alpha * x).pow(2)
                    return x.reshape(shape)

                class Snake1d(torch.nn.Module):
                    def __init__(self, channels):
                        super().__init__()
                        self.alpha = torch.nn.Parameter(torch.ones(1, channels, 1))

                    def forward(self, x):
                        return snake(x, self.alpha)
            """,
            "model.py": "from dac.nn.layers import Snake1d, snake",
        }
    )
    model = importlib.import_module("model")
    layer, x = randomised(model.Snake1d(3)), torch.randn(2, 3, 5, 4, requires_grad=True)
    original, expected = model.snake, results(layer, x)
    report = fastgan.patch_ops("dac.nn.layers")
    assert model.snake is not original and {w for w, _ in report.replaced} == {"dac.nn.layers.snake", "model.snake"}
    for y, e in zip(results(layer, x), expected, strict=True):
        assert_close(y, e, 1e-5)
    assert fastgan.patch_ops("dac.nn.layers").refused == [("dac.nn.layers.snake", "already fastgan's")]
    fastgan.unpatch(report)
    assert model.snake is original


def test_half_precision_and_autocast(project):
    project(PROJECT)
    net, x = importlib.import_module("bigvgan").Net(), torch.randn(1, 4, 33)
    expected = net(x)
    with fastgan.patched("alias_free_activation"):
        half = copy.deepcopy(net).bfloat16()(x.bfloat16())
        assert half.dtype == torch.bfloat16
        assert_close(half.float(), expected, 5e-2)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(net(x.bfloat16()).float(), expected, 5e-2)
