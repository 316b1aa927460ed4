"""modulated_activation in Triton: y = clip(gain lrelu(scale x + noise + bias), -clamp, clamp) and its gradients, one pass each.

A program has some pixels of a sample: forward some of their channels, backward all, tile after tile, so that it ends with the
gradient of their noise; its sums over pixels are added after it. Bytes per element in float32: forward 8, backward 16; for
8x256x64x64 67 and 134 MB, 14 and 28 us at 4.8 TB/s.
"""

import functools
import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastgan._triton_private import Launch
from fastgan.ops._checks import accumulation_dtype, in_dtype
from fastgan.ops.triton.launch import WARPS, in_layout_of, plane_or_pixel_order, two_floats
from fastgan.ops.triton.math import activate, clipped, times_derivative, wide

TILE = 2048  # 8 elements in each thread of 8 warps: with 16, the backward of 16-bit types spills registers
PROGRAMS = 1024  # wanted in flight: about 8 per multiprocessor of the largest GPUs


@triton.jit
def _pixels(pixels, TILE_P: tl.constexpr, WIDE: tl.constexpr):
    """(sample, its pixels of this program)"""
    tiles = tl.cdiv(pixels, TILE_P)
    n = tl.program_id(0) // tiles
    p = tl.program_id(0) % tiles * TILE_P + tl.arange(0, TILE_P)
    return (n.to(tl.int64), p.to(tl.int64)) if WIDE else (n, p)


@triton.jit
def _channel(v, LAST: tl.constexpr):
    return v[None, :] if LAST else v[:, None]


@triton.jit
def _pixel(v, LAST: tl.constexpr):
    return v[:, None] if LAST else v[None, :]


@triton.jit
def _offsets(n, c, p, channels, pixels, LAST: tl.constexpr):
    """(offsets, mask) of a tile: [channels, pixels], or [pixels, channels] where channels are innermost"""
    mask = _channel(c < channels, LAST) & _pixel(p < pixels, LAST)
    start = n * channels * pixels
    return start + (p[:, None] * channels + c[None, :] if LAST else c[:, None] * pixels + p[None, :]), mask


