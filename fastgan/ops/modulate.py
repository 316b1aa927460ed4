"""What precedes the convolution in modulated_conv2d's shared form: y = x scale, one scale per sample and channel.

A product that PyTorch computes at the floor; its two gradients take PyTorch three passes, 24 bytes per element of float32, and
one Triton kernel 12. A CPU has no kernel: there those passes are few beside the convolution's.
"""

import torch

from fastgan._torch_private import eager
from fastgan.ops import _library
from fastgan.ops._checks import accumulation_dtype
from fastgan.ops._transforms import in_layout_of


def apply(x: torch.Tensor, scale: torch.Tensor, impl: str = "auto") -> torch.Tensor:
    """x * scale[:, :, None, None]; a compiler, which can fuse PyTorch's product with its neighbours, sees that."""
    if impl == "reference" or (impl == "auto" and not (x.is_cuda and torch.is_grad_enabled() and eager())):
        return _reference(x, scale)
    return _library.select("modulate", impl, x)(x, scale)


def _reference(x, scale):
    return x * scale[:, :, None, None]


def _backward_reference(dy, x, scale):
    wide = accumulation_dtype(x.dtype)
    return in_layout_of(_reference(dy, scale), x), (dy.to(wide) * x.to(wide)).sum((2, 3)).to(scale.dtype)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ops, ctx, dy):
    x, scale = ctx.saved_tensors
    if all(ctx.needs_input_grad):
        return ops.modulate_backward(dy, x, scale)
    return _reference(dy, scale) if ctx.needs_input_grad[0] else None, (
        (dy * x).sum((2, 3)) if ctx.needs_input_grad[1] else None
    )


def _setup_backward(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _double_backward(ops, ctx, v_x, v_scale):
    """The scalar <v_x, dy scale> + <v_scale, sum of dy x> has the gradient v_x scale + v_scale x by dy; those by x and scale,
    dy v_scale and the sum of dy v_x, are this op of v_x and v_scale. So any order follows."""
    dy, x, scale = ctx.saved_tensors
    if v_x is None and v_scale is None:
        return None, None, None
    if v_x is None:
        return _reference(x, v_scale), _reference(dy, v_scale), None
    if v_scale is None:
        return _reference(v_x, scale), None, (dy * v_x).sum((2, 3))
    return torch.addcmul(_reference(v_x, scale), x, v_scale[:, :, None, None]), *ops.modulate_backward(dy, v_x, v_scale)


# x [N, C, H, W], scale [N, C] of its dtype.
_library.define(
    "modulate(Tensor x, Tensor scale) -> Tensor",
    reference=_reference,
    fake=lambda x, scale: torch.empty_like(x),
    setup_context=_setup,
    backward=_backward,
    kernels=("triton",),
)

# (dx, dscale [N, C])
_library.define(
    "modulate_backward(Tensor dy, Tensor x, Tensor scale) -> (Tensor, Tensor)",
    reference=_backward_reference,
    fake=lambda dy, x, scale: (torch.empty_like(x), torch.empty_like(scale)),
    setup_context=_setup_backward,
    backward=_double_backward,
    kernels=("triton",),
)
