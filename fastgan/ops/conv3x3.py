"""3x3 convolutions of stride 1 on the CPU by Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray, 2016).

`fastgan.ops.conv2d` and `conv_transpose2d` choose it where it is faster (fastgan/ops/conv_forms.py).
"""

from __future__ import annotations

import torch

from fastgan.ops import _library

aten = torch.ops.aten


def _form(padding: int, transposed: bool) -> tuple:
    return [1, 1], [padding, padding], [1, 1], transposed, [0, 0], 1


def _reference(x, weight, bias, padding, transposed):
    y = aten.convolution(x, weight, bias, *_form(padding, transposed))
    return y.contiguous(memory_format=_layout(x))  # cuDNN makes planes of float64


def _layout(x):
    return torch.channels_last if x.stride(1) == 1 and x.shape[1] > 1 else torch.contiguous_format


def _weight_reference(dy, x, padding):
    weight = x.new_empty(dy.shape[1], x.shape[1], 3, 3)
    return aten.convolution_backward(dy, x, weight, None, *_form(padding, False), [False, True, False])[1]


def _fake(x, weight, bias, padding, transposed):
    border = 2 - padding if transposed else padding
    y = x.new_empty(x.shape[0], weight.shape[1 if transposed else 0], *(s + 2 * border - 2 for s in x.shape[2:]))
    return y.contiguous(memory_format=_layout(x))


def _setup(ctx, inputs, output):
    x, weight, _, ctx.padding, ctx.transposed = inputs
    ctx.save_for_backward(x, weight)


def _backward(ops, ctx, dy):
    x, weight = ctx.saved_tensors
    dx = dweight = dbias = None
    if ctx.needs_input_grad[0]:
        dx = ops.conv3x3(dy, weight, None, ctx.padding, not ctx.transposed)
    if ctx.needs_input_grad[1]:
        dweight = ops.conv3x3_weight(*((x, dy) if ctx.transposed else (dy, x)), ctx.padding)
    if ctx.needs_input_grad[2]:
        dbias = dy.sum((0, 2, 3))
    return dx, dweight, dbias, None, None


def _setup_weight(ctx, inputs, output):
    dy, x, ctx.padding = inputs
    ctx.save_for_backward(dy, x)


def _backward_weight(ops, ctx, v):
    dy, x = ctx.saved_tensors
    by_dy = ops.conv3x3(x, v, None, ctx.padding, False) if ctx.needs_input_grad[0] else None
    by_x = ops.conv3x3(dy, v, None, ctx.padding, True) if ctx.needs_input_grad[1] else None
    return by_dy, by_x, None


# The convolution, and the transposed one of the same weight and padding: each is the other's gradient by x.
_library.define(
    "conv3x3(Tensor x, Tensor weight, Tensor? bias, int padding, bool transposed) -> Tensor",
    reference=_reference,
    fake=_fake,
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp",),
)

# Its gradient by the weight: bilinear in dy and x, and so closed with the first under differentiation.
_library.define(
    "conv3x3_weight(Tensor dy, Tensor x, int padding) -> Tensor",
    reference=_weight_reference,
    fake=lambda dy, x, padding: x.new_empty(dy.shape[1], x.shape[1], 3, 3),
    setup_context=_setup_weight,
    backward=_backward_weight,
    kernels=("cpp",),
)


def _to_pixels(x):
    return x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


# A copy of float32 [N, C, H, W] with the channels of a pixel side by side: torch's takes several times as long. No
# gradient: it is for networks that are served (fastgan/patch/frozen).
_library.define("to_pixels(Tensor x) -> Tensor", reference=_to_pixels, fake=_to_pixels, kernels=("cpp",))
