"""Colour, image-space filtering, noise and cutout (Karras et al. 2020, appendix B), on images in [-1, 1]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from fastgan.training.augment.constants import constant, placed
from fastgan.training.augment.draws import Draws
from fastgan.training.augment.geometry import extend

# Low-pass filter of Daubechies' wavelet with 2 vanishing moments, which is the symlet of that order, too.
_SYM2 = tuple(c / (4 * 2**0.5) for c in (1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5))
_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # of natural images in the four bands, whose spectrum falls as 1/f


def color(images: torch.Tensor, draws: Draws, p: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast, luma flip, hue and saturation, each with probability p.

    Brightness adds b of N(0, 0.2^2); contrast multiplies by c, log2 c of N(0, 0.5^2); the luma flip mirrors colours on the
    plane through 0 across the grey axis v, half of the time; hue turns about v by U(-pi, pi); saturation multiplies what
    is across v by s, log2 s of N(0, 1). A grey image is its own luma: the last two leave it alone. Of RGBA the opacity stays
    as it is; images whose channels are no colours (`colours`) stay altogether.
    """
    count = colours(images.shape[1])
    if not count:
        return images
    gates = draws.rand(5) < p
    z, u = draws.randn(3).to(images.dtype), draws.rand(2).to(images.dtype)
    brightness = torch.where(gates[:, 0], 0.2 * z[:, 0], 0.0)
    contrast = torch.where(gates[:, 1], torch.exp2(0.5 * z[:, 1]), 1.0)
    flip = torch.where(gates[:, 2] & (u[:, 0] < 0.5), -1.0, 1.0).to(images.dtype)
    hue = torch.where(gates[:, 3], (2 * u[:, 1] - 1) * math.pi, 0.0)
    saturation = torch.where(gates[:, 4], torch.exp2(z[:, 2]), 1.0)
    matrix, offset = color_matrix(brightness, contrast, flip, hue, saturation)
    if count == 1:
        matrix, offset = matrix.sum((1, 2), keepdim=True) / 3, offset.mean(1, keepdim=True)
    x = images[:, :count]
    changed = torch.baddbmm(offset[:, :, None], matrix, x.flatten(2)).view_as(x)
    return with_colours(images, torch.where(gates.any(1)[:, None, None, None], changed, x))


def colours(channels: int) -> int:
    """How many of the first channels are colours: the one of grey images, three of RGB and RGBA, and none where there are two
    or more than four channels, whose meaning is not known."""
    return {1: 1, 3: 3, 4: 3}.get(channels, 0)


def with_colours(images: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """`images` with `changed` in the place of their first channels."""
    rest = images[:, changed.shape[1] :]
    return torch.cat([changed, rest], 1) if rest.shape[1] else changed


def color_matrix(
    brightness: torch.Tensor, contrast: torch.Tensor, flip: torch.Tensor, hue: torch.Tensor, saturation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The five, [N] each and in this order, as one affine map of RGB: matrix [N, 3, 3] and offset [N, 3].

    With P = v v^T, v = (1, 1, 1) / sqrt 3, all but brightness are a P + b (I - P) + c [v]: [v] the cross product by v, a
    the factor of luma, (b, c) the turned and scaled plane across it.
    """
    one = brightness.new_ones(3, 3)
    luma = one / 3
    chroma = torch.eye(3, dtype=one.dtype, device=one.device) - luma
    cross = constant(((0, -1, 1), (1, 0, -1), (-1, 1, 0)), brightness) / 3**0.5
    along, across = contrast * flip, contrast * saturation
    parts = (along, across * hue.cos(), across * hue.sin())
    matrix = sum(x[:, None, None] * m for x, m in zip(parts, (luma, chroma, cross), strict=True))
    return matrix, (brightness * along)[:, None].expand(-1, 3)


def filter_bank() -> torch.Tensor:
    """float64 [4, 43]: zero-phase filters of the bands up to pi/8, pi/4, pi/2 and pi, which sum to the identity.

    With the halfband filter P(z) = H(z) H(1/z) / 2 of the wavelet, P(z) + P(-z) = 1: each step splits the lower band into
    P(z^s) and its complement, s = 1, 2, 4 (a trous).
    """
    h = torch.tensor(_SYM2, dtype=torch.float64)
    half = F.conv1d(h.view(1, 1, 4), h.view(1, 1, 4), padding=3).flatten() / 2
    low = torch.zeros(43, dtype=torch.float64)
    low[21] = 1
    bands = []
    for spacing in (1, 2, 4):
        lower = F.conv1d(low.view(1, 1, -1), half.view(1, 1, -1), padding=3 * spacing, dilation=spacing).flatten()
        bands.append(low - lower)
        low = lower
    return torch.stack([low, *reversed(bands)])


def _filter_bank(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return filter_bank().to(device, dtype)


def frequencies(images: torch.Tensor, draws: Draws, p: torch.Tensor) -> torch.Tensor:
    """Each of four frequency bands is amplified with probability p by t, log2 t of N(0, 1), then all are scaled so that an
    image with the natural power spectrum keeps its energy."""
    gates = draws.rand(4) < p
    t = torch.exp2(draws.randn(4)).to(images.dtype)
    power = constant(_POWER, images)
    gains = torch.ones_like(t)
    for band in range(4):
        factor = torch.ones_like(t)
        factor[:, band] = torch.where(gates[:, band], t[:, band], 1.0)
        gains = gains * factor / (power * factor.square()).sum(1, keepdim=True).sqrt()
    filtered = filter_images(images, gains @ placed(_filter_bank, gains.device, gains.dtype))
    return torch.where(gates.any(1)[:, None, None, None], filtered, images)


def filter_images(images: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Image n filtered along x and along y with taps[n], [N, odd]; reflection at the border."""
    n, c, h, w = images.shape
    margin = taps.shape[1] // 2
    weight = taps.repeat_interleave(c, 0)[:, None]
    x = extend(images, margin).reshape(1, n * c, h + 2 * margin, w + 2 * margin)
    x = F.conv2d(x, weight[:, :, None, :], groups=n * c)
    return F.conv2d(x, weight[:, :, :, None], groups=n * c).view_as(images)


def noise(images: torch.Tensor, draws: Draws, p: torch.Tensor) -> torch.Tensor:
    """With probability p, adds normal noise whose deviation is |N(0, 0.1^2)|."""
    gate, level = draws.rand(1) < p, 0.1 * draws.randn(1).abs()
    level = torch.where(gate, level, 0.0).to(images.dtype)[:, :, None, None]
    return images + level * draws.randn(*images.shape[1:])


def cutout(images: torch.Tensor, draws: Draws, p: torch.Tensor) -> torch.Tensor:
    """With probability p, a rectangle of half the image's width and height, its centre anywhere in it, becomes 0."""
    gate, centre = draws.rand(1) < p, draws.rand(2)
    h, w = images.shape[2:]
    x, y = ((torch.arange(k, device=images.device) + 0.5) / k for k in (w, h))
    inside_x, inside_y = (x - centre[:, :1]).abs() < 0.25, (y - centre[:, 1:]).abs() < 0.25
    hole = inside_x[:, None, None, :] & inside_y[:, None, :, None] & gate[:, :, None, None]
    return images.masked_fill(hole, 0.0)
