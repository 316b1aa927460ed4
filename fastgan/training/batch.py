"""What a recipe's loss is given: data, and random numbers that do not depend on how many processes share the work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from fastgan.training.distributed import World


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from numbers and names; unrelated for different parts, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def _numbers(key: torch.Tensor, index: int, size: int, shape: Sequence[int], normal: bool) -> torch.Tensor:
    seed, update, place, places = key.tolist()
    generator = torch.Generator("cpu").manual_seed(derive_seed(seed, update, index))
    function = torch.randn if normal else torch.rand
    # For all processes, and sliced: the same numbers on every device and for every world size.
    drawn = function(places * size, *shape, generator=generator, device="cpu")
    return drawn if places == 1 else drawn[place::places].clone()


@torch.library.custom_op("fastgan::batch_draw", mutates_args=(), device_types="cpu")
def _draw(key: torch.Tensor, index: int, size: int, shape: list[int], normal: bool) -> torch.Tensor:
    # An op, so that a compiled step draws anew with each call: seed, update and place are in a tensor, not in the graph.
    return _numbers(key, index, size, shape, normal)


@_draw.register_fake
def _(key, index, size, shape, normal):
    return key.new_empty(size, *shape, dtype=torch.float32)


class Batch:
    """One process's share of one update, or one of the pieces that gradients are accumulated over. Shares and pieces take
    turns (every second image, say), so that the groups of a minibatch standard deviation are those of the whole batch.

    Attributes: `items`, what the loader gave, on the device, uint8 images as float32 in [-1, 1]; `real` and `labels`,
    the first and the second of them; `size`, the number of images; `whole`, the items of all the process's `pieces`, of
    which this is number `piece`; `keeps`, what this update has kept so far.
    """

    def __init__(
        self,
        whole: tuple[torch.Tensor, ...],
        world: World,
        seed: int,
        update: int,
        piece: int,
        pieces: int,
        carried: dict[str, torch.Tensor] | None = None,
    ):
        self.whole, self.piece, self.pieces = whole, piece, pieces
        self.items = tuple(item[piece::pieces] for item in whole)
        self.size = len(self.items[0])
        self._world = world
        # Image j of this piece is number (j * pieces + piece) * world.size + world.rank of the update.
        self._key = torch.tensor([seed, update, piece * world.size + world.rank, pieces * world.size], device="cpu")
        self._piece = torch.full((1,), piece, device=self.real.device)  # unlike torch.tensor, without waiting for a GPU
        self._all = Batch(whole, world, seed, update, 0, 1) if pieces > 1 else None
        self._draws = 0
        self.keeps: dict[str, torch.Tensor] = {}
        self._carried = carried or {}

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
        drawn = self.draw(self._draws - 1, shape, normal)
        if not self.real.is_cuda:
            return drawn
        return drawn.pin_memory().to(self.real.device, non_blocking=True)  # from other memory a copy waits for the GPU

    def draw(self, index: int, shape: tuple[int, ...], normal: bool) -> torch.Tensor:
        """float32 [size, *shape] on the CPU: what the draw number `index` of this update gives, however often it is asked."""
        draw = _draw if torch.compiler.is_compiling() else _numbers
        return draw(self._key, index, self.size, shape, normal)

    def randn(self, *shape: int) -> torch.Tensor:
        """float32 [size, *shape], standard normal; a new draw with each call."""
        return self._next(shape, normal=True)

    def rand(self, *shape: int) -> torch.Tensor:
        """float32 [size, *shape], uniform on [0, 1); a new draw with each call."""
        return self._next(shape, normal=False)

    def noise(self, count: int, *shape: int) -> torch.Tensor:
        """float32 [count, *shape], standard normal, for the first `count` images: drawn on the device from torch's global
        generator, which is fast for many numbers, unlike `randn`; other numbers on each process, the same for any number
        of pieces."""
        return self.own(torch.randn(self.pieces * count, *shape, device=self.real.device))

    def own(self, x: torch.Tensor) -> torch.Tensor:
        """This piece's part of x [N, ...], something made for all of the process's pieces in turn."""
        # The piece is in a tensor, so that a compiled step is one for all.
        return x if self.pieces == 1 else x.unflatten(0, (-1, self.pieces)).index_select(1, self._piece)[:, 0]

    def keep(self, **tensors: torch.Tensor) -> None:
        """Tensors [size, ...] by name, without their graph, for later updates on the same images (`fresh=False`): what one
        update's pass has made need not be made again.

            def g_step(self, batch):
                fake = self.generator(batch.randn(64))
                batch.keep(fake=fake)
                ...
            def d_step(self, batch):                            # Update("discriminator", self.d_step, fresh=False)
                logits = self.discriminator(batch.kept("fake"))
        """
        self.keeps |= {name: tensor.detach() for name, tensor in tensors.items()}

    def kept(self, name: str, whole: bool = False) -> torch.Tensor:
        """What an earlier update on these images kept as `name`: this piece's part, or the `whole`, of all the process's pieces
        in the order of the images. Raises KeyError where none has kept it."""
        return self._carried[name] if whole else self.own(self._carried[name])

    def together(self, make: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
        """This piece's part of `make(batch of all the process's pieces)`: for what the images decide together."""
        if self.pieces == 1:
            return make(self)
        self._all._draws = self._draws
        made = make(self._all)
        self._draws = self._all._draws
        return self.own(made)

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over processes of a number, for the weight of each in a loss that is no mean over images."""
        return self._world.gather(x[None]).mean(0)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """x [size, ...] of every process, [size * processes, ...], in the order one process would have it.

        For statistics of the whole batch in a loss. Gradients of any order flow back to the process that x came from;
        a loss computed from it is the same everywhere, and averaging it over processes changes nothing. Raises
        RuntimeError for a piece, which does not know the others: the update must be `whole`.
        """
        if self.pieces > 1:
            raise RuntimeError(
                "Batch.gather: a piece of a batch has no statistics of the whole; use Update(..., whole=True)"
            )
        return self._world.gather(x)
