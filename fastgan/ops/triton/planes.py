"""Planes of a tensor [N, C, ...], one per sample and channel, cut into programs and tiles; NCHW and channels_last as they lie."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import triton
import triton.language as tl

TILE = 4096
MOST = 16384  # elements of the largest tile: 32 in each thread of 16 warps
SECTOR = 32  # bytes that memory moves at least
PROGRAMS = 1024  # wanted in flight: about 8 per multiprocessor of the largest GPUs
MOST_PARTS = 64


@triton.jit
def planes_of_program(channels, planes, pixels, TILE_C: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr):
    """(planes of this program, their channels, which of them there are, offsets of their first pixels, distance of pixels).
    LAST: channels are innermost, and a program's planes are channels of one sample."""
    pid = tl.program_id(0)
    if WIDE:
        pid = pid.to(tl.int64)
    if LAST:
        blocks = tl.cdiv(channels, TILE_C)
        n = pid // blocks
        channel = pid % blocks * TILE_C + tl.arange(0, TILE_C)
        return n * channels + channel, channel, channel < channels, n * pixels * channels + channel, channels
    else:
        plane = pid * TILE_C + tl.arange(0, TILE_C)
        # an unsigned remainder takes half the instructions
        channel = plane % channels if WIDE else plane.to(tl.uint32) % tl.cast(channels, tl.uint32)
        return plane, channel, plane < planes, plane * pixels, 1


@triton.jit
def tile_offsets(start, last, first, step, there, TILE_P: tl.constexpr, WIDE: tl.constexpr):
    """(offsets, mask) [TILE_P, TILE_C] of the pixels from start on"""
    p = start + tl.arange(0, TILE_P)
    mask = (p < last)[:, None] & there[None, :]
    if WIDE:
        p = p.to(tl.int64)
    return p[:, None] * step + first[None, :], mask


class Plan(NamedTuple):
    """How a dense tensor [N, C, ...] is cut into programs, `reads` tensors of its size being read."""

    channels: int
    planes: int
    pixels: int
    part: int  # pixels of a program, a multiple of the tile's
    tile_p: int
    tile_c: int
    last: bool  # whether channels are innermost
    warps: int

    @staticmethod
    def of(shape: Sequence[int], strides: Sequence[int], itemsize: int, reads: int) -> "Plan":
        samples, channels = shape[:2]
        planes = samples * channels
        pixels = math.prod(shape[2:])
        last = channels > 1 and strides[1] == 1 and pixels > 1
        most = MOST // reads // max(1, itemsize // 4)
        tile_p = triton.next_power_of_2(pixels)
        tile_c = min(triton.next_power_of_2(channels if last else planes), max(1, TILE // tile_p))
        if last:
            run = triton.next_power_of_2(channels) if channels * itemsize < SECTOR else SECTOR // itemsize
            tile_c = min(64, max(tile_c, run))
        if tile_p * tile_c > most:
            tile_c = min(64, triton.next_power_of_2(channels)) if last else 1
            tile_p = min(TILE // tile_c, tile_p)
        programs = samples * triton.cdiv(channels, tile_c) if last else triton.cdiv(planes, tile_c)
        parts = max(1, min(triton.cdiv(pixels, tile_p), PROGRAMS // programs, MOST_PARTS))
        part = triton.cdiv(triton.cdiv(pixels, parts), tile_p) * tile_p
        thread = 64 // itemsize // reads  # elements of a tensor: 64 bytes of all
        warps = min(16, max(1, tile_p * tile_c // thread // 32))
        return Plan(channels, planes, pixels, part, tile_p, tile_c, last, warps)

    @property
    def whole(self) -> bool:
        return self.pixels <= self.tile_p

    @property
    def parts(self) -> int:
        return triton.cdiv(self.pixels, self.part)

    @property
    def grid(self) -> tuple[int, ...]:
        if self.last:
            return self.planes // self.channels * triton.cdiv(self.channels, self.tile_c), self.parts
        return triton.cdiv(self.planes, self.tile_c), self.parts

    @property
    def options(self) -> dict:
        blocks, parts = self.grid
        wide = (blocks * self.tile_c + self.channels) * (self.part * parts) > 2**31 - 1
        return {
            "TILE_P": self.tile_p,
            "TILE_C": self.tile_c,
            "LAST": self.last,
            "WIDE": wide,
            "num_warps": self.warps,
        }
