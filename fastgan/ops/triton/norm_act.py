"""norm_act in Triton: y = act(weight (x - mean) rstd + bias) + residual, with statistics per sample and channel.

Two launches each way: the first takes partial statistics of parts of a plane, the second joins them (in a fixed order,
by Chan, Golub & LeVeque 1979, so no cancellation) and maps. Bytes per element in float32 if the second reading comes
from cache (H100: 50 MB): forward 8, 12 with a residual, backward 12; if not, 4 and 8 more. For 1x64x256x256: 34 MB, 11
us at 3 TB/s. Not measured: no GPU was at hand. NCHW and channels_last are read as they lie.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastgan.ops._checks import accumulation_dtype
from fastgan.ops.bias_act import ACTIVATIONS
from fastgan.ops.triton.launch import WARPS, check_tensors, in_layout_of, two_floats
from fastgan.ops.triton.math import activate, times_derivative, wide

TILE = 2048
PROGRAMS = 1024  # wanted in flight: about 8 per multiprocessor of the largest GPUs
MOST_PARTS = 64


@triton.jit
def _place(channels, pixels, part, parts, TILE_C: tl.constexpr):
    """(sample, channel indices, first pixel, end) of this program."""
    blocks = tl.cdiv(channels, TILE_C)
    pid = tl.program_id(0)
    index = pid % parts
    first = index * part
    return (
        (pid // parts // blocks).to(tl.int64),
        pid // parts % blocks * TILE_C + tl.arange(0, TILE_C),
        index,
        first,
        tl.minimum(first + part, pixels),
    )


@triton.jit
def _offsets(start, last, c, channels, stride_c, stride_p, TILE_P: tl.constexpr, WIDE: tl.constexpr):
    p = start + tl.arange(0, TILE_P)
    mask = (p < last)[:, None] & (c < channels)[None, :]
    if WIDE:
        p, c = p.to(tl.int64), c.to(tl.int64)
    return p[:, None] * stride_p + c[None, :] * stride_c, mask


@triton.jit
def _xhat_and_t(x, mean, rstd, weight, bias, c, channels):
    """(xhat, weight xhat + bias) of a tile [pixels, channels]."""
    xhat = (x - mean[None, :]) * rstd[None, :]
    t = xhat
    if weight is not None:
        t *= tl.load(weight + c, mask=c < channels, other=0).to(x.dtype)[None, :]
    if bias is not None:
        t += tl.load(bias + c, mask=c < channels, other=0).to(x.dtype)[None, :]
    return xhat, t


@triton.jit
def statistics_kernel(
    x, means, squares, channels, planes, pixels, stride_n, stride_c, stride_p, part, parts,
    TILE_P: tl.constexpr, TILE_C: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """means, squares [parts, planes]: mean and sum of squared deviations of each part of each plane."""
    n, c, index, first, last = _place(channels, pixels, part, parts, TILE_C)
    mean = tl.zeros([TILE_C], means.dtype.element_ty)
    square = tl.zeros([TILE_C], means.dtype.element_ty)
    for start in range(first, last, TILE_P):
        offsets, mask = _offsets(start, last, c, channels, stride_c, stride_p, TILE_P, WIDE)
        v = tl.load(x + n * stride_n + offsets, mask=mask, other=0).to(mean.dtype)
        size = tl.minimum(last - start, TILE_P).to(mean.dtype)
        before = (start - first).to(mean.dtype)
        tile_mean = tl.sum(v, 0) / size
        d = tl.where(mask, v - tile_mean[None, :], 0)
        delta = tile_mean - mean
        mean += delta * (size / (before + size))
        square += tl.sum(d * d, 0) + delta * delta * (before * (size / (before + size)))
    at = index * planes + n * channels + c
    tl.store(means + at, mean, mask=c < channels)
    tl.store(squares + at, square, mask=c < channels)


@triton.jit
def forward_kernel(
    x, weight, bias, residual, means, squares, y, mean_out, rstd_out,
    channels, planes, pixels, stride_n, stride_c, stride_p, part, parts, alpha, alpha_low, eps, eps_low,
    ACT: tl.constexpr, PARTS: tl.constexpr, TILE_P: tl.constexpr, TILE_C: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    n, c, index, first, last = _place(channels, pixels, part, parts, TILE_C)
    i = tl.arange(0, PARTS)
    at = i[:, None] * planes + (n * channels + c)[None, :]
    some = (i < parts)[:, None] & (c < channels)[None, :]
    part_means = tl.load(means + at, mask=some, other=0)
    T: tl.constexpr = part_means.dtype
    sizes = tl.where(i < parts, tl.minimum(pixels - i * part, part), 0).to(T)[:, None]
    total = tl.cast(pixels, T)
    mean = tl.sum(part_means * (sizes / total), 0)
    d = part_means - mean[None, :]
    var = (tl.sum(tl.load(squares + at, mask=some, other=0), 0) + tl.sum(sizes * d * d, 0)) / total
    rstd = 1 / tl.sqrt(var + wide(eps, eps_low, var))
    if index == 0:
        tl.store(mean_out + n * channels + c, mean, mask=c < channels)
        tl.store(rstd_out + n * channels + c, rstd, mask=c < channels)
    for start in range(first, last, TILE_P):
        offsets, mask = _offsets(start, last, c, channels, stride_c, stride_p, TILE_P, WIDE)
        loaded = tl.load(x + n * stride_n + offsets, mask=mask, other=0)
        t = _xhat_and_t(loaded.to(T), mean, rstd, weight, bias, c, channels)[1]
        v = activate(t, wide(alpha, alpha_low, t), ACT)
        if residual is not None:
            v += tl.load(residual + n * stride_n + offsets, mask=mask, other=0).to(T)
        tl.store(y + n * stride_n + offsets, v.to(loaded.dtype), mask=mask)


@triton.jit
def _gradient(dy, t, alpha, alpha_low, ACT: tl.constexpr, SAVES_INPUT: tl.constexpr):
    """dy act'(t)"""
    a = wide(alpha, alpha_low, t)
    s = t if SAVES_INPUT else activate(t, a, ACT)
    return times_derivative(dy, s, a, ACT)


