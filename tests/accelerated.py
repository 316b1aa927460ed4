"""What tests of `accelerate` share: a network before, during and after."""

import copy
import pickle

import torch
from tolerances import assert_close
from torch import nn

import fastgan


def outcome(net, x, second=True):
    """Output, and first and second derivatives by input and parameters."""
    x = x.clone().requires_grad_()
    y = net(x)
    weights = [x, *(p for p in net.parameters() if p.requires_grad)]
    first = torch.autograd.grad(y, weights, torch.ones_like(y).cumsum(-1), create_graph=second, allow_unused=True)
    if not second:
        return [y, *first]
    s = sum((g * g).sum() for g in first if g is not None and g.requires_grad) + 0 * x.sum()
    second = torch.autograd.grad(s, weights, allow_unused=True)  # None where zero everywhere
    return [y, *first, *(torch.zeros_like(w) if g is None else g for g, w in zip(second, weights, strict=True))]


def check(net, x, second=True):
    """Everything equal before, during and after; returns the report. float64."""
    net, x = net.double(), x.double()
    for m in net.modules():  # nothing at its special initial value
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean), nn.init.uniform_(m.running_var, 0.5, 2)
    with torch.no_grad():
        plain = net(x.clone())
    expected = outcome(net, x, second)
    state, parameters = net.state_dict(), list(net.named_parameters())
    objects = {id(m): type(m) for m in net.modules()}
    attributes = {id(m): set(vars(m)) for m in net.modules()}
    assert "would replace" in str(fastgan.accelerate(net, dry_run=True))
    assert {id(m): type(m) for m in net.modules()} == objects
    report = fastgan.accelerate(net)
    for _ in range(2):
        kept = x.clone()
        with torch.no_grad():
            assert_close(net(kept), plain)
        assert torch.equal(kept, x), "the input was written to"
        for actual, wanted in zip(outcome(net, x, second), expected, strict=True):
            assert (actual is None) == (wanted is None)
            if actual is not None:
                assert_close(actual, wanted, 1e-9)
        assert {id(m) for m in net.modules()} == set(objects)
        assert all(a is b for (_, a), (_, b) in zip(net.named_parameters(), parameters, strict=True))
        assert list(net.state_dict()) == list(state) and all(
            torch.equal(v, state[k]) for k, v in net.state_dict().items()
        )
        again = fastgan.accelerate(net)
        assert not again.replaced
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [type(m) for m in twin.modules()] == [type(m) for m in net.modules()]
        with torch.no_grad():
            assert_close(twin(x.clone()), plain)
    fastgan.unpatch(report)
    assert {id(m): type(m) for m in net.modules()} == objects
    assert {id(m): set(vars(m)) for m in net.modules()} == attributes
    with torch.no_grad():
        assert torch.equal(net(x.clone()), plain)
    return report


def replaced(report):
    return dict(report.replaced)
