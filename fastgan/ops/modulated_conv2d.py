"""Modulated convolution: every sample has its own scale of the input channels, and outputs of unit expected variance.

    W[n,o,i,k] = weight[o,i,k] styles[n,i] d[n,o] gain[n,i],    d[n,o] = (sum_ik (weight[o,i,k] styles[n,i])^2 + 1e-8)^-1/2

Two forms of one result. Per sample: the N weights W are written out; they convolve in one grouped convolution or, for 1x1
kernels of few outputs, in one batched matrix product. Shared: since W is an outer product around one shared weight,
y = d conv(x styles gain, weight): no weights per sample, two passes over activations; where a bias and lrelu follow, the
second is theirs too (modulated_activation.py). `_form` chooses, by measurement.

Of the shared form, a kernel takes q[o,i] = sum_k weight^2, all that d needs of the weight (d^-2 = styles^2 q^T): one read of
the weight, 0.24 ms for 512x512x3x3 in float32 where torch's square and sum take 0.80 ms.
"""

from collections.abc import Sequence

import torch

from fastgan._torch_private import transforming
from fastgan.ops import _library, modulate, modulated_activation
from fastgan.ops._autocast import outside_autocast
from fastgan.ops._checks import accumulation_dtype, check_floating, check_like, check_number, check_rank
from fastgan.ops.bias_act import bias_act
from fastgan.ops.conv2d_resample import check_filter, conv2d_resample
from fastgan.ops.conv_forms import WINOGRAD, Form, choose
from fastgan.ops.conv_forms import plain as plainly

EPSILON = 1e-8
MATRIX_OUTPUTS = 32  # at most, for the matrix product: with 512 it took twice as long as the convolution
# From so many elements of several samples on, the grouped convolution beats the batched product: 0.82 to 0.65 of its time at
# 2^21 to 2^25 elements; at 2^19 it takes twice as long.
LARGE_BATCH = 2**21
_SHARED_FORM = Form((1, 1), (1, 1), (1, 1), False, (0, 0), 1)


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    noise: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    resample_filter: torch.Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    prenormalize: bool = False,
    input_gain: torch.Tensor | float | None = None,
    *,
    bias: torch.Tensor | None = None,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> torch.Tensor:
    """Convolves each sample with `weight` scaled by its `styles` and, if `demodulate`, normalised per output channel.

    Args:
        x: [N, I, H, W]; float16, bfloat16, float32 or float64.
        weight: [O, I, kh, kw], floating; brought to the dtype of x once it is normalised.
        styles: [N, I], floating; likewise.
        noise: added to the result: [N, 1, H', W'], [1, 1, H', W'] or [H', W'], or None.
        up, down, padding, resample_filter, flip_weight: as in `conv2d_resample` (padding in the order [x, y]).
        demodulate: divide by sqrt(sum of squares + 1e-8).
        prenormalize: StyleGAN3's form; if also `demodulate`, first divides weight by its root mean square per output
            channel and styles by theirs over the whole batch. Without it, a float16 x has weight and styles divided by
            their largest elements, which only keeps the sums within the range of the type.
        input_gain: factor of the input channels after demodulation: a number, or a tensor [], [I] or [N, I]; or None.
        bias, act, gain, clamp: of a `bias_act` of the result, noise included; with "lrelu" and a bias most often one pass with
            demodulation and noise. The bias is brought to the dtype of x.
        impl: how the grouped form makes its weights: "reference", "cpp" (CPU) or "cuda". "auto" also chooses the form.

    Returns: [N, O, H', W'] of the dtype of x, differentiable to any order in all tensor arguments. Of a weight, style or gain
    that is not finite, every output that takes in the product with a pixel is not finite; whether NaN or infinite, and what it
    makes of padding, depends on the form.
    Raises: TypeError, ValueError for wrong arguments; RuntimeError for an implementation that is not available here.

    Source: Karras et al. 2019 (StyleGAN2), equations 1 to 3; Karras et al. 2021 (StyleGAN3), appendix F.

    Examples:
        >>> x, weight, styles = torch.randn(4, 8, 16, 16), torch.randn(16, 8, 3, 3), torch.ones(4, 8)
        >>> modulated_conv2d(x, weight, styles, padding=1).shape
        torch.Size([4, 16, 16, 16])
    """
    op = "modulated_conv2d"
    check_floating(op, "x", x)
    check_rank(op, "x", x, 4)
    for name, t, rank in (("weight", weight, 4), ("styles", styles, 2)):
        check_floating(op, name, t)
        check_rank(op, name, t, rank)
        check_like(op, name, t, x, dtype=False)
    n, channels = x.shape[:2]
    if weight.shape[1] != channels:
        raise ValueError(
            f"{op}: weight has shape {tuple(weight.shape)}; expected (O, {channels}, kh, kw) for the {channels} channels of x"
        )
    if styles.shape != (n, channels):
        raise ValueError(
            f"{op}: styles has shape {tuple(styles.shape)}; expected {(n, channels)}, samples and channels of x"
        )
    check_filter(op, "resample_filter", resample_filter)
    input_gain = _as_gain(input_gain, x)
    if noise is not None:
        check_floating(op, "noise", noise)
        check_like(op, "noise", noise, x, dtype=False)
        if noise.dim() not in (2, 4) or (noise.dim() == 4 and (noise.shape[1] != 1 or noise.shape[0] not in (1, n))):
            raise ValueError(
                f"{op}: noise has shape {tuple(noise.shape)}; expected ({n}, 1, H', W') or (H', W'), the output resolution"
            )
        noise = noise.to(x.dtype)

    if bias is not None:
        check_floating(op, "bias", bias)
        check_like(op, "bias", bias, x, dtype=False)
        if bias.shape != weight.shape[:1]:
            raise ValueError(
                f"{op}: bias has shape {tuple(bias.shape)}; expected ({len(weight)},), the outputs of weight"
            )
        bias = bias.to(x.dtype)
    gain, clamp = (v if v is None else check_number(op, name, v) for name, v in (("gain", gain), ("clamp", clamp)))
    after = dict(b=bias, act=act, gain=gain, clamp=clamp)
    resampling = dict(f=resample_filter, up=up, down=down, padding=padding, flip_weight=flip_weight)
    return _modulated(x, weight, styles, input_gain, noise, demodulate, prenormalize, resampling, after, impl)


