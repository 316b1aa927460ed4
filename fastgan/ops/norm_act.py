"""Instance normalisation, affine map, activation and residual in one op: y = act(weight xhat + bias) + residual.

With n the number of pixels of a plane (one sample, one channel):

    mu = sum(x) / n,  rstd = (sum((x - mu)^2) / n + eps)^-1/2,  xhat = (x - mu) rstd,  t = weight xhat + bias

    g = dy act'(t),   dbias = sum g,   dweight = sum g xhat,   dx = weight rstd (g - mean g - xhat mean(g xhat))

Traffic per element in float32: x read once (a plane stays in cache between the sums and the map) and y written once, 8
bytes, 12 with a residual; backward x and dy read, dx written, 12 bytes. Floor for 1x64x256x256: 34 MB, 11 us at 3 TB/s,
1.5 ms at 21 GiB/s.
"""

import torch

from fastgan.ops import _library
from fastgan.ops._autocast import autocast_like
from fastgan.ops._checks import accumulation_dtype, check_floating, check_like, check_number, in_dtype
from fastgan.ops._transforms import in_layout_of
from fastgan.ops.bias_act import ACTIVATIONS, times_slope


def norm_act(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    act: str = "relu",
    alpha: float | None = None,
    eps: float = 1e-5,
    *,
    impl: str = "auto",
) -> torch.Tensor:
    """act(instance_norm(x) * weight + bias) + residual; the residual is added after the activation.

    Args:
        x: [N, C, ...] with at least one spatial dimension; float16, bfloat16, float32 or float64 (16-bit types are
            computed in float32). Mean and (biased) variance are those of each sample and channel.
        weight, bias: [C] of the dtype of x, or None (1 and 0).
        residual: the shape and dtype of x, or None. For CycleGAN's residual blocks: act="linear".
        act: an activation of `bias_act`, here with gain 1.
        alpha: negative slope >= 0 of lrelu (default 0.2); every other activation ignores it.
        eps: added to the variance, >= 0.
        impl: "auto", "reference", "cpp" (CPU) or "triton" (CUDA).

    Returns: a tensor of the shape, dtype and memory format of x. Differentiable to any order in all tensor arguments.
    Unlike `torch.nn.functional.instance_norm`, a single pixel is no error: its xhat is 0. Where a plane's sum of squared
    deviations is beyond the largest number of the type that computes (3e38 in float32: 1e20 once, 1e16 in 1024x1024 pixels),
    its variance may be infinite, and xhat 0.

    Raises: TypeError, ValueError for wrong arguments; RuntimeError for an implementation that is not available here.

    Source: Ulyanov et al. 2016 ("Instance Normalization"), equation 4.

    Examples:
        >>> norm_act(torch.randn(2, 8, 16, 16), act="relu").shape
        torch.Size([2, 8, 16, 16])
    """
    check_floating("norm_act", "x", x)
    if x.dim() < 3:
        raise ValueError(f"norm_act: x has shape {tuple(x.shape)}; expected [N, C, ...] with a spatial dimension")
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None:
            check_floating("norm_act", name, t)
            if t.shape != x.shape[1:2]:
                raise ValueError(
                    f"norm_act: {name} has shape {tuple(t.shape)}; expected ({x.shape[1]},), channels of x"
                )
    weight = None if weight is None else autocast_like(weight, x)
    bias = None if bias is None else autocast_like(bias, x)
    if residual is not None:
        check_floating("norm_act", "residual", residual)
        if residual.shape != x.shape:
            raise ValueError(f"norm_act: residual has shape {tuple(residual.shape)}; expected {tuple(x.shape)}")
        residual = autocast_like(residual, x)
    for name, t in (("weight", weight), ("bias", bias), ("residual", residual)):
        if t is not None:
            check_like("norm_act", name, t, x)
    if act not in ACTIVATIONS:
        raise ValueError(f"norm_act: act={act!r}; expected one of {list(ACTIVATIONS)}")
    alpha = check_number("norm_act", "alpha", alpha, 0.2) if act == "lrelu" else 0.0
    eps = check_number("norm_act", "eps", eps)
    if not alpha >= 0:
        raise ValueError(f"norm_act: alpha={alpha}; expected a slope >= 0")
    if not eps >= 0:
        raise ValueError(f"norm_act: eps={eps}; expected a number >= 0")
    arguments = (x, weight, bias, residual, act, alpha, eps)
    return _library.select("norm_act", impl, x)(*arguments)[0]


