"""What every launcher does: put tensors in one layout, cut a matrix into tiles, choose the index width."""

import functools
from typing import NamedTuple

import numpy as np
import torch
import triton

# Elements of a tile: 16 per thread of 8 warps, so that index arithmetic is a small part of the instructions.
TILE = 4096
WARPS = 8


def in_layout_of(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """x with the strides of `like` (which has x's shape and fills its memory); a copy only where they differ."""
    if x.stride() == like.stride():
        return x
    same = all(n == 1 or s == t for n, s, t in zip(x.shape, x.stride(), like.stride(), strict=True))
    return x if same else torch.empty_like(like, dtype=x.dtype).copy_(x)


def plane_or_pixel_order(x: torch.Tensor) -> torch.Tensor:
    """x itself if it is NCHW or channels_last, the layouts the kernels work in; else an empty tensor in the former."""
    if x.is_contiguous() or x.movedim(1, -1).is_contiguous():
        return x
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def check_tensors(x: torch.Tensor, *expected: tuple[torch.Tensor | None, tuple[int, ...]]) -> None:
    """ValueError unless each tensor that is there has the shape beside it and is where x is: so that a direct call of
    torch.ops.fastgan.* reads no memory that it does not own. Public functions and autograd have seen to it for eager calls."""
    device = x.device
    for t, shape in expected:
        if t is not None and (t.shape != shape or t.device != device):
            raise ValueError(
                f"fastgan: a tensor is {tuple(t.shape)} on {t.device}; expected {tuple(shape)} on {x.device}, as the input is"
            )


@functools.lru_cache(1024)
def two_floats(value: float) -> tuple[float, float]:
    """(float32(value), the rest): Triton passes a Python float as float32."""
    high = float(np.float32(value))
    return high, value - high if abs(high) != float("inf") else 0.0


class Tiles(NamedTuple):
    """A matrix [rows, columns] cut into tiles of tile_rows x tile_columns, one for each program."""

    rows: int
    columns: int
    tile_rows: int
    tile_columns: int

    @staticmethod
    def of(rows: int, columns: int, most_columns: int = TILE) -> "Tiles":
        tile_columns = min(most_columns, triton.next_power_of_2(columns))
        return Tiles(rows, columns, min(TILE // tile_columns, triton.next_power_of_2(rows)), tile_columns)

    @property
    def row_tiles(self) -> int:
        return triton.cdiv(self.rows, self.tile_rows)

    @property
    def column_tiles(self) -> int:
        return triton.cdiv(self.columns, self.tile_columns)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tiles of columns along axis 0; those of rows, of which there may be a few too many, along axes 1 and 2, which
        CUDA limits to 65535."""
        slabs = triton.cdiv(self.row_tiles, 65535)
        return self.column_tiles, triton.cdiv(self.row_tiles, slabs), slabs

    @property
    def wide(self) -> bool:
        """Whether an offset, masked lanes included, exceeds 32 bits."""
        columns, rows, slabs = self.grid
        return (rows * slabs * self.tile_rows - 1) * self.columns + columns * self.tile_columns - 1 > 2**31 - 1
