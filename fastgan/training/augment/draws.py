"""Random numbers for a batch's images, or for several sets of them stacked."""

from __future__ import annotations

import torch

from fastgan.training.batch import Batch


class Draws:
    """`repeats` draws of `batch` stacked: row i belongs to image i however many processes share the work."""

    def __init__(self, batch: Batch, repeats: int):
        self._batch, self._repeats = batch, repeats

    def rand(self, *shape: int) -> torch.Tensor:
        """float32 [N, *shape], uniform on [0, 1)."""
        return torch.cat([self._batch.rand(*shape) for _ in range(self._repeats)])

    def randn(self, *shape: int) -> torch.Tensor:
        """float32 [N, *shape], standard normal."""
        return torch.cat([self._batch.randn(*shape) for _ in range(self._repeats)])
