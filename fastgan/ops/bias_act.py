"""Bias, activation, gain and clamp in one pass: y = clip(gain act(x + b), -clamp, clamp).

One read and one write per element (8 bytes in float32): the floor is bytes / bandwidth, for 8x256x64x64 float32
67 MB: 22 us at 3 TB/s, 3.1 ms at 21 GiB/s.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastgan.ops import _library
from fastgan.ops._autocast import autocast_like
from fastgan.ops._checks import accumulation_dtype, check_floating, check_like, check_number
from fastgan.ops._transforms import in_layout_of

SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


class Activation(NamedTuple):
    """One row of the table, which says what every kernel's gradient is computed from (csrc/activation.h: kSavesInput)."""

    function: Callable  # (t, alpha) -> act(t)
    gain: float
    saves_input: bool  # whether the output does not determine the slope: the gradient then needs t itself
    derivative: Callable  # (s, alpha) -> act'(t); s = t where the input is saved, else s = act(t); NaN as torch has it
    curvature: Callable | None  # d derivative / ds in torch operations, of any order by autograd; None: zero everywhere


def _elu(t: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """torch's own has one gradient of NaN in its vectors and another in what is left after them."""
    return torch.where(t > 0, t, alpha * torch.expm1(torch.where(t > 0, 0.0, t)))


def _swish_curvature(t: torch.Tensor) -> torch.Tensor:
    s = torch.sigmoid(t)
    return s * (1 - s) * (2 + t * (1 - 2 * s))


# fmt: off
ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda t, a: t, 1.0, False, lambda u, a: torch.ones_like(u), None),
    "relu": Activation(lambda t, a: F.relu(t), math.sqrt(2), False, lambda u, a: (~(u <= 0)).to(u.dtype), None),
    "lrelu": Activation(lambda t, a: F.leaky_relu(t, a), math.sqrt(2), False,
                        lambda u, a: torch.where(u > 0, torch.ones_like(u), a), None),
    "tanh": Activation(lambda t, a: torch.tanh(t), 1.0, False, lambda u, a: 1 - u * u, lambda u: -2 * u),
    "sigmoid": Activation(lambda t, a: torch.sigmoid(t), 1.0, False, lambda u, a: u * (1 - u), lambda u: 1 - 2 * u),
    "elu": Activation(lambda t, a: _elu(t), 1.0, False,
                      lambda u, a: torch.where(u > 0, 1.0, u + 1), lambda u: (u <= 0).to(u.dtype)),
    "selu": Activation(lambda t, a: SELU_SCALE * _elu(t, SELU_ALPHA), 1.0, False,
                       lambda u, a: torch.where(u > 0, SELU_SCALE, u + SELU_SCALE * SELU_ALPHA),
                       lambda u: (u <= 0).to(u.dtype)),
    "softplus": Activation(lambda t, a: F.softplus(t), 1.0, False,
                           lambda u, a: torch.where(u > 20, torch.ones_like(u), -torch.expm1(-u)),
                           lambda u: torch.where(u > 20, 0.0, torch.exp(-u))),
    "swish": Activation(lambda t, a: F.silu(t), math.sqrt(2), True,
                        lambda t, a: torch.sigmoid(t) * (1 + t * (1 - torch.sigmoid(t))), _swish_curvature),
}
# fmt: on


