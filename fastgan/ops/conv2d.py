"""2-D convolution and transposed convolution whose weight gradients can be switched off, with gradients of any order.

A convolution is bilinear, so three maps, each the gradient of the others, are closed under differentiation:

    y  = C(x, w)       dx = B(dy, w)       dw = W(dy, x)
    C: by x B, by w W;    B: by dy C(., w), by w W(dy, .);    W: by dy C(x, .), by x B(dy, .)

All three are public ATen operators (`convolution`, and `convolution_backward` with one output asked for), one call for all
groups. torch's own second derivative calls a convolution per group, and convolves whole images as if they were kernels: a
gradient penalty's two passes run 2.6 times as fast here for 64 groups, 1.2 times for 8, 1.3 times for 1x1 kernels, and else
0.95 to 1.03 times for 1 and 4 groups, in float32 on a CPU (bench/bench_conv2d.py).

On the CPU some are computed in a faster form: fastgan/ops/conv_forms.py.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch

from fastgan._torch_private import backward_wants, tracing, transforming
from fastgan.ops._autocast import autocast, autocast_like, outside_autocast
from fastgan.ops._checks import check_floating, check_like, check_rank
from fastgan.ops.conv_forms import Form, convolution, convolution_backward

aten = torch.ops.aten


# Read when a backward pass runs, which may be on another thread: a plain global of the process.
_weight_gradients = True


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """While active, backward passes through `conv2d` and `conv_transpose2d` compute no weight gradient.

    Put it around the backward pass that does not use them (`torch.autograd.grad` or `loss.backward`), not around the
    forward: a gradient penalty's first pass. A second derivative taken after the block has its full gradient by the weights.
    A weight that is computed from what is differentiated by (not a parameter) loses that gradient too. Code inside
    `torch.compile` is not affected: there, unused gradients are dropped by the compiler.
    """
    global _weight_gradients
    before = _weight_gradients
    _weight_gradients = before and not disable
    try:
        yield
    finally:
        _weight_gradients = before


def _asked(ctx, i: int) -> bool:
    """Whether the backward pass that is running uses the gradient by operand i: `needs_input_grad` says only that the operand
    has one. A penalty's first pass (by the images) then makes no weight gradient, its last (by the weights) none of images."""
    return ctx.needs_input_grad[i] and backward_wants(ctx.next_functions[i][0])


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, bias, form):
        ctx.set_materialize_grads(False)  # a gradient that is zero by structure costs no convolution
        ctx.form = form
        ctx.save_for_backward(x, w)
        return convolution(x, w, bias, form)

    @staticmethod
    @outside_autocast
    def backward(ctx, dy):
        if dy is None:
            return None, None, None, None
        x, w = ctx.saved_tensors
        dx = dw = db = None
        by_x, by_w = _asked(ctx, 0), _weight_gradients and _asked(ctx, 1)
        if transforming():  # a graph recorded before it, differentiated inside: vmap over autograd.grad
            dx, dw, _ = aten.convolution_backward(dy, x, w, None, *ctx.form, [by_x, by_w, False])
        elif not torch.is_grad_enabled():  # nothing is recorded: one call brings dy into the kernels' layout once
            dx, dw = convolution_backward(dy, x, w, ctx.form, by_x, by_w)
        else:
            dx = _InputGradient.apply(dy, w, x, ctx.form) if by_x else None
            dw = _WeightGradient.apply(dy, x, w, ctx.form) if by_w else None
        if _asked(ctx, 2):
            db = dy.sum((0, 2, 3))
        return dx, dw, db, None


class _InputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, w, x, form):  # x for its shape and layout alone
        ctx.set_materialize_grads(False)
        ctx.form = form
        ctx.save_for_backward(dy, w)
        return convolution_backward(dy, x, w, form, True, False)[0]

    @staticmethod
    @outside_autocast
    def backward(ctx, v):
        if v is None:
            return None, None, None, None
        dy, w = ctx.saved_tensors
        by_dy = by_w = None
        if _asked(ctx, 0):
            by_dy = _Convolution.apply(v, w, None, ctx.form)
        if _weight_gradients and _asked(ctx, 1):
            by_w = _WeightGradient.apply(dy, v, w, ctx.form)
        return by_dy, by_w, None, None