@outside_autocast
def _modulated(x, weight, styles, gain, noise, demodulate, prenormalize, resampling, after, impl):
    if demodulate and (prenormalize or x.dtype == torch.float16):
        weight, styles = (t.to(accumulation_dtype(t.dtype)) for t in (weight, styles))
    if demodulate and prenormalize:
        weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
        styles = styles * styles.square().mean().rsqrt()
    elif demodulate and x.dtype == torch.float16 and weight.numel() and styles.numel():
        tiny = torch.finfo(weight.dtype).tiny  # of zeros alone there is nothing to divide by
        weight = weight * (weight[0].numel() ** -0.5 / weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=tiny))
        styles = styles / styles.abs().amax(1, keepdim=True).clamp(min=tiny)
    weight, styles = weight.to(x.dtype), styles.to(x.dtype)

    make_weights = _library.select("modulated_conv2d_weight", impl, x)
    plain = resampling["up"] == resampling["down"] == 1
    pointwise = weight.shape[2:] == (1, 1) and plain and resampling["padding"] in (0, (0, 0), [0, 0])
    matrix = pointwise and len(weight) <= MATRIX_OUTPUTS
    form = _form(x, weight, styles, matrix, plain) if impl == "auto" else "grouped" if x.shape[0] else "shared"
    if form == "shared":
        return _shared(x, weight, styles, gain, demodulate, noise, resampling, after)
    w = make_weights(weight, styles, gain, demodulate)[0]
    y = _product(x, w) if form == "product" else _grouped(x, w, resampling)
    return _followed(y if noise is None else y + _of_resolution(noise, y), after)


def _followed(y: torch.Tensor, after: dict) -> torch.Tensor:
    nothing = after["b"] is after["gain"] is after["clamp"] is None and after["act"] == "linear"
    return y if nothing else bias_act(y, **after)


