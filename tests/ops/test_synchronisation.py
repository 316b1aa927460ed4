"""No op reads a number of a tensor on the host: on a GPU nothing waits, and a captured graph holds no stale value."""

import pytest
import torch
from op_cases import CASES
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan import ops


class Reads(TorchDispatchMode):
    """Raises where a value of a tensor decides something in Python, or the size of a result."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "is_nonzero", "equal")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in self.NAMES, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_two_orders_of_derivatives_wait_for_nothing(name, impl):
    case = CASES[name]
    tensors = [t.float().requires_grad_(i < case.differentiable) for i, t in enumerate(case.tensors)]
    leaves = tensors[: case.differentiable]

    def run():
        try:
            y = case.function(*tensors, impl=impl)
        except TypeError:  # no choice of implementation in this one
            y = case.function(*tensors)
        first = torch.autograd.grad(y, leaves, torch.ones_like(y, requires_grad=True), create_graph=True)
        torch.autograd.grad(sum(g.square().sum() for g in first), leaves, allow_unused=True)

    run()  # what is remembered of the machine is asked once
    with Reads():
        run()


def test_the_mode_notices():
    with pytest.raises(AssertionError, match="waits for the device"), Reads():
        torch.ones(()).item()


@pytest.mark.parametrize("name", CASES)
def test_shapes_follow_without_values(name):
    """On the meta device, where no value exists."""
    case = CASES[name]
    if name == "gumbel_softmax":
        found = ops.gumbel_softmax(case.tensors[0].to("meta"))
    else:
        found = case.function(*(t.to("meta") for t in case.tensors))
    assert found.shape == case.function(*case.tensors).shape
