"""Outputs of 32 MiB and more, which begin at a large page (csrc/cpu/memory.h): numbers, layout, and no other sign of it."""

import sys

import pytest
import torch
from device import kernels
from tolerances import assert_close

from fastgan.ops import bias_act, filtered_lrelu, norm_act, setup_filter, upfirdn2d

pytestmark = [pytest.mark.slow, pytest.mark.skipif("cpp" not in kernels("bias_act"), reason="no CPU kernel under test")]
F = setup_filter([1, 3, 3, 1])
OPS = {
    "bias_act": lambda x, impl: bias_act(x, act="lrelu", impl=impl),
    "norm_act": lambda x, impl: norm_act(x, act="relu", impl=impl),
    "upfirdn2d": lambda x, impl: upfirdn2d(x, F, padding=[2, 1, 2, 1], impl=impl),
    "filtered_lrelu": lambda x, impl: filtered_lrelu(x, F, F, up=2, down=2, padding=[3, 3, 3, 3], impl=impl),
}
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("size", [1024, 1036])  # a whole number of large pages, and a part of one
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", OPS)
def test_large_outputs(op, layout, size):
    x = torch.randn(1, 8, size, size).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    y, expected = (OPS[op](x, impl) for impl in ("cpp", "reference"))
    assert y.nbytes >= 2**25
    assert_close(y, expected)
    assert y.stride() == torch.empty_like(x).stride() and y.is_contiguous(memory_format=LAYOUTS[layout])
    dy = torch.randn_like(y)
    (dx,), (wanted,) = (torch.autograd.grad(out, x, dy) for out in (y, expected))
    assert_close(dx, wanted, 1e-4)
    if sys.platform == "linux":
        assert y.data_ptr() % 2**21 == 0 and dx.data_ptr() % 2**21 == 0


@pytest.mark.parametrize("op", OPS)
def test_a_large_output_is_no_view(op):
    x, scale = torch.randn(1, 8, 1024, 1024), torch.tensor(2.0, requires_grad=True)
    with torch.no_grad():
        y = OPS[op](x, "cpp")
    assert not y._is_view()
    y.mul_(scale).sum().backward()  # of a view made without gradients it would be an error
    assert scale.grad.isfinite()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_outputs_under_compile(layout):
    x = torch.randn(1, 8, 1036, 1036).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()

    def f(x):
        y = bias_act(upfirdn2d(x * 2, F, padding=[2, 1, 2, 1]), act="lrelu")
        return y[:, 1:, 3:].flatten(2)[..., 1:] + 1

    torch._dynamo.reset()
    y, expected = torch.compile(f, fullgraph=True)(x), f(x)
    assert_close(y, expected)
    for g, e in zip(torch.autograd.grad(y.sin().sum(), x), torch.autograd.grad(expected.sin().sum(), x), strict=True):
        assert_close(g, e)