def _channels(v: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | float:
    """[C] or [N, C] against x: [N, C, 1, ...]; None stays the neutral factor."""
    return v.to(x.dtype).reshape(*(v.shape if v.dim() == 2 else (1, -1)), *[1] * (x.dim() - 2))


def _affine(xhat, weight, bias):
    t = xhat if weight is None else xhat * _channels(weight, xhat)
    return t if bias is None else t + _channels(bias, xhat)


def _reference(x, weight, bias, residual, act, alpha, eps):
    wide = x.to(accumulation_dtype(x.dtype))
    var, mean = torch.var_mean(wide, list(range(2, x.dim())), correction=0)
    rstd = (var + eps).rsqrt()
    y = ACTIVATIONS[act].function(_affine((wide - _channels(mean, wide)) * _channels(rstd, wide), weight, bias), alpha)
    if residual is not None:
        y = y + residual.to(y.dtype)
    return in_layout_of(y.to(x.dtype), x), mean, rstd


def _times_slope(v, t, act, alpha):
    """v act'(t), differentiable to any order."""
    row = ACTIVATIONS[act]
    return times_slope(v, t if row.saves_input else row.function(t, alpha), act, alpha)


def _curvature(t, act, alpha):
    """act''(t), differentiable to any order; None where it is zero everywhere."""
    row = ACTIVATIONS[act]
    if row.curvature is None:
        return None
    if row.saves_input:
        return row.curvature(t)
    u = row.function(t, alpha)
    return row.curvature(u) * row.derivative(u, alpha)


def _backward_reference(dy, x, weight, bias, mean, rstd, act, alpha, eps):
    wide = x.to(mean.dtype)
    pixels = list(range(2, x.dim()))
    xhat = (wide - _channels(mean, wide)) * _channels(rstd, wide)
    g = _times_slope(dy.to(mean.dtype), _affine(xhat, weight, bias), act, alpha)
    sum_g, sum_gx = g.sum(pixels), (g * xhat).sum(pixels)
    n = max(1, xhat[0, 0].numel() if xhat.numel() else 1)
    scale = rstd if weight is None else rstd * weight.to(rstd.dtype)
    sum_0 = sum_g if weight is None else sum_g + 0 * scale  # NaN under an infinite weight, as the differences of dx are
    dx = _channels(scale, wide) * (g - _channels(sum_0 / n, wide) - xhat * _channels(sum_gx / n, wide))
    return in_layout_of(dx.to(x.dtype), x), sum_g, sum_gx


def _setup(ctx, inputs, output):
    x, weight, bias, _, ctx.act, ctx.alpha, ctx.eps = inputs
    _, mean, rstd = output
    ctx.set_materialize_grads(False)  # two launches for zeros that nobody reads
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, weight, bias, mean, rstd)


def _backward(ops, ctx, dy, *_):
    x, weight, bias, mean, rstd = ctx.saved_tensors
    needs = ctx.needs_input_grad
    dx = dweight = dbias = None
    if dy is not None and any(needs[:3]):
        dx, sum_g, sum_gx = ops.norm_act_backward(dy, x, weight, bias, mean, rstd, ctx.act, ctx.alpha, ctx.eps)
        dweight = in_dtype(sum_gx.sum(0), x.dtype) if needs[1] else None
        dbias = in_dtype(sum_g.sum(0), x.dtype) if needs[2] else None
    return dx, dweight, dbias, dy if needs[3] else None, None, None, None


def _setup_backward(ctx, inputs, output):
    dy, x, weight, bias, _, _, ctx.act, ctx.alpha, ctx.eps = inputs
    ctx.save_for_backward(dy, x, weight, bias)


