"""Bias, upsampling, leaky ReLU, clamp and downsampling in one pass: the alias-free activation.

Per axis, with hu and hd the filters as they slide (reversed unless flip_filter) and x[i] = 0 outside of x:

    t[m] = gain up^2 sum_k hu[k] (x + b)[(m + k - p) / up]  over integer indices      0 <= m < M = n up + p + p' - taps_u + 1
    v[m] = clip(t > 0 ? t : slope t, -clamp, clamp)                                   v = 0 outside of [0, M)
    y[o] = sum_k hd[k] v[o down + k]                                                  0 <= o <= (M - taps_d) / down

The gradient is the transposed pass over the same grid of t: filters exchanged and turned, up and down exchanged, and in the
middle a factor 0 (clamped), slope or 1, of which 2 bits per element of t are all that is saved. That pass is linear and its
adjoint is one more of its kind, so derivatives of any order exist; none flows through the mask (it is constant almost
everywhere).

Traffic of the fused pass: x read once, y written once, and t.numel() / 4 bytes of mask where a gradient is wanted.
Arithmetic: per element of t, taps_u / up + taps_d / down multiply-adds for the two vertical filters, and the horizontal
ones at the rate of the rows of x and of y.
"""

import math
from collections.abc import Sequence

import torch

from fastgan._torch_private import transforming
from fastgan.ops import _library
from fastgan.ops._autocast import autocast_like
from fastgan.ops._checks import check_floating, check_like, check_number, check_rank
from fastgan.ops.bias_act import bias_act
from fastgan.ops.upfirdn2d import as_filter, four_paddings, upfirdn2d

FACTORS = (1, 2, 4)  # of up and down in the fused pass; others are composed of upfirdn2d and bias_act
MOST_TAPS = 32  # per axis in the fused pass
# Float64 on a GPU: 20 x 20 taps take 91 KiB of shared memory, 32 x 32 take 176, and a block of sm_86, 89 or 120 has 99.
MOST_TAPS_DOUBLE = 20


