"""gumbel_softmax in Triton: y = softmax((x + g) / temperature) of each row, the noise made in registers.

A program takes a row. Up to MOST columns it holds the row in registers, as two tiles of powers of two, so that few lanes are
idle. Of a longer row it keeps the maximum and the sum of exponentials, then makes the same noise again and stores. Bytes per
element in float32: 8, of longer rows 12 where the second reading does not come from cache (H100: 50 MB). Arithmetic: 10 rounds
of Philox per four elements and two logarithms each.
"""

import functools
import math

import torch
import triton
import triton.language as tl

from fastgan._triton_private import Launch
from fastgan.ops.triton.launch import WARPS, two_floats
from fastgan.ops.triton.math import log_normal, wide

TILE = 2048
MOST = 8192


@triton.jit
def _words(block, row, low, high):
    """Philox4x32-10 (Salmon et al., 2011) at counters (block, row, 0, 0): one word per column, in order."""
    a, k0, k1 = block.to(tl.uint32), low, high
    b = tl.zeros_like(a) + row.to(tl.uint32)
    c = tl.zeros_like(a)
    d = tl.zeros_like(a)
    for _ in tl.static_range(10):
        first, second = a.to(tl.uint64) * 0xD2511F53, c.to(tl.uint64) * 0xCD9E8D57
        a = (second >> 32).to(tl.uint32) ^ b ^ k0
        b = second.to(tl.uint32)
        c = (first >> 32).to(tl.uint32) ^ d ^ k1
        d = first.to(tl.uint32)
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [4 * a.shape[0]])


@triton.jit
def _noisy(logits, start, columns, row, low, high, inverse, T: tl.constexpr, TILE: tl.constexpr):
    """(x + g) / temperature of columns start ... start + TILE, -inf beyond the last."""
    at = start + tl.arange(0, TILE)
    x = tl.load(logits + at, mask=at < columns, other=0)
    words = _words(start // 4 + tl.arange(0, TILE // 4), row, low, high)
    u = ((words >> 9).to(T) + 0.5) * 1.1920928955078125e-07  # 2^-23
    v = x.to(T) - log_normal(-log_normal(u))
    return tl.where(at < columns, v * inverse, float("-inf"))


@triton.jit
def _store(y, start, columns, value, TILE: tl.constexpr):
    at = start + tl.arange(0, TILE)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=at < columns)


@triton.jit
def whole_kernel(
    logits, y, seed, columns, temperature, temperature_low,
    DOUBLE: tl.constexpr, ALIGN: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """Rows of at most HEAD + TAIL columns; no second tile where TAIL is 0."""
    columns = columns // ALIGN * ALIGN  # so that it is seen to be a multiple
    row = tl.program_id(0)
    key = tl.load(seed)
    low, high = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    T: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    logits += row.to(tl.int64) * columns
    y += row.to(tl.int64) * columns
    inverse = 1 / wide(temperature, temperature_low, tl.zeros([], T))
    v = _noisy(logits, 0, columns, row, low, high, inverse, T, HEAD)
    most = tl.max(v, 0)
    if TAIL:
        w = _noisy(logits, HEAD, columns, row, low, high, inverse, T, TAIL)
        most = tl.maximum(most, tl.max(w, 0))
        w = tl.exp(w - most)
    v = tl.exp(v - most)
    total = tl.sum(v, 0)
    if TAIL:
        total += tl.sum(w, 0)
        _store(y, HEAD, columns, w * (1 / total), TAIL)
    _store(y, 0, columns, v * (1 / total), HEAD)


@triton.jit
def forward_kernel(
    logits, y, seed, columns, temperature, temperature_low,
    DOUBLE: tl.constexpr, ALIGN: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    columns = columns // ALIGN * ALIGN  # so that it is seen to be a multiple
    row = tl.program_id(0)
    key = tl.load(seed)
    low, high = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    T: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    logits += row.to(tl.int64) * columns
    y += row.to(tl.int64) * columns
    inverse = 1 / wide(temperature, temperature_low, tl.zeros([], T))
    most = tl.full([], float("-inf"), T)
    total = tl.zeros([], T)
    for start in range(0, columns, TILE):
        v = _noisy(logits, start, columns, row, low, high, inverse, T, TILE)
        larger = tl.maximum(most, tl.max(v, 0), propagate_nan=tl.PropagateNan.ALL)
        total = total * tl.exp(most - larger) + tl.sum(tl.exp(v - larger), 0)
        most = larger
    for start in range(0, columns, TILE):
        v = _noisy(logits, start, columns, row, low, high, inverse, T, TILE)
        _store(y, start, columns, tl.exp(v - most) * (1 / total), TILE)


def _tiles(columns: int) -> tuple[int, int]:
    """(HEAD, TAIL) for a row: one power of two, or two where that leaves fewer lanes idle."""
    one = max(16, triton.next_power_of_2(columns))
    tail = triton.next_power_of_2(max(16, columns - one // 2))
    return (one, 0) if one < 64 or tail == one // 2 else (one // 2, tail)


@functools.lru_cache(1024)
def _launch(rows: int, columns: int, double: bool, temperature: float) -> Launch:
    if columns <= (MOST // 2 if double else MOST):
        kernel, (head, tail) = whole_kernel, _tiles(columns)
        options = {"HEAD": head, "TAIL": tail, "num_warps": min(WARPS, max(1, head // 512))}
    else:
        kernel, options = forward_kernel, {"TILE": TILE, "num_warps": WARPS}
    # ALIGN, because Triton itself looks no further than at multiples of 16
    options = {"DOUBLE": double, "ALIGN": math.gcd(columns, 16), **options}
    return Launch(kernel, (rows,), (columns, *two_floats(temperature)), options)


def gumbel_softmax(logits, temperature, seed):
    logits = logits.contiguous()
    y = torch.empty_like(logits)
    if not y.numel():
        return y
    columns = logits.shape[-1]
    launch = _launch(logits.numel() // columns, columns, logits.dtype == torch.float64, temperature)
    launch(logits, y, seed)
    return y


EXPECTED = {"gumbel_softmax": lambda logits, temperature, seed: (logits, (seed, (1,)))}