@triton.jit
def forward_kernel(
    x, scale, noise, bias, y, channels, pixels, distance, alpha, alpha_low, gain, gain_low, clamp, clamp_low,
    CLAMP: tl.constexpr, LAST: tl.constexpr, TILE_C: tl.constexpr, TILE_P: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """distance: of one sample's noise from the next one's"""
    n, p = _pixels(pixels, TILE_P, WIDE)
    c = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
    offsets, mask = _offsets(n, c, p, channels, pixels, LAST)
    loaded = tl.load(x + offsets, mask=mask)
    s = tl.load(scale + n * channels + c, mask=c < channels)
    b = tl.load(bias + c, mask=c < channels).to(s.dtype)
    t = loaded.to(s.dtype) * _channel(s, LAST) + _channel(b, LAST)
    if noise is not None:
        t += _pixel(tl.load(noise + n * distance + p, mask=p < pixels), LAST).to(s.dtype)
    v = wide(gain, gain_low, t) * activate(t, wide(alpha, alpha_low, t), "lrelu")
    if CLAMP:
        v = clipped(v, wide(clamp, clamp_low, t))
    tl.store(y + offsets, v.to(loaded.dtype), mask=mask)


@triton.jit
def backward_kernel(
    dy, y, x, scale, dx, dnoise, scales, biases, channels, pixels, alpha, alpha_low, gain, gain_low, clamp, clamp_low,
    CLAMP: tl.constexpr, LAST: tl.constexpr, TILE_C: tl.constexpr, TILE_P: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """scales, biases [programs, channels]: sums of dt x and of dt over each program's pixels."""
    n, p = _pixels(pixels, TILE_P, WIDE)
    of_noise = tl.zeros([TILE_P], scales.dtype.element_ty)
    for first in range(0, channels, TILE_C):
        c = first + tl.arange(0, TILE_C)
        offsets, mask = _offsets(n, c, p, channels, pixels, LAST)
        loaded = tl.load(dy + offsets, mask=mask, other=0)
        out = tl.load(y + offsets, mask=mask, other=0).to(of_noise.dtype)
        s = tl.load(scale + n * channels + c, mask=c < channels, other=0)
        dt = loaded.to(of_noise.dtype) * wide(gain, gain_low, out)
        if CLAMP:
            # the stored output is compared, so the limit is rounded as it was
            limit = wide(clamp, clamp_low, out).to(loaded.dtype).to(out.dtype)
            dt = tl.where(tl.abs(out) >= limit, 0, dt)
        dt = times_derivative(dt, out, wide(alpha, alpha_low, out), "lrelu")
        tl.store(dx + offsets, (dt * _channel(s, LAST)).to(loaded.dtype), mask=mask)
        dtx = dt * tl.load(x + offsets, mask=mask, other=0).to(dt.dtype)
        at = tl.program_id(0).to(n.dtype) * channels + c
        tl.store(scales + at, tl.sum(dtx, 0 if LAST else 1), mask=c < channels)
        tl.store(biases + at, tl.sum(dt, 0 if LAST else 1), mask=c < channels)
        of_noise += tl.sum(dt, 1 if LAST else 0)
    tl.store(dnoise + n * pixels + p, of_noise.to(dnoise.dtype.element_ty), mask=p < pixels)


class Cut(NamedTuple):
    """How a non-empty tensor of such a shape, contiguous or channels_last, is cut into tiles."""

    tiles: int  # of the pixels of a sample
    grid: tuple[int, int]  # of the forward
    sizes: tuple[int, int]  # channels, pixels
    options: dict

    @staticmethod
    def of(shape, strides) -> "Cut":
        samples, channels, pixels = *shape[:2], math.prod(shape[2:])
        last = channels > 1 and strides[1] == 1 and pixels > 1
        few = min(128, max(32, triton.next_power_of_2(samples * pixels // PROGRAMS)))
        tile_p = min(triton.next_power_of_2(pixels), few)
        tile_c = min(triton.next_power_of_2(channels), TILE // tile_p)
        options = {
            "LAST": last,
            "TILE_C": tile_c,
            "TILE_P": tile_p,
            "WIDE": samples * (channels + tile_c) * (pixels + tile_p) > 2**31 - 1,  # an offset, masked lanes included
            "num_warps": max(1, min(WARPS, tile_c * tile_p // 256)),
        }
        tiles = triton.cdiv(pixels, tile_p)
        return Cut(tiles, (samples * tiles, triton.cdiv(channels, tile_c)), (channels, pixels), options)

    def launch(self, kernel, grid, sizes, alpha, gain, clamp) -> Launch:
        floats = (*two_floats(alpha), *two_floats(gain), *two_floats(clamp))
        return Launch(kernel, grid, (*sizes, *floats), {"CLAMP": clamp >= 0, **self.options})


@functools.lru_cache(1024)
def _forward(shape, strides, distance, *numbers) -> Launch:
    """distance: between the noises of two samples."""
    cut = Cut.of(shape, strides)
    return cut.launch(forward_kernel, cut.grid, (*cut.sizes, distance), *numbers)


@functools.lru_cache(1024)
def _backward(shape, strides, *numbers) -> tuple[int, Launch]:
    """(tiles of the pixels of a sample, the launch)"""
    cut = Cut.of(shape, strides)
    return cut.tiles, cut.launch(backward_kernel, cut.grid[:1], cut.sizes, *numbers)


def modulated_activation(x, scale, noise, bias, alpha, gain, clamp):
    result = torch.empty_like(x)
    if not x.numel():
        return result
    y = plane_or_pixel_order(result)
    pixels = math.prod(x.shape[2:])
    distance = 0 if noise is None or noise.numel() == pixels else pixels
    noise = None if noise is None else noise.contiguous()
    launch = _forward(y.shape, y.stride(), distance, alpha, gain, clamp)
    launch(in_layout_of(x, y), scale.contiguous(), noise, bias.contiguous(), y)
    return y if y is result else result.copy_(y)


def modulated_activation_backward(dy, y, x, scale, bias, alpha, gain, clamp):
    result, dnoise = torch.empty_like(x), x.new_empty(x.shape[0], 1, *x.shape[2:])
    if not x.numel():
        return result, torch.zeros_like(scale), dnoise.zero_(), torch.zeros_like(bias)
    dx = plane_or_pixel_order(result)
    tiles, launch = _backward(dx.shape, dx.stride(), alpha, gain, clamp)
    sums = x.new_empty(2, x.shape[0], tiles, x.shape[1], dtype=accumulation_dtype(x.dtype))
    scales, biases = sums.unbind()
    given = in_layout_of(dy, dx), in_layout_of(y, dx), in_layout_of(x, dx), scale.contiguous()
    launch(*given, dx, dnoise, scales, biases)
    dx = dx if dx is result else result.copy_(dx)
    return dx, scales.sum(1), dnoise, in_dtype(biases.sum((0, 1)), x.dtype)


def _expected(x, scale, noise, bias, *_):
    size = x.shape[2:]
    shapes = (len(x), 1, *size), (1, 1, *size), tuple(size)
    of_noise = next((s for s in shapes if noise is not None and noise.shape == s), shapes[0])
    return x, (scale, x.shape[:2]), (noise, of_noise), (bias, x.shape[1:2])


EXPECTED = {
    "modulated_activation": _expected,
    "modulated_activation_backward": lambda dy, y, x, scale, bias, *_: (
        x, (dy, x.shape), (y, x.shape), (scale, x.shape[:2]), (bias, x.shape[1:2])
    ),
}  # fmt: skip