@triton.jit
def sums_kernel(
    dy, x, weight, bias, mean, rstd, sums_g, sums_gx,
    channels, planes, pixels, stride_n, stride_c, stride_p, part, parts, alpha, alpha_low,
    ACT: tl.constexpr, SAVES_INPUT: tl.constexpr, TILE_P: tl.constexpr, TILE_C: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """sums_g, sums_gx [parts, planes]: of g = dy act'(t) and of g xhat."""
    n, c, index, first, last = _place(channels, pixels, part, parts, TILE_C)
    m = tl.load(mean + n * channels + c, mask=c < channels, other=0)
    r = tl.load(rstd + n * channels + c, mask=c < channels, other=0)
    total_g = tl.zeros([TILE_C], m.dtype)
    total_gx = tl.zeros([TILE_C], m.dtype)
    for start in range(first, last, TILE_P):
        offsets, mask = _offsets(start, last, c, channels, stride_c, stride_p, TILE_P, WIDE)
        v = tl.load(x + n * stride_n + offsets, mask=mask, other=0).to(m.dtype)
        xhat, t = _xhat_and_t(v, m, r, weight, bias, c, channels)
        upstream = tl.load(dy + n * stride_n + offsets, mask=mask, other=0).to(m.dtype)
        g = _gradient(upstream, t, alpha, alpha_low, ACT, SAVES_INPUT)
        total_g += tl.sum(tl.where(mask, g, 0), 0)
        total_gx += tl.sum(tl.where(mask, g * xhat, 0), 0)
    at = index * planes + n * channels + c
    tl.store(sums_g + at, total_g, mask=c < channels)
    tl.store(sums_gx + at, total_gx, mask=c < channels)


@triton.jit
def backward_kernel(
    dy, x, weight, bias, mean, rstd, sums_g, sums_gx, dx, sum_g_out, sum_gx_out,
    channels, planes, pixels, stride_n, stride_c, stride_p, part, parts, alpha, alpha_low,
    ACT: tl.constexpr, SAVES_INPUT: tl.constexpr, PARTS: tl.constexpr,
    TILE_P: tl.constexpr, TILE_C: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """dx = weight rstd (g - mean g - xhat mean(g xhat))"""
    n, c, index, first, last = _place(channels, pixels, part, parts, TILE_C)
    i = tl.arange(0, PARTS)
    at = i[:, None] * planes + (n * channels + c)[None, :]
    some = (i < parts)[:, None] & (c < channels)[None, :]
    sum_g = tl.sum(tl.load(sums_g + at, mask=some, other=0), 0)
    sum_gx = tl.sum(tl.load(sums_gx + at, mask=some, other=0), 0)
    if index == 0:
        tl.store(sum_g_out + n * channels + c, sum_g, mask=c < channels)
        tl.store(sum_gx_out + n * channels + c, sum_gx, mask=c < channels)
    m = tl.load(mean + n * channels + c, mask=c < channels, other=0)
    r = tl.load(rstd + n * channels + c, mask=c < channels, other=0)
    scale = r
    if weight is not None:
        scale *= tl.load(weight + c, mask=c < channels, other=0).to(m.dtype)
    total = tl.cast(pixels, m.dtype)
    mean_g, mean_gx = sum_g / total, sum_gx / total
    for start in range(first, last, TILE_P):
        offsets, mask = _offsets(start, last, c, channels, stride_c, stride_p, TILE_P, WIDE)
        loaded = tl.load(x + n * stride_n + offsets, mask=mask, other=0)
        xhat, t = _xhat_and_t(loaded.to(m.dtype), m, r, weight, bias, c, channels)
        upstream = tl.load(dy + n * stride_n + offsets, mask=mask, other=0).to(m.dtype)
        g = _gradient(upstream, t, alpha, alpha_low, ACT, SAVES_INPUT)
        d = scale[None, :] * (g - mean_g[None, :] - xhat * mean_gx[None, :])
        tl.store(dx + n * stride_n + offsets, d.to(loaded.dtype), mask=mask)


class Plan(NamedTuple):
    """How a dense x [N, C, ...], planes or channels innermost, is cut into programs."""

    channels: int
    planes: int
    pixels: int
    stride_n: int
    stride_c: int
    stride_p: int
    part: int  # pixels of a program, a multiple of the tile's
    parts: int
    tile_p: int
    tile_c: int

    @staticmethod
    def of(x: torch.Tensor) -> "Plan":
        samples, channels = x.shape[:2]
        pixels = x.numel() // (samples * channels)
        by_pixel = channels > 1 and x.stride(1) == 1 and pixels > 1
        tile_c = min(64, triton.next_power_of_2(channels)) if by_pixel else 1
        tile_p = min(TILE // tile_c, triton.next_power_of_2(pixels))
        programs = samples * triton.cdiv(channels, tile_c)
        parts = max(1, min(triton.cdiv(pixels, tile_p), PROGRAMS // programs, MOST_PARTS))
        part = triton.cdiv(triton.cdiv(pixels, parts), tile_p) * tile_p
        strides = (channels * pixels, 1, channels) if by_pixel else (channels * pixels, pixels, 1)
        parts = triton.cdiv(pixels, part)
        return Plan(channels, samples * channels, pixels, *strides, part, parts, tile_p, tile_c)

    @property
    def programs(self) -> int:
        return self.planes // self.channels * triton.cdiv(self.channels, self.tile_c) * self.parts

    @property
    def numbers(self) -> tuple[int, ...]:
        return self[:8]

    @property
    def options(self) -> dict:
        wide = (self.channels + self.tile_c) * (self.pixels + self.part) > 2**31 - 1  # of one sample
        return {"TILE_P": self.tile_p, "TILE_C": self.tile_c, "WIDE": wide, "num_warps": WARPS}


def _plane_or_pixel_order(x: torch.Tensor) -> torch.Tensor:
    """A tensor of x's shape in the layout the kernels work in: that of x where it is NCHW or channels_last."""
    like = torch.empty_like(x)
    if like.is_contiguous() or like.movedim(1, -1).is_contiguous():
        return like
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def norm_act(x, weight, bias, residual, act, alpha, eps):
    check_tensors(x, (weight, x.shape[1:2]), (bias, x.shape[1:2]), (residual, x.shape))
    result = torch.empty_like(x)
    mean, rstd = (x.new_empty(x.shape[:2], dtype=accumulation_dtype(x.dtype)) for _ in range(2))
    if not x.numel():
        return result, mean.fill_(float("nan")), rstd.fill_(float("nan"))  # as the mean of no pixels
    y = _plane_or_pixel_order(x)
    x, residual = in_layout_of(x, y), None if residual is None else in_layout_of(residual, y)
    plan = Plan.of(y)
    means, squares = mean.new_empty((2, plan.parts, plan.planes))
    weight, bias = (None if v is None else v.contiguous() for v in (weight, bias))
    with torch.cuda.device_of(x):
        statistics_kernel[(plan.programs,)](x, means, squares, *plan.numbers, **plan.options)
        forward_kernel[(plan.programs,)](
            x, weight, bias, residual, means, squares, y, mean, rstd, *plan.numbers, *two_floats(alpha),
            *two_floats(eps), ACT=act, PARTS=triton.next_power_of_2(plan.parts), **plan.options,
        )  # fmt: skip
    return y if y.stride() == result.stride() else result.copy_(y), mean, rstd


def norm_act_backward(dy, x, weight, bias, mean, rstd, act, alpha, eps):
    check_tensors(
        x, (dy, x.shape), (weight, x.shape[1:2]), (bias, x.shape[1:2]), (mean, x.shape[:2]), (rstd, x.shape[:2])
    )
    result = torch.empty_like(x)
    sum_g, sum_gx = torch.empty_like(mean), torch.empty_like(mean)
    if not x.numel():
        return result, sum_g.zero_(), sum_gx.zero_()
    dx = _plane_or_pixel_order(x)
    dy, x, mean, rstd = in_layout_of(dy, dx), in_layout_of(x, dx), mean.contiguous(), rstd.contiguous()
    plan = Plan.of(dx)
    sums_g, sums_gx = mean.new_empty((2, plan.parts, plan.planes))
    weight, bias = (None if v is None else v.contiguous() for v in (weight, bias))
    activation = {"ACT": act, "SAVES_INPUT": ACTIVATIONS[act].saves_input}
    with torch.cuda.device_of(x):
        sums_kernel[(plan.programs,)](
            dy, x, weight, bias, mean, rstd, sums_g, sums_gx, *plan.numbers, *two_floats(alpha), **activation,
            **plan.options,
        )  # fmt: skip
        backward_kernel[(plan.programs,)](
            dy, x, weight, bias, mean, rstd, sums_g, sums_gx, dx, sum_g, sum_gx, *plan.numbers, *two_floats(alpha),
            **activation, PARTS=triton.next_power_of_2(plan.parts), **plan.options,
        )  # fmt: skip
    return dx if dx.stride() == result.stride() else result.copy_(dx), sum_g, sum_gx
