"""Images of given latents, whatever the generator takes beside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.models.stylegan_layers import StyleGenerator


def draw(
    name: str, generator: nn.Module, latents: torch.Tensor, labels: torch.Tensor | None = None, truncation: float = 1.0
) -> torch.Tensor:
    """Images in about [-1, 1], [N, C, H, W], of latents [N, ...] and classes int64 [N], on the generator's device.

    A StyleGAN's noise is one fixed pattern, so that a latent is a picture. Raises ValueError, which begins with `name`, for a
    truncation other than 1 that the generator does not have.
    """
    device = next(generator.parameters()).device
    latents, labels = (None if t is None else t.to(device) for t in (latents, labels))
    if isinstance(generator, StyleGenerator):
        known = labels is not None and generator.c_dim
        c = F.one_hot(labels, generator.c_dim).to(latents.dtype) if known else None
        return generator(latents, c, truncation_psi=truncation, noise_mode="const")
    if truncation != 1.0:
        raise ValueError(f"{name} has no truncation: its generator has no mean latent to move towards")
    return generator(latents) if labels is None else generator(latents, labels)
