"""bias_act in Triton: y = clip(gain act(x + b), -clamp, clamp) and its gradient, one pass each.

Bytes per element in float32: forward 8 (read x, write y); backward 12 (read dy and the saved tensor, write dx) and,
with a bias gradient, one float per row of a tile (for 64x64 images 1/4096 per element). For 8x256x64x64: 67 and 101
MB, 22 and 34 us at 3 TB/s.

A dense tensor is a matrix: [outer * channels, inner], one bias per row, or [outer, channels], one bias per column
(channels_last, linear layers), or one row where there is no bias.
"""

import functools
import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from fastgan._triton_private import launch
from fastgan.ops._checks import accumulation_dtype
from fastgan.ops.bias_act import ACTIVATIONS
from fastgan.ops.triton.launch import WARPS, Tiles, check_tensors, in_layout_of, two_floats
from fastgan.ops.triton.math import activate, clipped, times_derivative, wide


@triton.jit
def _tile(rows, columns, TILE_R: tl.constexpr, TILE_C: tl.constexpr, WIDE: tl.constexpr):
    """(row tile, row indices, column indices, offsets, mask) of this program. No division: axis 0 of the grid counts
    tiles of columns, axes 1 and 2 those of rows."""
    row = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    column = tl.program_id(0)
    if WIDE:
        row, column = row.to(tl.int64), column.to(tl.int64)
    r = row * TILE_R + tl.arange(0, TILE_R)
    c = column * TILE_C + tl.arange(0, TILE_C)
    return row, r, c, r[:, None] * columns + c[None, :], (r < rows)[:, None] & (c < columns)[None, :]


@triton.jit
def _bias(b, r, c, rows, columns, channels, BY_ROW: tl.constexpr, WIDE: tl.constexpr):
    if BY_ROW:  # an unsigned remainder takes half the instructions
        channel = r % channels if WIDE else r.to(tl.uint32) % tl.cast(channels, tl.uint32)
        return tl.load(b + channel, mask=r < rows, other=0)[:, None]
    else:
        return tl.load(b + c, mask=c < columns, other=0)[None, :]


