"""Transposed convolutions of stride 2 to few channels on the CPU: a generator's last layer, the gradient by images of a
discriminator's first.

`fastgan.ops.conv2d` and `conv_transpose2d` choose it where it is faster (fastgan/ops/conv_forms.py).
"""

from __future__ import annotations

import torch

from fastgan.ops import _library

aten = torch.ops.aten


def _form(x, weight, padding, size) -> tuple:
    least = [(n - 1) * 2 - 2 * pad + k for n, pad, k in zip(x.shape[2:], padding, weight.shape[2:], strict=True)]
    return [2, 2], padding, [1, 1], True, [n - m for n, m in zip(size, least, strict=True)], 1


def _reference(x, weight, padding, size):
    return aten.convolution(x, weight, None, *_form(x, weight, padding, size)).contiguous()


def _setup(ctx, inputs, output):
    x, weight, ctx.padding, ctx.size = inputs
    ctx.save_for_backward(x, weight)


def _backward(ops, ctx, dy):
    x, weight = ctx.saved_tensors
    form = _form(x, weight, ctx.padding, ctx.size)
    return *aten.convolution_backward(dy, x, weight, None, *form, [*ctx.needs_input_grad[:2], False])[:2], None, None


# x [N, O, h, w], weight [O, C, kh, kw] -> [N, C, *size], contiguous. C <= 4; kw 2 or 4.
_library.define(
    "conv_to_image(Tensor x, Tensor weight, int[] padding, int[] size) -> Tensor",
    reference=_reference,
    fake=lambda x, weight, padding, size: x.new_empty(x.shape[0], weight.shape[1], *size),
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp",),
)
