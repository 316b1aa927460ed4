"""Upsampling, Snake and downsampling in one pass: the anti-aliased activation of BigVGAN.

Along T, with K the taps of a filter, r = up and x held at its first and last value over P = floor(K / r) - 1 samples to each
side, 0 beyond them:

    t[m] = r sum_k fu[k] x[(m + l - k) / r - P] over integer indices,  l = P r + floor((K - r) / 2)   0 <= m < M = T r
    v[m] = t[m] + c sin^2(a t[m])                                                       v held at v[0] and v[M - 1]
    y[o] = sum_k fd[k] v[o down + k - floor((K - 1) / 2)]                               0 <= o < ceil(M / down)

a is alpha (or e^alpha), c is 1 / (beta + eps): torch operations on C numbers, which autograd knows. Writing U and D for the two
linear passes and g = D' dy, the gradients are

    dx = U'(g (1 + c a sin 2at)),    da = sum g c t sin 2at,    dc = sum g sin^2 at

Traffic of the fused pass: x read once and y written once (8 bytes an element of float32), backward x, dy read and dx written;
t and v never reach memory. Arithmetic per element of t: taps_u / up + taps_d / down multiply-adds and one sine.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from fastgan._torch_private import eager
from fastgan.ops import _library
from fastgan.ops._autocast import outside_autocast
from fastgan.ops._checks import accumulation_dtype, check_floating, check_integer, check_number, check_rank

FACTORS = (1, 2, 4)  # of up and down in the fused pass; others are composed of the same three steps
# In the fused pass: on a GPU the signals between the filters of float64 take 75 KiB of shared memory then.
MOST_TAPS = 256


def filtered_snake(
    x: torch.Tensor,
    alpha: torch.Tensor,
    beta: torch.Tensor | None = None,
    fu: torch.Tensor | None = None,
    fd: torch.Tensor | None = None,
    up: int = 2,
    down: int = 2,
    logscale: bool = False,
    eps: float = 1e-9,
    *,
    impl: str = "auto",
) -> torch.Tensor:
    """Upsamples, adds sin^2(alpha x) / (beta + eps), and downsamples, in one pass.

    Args:
        x: [N, C, T]; float16, bfloat16, float32 or float64 (16-bit types are computed in float32). What is not finite makes
            NaN of the outputs and the gradients that its taps reach, in 16-bit types on a GPU of up to 15 samples around.
        alpha, beta: [C] or [1, C, 1], of the dtype of x or that it is computed in; beta None is alpha. Any sign.
        fu, fd: filters of the up- and downsampling, [taps] or [1, 1, taps] of any length >= up (fu) and >= 1 (fd); None is
            `kaiser_sinc_filter(0.5 / factor, 0.6 / factor)`.
        up, down: factors >= 1. 1, 2 and 4 run in the fused pass; others, filters of more than 256 taps, and filters that require
            a gradient, are composed.
        logscale: alpha and beta are logarithms.
        eps: added to beta, after the exponential.
        impl: "auto", "reference", "cpp" (CPU) or "cuda".

    Returns: [N, C, ceil(T up / down)] of the dtype of x. Differentiable to any order in x, alpha, beta (and fu, fd). Where the
    filters reach beyond an end, x is held at its last value before the upsampling and the activated signal before the
    downsampling, as the modules of BigVGAN have it.

    Raises: TypeError, ValueError for wrong arguments; RuntimeError for an implementation that is not available here.

    Source: Lee et al. 2023 ("BigVGAN"), section 3.2; Snake: Ziyin et al. 2020, equation 3.

    Examples:
        >>> filtered_snake(torch.randn(1, 8, 100), torch.zeros(8), torch.zeros(8), logscale=True).shape
        torch.Size([1, 8, 100])
    """
    check_floating("filtered_snake", "x", x)
    check_rank("filtered_snake", "x", x, 3)
    for name, factor in (("up", up), ("down", down)):
        check_integer("filtered_snake", name, factor)
        if factor < 1:
            raise ValueError(f"filtered_snake: {name}={factor}; expected >= 1")
    hu, hd = _filter("fu", fu, up, x), _filter("fd", fd, down, x)
    if hu.shape[0] < up:
        raise ValueError(f"filtered_snake: fu has {hu.shape[0]} taps; expected at least up={up}")
    a, c = frequency_and_amplitude("filtered_snake", x, alpha, beta, logscale, eps)
    learned = torch.is_grad_enabled() and (hu.requires_grad or hd.requires_grad)
    op = _library.select("filtered_snake", impl, x)
    if up in FACTORS and down in FACTORS and max(hu.shape[0], hd.shape[0]) <= MOST_TAPS and not learned:
        return op(x, a, c, hu, hd, up, down)
    t = upsample1d(x.to(a.dtype), hu, up)
    return downsample1d(op(t, a, c, None, None, 1, 1), hd, down).to(x.dtype)


def kaiser_sinc_filter(cutoff: float, half_width: float, taps: int | None = None) -> torch.Tensor:
    """Low-pass filter of sum 1: a sinc under a symmetric Kaiser window, in float32.

    Args: cutoff: in cycles per sample, 0 to 0.5; half_width: of the transition band, in cycles per sample, > 0; taps: >= 1,
    or None for 2 floor(3.6 / half_width / 2), which is 12 for the ratio 2 (half_width 0.3).

    Returns: [taps], float32, rounded once.

    Source: Kaiser 1974; A and beta as in Oppenheim & Schafer, section 7.5.3.
    """
    if not 0 <= cutoff <= 0.5:
        raise ValueError(f"kaiser_sinc_filter: cutoff={cutoff}; expected 0 to 0.5 cycles per sample")
    if not half_width > 0:
        raise ValueError(f"kaiser_sinc_filter: half_width={half_width}; expected > 0")
    taps = 2 * int(1.8 / half_width + 1e-9) if taps is None else taps
    if taps < 1:
        raise ValueError(f"kaiser_sinc_filter: taps={taps}; expected >= 1")
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    like = {"dtype": torch.float64, "device": "cpu"}
    t = torch.arange(taps, **like) - taps // 2 + (0.0 if taps % 2 else 0.5)
    h = torch.kaiser_window(taps, periodic=False, beta=beta, **like) * torch.sinc(2 * cutoff * t)
    return (h / h.sum()).float()


_usual: dict[tuple, torch.Tensor] = {}  # as a copy from the host synchronizes, and a CUDA graph refuses it


def _usual_filter(factor: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    def made() -> torch.Tensor:
        return kaiser_sinc_filter(0.5 / factor, 0.6 / factor).to(device, dtype)

    if not eager():  # it may be a traced or a fake one, of no use to others
        return made()
    key = factor, device, dtype
    if key not in _usual:
        with torch.inference_mode(False):
            _usual[key] = made()
    return _usual[key]


def _filter(name: str, f: torch.Tensor | None, factor: int, x: torch.Tensor) -> torch.Tensor:
    dtype = accumulation_dtype(x.dtype)
    if f is None:
        return _usual_filter(factor, x.device, dtype)
    check_floating("filtered_snake", name, f)
    if f.numel() == 0 or (f.dim() != 1 and f.shape != (1, 1, f.shape[-1])):
        raise ValueError(f"filtered_snake: {name} has shape {tuple(f.shape)}; expected [taps] or [1, 1, taps]")
    if f.device != x.device:
        raise ValueError(f"filtered_snake: {name} is on {f.device}; expected {x.device}, the device of x")
    return f.flatten().to(dtype)


def frequency_and_amplitude(
    op: str, x: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor | None, logscale: bool, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """a and c of t + c sin^2(a t), [C] each, in the dtype x is computed in."""
    eps = check_number(op, "eps", eps)
    if not 0 <= eps < math.inf:
        raise ValueError(f"{op}: eps={eps}; expected a finite number >= 0")
    dtype = accumulation_dtype(x.dtype)
    values = []
    for name, v in (("alpha", alpha), ("beta", alpha if beta is None else beta)):
        check_floating(op, name, v)
        channels = x.shape[1]
        if v.shape not in ((channels,), (1, channels, 1)):
            raise ValueError(f"{op}: {name} has shape {tuple(v.shape)}; expected ({channels},) or (1, {channels}, 1)")
        if v.device != x.device:
            raise ValueError(f"{op}: {name} is on {v.device}; expected {x.device}, the device of x")
        if v.dtype not in (x.dtype, dtype) and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"{op}: {name} has dtype {v.dtype}; expected {x.dtype} or {dtype}")
        v = v.flatten().to(dtype)
        values.append(v.exp() if logscale else v)
    a, b = values
    return a, (b + eps).reciprocal()


def _held(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """x with its first and last sample repeated."""
    return torch.cat([x[..., :1].expand(*x.shape[:2], before), x, x[..., -1:].expand(*x.shape[:2], after)], -1)


def _folded(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """The adjoint of `_held`: what lies in the margins is added to the first and the last sample between them."""
    size = x.shape[-1] - before - after
    first, last = x[..., :before].sum(-1, keepdim=True), x[..., before + size :].sum(-1, keepdim=True)
    return x[..., before : before + size] + F.pad(first, (0, size - 1)) + F.pad(last, (size - 1, 0))


def _up_margins(taps: int, up: int) -> tuple[int, int, int]:
    """(samples of x held to each side, samples of t dropped before, after)"""
    held = taps // up - 1
    return held, held * up + (taps - up) // 2, held * up + (taps - up + 1) // 2


def _down_margins(taps: int) -> tuple[int, int]:
    return (taps - 1) // 2, taps // 2


def reach(taps_u: int, taps_d: int, up: int) -> tuple[int, int]:
    """Output o reads the samples i of x with o down + least <= i up <= o down + most: (least, most)."""
    held, first, _ = _up_margins(taps_u, up)
    before, after = _down_margins(taps_d)
    return first - held * up - (taps_u - 1) - before, first - held * up + after


@outside_autocast
def upsample1d(x: torch.Tensor, f: torch.Tensor, up: int) -> torch.Tensor:
    """t of the module's text: x [N, C, T], f [taps >= up] -> [N, C, T up]; PyTorch operations."""
    held, before, after = _up_margins(f.shape[0], up)
    if x.numel() == 0:
        return x.repeat_interleave(up, -1)
    rows = _held(x, held, held).reshape(-1, 1, x.shape[2] + 2 * held)
    t = F.conv_transpose1d(rows, up * f[None, None], stride=up)
    return t[..., before : t.shape[-1] - after].reshape(*x.shape[:2], -1)