@triton.jit
def forward_kernel(
    x, b, y, rows, columns, channels, alpha, alpha_low, gain, gain_low, clamp, clamp_low,
    ACT: tl.constexpr, CLAMP: tl.constexpr, BY_ROW: tl.constexpr,
    TILE_R: tl.constexpr, TILE_C: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    _, r, c, offsets, mask = _tile(rows, columns, TILE_R, TILE_C, WIDE)
    loaded = tl.load(x + offsets, mask=mask)
    t = loaded if loaded.dtype == tl.float64 else loaded.to(tl.float32)
    if b is not None:
        t += _bias(b, r, c, rows, columns, channels, BY_ROW, WIDE).to(t.dtype)
    v = wide(gain, gain_low, t) * activate(t, wide(alpha, alpha_low, t), ACT)
    if CLAMP:
        v = clipped(v, wide(clamp, clamp_low, t))
    tl.store(y + offsets, v.to(loaded.dtype), mask=mask)


@triton.jit
def backward_kernel(
    dy, saved, b, dx, sums, rows, columns, channels, alpha, alpha_low, gain, gain_low, clamp, clamp_low,
    ACT: tl.constexpr, SAVES_INPUT: tl.constexpr, CLAMP: tl.constexpr, BY_ROW: tl.constexpr,
    TILE_R: tl.constexpr, TILE_C: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """dx = dy gain act'(s), dy counting as 0 where |y| has reached the clamp. sums: of dx over each tile's rows [rows,
    column tiles] or columns [row tiles, columns]."""
    row, r, c, offsets, mask = _tile(rows, columns, TILE_R, TILE_C, WIDE)
    loaded = tl.load(dy + offsets, mask=mask, other=0)
    d = loaded if loaded.dtype == tl.float64 else loaded.to(tl.float32)
    slope = wide(gain, gain_low, d)
    d *= slope
    if saved is not None:
        s = tl.load(saved + offsets, mask=mask, other=0).to(d.dtype)
        y = s
        a = wide(alpha, alpha_low, d)
        if SAVES_INPUT:
            if b is not None:
                s += _bias(b, r, c, rows, columns, channels, BY_ROW, WIDE).to(d.dtype)
            if CLAMP:
                y = (slope * activate(s, a, ACT)).to(loaded.dtype).to(d.dtype)  # as it was stored
        else:
            s /= slope
        if CLAMP:
            # the stored output is compared, so the limit is rounded as it was
            limit = wide(clamp, clamp_low, d).to(loaded.dtype).to(d.dtype)
            d = tl.where(tl.abs(y) >= limit, 0, d)
        d = times_derivative(d, s, a, ACT)
    tl.store(dx + offsets, d.to(loaded.dtype), mask=mask)
    if sums is not None:
        d = tl.where(mask, d, 0)
        if BY_ROW:
            tl.store(sums + r * tl.num_programs(0) + tl.program_id(0), tl.sum(d, 1), mask=r < rows)
        else:
            tl.store(sums + row * columns + c, tl.sum(d, 0), mask=(c < columns) & (row * TILE_R < rows))


class Plan(NamedTuple):
    """What a launch needs besides tensors, for a dense, non-empty tensor of such a shape and strides."""

    by_row: bool  # one bias per row of the matrix
    channels: int
    grid: tuple[int, int, int]
    sums: tuple[int, int]  # shape of the sums of a bias gradient
    numbers: tuple
    options: dict

    @staticmethod
    @functools.lru_cache(1024)
    def of(shape, strides, by_channel, dim, act, alpha, gain, clamp) -> "Plan":
        size, channels = math.prod(shape), shape[dim] if by_channel else 1
        inner = strides[dim] if channels > 1 else size
        by_row = inner > 1 or channels == 1
        tiles = Tiles.of(size // inner, inner) if by_row else Tiles.of(size // channels, channels, 256)
        floats = (*two_floats(alpha), *two_floats(gain), *two_floats(clamp))
        options = {
            "ACT": act,
            "CLAMP": clamp >= 0,
            "BY_ROW": by_row,
            "TILE_R": tiles.tile_rows,
            "TILE_C": tiles.tile_columns,
            "WIDE": tiles.wide,
            "num_warps": WARPS,
        }
        sums = (tiles.rows, tiles.column_tiles) if by_row else (tiles.row_tiles, tiles.columns)
        return Plan(by_row, channels, tiles.grid, sums, (tiles.rows, tiles.columns, channels, *floats), options)


def bias_act(x, b, dim, act, alpha, gain, clamp):
    check_tensors(x, (b, x.shape[dim : dim + 1]))
    y = torch.empty_like(x)
    if not x.numel():
        return y
    plan = Plan.of(y.shape, y.stride(), b is not None, dim, act, alpha, gain, clamp)
    tensors = in_layout_of(x, y), None if b is None else b.contiguous(), y
    launch(forward_kernel, plan.grid, tensors, plan.numbers, plan.options)
    return y


def bias_act_backward(dy, saved, b, dim, act, alpha, gain, clamp, bias_grad):
    check_tensors(dy, (saved, dy.shape), (b, dy.shape[dim : dim + 1]))
    dx = torch.empty_like(dy if saved is None else saved)
    if not dx.numel():
        return dx, dy.new_zeros(dy.shape[dim] if bias_grad else 0)
    saves_input = ACTIVATIONS[act].saves_input
    b = b.contiguous() if b is not None and saves_input else None
    plan = Plan.of(dx.shape, dx.stride(), bias_grad or b is not None, dim, act, alpha, gain, clamp)
    sums = dx.new_empty(plan.sums, dtype=accumulation_dtype(dx.dtype)) if bias_grad else None
    tensors = in_layout_of(dy, dx), None if saved is None else in_layout_of(saved, dx), b, dx, sums
    launch(backward_kernel, plan.grid, tensors, plan.numbers, {**plan.options, "SAVES_INPUT": saves_input})
    if sums is None:
        return dx, dy.new_empty(0)
    return dx, (sums.view(-1, plan.channels, sums.shape[1]).sum((0, 2)) if plan.by_row else sums.sum(0)).to(dx.dtype)
