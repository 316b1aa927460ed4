"""accelerate beside what else is done to modules: their own pickling, parametrizations, threads, torch.fx, mixed types."""

import copy
import pickle
import threading
import types

import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import fastgan
from fastgan.patch import chain, layers


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch):
    monkeypatch.setattr(layers, "pays", lambda *_: True)


class Joined(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 1)

    def forward(self, x):
        return F.leaky_relu(self.conv(x), 0.2)


class Locked(Joined):
    """A state of its own: without what cannot be pickled."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.lock = threading.Lock()


class Remade(Joined):
    """Built anew from its arguments, as networks are that carry their source."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def __reduce__(self):
        return remade, (self.state_dict(),)


def remade(state):
    made = Remade()
    made.load_state_dict(state)
    return made


@pytest.mark.parametrize("kind", [Locked, Remade])
def test_modules_that_pickle_themselves(kind):
    net, x = kind(), torch.randn(1, 3, 4, 4)
    assert fastgan.accelerate(net).replaced
    accelerated = type(net)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert isinstance(twin, kind) and twin.lock is not net.lock
        assert_close(twin(x), net(x))
    assert type(net) is accelerated


def test_parametrizations_that_come_later():
    net, x = nn.Sequential(nn.Conv2d(32, 3, 7, padding=3), nn.Tanh()), torch.randn(1, 32, 20, 20)
    twin = copy.deepcopy(net)
    report = fastgan.accelerate(twin)
    assert "0" in dict(report.replaced)
    twin(x)
    for n in (net, twin):
        torch.manual_seed(1)
        parametrizations.spectral_norm(n[0])
        n.eval()
    for images in (x, x[:, :, :16, :17]):  # a shape that it has seen, and another
        assert_close(twin(images), net(images), 1e-5)
    assert_close(copy.deepcopy(twin)(x), net(x), 1e-5)
    with pytest.raises(RuntimeError, match="state_dict"):  # torch's own refusal: a copy would be without it
        pickle.dumps(twin)
    with pytest.raises(RuntimeError, match="undo that first"):
        fastgan.unpatch(report)
    parametrize.remove_parametrizations(twin[0], "weight")
    fastgan.unpatch(report)
    assert type(twin[0]) is nn.Conv2d
    assert_close(twin(x), net(x), 1e-5)


def test_a_first_call_in_several_threads(monkeypatch):
    """Who comes while another thread looks at the modules does not run half of them."""
    net = nn.Sequential(*(m for _ in range(3) for m in (nn.Conv2d(8, 8, 1), nn.LeakyReLU(0.2)))).eval()
    x = torch.randn(1, 8, 4, 4)
    expected = net(x)
    fastgan.accelerate(net)
    looked, go_on, known = threading.Event(), threading.Event(), chain.gains

    def slow(layer, act):
        if threading.current_thread() is first:
            looked.set()
            go_on.wait(10)
        return known(layer, act)

    monkeypatch.setattr(chain, "gains", slow)
    results = []
    first = threading.Thread(target=lambda: results.append(net(x)))
    first.start()
    looked.wait(10)
    results.append(net(x))
    go_on.set()
    first.join()
    for y in results:
        assert_close(y, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_of_float32_over_images_of_16_bits(dtype):
    net, x = nn.Sequential(nn.InstanceNorm2d(8, affine=True), nn.ReLU()), torch.randn(2, 8, 16, 16)
    nn.init.normal_(net[0].weight), nn.init.normal_(net[0].bias)
    twin = copy.deepcopy(net)
    fastgan.accelerate(twin)
    assert torch.equal(twin(x.to(dtype)), net(x.to(dtype)))
    for n in (net, twin):
        n.to(dtype)
    assert_close(twin(x.to(dtype)), net(x.to(dtype)), 3e-2)
    for n in (net, twin):
        n.float()
    assert torch.equal(twin(x.to(dtype)), net(x.to(dtype)))


class Traced(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 32, 2))
        self.block, self.act = nn.Sequential(nn.Conv2d(32, 32, 1), nn.InstanceNorm2d(32)), nn.PReLU()
        self.last = nn.Conv2d(32, 3, 7)

    def forward(self, x):
        x = self.first(x)
        x = x + self.block(x)
        return torch.tanh(self.last(self.act(x)))


def test_torch_fx_sees_the_modules_that_it_saw():
    net, x = Traced().eval(), torch.randn(1, 3, 12, 12)
    expected = torch.fx.symbolic_trace(net)
    report = fastgan.accelerate(net)
    assert {"first.1", "last", "block.1"} <= {where for where, _ in report.replaced}
    found = torch.fx.symbolic_trace(net)
    assert [(n.op, n.target) for n in found.graph.nodes] == [(n.op, n.target) for n in expected.graph.nodes]
    assert_close(found(x), expected(x), 1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_features_of_weights_that_are_laid_out(layout):
    """A loop over the layers of a Sequential, or a part of it, may take a view of what it sees."""
    net = nn.Sequential(
        nn.ConvTranspose2d(512, 128, 4, 2, 1), nn.BatchNorm2d(128), nn.ReLU(), nn.ConvTranspose2d(128, 8, 4, 2, 1), nn.Tanh()
    ).eval()  # fmt: skip
    twin, x = copy.deepcopy(net), torch.randn(1, 512, 4, 4).contiguous(memory_format=layout)
    report = fastgan.accelerate(twin)
    assert sum(what == "weight channels last" for _, what in report.replaced) == 2
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            y, z = x, x
            for i, (layer, same) in enumerate(zip(net, twin, strict=True)):
                y, z = layer(y), same(z)
                assert_close(z, y, 1e-4)
                assert z.stride() == y.stride() == twin[: i + 1](x).stride() == net[: i + 1](x).stride()


def around(conv, x, weight, bias):
    """Pictures that can be laid side by side, as scripts make them: a convolution of others' on one object alone."""
    return F.conv2d(F.pad(x, (3, 3, 3, 3), mode="circular"), weight, bias, groups=x.shape[1] // weight.shape[1])


def depthwise():
    conv = nn.Conv2d(4, 4, 7, groups=4, bias=False, padding=3).requires_grad_(False)
    conv.weight.copy_(torch.rand(1, 1, 7, 7).expand(4, 1, 7, 7))
    return conv


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("conv", [lambda: nn.Conv2d(32, 3, 7, padding=3), depthwise], ids=["columns", "filter"])
def test_a_convolution_of_its_own(conv, before):
    net = nn.Sequential(conv(), nn.Tanh())
    x = torch.randn(1, net[0].in_channels, 20, 20)
    twin, plain = copy.deepcopy(net), net(x)
    if before:
        twin[0]._conv_forward = types.MethodType(around, twin[0])
    fastgan.accelerate(twin)
    twin(x)
    for n in (net, twin):
        n[0]._conv_forward = types.MethodType(around, n[0])
    expected = net(x)
    assert (expected - plain).abs().max() > 0.1
    assert_close(twin(x), expected, 1e-5)
    for n in (net, twin):
        del n[0]._conv_forward
    assert_close(twin(x), net(x), 1e-5)
