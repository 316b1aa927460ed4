"""What follows the convolution in modulated_conv2d's shared form, in one pass: with t = scale x + noise + bias,

    y = clip(gain lrelu(t), -clamp, clamp)

Bytes per element of float32: forward 8 (read x, write y), where product and sum, then bias_act take 16; backward 16 (read dy, y
and x, write dx) for 40. Scale, noise and bias are few beside x. On a CPU forward and backward take 0.5 to 0.6 of the time
of those two (`pytest bench/bench_modulated_activation.py`).
"""

import torch

from fastgan.ops import _library
from fastgan.ops._transforms import in_layout_of
from fastgan.ops.bias_act import ACTIVATIONS, _gradient
from fastgan.ops.bias_act import _reference as _bias_act


def serves(b: torch.Tensor | None, act: str, gain: float | None, clamp: float | None) -> bool:
    """Whether `apply` computes such a bias_act: y then has the sign of t."""
    return b is not None and act == "lrelu" and (gain is None or gain > 0) and (clamp is None or clamp >= 0)


def apply(x, scale, noise, b, act, gain, clamp, impl: str = "auto") -> torch.Tensor:
    """bias_act(scale x + noise, b, act=act, gain=gain, clamp=clamp); see the op below."""
    op = _library.select("modulated_activation", impl, x)
    return op(
        x, scale, noise, b, 0.2, ACTIVATIONS[act].gain if gain is None else gain, -1.0 if clamp is None else clamp
    )


def _per_plane(scale: torch.Tensor) -> torch.Tensor:
    return scale[:, :, None, None]


def _reference(x, scale, noise, bias, alpha, gain, clamp):
    t = x * _per_plane(scale)
    if noise is not None:
        t = t + noise
    return _bias_act(t, bias, 1, "lrelu", alpha, gain, clamp).to(x.dtype)


def _backward_reference(dy, y, x, scale, bias, alpha, gain, clamp):
    dt = _gradient(dy, y, None, 1, "lrelu", alpha, gain, clamp, 1)
    dx = in_layout_of((dt * _per_plane(scale)).to(x.dtype), x)
    return dx, (dt * x).sum((2, 3)), dt.sum(1).to(x.dtype)[:, None], dt.sum((0, 2, 3)).to(x.dtype)


def _setup(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    x, scale, noise, bias, *ctx.numbers = inputs
    ctx.save_for_backward(output, x, scale, noise, bias)


def _backward(ops, ctx, dy):
    if dy is None:
        return (None,) * 7
    y, x, scale, noise, bias = ctx.saved_tensors
    dx, dscale, dnoise, dbias = ops.modulated_activation_backward(dy, y, x, scale, bias, *ctx.numbers)
    return dx, dscale, None if noise is None else dnoise.sum_to_size(noise.shape), dbias, None, None, None


def _setup_backward(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    *tensors, ctx.numbers = *inputs[:5], inputs[5:]
    ctx.save_for_backward(*tensors)


def _double_backward(ops, ctx, v_x, v_scale, v_noise, v_bias):
    """With m = dy/dt, which is constant between kinks, the scalar S = <v, gradients> is

        S = sum m dy u,    u = v_x scale + v_scale x + v_noise + v_bias

    Its gradient by dy is m u, and m times something is bias_act's backward; those by x and scale, m dy v_scale and sum m dy v_x,
    are this op of v_x and v_scale. So any order follows.
    """
    dy, y, x, scale, bias = ctx.saved_tensors
    terms = [] if v_x is None else [v_x * _per_plane(scale)]
    if v_scale is not None:
        v = _per_plane(v_scale)
        terms = [torch.addcmul(*terms, x, v) if terms else x * v]
    terms += [] if v_noise is None else [v_noise]
    terms += [] if v_bias is None else [v_bias[:, None, None]]
    if not terms:
        return (None,) * 8
    u = sum(terms[1:], terms[0]).to(y.dtype).expand_as(y)
    grad_dy = ops.bias_act_backward(u, y, None, 1, "lrelu", *ctx.numbers, False)[0]
    grad_x = grad_scale = None
    if v_x is not None or v_scale is not None:
        factors = torch.zeros_like(scale) if v_scale is None else v_scale
        pair = ops.modulated_activation_backward(dy, y, x if v_x is None else v_x, factors, bias, *ctx.numbers)
        grad_x, grad_scale = None if v_scale is None else pair[0], None if v_x is None else pair[1]
    # Of the bias it is 0, not None, as bias_act has it.
    return grad_dy, None, grad_x, grad_scale, torch.zeros_like(bias), None, None, None


# x [N, C, H, W]; scale [N, C] in float32 (float64 for float64); noise that broadcasts to [N, 1, H, W] and bias [C] of the dtype
# of x; alpha >= 0 and gain > 0, so that y has the sign of t; no clamp is negative. y has the layout of x.
_library.define(
    "modulated_activation(Tensor x, Tensor scale, Tensor? noise, Tensor bias, float alpha, float gain, float clamp) -> Tensor",
    reference=_reference,
    fake=lambda x, *_: torch.empty_like(x),
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp", "triton"),
)

# (dx, dscale [N, C], dnoise [N, 1, H, W], dbias [C]), each of the dtype of what it is the gradient of.
_library.define(
    "modulated_activation_backward(Tensor dy, Tensor y, Tensor x, Tensor scale, Tensor bias, float alpha, float gain,"
    " float clamp) -> (Tensor, Tensor, Tensor, Tensor)",
    reference=_backward_reference,
    fake=lambda dy, y, x, scale, bias, *_: (
        torch.empty_like(x),
        scale.new_empty(scale.shape),
        x.new_empty(x.shape[0], 1, *x.shape[2:]),
        bias.new_empty(bias.shape),
    ),
    setup_context=_setup_backward,
    backward=_double_backward,
    kernels=("cpp", "triton"),
)
