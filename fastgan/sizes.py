"""Sizes of images: `resolution` is an int for squares, (height, width) for other rectangles.

Networks that double or halve their images take a square of a power of two, from or to 4x4, and a rectangle with as many
levels as the largest such square within it: 96x160 is 6x10 four times doubled, as 64x64 is 4x4.
"""

from __future__ import annotations

import itertools
import math
from numbers import Integral

from fastgan.fields import conform

Resolution = int | tuple[int, int]


def sides(resolution: Resolution) -> tuple[int, int]:
    """(height, width)."""
    return (resolution, resolution) if isinstance(resolution, Integral) else (resolution[0], resolution[1])


def resolution_of(height: int, width: int) -> Resolution:
    """Inverse of `sides`: the int of a square, never (n, n)."""
    return height if height == width else (height, width)


def nominal(resolution: Resolution) -> int:
    """The largest power of two within the shorter side: the square whose network has as many levels, and its widths."""
    return 1 << max(int(min(sides(resolution))).bit_length() - 1, 0)


def at_level(resolution: Resolution, level: int) -> tuple[int, int]:
    """(height, width) where the square has `level` pixels a side. 96x160, 4: (6, 10)."""
    full = nominal(resolution)
    return tuple(side * level // full for side in sides(resolution))


def check_levels(
    family: str, resolution: Resolution, least: int, most: int | None = None, square: str = ""
) -> Resolution:
    """`resolution` as `resolution_of` has it, of a network with levels from 4 pixels to `least` at least and `most` at most,
    both powers of two.

    Raises ValueError, which tells the multiples that are needed and the nearest size that works, for a square that is no
    power of two between the two, and a rectangle whose sides its halvings do not divide, whose shorter side is no such
    size, or which is none since `square` says why only squares are.
    """
    height, width = map(int, sides(conform(resolution, Resolution, f"{family}: resolution")))
    resolution = resolution_of(height, width)
    if _fits(height, width, least, most) and not (square and height != width):
        return resolution
    if square and height != width:
        expected = f"a square, since {square}"
    elif height == width:
        powers = [least << i for i in range((most // least).bit_length())] if most else []
        few = f"{', '.join(map(str, powers[:-1]))} or {most}" if len(powers) < 5 else ""
        span = f"a power of two from {least} to {most}" if most else f"a power of two, at least {least}"
        expected = (few if powers and few else span) + ("" if square else ", or (height, width)")
    else:
        step = min(max(nominal(resolution), least), most or math.inf) // 4
        span = f"{least} to {2 * most - 1}" if most else f"at least {least}"
        expected = f"multiples of {step} in height and width, of which the shorter has {span} pixels"
    near = _nearest(height, width, least, most, bool(square) or height == width)
    raise ValueError(f"{family}: resolution is {resolution}, expected {expected}: give resolution={near}")


def _fits(height: int, width: int, least: int, most: int | None) -> bool:
    if min(height, width) < least:
        return False
    full = nominal((height, width))
    if most and full > most:
        return False
    return height == full if height == width else not (height % (full // 4) or width % (full // 4))


def _nearest(height: int, width: int, least: int, most: int | None, square: bool) -> Resolution:
    top = most or max(nominal((height, width)) * 2, least)
    found = []
    for power in range(least.bit_length() - 1, top.bit_length()):
        full, step = 1 << power, (1 << power) // 4
        near = [[max(side // step + i, 4) for i in (0, 1, 2)] for side in (height, width)]
        shorter = int(height > width)
        near[shorter] = [min(count, 7) for count in near[shorter]]
        pairs = [(y * step, x * step) for y, x in itertools.product(*near)]
        found += [(full, full)] if square else [pair for pair in pairs if _fits(*pair, least, most)]
    return resolution_of(*min(found, key=lambda pair: abs(pair[0] - height) + abs(pair[1] - width)))