def _upsample1d_adjoint(dt: torch.Tensor, f: torch.Tensor, up: int) -> torch.Tensor:
    held, before, after = _up_margins(f.shape[0], up)
    if dt.numel() == 0:
        return dt[..., ::up]
    rows = F.pad(dt.reshape(-1, 1, dt.shape[2]), (before, after))
    dx = F.conv1d(rows, up * f[None, None], stride=up)
    return _folded(dx.reshape(*dt.shape[:2], -1), held, held)


@outside_autocast
def downsample1d(v: torch.Tensor, f: torch.Tensor, down: int) -> torch.Tensor:
    """y of the module's text: v [N, C, M], f [taps] -> [N, C, ceil(M / down)]; PyTorch operations."""
    if v.numel() == 0:
        return v[..., ::down]
    rows = _held(v, *_down_margins(f.shape[0])).reshape(-1, 1, v.shape[2] + f.shape[0] - 1)
    return F.conv1d(rows, f[None, None], stride=down).reshape(*v.shape[:2], -1)


def _downsample1d_adjoint(dy: torch.Tensor, f: torch.Tensor, down: int, size: int) -> torch.Tensor:
    if dy.numel() == 0:
        return dy.repeat_interleave(down, -1)[..., :size]
    margins = _down_margins(f.shape[0])
    g = F.conv_transpose1d(dy.reshape(-1, 1, dy.shape[2]), f[None, None], stride=down)
    g = F.pad(g, (0, size + sum(margins) - g.shape[-1]))
    return _folded(g.reshape(*dy.shape[:2], -1), *margins)


