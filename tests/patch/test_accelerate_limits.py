"""What accelerate leaves alone and why, what hooks see, and how weights are laid out."""

import copy

import pytest
import torch
from tolerances import assert_close
from torch import nn

import fastgan
from fastgan.patch import layers


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch):
    monkeypatch.setattr(layers, "pays", lambda *_: True)
    monkeypatch.setattr(layers, "has_kernel", lambda op, device: True)


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(2, 2, 1), nn.ReLU()])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Random(Loop):
    def forward(self, x):
        return x + torch.rand(1)


class Branch(Loop):
    def forward(self, x):
        if x.shape[0] > 1:
            return x
        return self.layers[0](x)


class Odd(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (nn.Sequential(nn.InstanceNorm2d(2, track_running_stats=True), nn.ReLU()), "running statistics"),
        (nn.Sequential(nn.Conv2d(2, 8, 1), nn.ELU(0.5)), "none of those that are known"),
        (nn.Sequential(nn.Conv2d(2, 8, 1), nn.LeakyReLU(-0.5)), "none of those that are known"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Softplus(2)), "none of those that are known"),
        (nn.Sequential(nn.BatchNorm2d(2), nn.Softplus()), "cannot compute in place"),
        (Loop(), "has a neighbour to run with"),
        (Random(), "has a neighbour to run with"),
        (Branch(), "has a neighbour to run with"),
        (Odd(nn.Conv2d(2, 2, 1), nn.ReLU()), "has a neighbour to run with"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_refused_with_a_reason(net, why):
    x = torch.randn(3, 2, 4, 4)
    report = fastgan.accelerate(net)
    assert not report.replaced and any(why in reason for _, reason in report.refused), str(report)
    assert why in str(report) and not any("Fused" in type(m).__name__ for m in net.modules())
    if not isinstance(net, Random):
        assert torch.equal(net(x), net(x))


def test_hooks_see_what_they_saw():
    net = nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU(), nn.InstanceNorm2d(8), nn.ReLU()).requires_grad_(False)
    seen = []
    handle = net[0].register_forward_hook(lambda m, args, y: seen.append(y))
    report = fastgan.accelerate(net)
    assert "forward hooks between them" in dict(report.refused)["0 + 1"]
    x = torch.randn(1, 2, 3, 3)
    net(x)
    assert torch.equal(seen[0], net[0](x)) and (seen[0] < 0).any()
    handle.remove()
    # Hooks that come later, on anything: every module with one is called.
    calls = []
    for m in net:
        m.register_forward_hook(lambda m, args, y: calls.append((type(m).__name__.removeprefix("Fused"), y)))
    net.register_forward_hook(lambda m, args, y: calls.append(("whole", y)))
    y = net(x)
    assert [name for name, _ in calls] == ["Conv2d", "ReLU", "InstanceNorm2d", "ReLU", "whole"]
    assert torch.equal(calls[-1][1], y) and (calls[0][1] < 0).any()


def test_children_called_one_by_one_are_the_originals():
    """Feature extraction walks over a Sequential: what it sees between the layers is unchanged."""
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Tanh())
    x = torch.randn(1, 2, 4, 4)
    fastgan.accelerate(net)
    features = [x]
    for layer in net:
        features.append(layer(features[-1]))
    assert (features[1] < 0).any() and torch.equal(features[2], features[1].relu())
    assert_close(net(x), features[-1])
    assert_close(net[:2](x), features[2])


def test_shared_modules():
    conv, act = nn.Conv2d(2, 2, 1), nn.ReLU()
    net = nn.Sequential(conv, act, conv, nn.Tanh(), act)
    x = torch.randn(1, 2, 4, 4)
    expected = net(x)
    fastgan.accelerate(net)
    assert_close(net(x), expected)
    assert (conv(x) < 0).any()


def test_activation_that_writes_over_its_input():
    """An input that somebody else holds is written to exactly where the original does."""
    net, x = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1), nn.ReLU()), torch.randn(1, 2, 3, 3)
    fastgan.accelerate(net)
    with torch.no_grad():
        net(x)
    assert (x >= 0).all()


def test_nested_sequences_are_one():
    net = nn.Sequential(nn.Sequential(nn.Sequential(nn.Conv2d(2, 8, 1))), nn.ReLU(), nn.Sequential(nn.Tanh()))
    x = torch.randn(1, 2, 4, 4)
    expected = net(x)
    report = fastgan.accelerate(net)
    assert dict(report.replaced) == {"0 + 1": "Sequential + relu in place"}
    assert_close(net(x), expected)
    net[0].register_forward_hook(lambda m, args, y: y - 10)
    assert_close(net(x), torch.zeros_like(expected))


def test_subclasses_of_sequential_stay_their_classes():
    class Block(nn.Sequential):
        pass

    net = Block(nn.Conv2d(2, 8, 1), nn.ReLU())
    with fastgan.patched(net) as report:
        assert isinstance(net, Block) and type(net) is not Block and len(report.replaced) == 1
    assert type(net) is Block