def filtered_lrelu(
    x: torch.Tensor,
    fu: torch.Tensor | None = None,
    fd: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    *,
    impl: str = "auto",
) -> torch.Tensor:
    """Adds a bias, upsamples, applies a leaky ReLU with gain and clamp, and downsamples, in one pass.

    Args:
        x: [N, C, H, W]; float16, bfloat16, float32 or float64 (16-bit types are summed in float32, on a GPU's tensor cores from
            numbers of 16 bits, or for bfloat16 of 11).
        fu, fd: filters of the up- and downsampling as `setup_filter` makes them: [taps], [taps_y, taps_x] or None.
        b: bias [C] of the dtype of x, or None. It is added before zeros are inserted: padding stays zero.
        up, down: factors >= 1 of both axes. 1, 2 and 4 with filters of at most 32 taps run in the fused pass; other
            factors, longer filters (float64 on a GPU: of more than 20 taps), and filters that require a gradient are
            composed of `upfirdn2d` and `bias_act`.
        padding: of the upsampled image: one number, [x, y] or [x_before, x_after, y_before, y_after]; negative crops.
        gain: factor after the leaky ReLU. The upsampling has a gain of up^2 of its own.
        slope: of the leaky ReLU at t <= 0.
        clamp: limit >= 0 of the result of the activation, or None.
        flip_filter: False convolves with both filters, True correlates.
        impl: "auto", "reference", "cpp" (CPU) or "cuda".

    Returns: [N, C, H_out, W_out] of the dtype and memory format of x, with
    H_out = floor((H up + before + after - (taps_u - 1) - taps_d) / down) + 1. Differentiable to any order in x and b (and
    fu, fd). At t = 0 the gradient is that of the negative side; where the clamp is reached it is 0.
    In 16 bits on a GPU, what is not finite makes NaN of up to 23 rows and 31 columns around the outputs that it is part of; where
    there is a clamp, an infinite float16 counts as the largest one.
    The gradient in b of a fused pass is the float32 sum of that in x as it is stored, rounded to the dtype of x.

    Raises: TypeError, ValueError for wrong arguments; RuntimeError for an implementation that is not available here.

    Source: Karras et al. 2021 ("Alias-Free Generative Adversarial Networks"), section 3.2 and appendix D.

    Examples:
        >>> f = fastgan.ops.setup_filter(torch.ones(12))
        >>> x, b = torch.randn(1, 8, 16, 16), torch.zeros(8)
        >>> filtered_lrelu(x, f, f, b, up=2, down=2, padding=11, clamp=256).shape
        torch.Size([1, 8, 16, 16])
    """
    check_floating("filtered_lrelu", "x", x)
    check_rank("filtered_lrelu", "x", x, 4)
    hu = as_filter("filtered_lrelu", "fu", fu, x)[0]
    hd = as_filter("filtered_lrelu", "fd", fd, x)[0]
    if b is not None:
        check_floating("filtered_lrelu", "b", b)
        if b.dim() != 1 or b.shape[0] != x.shape[1]:
            raise ValueError(
                f"filtered_lrelu: b has shape {tuple(b.shape)}; expected ({x.shape[1]},), the channels of x"
            )
        b = autocast_like(b, x)
        check_like("filtered_lrelu", "b", b, x)
    for name, factor in (("up", up), ("down", down)):
        if not isinstance(factor, int) or isinstance(factor, bool):
            raise TypeError(f"filtered_lrelu: {name}={factor!r}; expected an integer")
        if factor < 1:
            raise ValueError(f"filtered_lrelu: {name}={factor}; expected >= 1")
    padding = four_paddings("filtered_lrelu", padding)
    gain, slope = check_number("filtered_lrelu", "gain", gain), check_number("filtered_lrelu", "slope", slope)
    limit = check_number("filtered_lrelu", "clamp", clamp, -1.0)
    if clamp is not None and not limit >= 0:
        raise ValueError(f"filtered_lrelu: clamp={clamp}; expected None or a number >= 0")
    middle = _middle(x.shape, hu, up, padding)
    for size, tu, td, name in zip(middle, _taps(hu), _taps(hd), ("width", "height"), strict=True):
        if size < td:
            raise ValueError(
                f"filtered_lrelu: {name} of x is {size + tu - 1} with up={up} and padding={padding};"
                f" expected at least {tu + td - 1}, the taps of fu and fd less 1"
            )
    arguments = (
        up,
        down,
        padding,
        gain,
        slope,
        limit,
        bool(flip_filter),
    )
    if impl == "reference" or transforming():
        return _composed(x, b, hu, hd, *arguments, "reference")
    op = _library.select("filtered_lrelu", impl, x)
    learned = torch.is_grad_enabled() and (hu.requires_grad or hd.requires_grad)
    gpu_double = x.dtype == torch.float64 and (x.device.type == "cuda" or impl == "cuda")
    most_taps = MOST_TAPS_DOUBLE if gpu_double else MOST_TAPS
    if up not in FACTORS or down not in FACTORS or max(*hu.shape, *hd.shape) > most_taps or learned:
        return _composed(x, b, hu, hd, *arguments, impl)
    # A trace is checked without gradients, and may be differentiated by what its example was not.
    recorded = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    save_mask = recorded or torch.jit.is_tracing()
    return op(x, b, hu, hd, *arguments, save_mask)[0]


def _taps(f: torch.Tensor) -> tuple[int, int]:
    """(along x, along y)"""
    return f.shape[-1], f.shape[0]


def _middle(shape: Sequence[int], fu: torch.Tensor, up: int, padding: Sequence[int]) -> tuple[int, int]:
    """(width, height) of the upsampled grid t."""
    taps = _taps(fu)
    return (
        shape[3] * up + padding[0] + padding[1] - taps[0] + 1,
        shape[2] * up + padding[2] + padding[3] - taps[1] + 1,
    )


def _composed(x, b, fu, fd, up, down, padding, gain, slope, clamp, flip_filter, impl):
    # bias_act has no CUDA C++ kernel of its own: its Triton one is found by "auto".
    pointwise = "auto" if impl == "cuda" else impl
    t = x.to(fu.dtype)
    if b is not None:
        t = bias_act(t, b.to(t.dtype), impl=pointwise)
    t = upfirdn2d(t, fu, up=up, padding=padding, flip_filter=flip_filter, gain=up * up, impl=impl)
    limit = None if clamp < 0 else clamp
    t = bias_act(t, act="lrelu", alpha=slope, gain=gain, clamp=limit, impl=pointwise)
    return upfirdn2d(t, fd, down=down, flip_filter=flip_filter, impl=impl).to(x.dtype)