def _up(x, fu, up):
    return x if fu is None else upsample1d(x, fu, up)


def _up_adjoint(dt, fu, up):
    return dt if fu is None else _upsample1d_adjoint(dt, fu, up)


def _down(v, fd, down):
    return v if fd is None else downsample1d(v, fd, down)


def _down_adjoint(dy, fd, down, size):
    return dy if fd is None else _downsample1d_adjoint(dy, fd, down, size)


def _reference(x, a, c, fu, fd, up, down):
    t = _up(x.to(a.dtype), fu, up)
    v = t + c[:, None] * (a[:, None] * t).sin().square()
    return _down(v, fd, down).to(x.dtype).contiguous()


def _backward_reference(dy, x, a, c, fu, fd, up, down):
    t = _up(x.to(a.dtype), fu, up)
    g = _down_adjoint(dy.to(a.dtype), fd, down, t.shape[2])
    sin = (2 * a[:, None] * t).sin()
    dx = _up_adjoint(g * (1 + (a * c)[:, None] * sin), fu, up)
    da = c * (g * t * sin).sum([0, 2])
    dc = (g * (a[:, None] * t).sin().square()).sum([0, 2])
    return dx.to(x.dtype).contiguous(), da, dc


def _setup(ctx, inputs, output):
    x, a, c, fu, fd, ctx.up, ctx.down = inputs
    ctx.save_for_backward(x, a, c, fu, fd)