def times_slope(v: torch.Tensor, s: torch.Tensor, act: str, alpha: float) -> torch.Tensor:
    """v act'(t), s as in the table; 0 where relu is off, whatever v is: not NaN where it is infinite."""
    product = v * ACTIVATIONS[act].derivative(s, alpha)
    return product.masked_fill(s <= 0, 0.0) if act == "relu" else product


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    *,
    impl: str = "auto",
) -> torch.Tensor:
    """Adds a bias along `dim`, applies an activation, multiplies by `gain` and clips to +-`clamp`.

    Args:
        x: any shape of rank >= 1; float16, bfloat16, float32 or float64 (16-bit types are computed in float32).
        b: vector of x.shape[dim] elements of the dtype of x, or None.
        dim: dimension of x that b runs along, 0 <= dim < x.ndim; ignored without b.
        act: "linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus" or "swish".
        alpha: negative slope of lrelu (default 0.2); every other activation ignores it.
        gain: default 1, and sqrt(2) for relu, lrelu and swish.
        clamp: limit >= 0, or None.
        impl: "auto", "reference", "cpp" (CPU) or "triton" (CUDA).

    Returns: a tensor of the shape, dtype and memory format of x. Differentiable to any order in x and b. At a kink the
    gradient is that of the negative side; where |y| has reached the clamp it is 0. A zero of tanh, relu, elu or selu
    has no particular sign.

    Raises: TypeError, ValueError for wrong arguments; RuntimeError for an implementation that is not available here.

    Source: the bias and activation of Karras et al. 2019 ("Analyzing and Improving the Image Quality of StyleGAN").

    Examples:
        >>> x = torch.randn(2, 8, 16, 16)
        >>> bias_act(x, torch.zeros(8), act="lrelu", clamp=256).shape
        torch.Size([2, 8, 16, 16])
    """
    check_floating("bias_act", "x", x)
    if x.dim() < 1:
        raise ValueError("bias_act: x has no dimensions; expected rank >= 1")
    if act not in ACTIVATIONS:
        raise ValueError(f"bias_act: act={act!r}; expected one of {list(ACTIVATIONS)}")
    if b is None:
        dim = 0
    else:
        check_floating("bias_act", "b", b)
        if not isinstance(dim, int):
            raise TypeError(f"bias_act: dim={dim!r}; expected an int")
        if not 0 <= dim < x.dim():
            raise ValueError(f"bias_act: dim={dim}; expected 0 <= dim < {x.dim()}, the rank of x")
        if b.dim() != 1 or b.shape[0] != x.shape[dim]:
            raise ValueError(
                f"bias_act: b has shape {tuple(b.shape)}; expected ({x.shape[dim]},), the size of dim {dim}"
            )
        b = autocast_like(b, x)
        check_like("bias_act", "b", b, x)
    alpha = check_number("bias_act", "alpha", alpha, 0.2) if act == "lrelu" else 0.0
    gain = check_number("bias_act", "gain", gain, ACTIVATIONS[act].gain)
    limit = check_number("bias_act", "clamp", clamp, -1.0)
    if clamp is not None and not limit >= 0:
        raise ValueError(f"bias_act: clamp={clamp}; expected None or a number >= 0")
    # Gradients are computed from the output, which must determine the sign of its input: not so for these.
    op = _library.select("bias_act", impl, x)
    if alpha < 0:
        op = _library.select("bias_act", "reference", x)
    if gain <= 0:
        y = op(x, b, dim, act, alpha, 1.0, -1.0) * gain
        # torch refuses a number that the type does not have.
        limit = limit if limit <= torch.finfo(y.dtype).max else math.inf
        return y if limit < 0 else F.hardtanh(y, -limit, limit)
    return op(x, b, dim, act, alpha, gain, limit)


def _along(b: torch.Tensor, x: torch.Tensor, dim: int) -> torch.Tensor:
    return b.reshape([-1 if i == dim else 1 for i in range(x.dim())])


def _sum_except(t: torch.Tensor, dim: int) -> torch.Tensor:
    """The sum over every dimension but `dim`, in the accumulation dtype."""
    return t.to(accumulation_dtype(t.dtype)).movedim(dim, 0).flatten(1).sum(1) if t.dim() > 1 else t.clone()


def _limit(clamp: float, y: torch.Tensor) -> torch.Tensor:
    """clamp as it is in the dtype of a stored output."""
    return torch.full((), clamp, dtype=y.dtype, device=y.device)


def _reference(
    x: torch.Tensor, b: torch.Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float
) -> torch.Tensor:
    t = x.to(accumulation_dtype(x.dtype))
    if b is not None:
        t = t + _along(b.to(t.dtype), t, dim)
    y = ACTIVATIONS[act].function(t, alpha)
    if gain != 1:
        y = y * gain
    y = y.to(x.dtype)
    if clamp >= 0:
        limit = _limit(clamp, y)
        y = torch.where(y.abs() >= limit, y.detach().clamp(-limit, limit), y)  # the gradient at the limit itself is 0
    return y.clone(memory_format=torch.preserve_format) if y is x else y


def _gradient(v, saved, b, dim, act, alpha, gain, clamp, order):
    """v dy/dx from the saved tensor (order 1), or v times its derivative with respect to the saved tensor (order 2), in the
    accumulation dtype. v counts as 0 where the clamp is reached."""
    row = ACTIVATIONS[act]
    v = v.to(accumulation_dtype(v.dtype))
    if saved is None:
        return v * gain
    s = saved.to(v.dtype)
    if row.saves_input:
        s = s if b is None else s + _along(b.to(s.dtype), s, dim)
        y = (gain * row.function(s, alpha)).to(saved.dtype)  # as it was stored
    else:
        y, s = s, s / gain
    v = v * gain if order == 1 or row.saves_input else v
    if clamp >= 0:
        v = v.masked_fill(y.abs() >= _limit(clamp, saved), 0.0)
    return times_slope(v, s, act, alpha) if order == 1 else v * row.curvature(s)


