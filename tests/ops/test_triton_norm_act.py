"""norm_act's Triton kernels, interpreted, against the reference. Run by test_triton.py with TRITON_INTERPRET=1."""

import pytest
import torch
from device import kernels
from tolerances import TOLERANCE, assert_close

from fastgan.ops import norm_act

pytestmark = pytest.mark.skipif("triton" not in kernels("norm_act"), reason="runs with TRITON_INTERPRET=1")
ACTS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")


def gradients(x, weight, bias, residual, act, impl):
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in (x, weight, bias, residual)]
    y = norm_act(*leaves, act=act, impl=impl)
    torch.manual_seed(1)
    dy = torch.randn(x.shape, dtype=torch.float64).to(x.dtype)
    return [y, *torch.autograd.grad(y, [t for t in leaves if t is not None], dy)]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_parity(act, dtype, affine):
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 9, 5, dtype=torch.float64) * 2 + 1).to(dtype)
    weight, bias = ((torch.randn(3) + 1).to(dtype), torch.randn(3).to(dtype)) if affine else (None, None)
    residual = torch.randn_like(x) if affine else None
    got = gradients(x, weight, bias, residual, act, "triton")
    wide = [None if t is None else t.double() for t in (x, weight, bias, residual)]
    for g, e in zip(got, gradients(*wide, act, "reference"), strict=True):
        assert_close(g, e, 4 * TOLERANCE[dtype])


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1),
        (2, 3, 7),
        (3, 1, 64, 33),
        (1, 70, 3, 3),
        (5, 70, 8, 8),
        (1, 2, 90, 91),
        (1, 2, 100, 101),
        (2, 3, 2, 3, 2),
    ],
)
@pytest.mark.parametrize("layout", ["planes", "pixels", "batch inside"])
def test_shapes_and_layouts(shape, layout):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64) * 3 + 100  # far from zero: a naive variance would lose digits
    x = {
        "planes": lambda: x,
        "pixels": lambda: x.movedim(1, -1).contiguous().movedim(-1, 1),
        "batch inside": lambda: x.movedim(0, -1).contiguous().movedim(-1, 0),
    }[layout]()
    weight, bias = torch.rand(shape[1], dtype=torch.float64) + 0.5, torch.randn(shape[1], dtype=torch.float64)
    got = gradients(x, weight, bias, None, "swish", "triton")
    assert got[0].stride() == torch.empty_like(x).stride()
    for g, e in zip(got, gradients(x, weight, bias, None, "swish", "reference"), strict=True):
        assert_close(g, e)


@pytest.mark.parametrize("act", ["relu", "swish"])
def test_gradcheck_of_both_orders(act):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def f(x, weight, bias):
        return norm_act(x, weight, bias, act=act, impl="triton")

    assert torch.autograd.gradcheck(f, (x, weight, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(f, (x, weight, bias), fast_mode=True)


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3)])
def test_empty(shape):
    assert norm_act(torch.randn(shape), impl="triton").shape == shape