def _backward(ops, ctx, dy):
    x, a, c, fu, fd = ctx.saved_tensors
    _refuse_filters(ctx.needs_input_grad[3:5])
    return *ops.filtered_snake_backward(dy, x, a, c, fu, fd, ctx.up, ctx.down), *[None] * 4


def _refuse_filters(needed: Sequence[bool]) -> None:
    if any(needed):
        raise RuntimeError(
            "filtered_snake: the fused op has no gradient in its filters; fastgan.ops.filtered_snake has"
        )


def _setup_backward(ctx, inputs, output):
    dy, x, a, c, fu, fd, ctx.up, ctx.down = inputs
    ctx.save_for_backward(dy, x, a, c, fu, fd)


def _double_backward(ops, ctx, vx, va, vc):
    """S = <vx, dx> + <va, da> + <vc, dc> is sum g q with q = w (1 + c a sin) + va c t sin + vc sin^2, w = U vx, where sin and
    cos are those of 2at. Its gradients, in torch operations, which autograd carries to any further order:

        by dy:  D q
        by x:   U'(g p),  p = dq/dt = 2 c a^2 w cos + va c (sin + 2 a t cos) + vc a sin
        by a:   sum g (w c (sin + 2 a t cos) + 2 va c t^2 cos + vc t sin)
        by c:   sum g (w a sin + va t sin)
    """
    dy, x, a, c, fu, fd = ctx.saved_tensors
    _refuse_filters(ctx.needs_input_grad[4:6])
    t, w = _up(x.to(a.dtype), fu, ctx.up), _up(vx.to(a.dtype), fu, ctx.up)
    g = _down_adjoint(dy.to(a.dtype), fd, ctx.down, t.shape[2])
    a, c, va, vc = (v[:, None] for v in (a, c, va, vc))
    sin, cos, square = (2 * a * t).sin(), (2 * a * t).cos(), (a * t).sin().square()
    bent = sin + 2 * a * t * cos
    grad_dy = _down(w * (1 + a * c * sin) + va * c * t * sin + vc * square, fd, ctx.down)
    grad_x = _up_adjoint(g * (2 * c * a * a * w * cos + va * c * bent + vc * a * sin), fu, ctx.up)
    grad_a = (g * (w * c * bent + 2 * va * c * t * t * cos + vc * t * sin)).sum([0, 2])
    grad_c = (g * (w * a + va * t) * sin).sum([0, 2])
    return grad_dy.to(dy.dtype), grad_x.to(x.dtype), grad_a, grad_c, *[None] * 4


# The forward. up, down in FACTORS; a, c [C] and fu, fd [taps] in the dtype sums are kept in (float32, or float64 for a float64
# x); fu, fd None: no filter, and the factor is 1. -> y [N, C, ceil(T up / down)], contiguous.
_library.define(
    "filtered_snake(Tensor x, Tensor a, Tensor c, Tensor? fu, Tensor? fd, int up, int down) -> Tensor",
    reference=_reference,
    fake=lambda x, a, c, fu, fd, up, down: x.new_empty(*x.shape[:2], (x.shape[2] * up + down - 1) // down),
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp", "cuda"),
)

# Its gradients (dx, da, dc) from x alone, t computed anew; da and dc [C] in the dtype of a. An op of its own with its own
# formula: without one, second derivatives silently lose a term.
_library.define(
    "filtered_snake_backward(Tensor dy, Tensor x, Tensor a, Tensor c, Tensor? fu, Tensor? fd, int up, int down)"
    " -> (Tensor, Tensor, Tensor)",
    reference=_backward_reference,
    fake=lambda dy, x, a, c, *_: (x.new_empty(x.shape), torch.empty_like(a), torch.empty_like(c)),
    setup_context=_setup_backward,
    backward=_double_backward,
    kernels=("cpp", "cuda"),
)
