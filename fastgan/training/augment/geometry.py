"""Pixel blits and general geometric transformations (Karras et al. 2020, appendix B), in coordinates of pixels: a circle stays
one, whatever the sides of the image, and shares of translation are of each side.

Outside its frame an image is continued by reflection at the centres of its border pixels. Reflection is applied to
coordinates, so it has no limit and no size depends on a random draw.
"""

from __future__ import annotations

import math

import torch

from fastgan.ops import grid_sample, setup_filter, upfirdn2d
from fastgan.training.augment.constants import constant, placed
from fastgan.training.augment.draws import Draws

# Low-pass filter of the symlet with 6 vanishing moments (Daubechies, "Ten Lectures on Wavelets", 1992, table 6.3).
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
# Where the filter's centre of mass lies from tap 5: the phase of the doubled image. 0 would be a symmetric filter.
_PHASE = sum(k * h for k, h in enumerate(SYM6)) / sum(SYM6) - 5
_BEFORE, _AFTER = 5, 6  # taps on either side of the sample that is kept
_MARGIN = 4  # pixels beyond the frame that the doubled image needs


def fold(x: torch.Tensor, size: int) -> torch.Tensor:
    """Coordinates or indices, any shape, reflected into [0, size - 1]."""
    last = size - 1
    return last - (x.remainder(max(2 * last, 1)) - last).abs()


def extend(images: torch.Tensor, margin: int) -> torch.Tensor:
    """[N, C, H, W] -> [N, C, H + 2 margin, W + 2 margin] by reflection, however small the image."""
    # Indices from Python: torch 2.14's Inductor fails on the remainder of an arange ("sympy expression is NaN").
    for axis in (2, 3):
        last = images.shape[axis] - 1
        places = tuple(last - abs(i % max(2 * last, 1) - last) for i in range(-margin, last + margin + 1))
        images = images.index_select(axis, constant(places, images, torch.int64))
    return images


def blit(images: torch.Tensor, draws: Draws, p: torch.Tensor) -> torch.Tensor:
    """Mirroring, rotation by a multiple of 90 degrees, and translation by up to 1/8, in whole pixels: no interpolation.

    Each is drawn with probability p: i of {0, 1}, k of {0, 1, 2, 3}, t of U(-0.125, 0.125) times the side, rounded. A
    rectangle does not fit its frame after a quarter turn: where k is odd it stays as it is.
    """
    h, w = images.shape[2:]
    gates, u = draws.rand(3) < p, draws.rand(4)
    mirror = gates[:, 0] & (u[:, 0] < 0.5)
    turns = torch.where(gates[:, 1], (u[:, 1] * 4).long(), 0)
    if h != w:
        turns = torch.where(turns == 2, turns, 0)
    most = 0.125 * constant((w, h), u)
    shift = torch.where(gates[:, 2:], ((u[:, 2:] * 2 - 1) * most).round().long(), 0)
    return move(images, mirror, turns, shift)


def move(images: torch.Tensor, mirror: torch.Tensor, turns: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Mirror images left to right where `mirror` (bool [N]), turn them to the left by `turns` quarters (int64 [N], 0 to 3; of
    rectangles 0 or 2), and move them by `shift` pixels (int64 [N, 2], along x and y)."""
    c, h, w = images.shape[1:]
    # From the place in the result back to the place in the image: the last step is undone first.
    x = fold(torch.arange(w, device=images.device) - shift[:, 0, None, None], w).expand(-1, h, -1)
    y = fold(torch.arange(h, device=images.device)[:, None] - shift[:, 1, None, None], h).expand(-1, -1, w)
    for quarter, side in enumerate((h, w, h)):
        again = (turns > quarter)[:, None, None]
        x, y = torch.where(again, side - 1 - y, x), torch.where(again, x, y)
    x = torch.where(mirror[:, None, None], w - 1 - x, x)
    index = (y * w + x).flatten(1)[:, None].expand(-1, c, -1)
    return images.flatten(2).gather(2, index).view_as(images)


def geometric(images: torch.Tensor, draws: Draws, p: torch.Tensor) -> torch.Tensor:
    """Scaling by s, rotation, scaling by (a, 1 / a), rotation again, and translation by a fraction of each side.

    With probability p each: log2 s, log2 a of N(0, 0.2^2), t of N(0, 0.125^2). The two rotations, of U(-pi, pi), have
    probability 1 - sqrt(1 - p) each, so that some rotation has probability p. An image for which none is drawn is
    returned as it is.
    """
    dtype = images.dtype
    rotation = 1 - (1 - p).sqrt()
    gates = draws.rand(5) < torch.stack([p, rotation, p, rotation, p])
    z, u = draws.randn(4).to(dtype), draws.rand(2).to(dtype)
    s, a = (torch.where(gates[:, i], torch.exp2(0.2 * z[:, j]), 1.0) for i, j in ((0, 0), (2, 1)))
    first, second = (torch.where(gates[:, i], (2 * u[:, j] - 1) * math.pi, 0.0) for i, j in ((1, 0), (3, 1)))
    size = constant((images.shape[3], images.shape[2]), images)
    shift = torch.where(gates[:, 4:], 0.125 * z[:, 2:] * size, 0.0)
    stretch = torch.stack([1 / (a * s), a / s], 1)
    inverse = _rotation(-first) @ (stretch[:, :, None] * _rotation(-second))
    return torch.where(gates.any(1)[:, None, None, None], warp(images, inverse, shift), images)


def _rotation(angle: torch.Tensor) -> torch.Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)


def warp(images: torch.Tensor, inverse: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """y(q) = x(inverse (q - shift)), in pixels from the image's centre: `inverse` [N, 2, 2] and `shift` [N, 2] in (x, y).

    The image is doubled with SYM6, sampled bilinearly on a doubled grid, and halved with the same filter reversed, which
    undoes the doubling exactly (the filter is orthogonal to its shifts by two).
    """
    h, w = images.shape[2:]
    f = placed(setup_filter, SYM6, device=images.device)
    doubled = upfirdn2d(extend(images, _MARGIN), f, up=2, padding=[6, 5, 6, 5], gain=4)
    x, y = (
        (torch.arange(-_BEFORE, 2 * k - 1 + _AFTER, device=images.device, dtype=images.dtype) - _PHASE) / 2
        - (k - 1) / 2
        for k in (w, h)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    points = ((grid - shift[:, None, None]).flatten(1, 2) @ inverse.mT).unflatten(1, grid.shape[:2])
    places = []
    for axis, k in enumerate((w, h)):
        inside = fold(points[..., axis] + (k - 1) / 2, k)
        index = 2 * (inside + _MARGIN) + _PHASE
        places.append((2 * index + 1) / (2 * (k + 2 * _MARGIN)) - 1)
    sampled = grid_sample(doubled, torch.stack(places, -1))
    return upfirdn2d(sampled, f, down=2, flip_filter=True)
