"""norm_act in Triton: y = act(weight (x - mean) rstd + bias) + residual, with statistics per sample and channel.

A plane that fits the registers of a block is read once, many small ones by one program. Larger planes take two launches each
way: the first takes partial statistics of parts of a plane, the second joins them (in a fixed order, by Chan, Golub &
LeVeque 1979, so no cancellation) and maps. Bytes per element in float32: forward 8, 12 with a residual, backward 12; of large
planes 4 and 8 more where the second reading does not come from cache (H100: 50 MB). NCHW and channels_last are read as they
lie.
"""

import functools

import torch
import triton
import triton.language as tl

from fastgan._triton_private import Launch
from fastgan.ops._checks import accumulation_dtype
from fastgan.ops.bias_act import ACTIVATIONS
from fastgan.ops.triton.launch import in_layout_of, plane_or_pixel_order, two_floats
from fastgan.ops.triton.math import activate, times_derivative, wide
from fastgan.ops.triton.planes import Plan, planes_of_program, tile_offsets


@triton.jit
def _affine(weight, bias, channel, there, T: tl.constexpr):
    """Of each plane; 1 and 0 where there is none."""
    w = tl.full(channel.shape, 1, T)
    b = tl.zeros(channel.shape, T)
    if weight is not None:
        w = tl.load(weight + channel, mask=there, other=0).to(T)
    if bias is not None:
        b = tl.load(bias + channel, mask=there, other=0).to(T)
    return w, b


@triton.jit
def _gradient(dy, t, alpha, alpha_low, ACT: tl.constexpr, SAVES_INPUT: tl.constexpr):
    """dy act'(t)"""
    a = wide(alpha, alpha_low, t)
    s = t if SAVES_INPUT else activate(t, a, ACT)
    return times_derivative(dy, s, a, ACT)


@triton.jit
def _input_gradient(g, xhat, sum_g, sum_gx, rstd, w, pixels):
    """dx of a tile [pixels, channels]"""
    scale = rstd * w
    sum_g += 0 * scale  # NaN under an infinite weight, as the differences would be
    total = tl.cast(pixels, g.dtype)
    return scale[None, :] * (g - (sum_g / total)[None, :] - xhat * (sum_gx / total)[None, :])


