"""Sizes of images: `resolution` is an int for squares, (height, width) for other rectangles."""

from __future__ import annotations

Resolution = int | tuple[int, int]


def sides(resolution: Resolution) -> tuple[int, int]:
    """(height, width)."""
    return (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[1])


def resolution_of(height: int, width: int) -> Resolution:
    """Inverse of `sides`: the int of a square, never (n, n)."""
    return height if height == width else (height, width)
