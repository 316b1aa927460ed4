"""DiffAugment (Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, section 4)."""

from __future__ import annotations

import torch

from fastgan.training.augment.draws import Draws
from fastgan.training.augment.pixels import colours, cutout, with_colours


def diffaugment(images: torch.Tensor, draws: Draws, p: torch.Tensor) -> torch.Tensor:
    """Colour, translation and cutout, on every image [N, C, H, W] in [-1, 1], one after the other; p is not used.

    Colour: brightness adds U(-0.5, 0.5); what differs from the pixel's grey is multiplied by U(0, 2), then what differs
    from the image's mean by U(0.5, 1.5); of the channels that are colours (`fastgan.training.augment.pixels.colours`).
    Translation: up to 1/8 of each side in whole pixels, with 0 outside. Cutout: half the width by half the height becomes 0.
    """
    u = draws.rand(5).to(images.dtype)
    x = images
    if count := colours(images.shape[1]):
        brightness, saturation, contrast = u[:, :3, None, None, None].unbind(1)
        x = images[:, :count] + (brightness - 0.5)
        grey = x.mean(1, keepdim=True)
        x = (x - grey) * (2 * saturation) + grey
        mean = x.mean((1, 2, 3), keepdim=True)
        x = with_colours(images, (x - mean) * (contrast + 0.5) + mean)
    return cutout(translate(x, u[:, 3:]), draws, torch.ones_like(p))


def translate(images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Move image n along x and y by one of the whole numbers of pixels up to 1/8 of the side, u [N, 2] in [0, 1)."""
    c, h, w = images.shape[1:]
    index, inside = [], []
    for axis, k in enumerate((w, h)):
        most = k // 8
        place = torch.arange(k, device=images.device) - (u[:, axis, None] * (2 * most + 1)).long() + most
        inside.append((place >= 0) & (place < k))
        index.append(place.clamp(0, k - 1))
    flat = (index[1][:, :, None] * w + index[0][:, None, :]).flatten(1)[:, None].expand(-1, c, -1)
    moved = images.flatten(2).gather(2, flat).view_as(images)
    return moved * (inside[1][:, None, :, None] & inside[0][:, None, None, :])
