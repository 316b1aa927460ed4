"""Of every op: gradients of two orders by any subset of its inputs, and of 16-bit inputs within their rounding."""

import itertools

import pytest
import torch
from op_cases import CASES
from tolerances import TOLERANCE, assert_close

every_op = pytest.mark.parametrize("name", CASES)


def two_orders(case, tensors, asked, gy, v):
    """First gradients by the tensors `asked`; and for each of them, second ones of <it, its v> by all of them and gy."""
    tensors = [t.clone().requires_grad_(i in asked) for i, t in enumerate(tensors)]
    gy, leaves = gy.clone().requires_grad_(), [tensors[i] for i in asked]
    first = torch.autograd.grad(case.function(*tensors), leaves, gy, create_graph=True)
    second = {}
    for i, g in zip(asked, first, strict=True):
        found = torch.autograd.grad((g * v[i]).sum(), [*leaves, gy], retain_graph=True, allow_unused=True)
        second |= {(i, j): d for j, d in zip((*asked, "gy"), found, strict=True)}
    return dict(zip(asked, first, strict=True)), second


def filled(found, like):
    return torch.zeros_like(like) if found is None else found


@every_op
def test_any_subset_of_the_inputs_may_need_a_gradient(name):
    case = CASES[name]
    y = case.function(*case.tensors)
    gy, v = torch.randn_like(y), [torch.randn_like(t) for t in case.tensors]
    every = tuple(range(case.differentiable))
    first, second = two_orders(case, case.tensors, every, gy, v)
    for size in range(1, len(every)):
        for asked in itertools.combinations(every, size):
            some, more = two_orders(case, case.tensors, asked, gy, v)
            for i in asked:
                assert_close(some[i], first[i])
            for (i, j), found in more.items():
                like = gy if j == "gy" else case.tensors[j]
                assert_close(filled(found, like), filled(second[i, j], like), 1e-9)


@every_op
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_gradients_are_those_of_float64_to_rounding(name, dtype):
    case = CASES[name]
    tensors = [t.to(dtype) for t in case.tensors]
    y = case.function(*tensors)
    gy, v = torch.randn_like(y).to(dtype), [torch.randn_like(t) for t in tensors]
    every = tuple(range(case.differentiable))
    first, second = two_orders(case, tensors, every, gy.to(y.dtype), v)
    wide = [t.double() for t in tensors]
    first64, second64 = two_orders(case, wide, every, gy.double(), [t.double() for t in v])
    assert_close(y, case.function(*wide), TOLERANCE[dtype])
    for i in every:
        assert first[i].dtype == dtype
        assert_close(first[i], first64[i], TOLERANCE[dtype])
    for (i, j), found in second.items():
        like = gy if j == "gy" else tensors[j]
        # its inputs, a first gradient and a result that were rounded
        assert_close(filled(found, like), filled(second64[i, j], like.double()), 2 * TOLERANCE[dtype])
