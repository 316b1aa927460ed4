"""accelerate(module, graphs=True), by the stand-in of tests/graph_stub.py."""

import copy
import pickle

import pytest
import torch
from graph_stub import Stub
from torch import nn

import fastgan
from fastgan.models import dcgan
from fastgan.patch import graphed, layers


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(graphed, "Backend", Stub)
    Stub.captured = Stub.replayed = 0


def generator():
    torch.manual_seed(0)
    return dcgan.Generator(dcgan.Config(resolution=32, channels=3, latent=4, width=4, max_width=8)).eval()


@torch.no_grad()
def test_replays_are_the_forward(stub):
    net = generator()
    plain = copy.deepcopy(net)
    fastgan.accelerate(plain)
    report = fastgan.accelerate(net, graphs=True)
    assert ("Generator", "forward -> CUDA graphs, without gradients") in report.replaced
    kept = []
    for _ in range(5):
        z = torch.randn(2, 4)
        kept.append((net(z), plain(z)))
    assert (Stub.captured, Stub.replayed) == (1, 3)
    assert all(torch.equal(a, b) for a, b in kept)  # a result stays when the next one is made
    for parameter in (*net.parameters(), *plain.parameters()):
        parameter.mul_(1.1)
    assert torch.equal(net(z), plain(z)) and Stub.captured == 1
    assert [net(torch.randn(3, 4)).shape[0] for _ in range(3)] == [3, 3, 3] and Stub.captured == 2
    weight = next(net.parameters())
    weight.data = 2 * weight.data  # elsewhere
    next(plain.parameters()).data = weight.data.clone()
    for _ in range(3):
        assert torch.equal(net(z), plain(z))
    assert Stub.captured == 3
    fastgan.unpatch(report)
    assert "forward" not in vars(net) and torch.equal(net(z), plain(z))


@torch.no_grad()
def test_weights_that_move_many_times(stub):
    net, z = generator(), torch.randn(2, 4)
    plain = copy.deepcopy(net)
    fastgan.accelerate(plain)
    fastgan.accelerate(net, graphs=True)
    form = vars(net)["forward"]
    for i in range(1, 2 * graphed.MOST):
        for n in (net, plain):
            weight = next(n.parameters())
            weight.data = 1.1 * weight.data
        for _ in range(3):
            assert torch.equal(net(z), plain(z))
        assert Stub.captured == i and len(form._graphs) == 1, "graphs of memory that is gone are kept"


@torch.no_grad()
def test_a_fixed_filter_is_captured(stub, monkeypatch):
    """Whether every channel has the same filter is not asked within a capture."""
    monkeypatch.setattr(layers, "ASKED", set())
    net = nn.Conv2d(4, 4, 4, groups=4, bias=False).requires_grad_(False).eval()
    net.weight.copy_(torch.tensor([1.0, 3, 3, 1]).expand(4, 1, 4, 4) / 32)
    plain, x = copy.deepcopy(net), torch.randn(2, 4, 16, 16)
    fastgan.accelerate(net, graphs=True)
    for _ in range(4):
        torch.testing.assert_close(net(x), plain(x))
    assert (Stub.captured, Stub.replayed) == (1, 2)


def test_as_ever(stub):
    """With gradients, in training mode, and where an argument is no tensor."""
    net = generator()
    fastgan.accelerate(net, graphs=True)
    z = torch.randn(2, 4)
    for _ in range(4):
        net(z).sum().backward()
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(z)
        net.eval()
        for _ in range(4):
            net(z, None)
    assert Stub.captured == 0


@torch.no_grad()
def test_draws_go_on(stub):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x + self.scale * torch.randn_like(x)

    net, plain = Noisy().eval(), Noisy().eval()
    fastgan.accelerate(net, graphs=True)
    results = []
    for module in (net, plain):
        torch.manual_seed(0)
        results.append([module(torch.zeros(3)) for _ in range(5)])
    assert Stub.captured == 1
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@torch.no_grad()
def test_a_forward_that_reads_values_runs_as_ever(stub):
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x * self.scale if x.sum().item() > 0 else -x

    net = Reading().eval()
    fastgan.accelerate(net, graphs=True)
    for _ in range(2):
        net(torch.ones(2))
    with pytest.warns(UserWarning, match="Reading runs without a CUDA graph: .*capturing"):
        net(torch.ones(2))
    assert net(-torch.ones(2)).tolist() == [1, 1] and net(torch.ones(2)).tolist() == [1, 1]
    assert Stub.captured == 0


@torch.no_grad()
def test_copies_have_graphs_of_their_own(stub):
    net = generator()
    fastgan.accelerate(net, graphs=True)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        for parameter in other.parameters():
            parameter.zero_()
        z = torch.randn(2, 4)
        assert all((other(z) == 0).all() for _ in range(4)) and not (net(z) == 0).all()


def test_what_is_refused(stub, monkeypatch):
    net = generator()
    fastgan.accelerate(net, graphs=True)
    assert ("Generator", "already runs by CUDA graphs") in fastgan.accelerate(net, graphs=True).refused
    monkeypatch.undo()
    with pytest.raises(ValueError, match="no graphs of Generator: graphs are made by CUDA, and this is on cpu"):
        fastgan.accelerate(generator(), graphs=True)
    with pytest.raises(ValueError, match="no graphs of ReLU: it has no parameters"):
        fastgan.accelerate(nn.ReLU(), graphs=True)