def test_edited_after_acceleration():
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())
    fastgan.accelerate(net)
    x = torch.randn(1, 2, 4, 4)
    net[1] = nn.Tanh()
    net.append(nn.Conv2d(2, 1, 1))
    assert_close(net(x), net[2](net[0](x).tanh()))


def test_parts_and_wholes_are_undone_in_any_order():
    def build():
        return nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU())

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = build(), build()

    pair = Pair()
    part = fastgan.accelerate(pair.a)
    whole = fastgan.accelerate(pair)
    assert ("a", "already accelerated") in whole.refused and [where for where, _ in whole.replaced] == ["b.0 + b.1"]
    fastgan.unpatch(part)
    fastgan.unpatch(whole)
    assert type(pair.a) is type(pair.b) is nn.Sequential
    fastgan.unpatch(part)


def test_dry_run_prints(capsys):
    net = nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU())
    report = fastgan.accelerate(net, dry_run=True)
    assert capsys.readouterr().out.strip() == str(report) and "would replace 1, refused 0" in str(report)
    assert type(net) is nn.Sequential
    fastgan.unpatch(report)
    assert type(net) is nn.Sequential


@pytest.mark.parametrize("wrong", [None, "net", nn.Sequential, torch.jit.script(nn.Sequential(nn.ReLU()))])
def test_wrong_modules(wrong):
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module in Python"):
        fastgan.accelerate(wrong)


def test_torch_compile():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.InstanceNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3), nn.PReLU()
    )
    x = torch.randn(1, 2, 6, 6)
    expected = net(x)
    fastgan.accelerate(net)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), expected)
    compiled(x).sum().backward()
    assert net[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_and_other_types(dtype):
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.InstanceNorm2d(4), nn.Tanh())
    x = torch.randn(1, 2, 6, 6)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected = net(x)
        fastgan.accelerate(net)
        y = net(x)
        assert y.dtype == expected.dtype
        assert_close(y, expected)


def test_weights_are_laid_out():
    net = nn.Sequential(*(nn.ConvTranspose2d(8, 8, 4, 2, 1) for _ in range(2)))
    alias = net[1].weight.detach()
    x = torch.randn(2, 8, 5, 5)
    expected, weight = net(x), net[0].weight
    assert not fastgan.accelerate(net).replaced and weight.is_contiguous()  # in training mode gradients would lose
    net.eval()
    report = fastgan.accelerate(net)
    assert dict(report.replaced)["0"] == "weight channels last" and "1" not in dict(report.replaced)
    assert net[0].weight is weight and weight.is_contiguous(memory_format=torch.channels_last)
    assert net[1].weight.data_ptr() == alias.data_ptr()  # memory that somebody else holds stays
    y = net(x)
    assert y.is_contiguous() and net(x.contiguous(memory_format=torch.channels_last)).shape == y.shape
    assert_close(y, expected)
    weight.data.copy_(torch.ones(8, 8, 4, 4))
    fastgan.unpatch(report)
    assert weight.is_contiguous() and (weight == 1).all()


@pytest.mark.parametrize("between", [nn.Identity, nn.Tanh, nn.SiLU, nn.ELU, nn.GELU], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("images", [1, 2])
def test_gradients_in_evaluation_mode_lie_as_the_originals(monkeypatch, between, images):
    """torch's instance norm of a single image takes a gradient that lies channels last for another one."""
    monkeypatch.setattr(layers, "pays", lambda *_: False)  # torch's norm stays
    net = nn.Sequential(nn.InstanceNorm2d(8), between(), nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.InstanceNorm2d(6)).eval()
    twin = copy.deepcopy(net)
    assert "2" in dict(fastgan.accelerate(twin).replaced)
    twin = copy.deepcopy(twin)
    results, x = [], torch.randn(images, 8, 5, 6)
    for n in (net, twin):
        t, lay = x.clone().requires_grad_(), []
        n[0].register_full_backward_hook(lambda m, dx, dy, lay=lay: lay.append(dy[0].stride()))
        y = n(t)
        results.append([y, *torch.autograd.grad(y, (t, n[2].weight), torch.linspace(-1, 1, y.numel()).view_as(y)), lay])
    assert results[0].pop() == results[1].pop()
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, 1e-5)
    with torch.no_grad():
        assert_close(twin(x), net(x), 1e-5)


def test_nothing_to_gain_is_left_alone():
    """A plain DCGAN discriminator: no bias, activations in place already, and a last layer over all of its 4x4 input."""
    net = nn.Sequential(
        nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(128, 1, 4, bias=False), nn.Sigmoid(),
    )  # fmt: skip
    report = fastgan.accelerate(net)
    assert not report.replaced and type(net) is nn.Sequential
    assert sum("nothing to gain" in why for _, why in report.refused) == 3