class _WeightGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, x, w, form):  # w for its shape and layout alone
        ctx.set_materialize_grads(False)
        ctx.form = form
        ctx.save_for_backward(dy, x)
        return convolution_backward(dy, x, w, form, False, True)[1]

    @staticmethod
    @outside_autocast
    def backward(ctx, v):
        if v is None:
            return None, None, None, None
        dy, x = ctx.saved_tensors
        by_dy = _Convolution.apply(x, v, None, ctx.form) if _asked(ctx, 0) else None
        by_x = _InputGradient.apply(dy, v, x, ctx.form) if _asked(ctx, 1) else None
        return by_dy, by_x, None, None


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """`torch.nn.functional.conv2d`, honouring `no_weight_gradients`.

    Args:
        input: [N, C, H, W]; float16, bfloat16, float32 or float64.
        weight: [O, C / groups, kh, kw] of the dtype of input (under autocast, any).
        bias: [O] or None.
        stride, padding, dilation: one number or [y, x], in the order of the weight's sizes.

    Returns: [N, O, H', W'], H' = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1. Differentiable to any order.
    Raises: TypeError, ValueError for wrong arguments.

    Examples:
        >>> conv2d(torch.randn(2, 3, 16, 16), torch.randn(8, 3, 3, 3), padding=1).shape
        torch.Size([2, 8, 16, 16])
    """
    form = _form("conv2d", stride, padding, dilation, False, 0, groups)
    input, weight, bias = _operands("conv2d", input, weight, bias)
    channels = weight.shape[1] * groups
    _check_channels("conv2d", input, weight, bias, channels, weight.shape[0], groups)
    for axis, name in enumerate(("height", "width")):
        least = form.dilation[axis] * (weight.shape[2 + axis] - 1) + 1
        if input.shape[2 + axis] + 2 * form.padding[axis] < least:
            raise ValueError(
                f"conv2d: {name} of input is {input.shape[2 + axis]} with padding={padding}; expected at least {least}, the"
                " reach of weight"
            )
    return apply(input, weight, bias, form)


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> torch.Tensor:
    """`torch.nn.functional.conv_transpose2d`, honouring `no_weight_gradients`.

    Args:
        input: [N, C, H, W]; float16, bfloat16, float32 or float64.
        weight: [C, O / groups, kh, kw] of the dtype of input (under autocast, any).
        bias: [O] or None.
        stride, padding, output_padding, dilation: one number or [y, x], in the order of the weight's sizes.

    Returns: [N, O, H', W'], H' = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1. Differentiable to any
    order.
    Raises: TypeError, ValueError for wrong arguments.
    """
    form = _form("conv_transpose2d", stride, padding, dilation, True, output_padding, groups)
    if any(more >= max(s, d) for more, s, d in zip(form.output_padding, form.stride, form.dilation, strict=True)):
        raise ValueError(
            f"conv_transpose2d: output_padding={output_padding!r}; expected less than stride={stride!r} or"
            f" dilation={dilation!r}"
        )
    input, weight, bias = _operands("conv_transpose2d", input, weight, bias)
    _check_channels("conv_transpose2d", input, weight, bias, weight.shape[0], weight.shape[1] * groups, groups)
    return apply(input, weight, bias, form)


def _pair(op: str, name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    values = (value, value) if isinstance(value, int) else value
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{op}: {name}={value!r}; expected an integer >= {least}, or two of them [y, x]")
    values = tuple(values)
    if len(values) != 2 or not all(isinstance(v, int) and v >= least for v in values):
        raise ValueError(f"{op}: {name}={value!r}; expected an integer >= {least}, or two of them [y, x]")
    return values


def _form(op, stride, padding, dilation, transposed, output_padding, groups) -> Form:
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"{op}: groups={groups!r}; expected an integer >= 1")
    return Form(
        _pair(op, "stride", stride, 1),
        _pair(op, "padding", padding, 0),
        _pair(op, "dilation", dilation, 1),
        transposed,
        _pair(op, "output_padding", output_padding, 0),
        groups,
    )


def _operands(op, x, weight, bias):
    check_floating(op, "input", x)
    check_floating(op, "weight", weight)
    check_rank(op, "input", x, 4)
    check_rank(op, "weight", weight, 4)
    if bias is not None:
        check_floating(op, "bias", bias)
    # The saved tensors must have the type the convolution ran in: cast before it, not inside.
    x = autocast(x)
    weight = autocast_like(weight, x)
    bias = None if bias is None else autocast_like(bias, x)
    check_like(op, "weight", weight, x)
    if bias is not None:
        check_like(op, "bias", bias, x)
    return x, weight, bias


def _check_channels(op, x, weight, bias, channels, outputs, groups):
    if x.shape[1] != channels or weight.shape[0] % groups:
        raise ValueError(
            f"{op}: weight has shape {tuple(weight.shape)} with groups={groups}; expected one for the {x.shape[1]} channels"
            f" of input, which has shape {tuple(x.shape)}"
        )
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"{op}: bias has shape {tuple(bias.shape)}; expected ({outputs},), the outputs of weight")


def apply(x, weight, bias, form):
    """A convolution of tensors that fit."""
    recorded = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    # The compiler and a transform differentiate and prune the plain operator by themselves, a tracer records it as one that a
    # program without Python runs; of nothing, torch's rules hold.
    if torch.compiler.is_compiling() or transforming() or tracing() or 0 in x.shape or 0 in weight.shape:
        return aten.convolution(x, weight, bias, *form)
    if not recorded:
        return convolution(x, weight, bias, form)
    return _Convolution.apply(x, weight, bias, form)