@triton.jit
def whole_forward_kernel(
    x, weight, bias, residual, y, mean_out, rstd_out, channels, planes, pixels, alpha, alpha_low, eps, eps_low,
    ACT: tl.constexpr, TILE_P: tl.constexpr, TILE_C: tl.constexpr,
    FULL: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Planes of at most TILE_P pixels. FULL: of as many, a constant, so that no pixel is masked."""
    if FULL:
        pixels = TILE_P
    plane, channel, there, first, step = planes_of_program(channels, planes, pixels, TILE_C, LAST, WIDE)
    offsets, mask = tile_offsets(0, pixels, first, step, there, TILE_P, WIDE)
    if FULL:
        mask = there[None, :]
    loaded = tl.load(x + offsets, mask=mask, other=0)
    T: tl.constexpr = mean_out.dtype.element_ty
    w, b = _affine(weight, bias, channel, there, T)
    v = loaded.to(T)
    total = tl.cast(pixels, T)
    mean = tl.sum(v, 0) / total
    d = v - mean[None, :]
    if not FULL:
        d = tl.where(mask, d, 0)
    var = tl.sum(d * d, 0) / total
    rstd = 1 / tl.sqrt(var + wide(eps, eps_low, var))
    t = (v - mean[None, :]) * (rstd * w)[None, :] + b[None, :]
    u = activate(t, wide(alpha, alpha_low, t), ACT)
    if residual is not None:
        u += tl.load(residual + offsets, mask=mask, other=0).to(T)
    tl.store(y + offsets, u.to(loaded.dtype), mask=mask)
    tl.store(mean_out + plane, mean, mask=there)
    tl.store(rstd_out + plane, rstd, mask=there)


@triton.jit
def whole_backward_kernel(
    dy, x, weight, bias, mean, rstd, dx, sum_g_out, sum_gx_out, channels, planes, pixels, alpha, alpha_low,
    ACT: tl.constexpr, SAVES_INPUT: tl.constexpr, TILE_P: tl.constexpr, TILE_C: tl.constexpr,
    FULL: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """dx = weight rstd (g - mean g - xhat mean(g xhat)) with g = dy act'(t)"""
    if FULL:
        pixels = TILE_P
    plane, channel, there, first, step = planes_of_program(channels, planes, pixels, TILE_C, LAST, WIDE)
    offsets, mask = tile_offsets(0, pixels, first, step, there, TILE_P, WIDE)
    if FULL:
        mask = there[None, :]
    loaded = tl.load(x + offsets, mask=mask, other=0)
    upstream = tl.load(dy + offsets, mask=mask, other=0)
    m = tl.load(mean + plane, mask=there, other=0)
    r = tl.load(rstd + plane, mask=there, other=0)
    w, b = _affine(weight, bias, channel, there, m.dtype)
    xhat = (loaded.to(m.dtype) - m[None, :]) * r[None, :]
    t = xhat * w[None, :] + b[None, :]
    g = _gradient(upstream.to(m.dtype), t, alpha, alpha_low, ACT, SAVES_INPUT)
    gx = g * xhat
    if not FULL:
        sum_g, sum_gx = tl.sum(tl.where(mask, g, 0), 0), tl.sum(tl.where(mask, gx, 0), 0)
    else:
        sum_g, sum_gx = tl.sum(g, 0), tl.sum(gx, 0)
    tl.store(sum_g_out + plane, sum_g, mask=there)
    tl.store(sum_gx_out + plane, sum_gx, mask=there)
    d = _input_gradient(g, xhat, sum_g, sum_gx, r, w, pixels)
    tl.store(dx + offsets, d.to(loaded.dtype), mask=mask)


@triton.jit
def statistics_kernel(
    x, means, squares, channels, planes, pixels, part,
    TILE_P: tl.constexpr, TILE_C: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """means, squares [parts, planes]: mean and sum of squared deviations of each part of each plane."""
    plane, _, there, first, step = planes_of_program(channels, planes, pixels, TILE_C, LAST, WIDE)
    begin = tl.program_id(1) * part
    last = tl.minimum(begin + part, pixels)
    mean = tl.zeros([TILE_C], means.dtype.element_ty)
    square = tl.zeros([TILE_C], means.dtype.element_ty)
    for start in range(begin, last, TILE_P):
        offsets, mask = tile_offsets(start, last, first, step, there, TILE_P, WIDE)
        v = tl.load(x + offsets, mask=mask, other=0).to(mean.dtype)
        size = tl.minimum(last - start, TILE_P).to(mean.dtype)
        before = (start - begin).to(mean.dtype)
        tile_mean = tl.sum(v, 0) / size
        d = tl.where(mask, v - tile_mean[None, :], 0)
        delta = tile_mean - mean
        mean += delta * (size / (before + size))
        square += tl.sum(d * d, 0) + delta * delta * (before * (size / (before + size)))
    at = tl.program_id(1) * planes + plane
    tl.store(means + at, mean, mask=there)
    tl.store(squares + at, square, mask=there)


@triton.jit
def forward_kernel(
    x, weight, bias, residual, means, squares, y, mean_out, rstd_out,
    channels, planes, pixels, part, alpha, alpha_low, eps, eps_low,
    ACT: tl.constexpr, PARTS: tl.constexpr,
    TILE_P: tl.constexpr, TILE_C: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    plane, channel, there, first, step = planes_of_program(channels, planes, pixels, TILE_C, LAST, WIDE)
    begin = tl.program_id(1) * part
    last = tl.minimum(begin + part, pixels)
    T: tl.constexpr = mean_out.dtype.element_ty
    w, b = _affine(weight, bias, channel, there, T)
    i = tl.arange(0, PARTS)
    at = i[:, None] * planes + plane[None, :]
    some = (i < tl.num_programs(1))[:, None] & there[None, :]
    part_means = tl.load(means + at, mask=some, other=0)
    sizes = tl.where(i < tl.num_programs(1), tl.minimum(pixels - i * part, part), 0).to(T)[:, None]
    total = tl.cast(pixels, T)
    mean = tl.sum(part_means * (sizes / total), 0)
    d = part_means - mean[None, :]
    var = (tl.sum(tl.load(squares + at, mask=some, other=0), 0) + tl.sum(sizes * d * d, 0)) / total
    rstd = 1 / tl.sqrt(var + wide(eps, eps_low, var))
    if tl.program_id(1) == 0:
        tl.store(mean_out + plane, mean, mask=there)
        tl.store(rstd_out + plane, rstd, mask=there)
    for start in range(begin, last, TILE_P):
        offsets, mask = tile_offsets(start, last, first, step, there, TILE_P, WIDE)
        loaded = tl.load(x + offsets, mask=mask, other=0)
        t = (loaded.to(T) - mean[None, :]) * (rstd * w)[None, :] + b[None, :]
        v = activate(t, wide(alpha, alpha_low, t), ACT)
        if residual is not None:
            v += tl.load(residual + offsets, mask=mask, other=0).to(T)
        tl.store(y + offsets, v.to(loaded.dtype), mask=mask)


@triton.jit
def sums_kernel(
    dy, x, weight, bias, mean, rstd, sums_g, sums_gx, channels, planes, pixels, part, alpha, alpha_low,
    ACT: tl.constexpr, SAVES_INPUT: tl.constexpr,
    TILE_P: tl.constexpr, TILE_C: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """sums_g, sums_gx [parts, planes]: of g = dy act'(t) and of g xhat."""
    plane, channel, there, first, step = planes_of_program(channels, planes, pixels, TILE_C, LAST, WIDE)
    begin = tl.program_id(1) * part
    last = tl.minimum(begin + part, pixels)
    m = tl.load(mean + plane, mask=there, other=0)
    r = tl.load(rstd + plane, mask=there, other=0)
    w, b = _affine(weight, bias, channel, there, m.dtype)
    total_g = tl.zeros([TILE_C], m.dtype)
    total_gx = tl.zeros([TILE_C], m.dtype)
    for start in range(begin, last, TILE_P):
        offsets, mask = tile_offsets(start, last, first, step, there, TILE_P, WIDE)
        v = tl.load(x + offsets, mask=mask, other=0).to(m.dtype)
        xhat = (v - m[None, :]) * r[None, :]
        t = xhat * w[None, :] + b[None, :]
        upstream = tl.load(dy + offsets, mask=mask, other=0).to(m.dtype)
        g = _gradient(upstream, t, alpha, alpha_low, ACT, SAVES_INPUT)
        total_g += tl.sum(tl.where(mask, g, 0), 0)
        total_gx += tl.sum(tl.where(mask, g * xhat, 0), 0)
    at = tl.program_id(1) * planes + plane
    tl.store(sums_g + at, total_g, mask=there)
    tl.store(sums_gx + at, total_gx, mask=there)


@triton.jit
def backward_kernel(
    dy, x, weight, bias, mean, rstd, sums_g, sums_gx, dx, sum_g_out, sum_gx_out,
    channels, planes, pixels, part, alpha, alpha_low,
    ACT: tl.constexpr, SAVES_INPUT: tl.constexpr, PARTS: tl.constexpr,
    TILE_P: tl.constexpr, TILE_C: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    plane, channel, there, first, step = planes_of_program(channels, planes, pixels, TILE_C, LAST, WIDE)
    begin = tl.program_id(1) * part
    last = tl.minimum(begin + part, pixels)
    i = tl.arange(0, PARTS)
    at = i[:, None] * planes + plane[None, :]
    some = (i < tl.num_programs(1))[:, None] & there[None, :]
    sum_g = tl.sum(tl.load(sums_g + at, mask=some, other=0), 0)
    sum_gx = tl.sum(tl.load(sums_gx + at, mask=some, other=0), 0)
    if tl.program_id(1) == 0:
        tl.store(sum_g_out + plane, sum_g, mask=there)
        tl.store(sum_gx_out + plane, sum_gx, mask=there)
    m = tl.load(mean + plane, mask=there, other=0)
    r = tl.load(rstd + plane, mask=there, other=0)
    w, b = _affine(weight, bias, channel, there, m.dtype)
    for start in range(begin, last, TILE_P):
        offsets, mask = tile_offsets(start, last, first, step, there, TILE_P, WIDE)
        loaded = tl.load(x + offsets, mask=mask, other=0)
        xhat = (loaded.to(m.dtype) - m[None, :]) * r[None, :]
        t = xhat * w[None, :] + b[None, :]
        upstream = tl.load(dy + offsets, mask=mask, other=0).to(m.dtype)
        g = _gradient(upstream, t, alpha, alpha_low, ACT, SAVES_INPUT)
        d = _input_gradient(g, xhat, sum_g, sum_gx, r, w, pixels)
        tl.store(dx + offsets, d.to(loaded.dtype), mask=mask)


@functools.lru_cache(1024)
def _forward(shape, strides, itemsize, act, alpha, eps) -> tuple[Plan, tuple[Launch, ...]]:
    plan = Plan.of(shape, strides, itemsize, 1)
    floats, options = (*two_floats(alpha), *two_floats(eps)), {"ACT": act, **plan.options}
    if plan.whole:
        options["FULL"] = plan.pixels == plan.tile_p
        return plan, (Launch(whole_forward_kernel, plan.grid, (*plan[:3], *floats), options),)
    options["PARTS"] = triton.next_power_of_2(plan.parts)
    statistics = Launch(statistics_kernel, plan.grid, plan[:4], plan.options)
    return plan, (statistics, Launch(forward_kernel, plan.grid, (*plan[:4], *floats), options))


@functools.lru_cache(1024)
def _backward(shape, strides, itemsize, act, alpha) -> tuple[Plan, tuple[Launch, ...]]:
    plan = Plan.of(shape, strides, itemsize, 2)
    options = {"ACT": act, "SAVES_INPUT": ACTIVATIONS[act].saves_input, **plan.options}
    if plan.whole:
        options["FULL"] = plan.pixels == plan.tile_p
        return plan, (Launch(whole_backward_kernel, plan.grid, (*plan[:3], *two_floats(alpha)), options),)
    numbers, parts = (*plan[:4], *two_floats(alpha)), triton.next_power_of_2(plan.parts)
    sums = Launch(sums_kernel, plan.grid, numbers, options)
    return plan, (sums, Launch(backward_kernel, plan.grid, numbers, {**options, "PARTS": parts}))


def norm_act(x, weight, bias, residual, act, alpha, eps):
    result = torch.empty_like(x)
    mean = x.new_empty(x.shape[:2], dtype=accumulation_dtype(x.dtype))
    rstd = torch.empty_like(mean)
    if not x.numel():
        return result, mean.fill_(float("nan")), rstd.fill_(float("nan"))  # as the mean of no pixels
    y = plane_or_pixel_order(result)
    plan, launches = _forward(y.shape, y.stride(), y.itemsize, act, alpha, eps)
    x, residual = in_layout_of(x, y), None if residual is None else in_layout_of(residual, y)
    weight = None if weight is None else weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    sums = () if plan.whole else mean.new_empty((2, plan.parts, plan.planes)).unbind()
    if sums:
        launches[0](x, *sums)
    launches[-1](x, weight, bias, residual, *sums, y, mean, rstd)
    return y if y is result else result.copy_(y), mean, rstd


def norm_act_backward(dy, x, weight, bias, mean, rstd, act, alpha, eps):
    result = torch.empty_like(x)
    sum_g, sum_gx = torch.empty_like(mean), torch.empty_like(mean)
    if not x.numel():
        return result, sum_g.zero_(), sum_gx.zero_()
    dx = plane_or_pixel_order(result)
    plan, launches = _backward(dx.shape, dx.stride(), dx.itemsize, act, alpha)
    weight = None if weight is None else weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    given = in_layout_of(dy, dx), in_layout_of(x, dx), weight, bias, mean.contiguous(), rstd.contiguous()
    sums = () if plan.whole else mean.new_empty((2, plan.parts, plan.planes)).unbind()
    if sums:
        launches[0](*given, *sums)
    launches[-1](*given, *sums, dx, sum_g, sum_gx)
    return dx if dx is result else result.copy_(dx), sum_g, sum_gx


def _affine_of(x, weight, bias):
    return (weight, x.shape[1:2]), (bias, x.shape[1:2])


EXPECTED = {
    "norm_act": lambda x, weight, bias, residual, *_: (x, *_affine_of(x, weight, bias), (residual, x.shape)),
    "norm_act_backward": lambda dy, x, weight, bias, mean, rstd, *_: (
        x, (dy, x.shape), *_affine_of(x, weight, bias), (mean, x.shape[:2]), (rstd, x.shape[:2])
    ),
}  # fmt: skip
