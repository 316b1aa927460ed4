"""What a recipe's loss is given: data, and random numbers that do not depend on how many processes share the work."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from numbers and names; unrelated for different parts, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


class Batch:
    """One process's share of one update.

    Attributes: `items`, what the loader gave, on the device, uint8 images as float32 in [-1, 1]; `real` and `labels`, the first and
    the second of them; `size`, the number of images.
    """

    def __init__(self, items: tuple[torch.Tensor, ...], seed: int, update: int, rank: int, world_size: int):
        self.items = items
        self.size = len(items[0])
        self._seed, self._update, self._rank, self._world = seed, update, rank, world_size
        self._draws = 0

    @property
    def real(self) -> torch.Tensor:
        return self.items[0]

    @property
    def labels(self) -> torch.Tensor:
        return self.items[1]

    def _draw(self, function, shape: tuple[int, ...]) -> torch.Tensor:
        # Drawn on the CPU for all processes, and sliced: the same numbers on every device and for every world size.
        generator = torch.Generator().manual_seed(derive_seed(self._seed, self._update, self._draws))
        self._draws += 1
        whole = function(self._world * self.size, *shape, generator=generator)
        return whole[self._rank * self.size : (self._rank + 1) * self.size].to(self.real.device)

    def randn(self, *shape: int) -> torch.Tensor:
        """float32 [size, *shape], standard normal; a new draw with each call."""
        return self._draw(torch.randn, shape)

    def rand(self, *shape: int) -> torch.Tensor:
        """float32 [size, *shape], uniform on [0, 1); a new draw with each call."""
        return self._draw(torch.rand, shape)