def _of_resolution(noise: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if y.shape[2:] != noise.shape[-2:]:
        raise ValueError(
            f"modulated_conv2d: noise has shape {tuple(noise.shape)}; expected the output resolution, {tuple(y.shape[2:])}"
        )
    return noise


def _as_gain(gain: torch.Tensor | float | None, x: torch.Tensor) -> torch.Tensor | None:
    if gain is None:
        return None
    if not isinstance(gain, torch.Tensor):
        return x.new_full(x.shape[:2], check_number("modulated_conv2d", "input_gain", gain))
    check_floating("modulated_conv2d", "input_gain", gain)
    check_like("modulated_conv2d", "input_gain", gain, x, dtype=False)
    if gain.dim() > 2 or tuple(gain.shape) not in ((), (x.shape[1],), tuple(x.shape[:2])):
        raise ValueError(
            f"modulated_conv2d: input_gain has shape {tuple(gain.shape)}; expected (), ({x.shape[1]},) or {tuple(x.shape[:2])}"
        )
    return gain.to(x.dtype).expand(x.shape[:2])


def _form(x: torch.Tensor, weight: torch.Tensor, styles: torch.Tensor, matrix: bool, plain: bool) -> str:
    """Which form costs least: "shared" (scaled activations, one weight) or weights per sample, in one "grouped" convolution
    or, 1x1 with few outputs (`matrix`), a "product". The rule is measured on a CPU in float32
    (bench/bench_modulated_conv2d.py): per sample, if the weights are at most half as many as the elements of input and
    output, unless the convolution is `plain`, of several samples, and one that `conv3x3` computes, which knows no groups and
    takes 0.5 to 0.65 times as long as torch's. A grouped convolution copies a channels_last input of several samples (a 1x1
    one takes twice as long for a single sample too), and under `no_weight_gradients` it would lose the gradient of the styles,
    so it serves neither that layout nor where gradients are recorded; the product serves both.
    Not measured on a GPU, where the shared form is taken. So it is in an exported or traced graph: other runtimes prepare a
    weight that is a constant once, and the graph holds for any number of samples.
    """
    if transforming() or torch.compiler.is_exporting() or torch.jit.is_tracing() or plainly() or not len(x):
        return "shared"
    few = 2 * weight.numel() <= (weight.shape[0] + weight.shape[1]) * x.shape[2] * x.shape[3]
    if x.device.type != "cpu" or not few:
        return "shared"
    if plain and len(x) > 1 and not torch.compiler.is_compiling() and choose(x, weight, _SHARED_FORM) is WINOGRAD:
        return "shared"
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, styles))
    grouped = not recorded and (x.is_contiguous() or (len(x) == 1 and weight.shape[2:] != (1, 1)))
    if matrix and not (grouped and len(x) > 1 and x.numel() >= LARGE_BATCH):
        return "product"
    return "grouped" if grouped else "shared"


def _shared(x, weight, styles, gain, demodulate, noise, resampling, after):
    last = not transforming() and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if last and x.device.type == "cpu" and x.numel() < weight.numel() and weight.is_contiguous():
        # Else torch turns the weight: 512x512x3x3 on 4x4 pixels took 1.8 ms instead of 0.8.
        y = _shared(x.contiguous(), weight, styles, gain, demodulate, noise, resampling, after)
        return y.contiguous(memory_format=torch.channels_last)
    scale = styles if gain is None else styles * gain
    y = conv2d_resample(modulate.apply(x, scale), weight, **resampling)
    if not demodulate:
        return _followed(y if noise is None else y + _of_resolution(noise, y), after)
    dtype = accumulation_dtype(x.dtype)
    q = _library.select("modulated_conv2d_squares", "auto", weight)(weight)
    d = (styles.to(dtype).square() @ q.t() + EPSILON).rsqrt()
    noise = noise if noise is None else _of_resolution(noise, y)
    if modulated_activation.serves(**after):
        return modulated_activation.apply(y, d, noise, **after)
    d = d.to(x.dtype)[:, :, None, None]
    if noise is not None:
        return _followed(torch.addcmul(noise, y, d), after)
    recorded = torch.is_grad_enabled() and (y.requires_grad or d.requires_grad)
    kept = recorded or transforming() or torch.jit.is_tracing()
    return _followed(y * d if kept else y.mul_(d), after)  # y is this function's own


