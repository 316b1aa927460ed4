"""What a recipe's loss is given: data, and random numbers that do not depend on how many processes share the work."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from fastgan.training.distributed import World


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from numbers and names; unrelated for different parts, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


@torch.library.custom_op("fastgan::batch_draw", mutates_args=(), device_types="cpu")
def _draw(key: torch.Tensor, index: int, size: int, shape: list[int], normal: bool) -> torch.Tensor:
    # An op, so that a compiled step draws anew with each call: seed, update and place are in a tensor, not in the graph.
    seed, update, place, places = key.tolist()
    generator = torch.Generator().manual_seed(derive_seed(seed, update, index))
    function = torch.randn if normal else torch.rand
    # For all processes, and sliced: the same numbers on every device and for every world size.
    return function(places * size, *shape, generator=generator)[place::places].clone()


@_draw.register_fake
def _(key, index, size, shape, normal):
    return key.new_empty(size, *shape, dtype=torch.float32)


class Batch:
    """One process's share of one update, or one of the pieces that gradients are accumulated over. Shares and pieces take
    turns (every second image, say), so that the groups of a minibatch standard deviation are those of the whole batch.

    Attributes: `items`, what the loader gave, on the device, uint8 images as float32 in [-1, 1]; `real` and `labels`,
    the first and the second of them; `size`, the number of images.
    """

    def __init__(self, items: tuple[torch.Tensor, ...], world: World, seed: int, update: int, piece: int, pieces: int):
        self.items = items
        self.size = len(items[0])
        self._world = world
        # Image j of this piece is number (j * pieces + piece) * world.size + world.rank of the update.
        self._key = torch.tensor([seed, update, piece * world.size + world.rank, pieces * world.size])
        self._draws = 0

    @property
    def real(self) -> torch.Tensor:
        return self.items[0]

    @property
    def labels(self) -> torch.Tensor:
        return self.items[1]

    @property
    def processes(self) -> int:
        """How many processes share the update, each with `size` images."""
        return self._world.size

    def _next(self, shape: tuple[int, ...], normal: bool) -> torch.Tensor:
        self._draws += 1
        return _draw(self._key, self._draws - 1, self.size, shape, normal).to(self.real.device)

    def randn(self, *shape: int) -> torch.Tensor:
        """float32 [size, *shape], standard normal; a new draw with each call."""
        return self._next(shape, normal=True)

    def rand(self, *shape: int) -> torch.Tensor:
        """float32 [size, *shape], uniform on [0, 1); a new draw with each call."""
        return self._next(shape, normal=False)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """x [size, ...] of every process, [size * processes, ...], in the order one process would have it.

        For statistics of the whole batch in a loss. Gradients of any order flow back to the process that x came from;
        a loss computed from it is the same everywhere, and averaging it over processes changes nothing.
        """
        return self._world.gather(x)
