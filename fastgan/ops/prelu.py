"""PReLU on the CPU, y = x > 0 ? x : slope x: what `fastgan.accelerate` puts in the place of nn.PReLU.

torch's gradient takes 18 times as long as a pass over the memory (64 channels of 128x128 pixels): its loop is not
vectorised, and it makes the gradient by the slopes for every element first. One pass makes both here. Bytes per element of
float32: 8 forward, 12 backward. Measured: bench/bench_prelu.py.
"""

from __future__ import annotations

import torch

from fastgan.ops import _library
from fastgan.ops._transforms import in_layout_of


def _along(slope: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return slope if len(slope) == 1 else slope.view(-1, *[1] * (x.dim() - 2))


def _sums(t: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Over all that has one slope."""
    return t.sum().view(1) if len(slope) == 1 else t.sum([i for i in range(t.dim()) if i != 1])


def _backward_reference(dy, x, slope):
    dx = in_layout_of(torch.where(x > 0, dy, dy * _along(slope, x)), x)
    return dx, _sums((x * dy).masked_fill(x > 0, 0), slope)


def _setup(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _backward(ops, ctx, dy):
    return (None, None) if dy is None else ops.prelu_backward(dy, *ctx.saved_tensors)


def _double_backward(_, ctx, ddx, dds):
    """Of sum(ddx dx) + sum(dds ds), dx = dy (x > 0 ? 1 : slope) and ds the sums of x dy where x is below 0: in torch's
    operations, which autograd carries further. As torch has it: 0 itself, in the first derivative below 0, is here above it; and
    what is zero is zeros, not None, which optimisers tell apart."""
    if ddx is None and dds is None:
        return None, None, None
    dy, x, slope = ctx.saved_tensors
    above, zero = x >= 0, x.new_zeros(())
    by_dy, by_x, by_slope = zero, zero.expand_as(x), torch.zeros_like(slope)
    if ddx is not None:
        by_dy = torch.where(above, ddx, ddx * _along(slope, x))
        by_slope = _sums((ddx * dy).masked_fill(above, 0), slope)
    if dds is not None:
        dds = _along(dds, x)
        by_dy = by_dy + (dds * x).masked_fill(above, 0)
        by_x = (dds * dy).masked_fill(above, 0)
    return by_dy, by_x, by_slope


# x [N, C, ...] of float32 or float64; slope [C], or [1] of x of any shape.
_library.define(
    "prelu(Tensor x, Tensor slope) -> Tensor",
    reference=torch.prelu,
    fake=lambda x, slope: torch.empty_like(x),
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp",),
)
_library.define(
    "prelu_backward(Tensor dy, Tensor x, Tensor slope) -> (Tensor, Tensor)",
    reference=_backward_reference,
    fake=lambda dy, x, slope: (torch.empty_like(x), torch.empty_like(slope)),
    setup_context=_setup,
    backward=_double_backward,
    kernels=("cpp",),
)