def _product(x, w):
    w = w.flatten(2)
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return (w @ x.flatten(2)).unflatten(2, x.shape[2:])
    y = x.permute(0, 2, 3, 1).flatten(1, 2) @ w.mT
    return y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def _grouped(x, w, resampling):
    n, out = w.shape[:2]
    y = conv2d_resample(x.reshape(1, -1, *x.shape[2:]), w.flatten(0, 1), groups=max(1, n), **resampling)
    return y.reshape(n, out, *y.shape[2:])


def _reference(weight, styles, gain, demodulate):
    dtype = accumulation_dtype(weight.dtype)
    wide = weight.to(dtype)[None]
    w = wide * styles.to(dtype)[:, None, :, None, None]
    d = (w.square().sum((2, 3, 4)) + EPSILON).rsqrt() if demodulate else w.new_ones(w.shape[:2])
    if demodulate:
        w = w * d[:, :, None, None, None]
    if gain is not None:
        w = w * gain.to(dtype)[:, None, :, None, None]
    return w.to(weight.dtype).contiguous(), d


def _setup(ctx, inputs, output):
    weight, styles, gain, ctx.demodulate = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(weight, styles, gain, output[1])


def _backward(ops, ctx, dw, _):
    needs = ctx.needs_input_grad
    weight, styles, gain, d = ctx.saved_tensors
    grads = ops.modulated_conv2d_weight_backward(dw, weight, styles, gain, d, ctx.demodulate)
    return *(g if needed else None for g, needed in zip(grads, needs, strict=False)), None


def _backward_reference(dw, weight, styles, gain, d, demodulate):
    """With b[n,o,i] = sum_k dw weight, a[n,o] = sum_i b styles gain (the gradient of d), q[o,i] = sum_k weight^2:

    dweight = sum_n dw styles gain d - weight sum_n a d^3 styles^2
    dstyles = gain sum_o d b - styles sum_o a d^3 q,    dgain = styles sum_o d b
    """
    dtype = d.dtype
    dw, w, s = dw.to(dtype), weight.to(dtype), styles.to(dtype)
    m = torch.ones_like(s) if gain is None else gain.to(dtype)
    b = torch.einsum("noihw,oihw->noi", dw, w)
    db = torch.einsum("no,noi->ni", d, b)
    dweight = torch.einsum("noihw,ni,no->oihw", dw, s * m, d)
    dstyles = m * db
    if demodulate:
        ad3 = torch.einsum("noi,ni->no", b, s * m) * d**3
        dweight = dweight - w * (ad3.t() @ s.square())[:, :, None, None]
        dstyles = dstyles - s * (ad3 @ w.square().sum((2, 3)))
    kind = weight.dtype
    return dweight.to(kind).contiguous(), dstyles.to(kind).contiguous(), (s * db).to(kind).contiguous()


def _setup_backward(ctx, inputs, output):
    dw, weight, styles, gain, _, ctx.demodulate = inputs
    ctx.save_for_backward(dw, weight, styles, gain)


