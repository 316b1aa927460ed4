"""NaN and infinities reach the outputs and gradients they are part of, and no others: the CUDA kernels' pattern is the
reference's. The filters have taps that are zero, whose product with a NaN is one."""

import pytest
import torch
from cuda_emulation import emulated

from fastgan.ops import filtered_lrelu, upfirdn2d

pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="g++ is not installed")
LONG = torch.tensor([1.0, 2, 0, 4, 5, 6, 6, 5, 4, 0, 2, 1]) / 12
SHORT = torch.tensor([1.0, 0, 3, 1]) / 4
PLANE = torch.outer(torch.tensor([1.0, 0, 2, 1, 3]), SHORT) / 4
VALUES = (float("nan"), float("inf"), -float("inf"))
LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture(scope="module", autouse=True)
def kernels():
    emulated.load()


def pattern(t):
    return torch.where(t.isfinite(), 0.0, t)


def check(f, layout, value):
    """Of y and of dx, for a value in x and for one in dy."""
    x = torch.randn(2, 4, 16, 16)
    for spoiled in ("x", "dy"):
        results = {}
        for impl in ("cuda", "reference"):
            leaf = x.clone()
            if spoiled == "x":
                leaf[0, 1, 7, 6] = value
            leaf = leaf.contiguous(memory_format=layout).requires_grad_()
            y = f(leaf, impl)
            dy = torch.linspace(-1, 1, y.numel()).view(y.shape)
            if spoiled == "dy":
                dy[1, 2, 2, 3] = value
            results[impl] = (y, *torch.autograd.grad(y, leaf, dy))
        for actual, expected in zip(results["cuda"], results["reference"], strict=True):
            assert torch.equal(pattern(actual).nan_to_num(7.0), pattern(expected).nan_to_num(7.0))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("f", "up", "down"), [(LONG, 2, 1), (PLANE, 1, 1), (SHORT, 1, 2), (PLANE, 2, 3), (SHORT, 3, 1)]
)
def test_upfirdn2d(f, up, down, layout, value):
    check(lambda x, impl: upfirdn2d(x, f, up, down, padding=8, impl=impl), layout, value)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize(
    ("fu", "fd", "up", "down"), [(LONG, LONG, 2, 2), (PLANE, LONG, 1, 4), (LONG, PLANE, 4, 1), (None, None, 1, 1)]
)
def test_filtered_lrelu(fu, fd, up, down, clamp, layout, value):
    def f(x, impl):
        return filtered_lrelu(x, fu, fd, torch.zeros(4), up=up, down=down, padding=8, clamp=clamp, impl=impl)

    check(f, layout, value)
