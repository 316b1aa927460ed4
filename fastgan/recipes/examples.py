"""What recipes that learn from parts of pictures share: the parts, and the examples that their grids show."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def cut(images: torch.Tensor, size: tuple[int, int], place: torch.Tensor) -> torch.Tensor:
    """A part of `size` of each image [N, C, H, W], at `place` [N, 2], shares in [0, 1) of the room that there is, down and to the
    right. Nothing of it waits for a device."""
    (height, width), (rows, columns) = size, images.shape[2:]
    if (rows, columns) == (height, width):
        return images
    down, right = place.unbind(1)
    y = (down * (rows - height + 1)).long()[:, None, None] + torch.arange(height, device=images.device)[:, None]
    x = (right * (columns - width + 1)).long()[:, None, None] + torch.arange(width, device=images.device)
    index = (y * columns + x).flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).unflatten(2, (height, width))


def of_seeds(seeds: Sequence[int], kept: torch.Tensor) -> torch.Tensor:
    """Which of the `kept` examples seeds show, in turn and each once: int64 on their device."""
    return torch.tensor(list(dict.fromkeys(seed % len(kept) for seed in seeds)), device=kept.device)