def _double_backward(ops, ctx, v_weight, v_styles, v_gain):
    """The scalar S = <v_weight, dweight> + <v_styles, dstyles> + <v_gain, dgain> is <dw, W'>, W' the derivative of W in the
    direction v. With p = styles gain, p' = v_styles gain + styles v_gain, x = sum_k weight v_weight, c = sum_k dw v_weight,
    b and q as in the backward, D = d^-2 and K = D' / 2 = sum_i styles^2 x + styles v_styles q:

        S = sum_no e d - a d^3 K,    a = sum_i b p,  e = sum_i c p + b p'

    Its gradients are written in torch operations, which autograd carries to any further order.
    """
    dw, weight, styles, gain = ctx.saved_tensors
    dtype = accumulation_dtype(weight.dtype)
    dw, w, s, vw, vs, vm = (t.to(dtype) for t in (dw, weight, styles, v_weight, v_styles, v_gain))
    m = torch.ones_like(s) if gain is None else gain.to(dtype)
    if gain is None:
        vm = torch.zeros_like(s)
    p, vp = s * m, vs * m + s * vm
    b, c = torch.einsum("noihw,oihw->noi", dw, w), torch.einsum("noihw,oihw->noi", dw, vw)
    if ctx.demodulate:
        q, x = w.square().sum((2, 3)), (w * vw).sum((2, 3))
        d = (s.square() @ q.t() + EPSILON).rsqrt()
        k = s.square() @ x.t() + (s * vs) @ q.t()
        change = -(d**3) * k
    else:
        d = torch.ones(s.shape[0], w.shape[0], dtype=dtype, device=s.device)
        change = torch.zeros_like(d)
    tail = (slice(None), slice(None), slice(None), None, None)
    # p' d + p d': the factor of weight in W'; p d: that of v_weight.
    by_weight = vp[:, None] * d[:, :, None] + p[:, None] * change[:, :, None]
    pd = p[:, None] * d[:, :, None]
    grad_dw = w[None] * by_weight[tail] + vw[None] * pd[tail]
    grad_weight = torch.einsum("noihw,noi->oihw", dw, by_weight)
    cd = (c * d[:, :, None] + b * change[:, :, None]).sum(1)
    bd = (b * d[:, :, None]).sum(1)
    grad_styles = cd * m + bd * vm
    grad_gain = cd * s + bd * vs
    if ctx.demodulate:
        a = torch.einsum("noi,ni->no", b, p)
        e = torch.einsum("noi,ni->no", c, p) + torch.einsum("noi,ni->no", b, vp)
        by_d2 = -0.5 * e * d**3 + 1.5 * a * k * d**5
        by_k = -a * d**3
        grad_weight = grad_weight + 2 * w * (by_d2.t() @ s.square() + by_k.t() @ (s * vs))[:, :, None, None]
        grad_weight = grad_weight + vw * (by_k.t() @ s.square())[:, :, None, None]
        grad_styles = grad_styles + 2 * s * (by_d2 @ q + by_k @ x) + vs * (by_k @ q)
    kind = weight.dtype
    return (
        grad_dw.to(kind),
        grad_weight.to(kind),
        grad_styles.to(kind),
        None if gain is None else grad_gain.to(kind),
        None,
        None,
    )


def _squares_backward(ops, ctx, dq):
    (weight,) = ctx.saved_tensors  # once: activation checkpointing gives them out no second time
    return (2 * weight * dq[:, :, None, None]).to(weight.dtype)


# W [N, O, I, kh, kw], contiguous, of the one dtype of weight, styles and gain [N, I]; and d [N, O] in float32 (float64 for
# float64): 1 everywhere without demodulation. Sums in the type of d, W rounded once. The backward is given d.
_library.define(
    "modulated_conv2d_weight(Tensor weight, Tensor styles, Tensor? gain, bool demodulate) -> (Tensor, Tensor)",
    reference=_reference,
    fake=lambda weight, styles, *_: (
        weight.new_empty(styles.shape[0], *weight.shape),
        weight.new_empty(styles.shape[0], weight.shape[0], dtype=accumulation_dtype(weight.dtype)),
    ),
    setup_context=_setup,
    backward=_backward,
    kernels=("cuda",),
)

# (dweight [O, I, kh, kw], dstyles [N, I], dgain [N, I]), contiguous, of the dtype of weight; dgain is made also where gain is
# None. An op of its own with its own formula: without one, second derivatives silently lose a term.
_library.define(
    "modulated_conv2d_weight_backward(Tensor dw, Tensor weight, Tensor styles, Tensor? gain, Tensor d, bool demodulate)"
    " -> (Tensor, Tensor, Tensor)",
    reference=_backward_reference,
    fake=lambda dw, weight, styles, *_: (
        weight.new_empty(weight.shape),
        styles.new_empty(styles.shape),
        styles.new_empty(styles.shape),
    ),
    setup_context=_setup_backward,
    backward=_double_backward,
    kernels=("cuda",),
)

# q [O, I] = sum over the taps of weight^2, in float32 (float64 for float64); its gradient 2 weight dq is of any order.
_library.define(
    "modulated_conv2d_squares(Tensor weight) -> Tensor",
    reference=lambda weight: weight.to(accumulation_dtype(weight.dtype)).square().sum((2, 3)),
    fake=lambda weight: weight.new_empty(weight.shape[:2], dtype=accumulation_dtype(weight.dtype)),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    backward=_squares_backward,
    kernels=("cpp", "cuda"),
)