def _double_backward(ops, ctx, v, v_bias, v_weight):
    """The scalar S = <v, dx> + <v_bias, sum_g> + <v_weight, sum_gx> is <dy act'(t), q>, where q is the derivative of t in
    the direction (v, v_weight, v_bias): q = weight rstd P(v) + v_weight xhat + v_bias, P(a) = a - mean a - xhat mean(a xhat).
    Its gradients, in torch operations, which autograd carries to any further order:

        by dy:    act'(t) q
        by t:     h = dy act''(t) q, which then passes the normalisation as g does in the first order
        by xhat:  e = g v_weight - weight rstd (g mean(v xhat) + v mean(g xhat)), and by rstd: sum(g weight P(v))
        by x:     rstd P(h weight + e) - rstd^2 xhat mean(g weight P(v))
    """
    dy, x, weight, bias = ctx.saved_tensors
    dtype = accumulation_dtype(x.dtype)
    pixels = list(range(2, x.dim()))
    others = [0, *pixels]
    wide, v, dy_wide = x.to(dtype), v.to(dtype), dy.to(dtype)

    def mean(a):
        return a.mean(pixels, keepdim=True)

    def project(a):
        return a - mean(a) - xhat * mean(a * xhat)

    # Statistics anew from x: the saved ones are constants to autograd, and further orders pass through them.
    centred = wide - mean(wide)
    rstd = (mean(centred * centred) + ctx.eps).rsqrt()
    xhat = centred * rstd
    w = 1.0 if weight is None else _channels(weight, wide)
    v_weight, v_bias = _channels(v_weight, wide), _channels(v_bias, wide)
    t = _affine(xhat, weight, bias)
    g = _times_slope(dy_wide, t, ctx.act, ctx.alpha)
    pv = project(v)
    q = w * rstd * pv + v_weight * xhat + v_bias
    grad_x = grad_weight = grad_bias = None
    curvature = _curvature(t, ctx.act, ctx.alpha)
    h = None if curvature is None else dy_wide * curvature * q
    if ctx.needs_input_grad[1]:
        e = g * v_weight - w * rstd * (g * mean(v * xhat) + v * mean(g * xhat))
        if h is not None:
            e = e + h * w
        grad_x = (rstd * project(e) - rstd * rstd * xhat * mean(g * w * pv)).to(x.dtype)
    if ctx.needs_input_grad[2]:
        terms = g * rstd * pv if h is None else g * rstd * pv + h * xhat
        grad_weight = terms.sum(others).to(weight.dtype)
    if ctx.needs_input_grad[3] and h is not None:
        grad_bias = h.sum(others).to(bias.dtype)
    return (
        _times_slope(q, t, ctx.act, ctx.alpha).to(dy.dtype),
        grad_x,
        grad_weight,
        grad_bias,
        None,
        None,
        None,
        None,
        None,
    )


# The forward. y in the memory format of x; mean and rstd [N, C] in float32 (float64 for a float64 x): the backward's input.
_library.define(
    "norm_act(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, str act, float alpha, float eps)"
    " -> (Tensor, Tensor, Tensor)",
    reference=_reference,
    fake=lambda x, *_: (
        torch.empty_like(x),
        *(x.new_empty(x.shape[:2], dtype=accumulation_dtype(x.dtype)) for _ in range(2)),
    ),
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp", "triton"),
)

# The backward: (dx, sum g [N, C], sum g xhat [N, C]) with g = dy act'(t). Both sums are needed for dx in any case; the
# gradients of weight and bias are their sums over N. eps serves the second derivative alone. An op of its own with its
# own formula: without one, second derivatives silently lose a term.
_library.define(
    "norm_act_backward(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd, str act, float alpha,"
    " float eps) -> (Tensor, Tensor, Tensor)",
    reference=_backward_reference,
    fake=lambda dy, x, weight, bias, mean, *_: (torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean)),
    setup_context=_setup_backward,
    backward=_double_backward,
    kernels=("cpp", "triton"),
)
