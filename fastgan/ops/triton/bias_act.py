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

from fastgan._triton_private import Launch
from fastgan.ops._checks import accumulation_dtype, in_dtype
from fastgan.ops.bias_act import ACTIVATIONS
from fastgan.ops.triton.launch import WARPS, Tiles, in_layout_of, two_floats
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


class Cut(NamedTuple):
    """How a dense, non-empty tensor of such a shape and strides is cut into tiles."""

    by_row: bool  # one bias per row of the matrix
    channels: int
    tiles: Tiles

    @staticmethod
    def of(shape, strides, by_channel, dim) -> "Cut":
        size, channels = math.prod(shape), shape[dim] if by_channel else 1
        inner = strides[dim] if channels > 1 else size
        by_row = inner > 1 or channels == 1
        tiles = Tiles.of(size // inner, inner) if by_row else Tiles.of(size // channels, channels, 256)
        return Cut(by_row, channels, tiles)

    def launch(self, kernel, act, alpha, gain, clamp, **constants) -> Launch:
        tiles = self.tiles
        options = {
            "ACT": act,
            **constants,
            "CLAMP": clamp >= 0,
            "BY_ROW": self.by_row,
            "TILE_R": tiles.tile_rows,
            "TILE_C": tiles.tile_columns,
            "WIDE": tiles.wide,
            "num_warps": WARPS,
        }
        floats = (*two_floats(alpha), *two_floats(gain), *two_floats(clamp))
        return Launch(kernel, tiles.grid, (tiles.rows, tiles.columns, self.channels, *floats), options)

    @property
    def sums(self) -> tuple[int, int]:
        """The shape of the sums of a bias gradient."""
        tiles = self.tiles
        return (tiles.rows, tiles.column_tiles) if self.by_row else (tiles.row_tiles, tiles.columns)


@functools.lru_cache(1024)
def _forward(shape, strides, by_channel, dim, *numbers) -> Launch:
    return Cut.of(shape, strides, by_channel, dim).launch(forward_kernel, *numbers)


@functools.lru_cache(1024)
def _backward(shape, strides, by_channel, dim, act, *numbers) -> tuple[Cut, Launch]:
    cut = Cut.of(shape, strides, by_channel, dim)
    return cut, cut.launch(backward_kernel, act, *numbers, SAVES_INPUT=ACTIVATIONS[act].saves_input)


def bias_act(x, b, dim, act, alpha, gain, clamp):
    y = torch.empty_like(x)
    if not x.numel():
        return y
    launch = _forward(y.shape, y.stride(), b is not None, dim, act, alpha, gain, clamp)
    launch(in_layout_of(x, y), None if b is None else b.contiguous(), y)
    return y


def bias_act_backward(dy, saved, b, dim, act, alpha, gain, clamp, bias_grad):
    dx = torch.empty_like(dy if saved is None else saved)
    if not dx.numel():
        return dx, dy.new_zeros(dy.shape[dim] if bias_grad else 0)
    b = b.contiguous() if b is not None and ACTIVATIONS[act].saves_input else None
    cut, launch = _backward(dx.shape, dx.stride(), bias_grad or b is not None, dim, act, alpha, gain, clamp)
    sums = dx.new_empty(cut.sums, dtype=accumulation_dtype(dx.dtype)) if bias_grad else None
    launch(in_layout_of(dy, dx), None if saved is None else in_layout_of(saved, dx), b, dx, sums)
    if sums is None:
        return dx, dy.new_empty(0)
    db = sums.view(-1, cut.channels, sums.shape[1]).sum((0, 2)) if cut.by_row else sums.sum(0)
    return dx, in_dtype(db, dx.dtype)


EXPECTED = {
    "bias_act": lambda x, b, dim, *_: (x, (b, x.shape[dim : dim + 1])),
    "bias_act_backward": lambda dy, saved, b, dim, *_: (dy, (saved, dy.shape), (b, dy.shape[dim : dim + 1])),
}