def _pack(negative: torch.Tensor, clamped: torch.Tensor) -> torch.Tensor:
    bits = torch.stack([negative, clamped], dim=3)
    bits = torch.nn.functional.pad(bits, [0, -bits.shape[-1] % 32])
    weights = 2 ** torch.arange(8, device=bits.device)
    return (bits.unflatten(-1, (-1, 8)) * weights).sum(-1).to(torch.uint8)


def _unpack(mask: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    bits = (mask[..., None] >> torch.arange(8, device=mask.device, dtype=torch.uint8)) & 1
    return bits.flatten(-2)[..., :width].bool().unbind(3)


def _reference(x, b, fu, fd, up, down, padding, gain, slope, clamp, flip_filter, save_mask):
    t = x.to(fu.dtype)
    if b is not None:
        t = t + b.to(t.dtype)[:, None, None]
    t = upfirdn2d(t, fu, up=up, padding=padding, flip_filter=flip_filter, gain=up * up, impl="reference")
    v = gain * torch.where(t > 0, t, slope * t)
    mask = x.new_empty(0, dtype=torch.uint8)
    if save_mask:
        mask = _pack(~(t > 0), v.abs() >= clamp if clamp >= 0 else torch.zeros_like(t, dtype=torch.bool))
    if clamp >= 0:
        v = v.clamp(-clamp, clamp)
    return upfirdn2d(v, fd, down=down, flip_filter=flip_filter, impl="reference").to(x.dtype), mask


def _backward_reference(x, mask, fu, fd, up, down, offset, size, gain, slope, flip_filter):
    """The paddings that follow from the sizes are those that end the grids where `size` says."""

    def resample(z, f, up, down, before, out):
        if 0 in out:
            return z.new_zeros(*z.shape[:2], out[1], out[0])
        padding = []
        for axis, taps in enumerate(_taps(f)):
            after = (out[axis] - 1) * down + taps - z.shape[3 - axis] * up - before[axis]
            padding += [before[axis], after]
        return upfirdn2d(z, f, up=up, down=down, padding=padding, flip_filter=flip_filter, impl="reference")

    negative, clamped = _unpack(mask, size[0])
    t = resample(x.to(fu.dtype), fu, up, 1, offset[:2], size[:2])
    t = torch.where(clamped, 0.0, gain * torch.where(negative, slope * t, t))
    return resample(t, fd, 1, down, offset[2:], size[2:]).to(x.dtype)


def _empty(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    last = x.shape[1] > 1 and x.stride(1) == 1 and x.stride(3) > 1
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((*x.shape[:2], size[1], size[0]), dtype=x.dtype, device=x.device, memory_format=layout)


def _fake(x, b, fu, fd, up, down, padding, gain, slope, clamp, flip_filter, save_mask):
    middle = _middle(x.shape, fu, up, padding)
    mask = (*x.shape[:2], middle[1], 2, (middle[0] + 31) // 32 * 4) if save_mask else (0,)
    return _empty(x, _out(middle, fd, down)), x.new_empty(mask, dtype=torch.uint8)


def _out(middle: Sequence[int], fd: torch.Tensor, down: int) -> list[int]:
    return [(size - taps) // down + 1 for size, taps in zip(middle, _taps(fd), strict=True)]


def _setup(ctx, inputs, output):
    x, _, fu, fd, ctx.up, ctx.down, padding, ctx.gain, ctx.slope, _, ctx.flip_filter, ctx.saved = inputs
    middle = _middle(x.shape, fu, ctx.up, padding)
    # Transposed: t[m] takes y[(m - k) / down], hence first offset taps_d - 1; x[i] takes t[i up + p - k].
    ctx.offset = [taps - 1 for taps in _taps(fd)] + [_taps(fu)[0] - 1 - padding[0], _taps(fu)[1] - 1 - padding[2]]
    ctx.size = [*middle, x.shape[3], x.shape[2]]
    ctx.save_for_backward(output[1], fu, fd)


def _backward(ops, ctx, dy, _):
    mask, fu, fd = ctx.saved_tensors
    if not ctx.saved:
        raise RuntimeError("filtered_lrelu: called with save_mask=False, which keeps nothing for a gradient")
    if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
        raise RuntimeError(
            "filtered_lrelu: the fused op has no gradient in its filters; fastgan.ops.filtered_lrelu has"
        )
    gain = ctx.gain * ctx.up**2
    dx = ops.filtered_lrelu_backward(
        dy, mask, fd, fu, ctx.down, ctx.up, ctx.offset, ctx.size, gain, ctx.slope, not ctx.flip_filter
    )
    db = dx.sum([0, 2, 3]) if ctx.needs_input_grad[1] else None
    return dx, db, *[None] * 10


def _setup_backward(ctx, inputs, output):
    x, mask, fu, fd, ctx.up, ctx.down, offset, size, ctx.gain, ctx.slope, ctx.flip_filter = inputs
    tu, td = _taps(fu), _taps(fd)
    ctx.offset = [td[0] - 1 - offset[2], td[1] - 1 - offset[3], tu[0] - 1 - offset[0], tu[1] - 1 - offset[1]]
    ctx.size = [*size[:2], x.shape[3], x.shape[2]]
    ctx.save_for_backward(mask, fu, fd)


def _double_backward(ops, ctx, ddx):
    mask, fu, fd = ctx.saved_tensors
    if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
        raise RuntimeError(
            "filtered_lrelu: the fused op has no gradient in its filters; fastgan.ops.filtered_lrelu has"
        )
    arguments = (ctx.down, ctx.up, ctx.offset, ctx.size, ctx.gain, ctx.slope, not ctx.flip_filter)
    return ops.filtered_lrelu_backward(ddx, mask, fd, fu, *arguments), *[None] * 10


# The forward. up, down in FACTORS; fu, fd: [taps] or [taps_y, taps_x], at most MOST_TAPS per axis, in the dtype sums are
# kept in (float32, or float64 for a float64 x); padding: [x_before, x_after, y_before, y_after], of any sign; clamp < 0: none.
# -> y [N, C, H_out, W_out] in the layout of x, mask (empty without save_mask).
#
# mask: uint8 [N, C, M_y, 2, 4 ceil(M_x / 32)], contiguous, M the grid of t: row [n, c, m_y, 0] holds 1 where not t > 0, row
# [n, c, m_y, 1] holds 1 where |gain act(t)| >= clamp (0 without a clamp). Element m_x is bit m_x % 8 of byte m_x / 8 (so bit
# m_x % 32 of the little-endian word m_x / 32); bits from M_x on are 0. Every element of the grid is written.
_library.define(
    "filtered_lrelu(Tensor x, Tensor? b, Tensor fu, Tensor fd, int up, int down, int[] padding, float gain, float slope,"
    " float clamp, bool flip_filter, bool save_mask) -> (Tensor, Tensor)",
    reference=_reference,
    fake=_fake,
    setup_context=_setup,
    backward=_backward,
    kernels=("cpp", "cuda"),
)

# The transposed pass, which is its own kind of adjoint: linear in x, the mask read instead of computed, no bias, no clamp.
# offset: [p_x, p_y, q_x, q_y], size: [M_x, M_y, out_x, out_y]; both offsets may have any sign, and out may reach outside of t:
#   t[m] = gain sum_k hu[k] x[(m + k - p) / up] over integer indices inside x, 0 <= m < M (gain is the whole factor)
#   v[m] = clamped ? 0 : negative ? slope t : t inside of [0, M), 0 outside
#   y[o] = sum_k hd[k] v[o down + k - q], 0 <= o < out
# The forward is this pass with p = padding before, q = 0 and gain up^2.
_library.define(
    "filtered_lrelu_backward(Tensor x, Tensor mask, Tensor fu, Tensor fd, int up, int down, int[] offset, int[] size,"
    " float gain, float slope, bool flip_filter) -> Tensor",
    reference=_backward_reference,
    fake=lambda x, mask, fu, fd, up, down, offset, size, *_: _empty(x, size[2:]),
    setup_context=_setup_backward,
    backward=_double_backward,
    kernels=("cpp", "cuda"),
)