def _backward_reference(dy, saved, b, dim, act, alpha, gain, clamp, bias_grad):
    dx = in_layout_of(
        _gradient(dy, saved, b, dim, act, alpha, gain, clamp, 1).to(dy.dtype), dy if saved is None else saved
    )
    return dx, _sum_except(dx, dim).to(dx.dtype) if bias_grad else dy.new_zeros(0)


def _setup(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    x, b, ctx.dim, ctx.act, ctx.alpha, ctx.gain, ctx.clamp = inputs
    if ctx.act == "linear" and ctx.clamp < 0:
        ctx.save_for_backward(None, b)
    else:
        ctx.save_for_backward(x if ACTIVATIONS[ctx.act].saves_input else output, b)


def _backward(ops, ctx, dy):
    if dy is None:
        return (None,) * 7
    saved, b = ctx.saved_tensors
    bias_grad = ctx.needs_input_grad[1]
    arguments = (ctx.dim, ctx.act, ctx.alpha, ctx.gain, ctx.clamp, bias_grad)
    dx, db = ops.bias_act_backward(dy, saved, b, *arguments)
    return dx, db if bias_grad else None, None, None, None, None, None


def _setup_backward(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    dy, saved, b, ctx.dim, ctx.act, ctx.alpha, ctx.gain, ctx.clamp, ctx.bias_grad = inputs
    ctx.save_for_backward(dy, saved, b)


def _double_backward(ops, ctx, ddx, ddb):
    """With v = ddx + ddb along dim, the scalar sum(v dx) has the gradients v dy/dx (by dy: this op again, so any order
    follows) and v dy curvature (by the saved tensor), the latter in torch operations that autograd carries further."""
    dy, saved, b = ctx.saved_tensors
    if ddb is None or not ctx.bias_grad:
        v = ddx
    else:
        v = _along(ddb, dy, ctx.dim).expand_as(dy) if ddx is None else ddx + _along(ddb, dy, ctx.dim)
    if v is None:
        return (None,) * 9
    arguments = (ctx.dim, ctx.act, ctx.alpha, ctx.gain, ctx.clamp)
    grad_dy = ops.bias_act_backward(v, saved, b, *arguments, False)[0] if ctx.needs_input_grad[0] else None
    grad_saved = grad_b = None
    if ACTIVATIONS[ctx.act].curvature is not None and (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
        dtype = accumulation_dtype(dy.dtype)
        grad_saved = _gradient(v.to(dtype) * dy.to(dtype), saved, b, *arguments, 2)
        if ctx.needs_input_grad[2] and ACTIVATIONS[ctx.act].saves_input:
            grad_b = _sum_except(grad_saved, ctx.dim).to(dy.dtype)
        grad_saved = grad_saved.to(dy.dtype)
    elif ctx.needs_input_grad[2] and ctx.act != "linear":
        # 0 where there is a kink and no curvature, as torch has it, not None: in a step of a penalty alone optimisers then move
        # the bias by its momentum.
        grad_b = torch.zeros_like(b)
    return grad_dy, grad_saved, grad_b, None, None, None, None, None, None


# The forward; its kernels never see autograd.
_library.define(
    "bias_act(Tensor x, Tensor? b, int dim, str act, float alpha, float gain, float clamp) -> Tensor",
    reference=_reference,
    fake=lambda x, *_: torch.empty_like(x),
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp", "triton"),
)

# The backward is an op of its own with its own formula: without one, second derivatives silently lose a term.
_library.define(
    "bias_act_backward(Tensor dy, Tensor? saved, Tensor? b, int dim, str act, float alpha, float gain, float clamp,"
    " bool bias_grad) -> (Tensor, Tensor)",
    reference=_backward_reference,
    fake=lambda dy, saved, b, dim, *rest: (
        torch.empty_like(dy if saved is None else saved),
        dy.new_empty(dy.shape[dim] if rest[-1] else 0),
    ),
    setup_context=_setup_backward,
    backward=_double_backward,
    kernels=("cpp", "triton"),
)
