"""A batch in pieces (`--grad-accum`): which recipes' gradients are those of the whole batch, and what a piece leaves behind.

Pieces are to one process what processes are to a run: each starts from the state that the update found, and buffers that
a recipe calls `running` become the mean of what the pieces make of them. So a power iteration advances once, not once a
piece, and a running mean moves as the whole batch moves it.
"""

from __future__ import annotations

import torch
from torch import nn

from fastgan._torch_private import BatchNorm, Dropout
from fastgan.nn import MinibatchStdDev
from fastgan.training.recipe import Recipe


def check(recipe: Recipe, pieces: int) -> None:
    """ValueError if `recipe` in `pieces` pieces would not do what it does with the whole batch, or cannot be run at all."""
    batch = recipe.config.batch_size
    part = batch // pieces
    for name, group in _groups(recipe):
        if part % min(group, part):
            raise ValueError(
                f"--batch-size {batch}: the {name} compares {group} images with each other; expected a multiple of {group}"
            )
    if pieces > 1 and (reason := _reason(recipe, part)):
        raise ValueError(
            f"--grad-accum {pieces}: {recipe.name} cannot compute its batch in pieces, {reason}. Use a smaller"
            " --batch-size, or share it among processes (torchrun)"
        )


def _groups(recipe: Recipe) -> list[tuple[str, int]]:
    """Networks with a minibatch standard deviation, and the number of images that it compares."""
    batch = recipe.config.batch_size * recipe.processes
    return [
        (name, batch if module.group_size is None else min(module.group_size, batch))
        for name, network in recipe.networks.items()
        for module in network.modules()
        if isinstance(module, MinibatchStdDev)
    ]


def _reason(recipe: Recipe, part: int) -> str:
    for name, network in recipe.networks.items():
        for module in network.modules():
            if module.training and isinstance(module, BatchNorm):
                return f"as the batch normalisation in its {name} takes statistics of all images"
            if module.training and isinstance(module, Dropout) and module.p > 0:
                return f"as the dropout in its {name} draws anew in each"
    for name, group in _groups(recipe):
        if part % group:
            return f"as its {name} compares {group} images with each other and a piece has {part}"
    return recipe.whole_batch


class State:
    """What the losses of one update find and leave in the networks' buffers. `running`: those of the recipe.

    Call `begin` before each piece, `end` after it, and `close` after the last.
    """

    def __init__(self, networks: dict[str, nn.Module], running: list[torch.Tensor], pieces: int):
        # Of one piece nothing is kept: what it leaves is the result.
        self._pieces, self._running = pieces, running if pieces > 1 else []
        self._buffers = [b for network in networks.values() for b in network.buffers()] if pieces > 1 else []
        self._found = [b.clone() for b in self._buffers]
        self._means = [torch.zeros_like(b) for b in self._running]

    @torch.no_grad()
    def begin(self, piece: int) -> None:
        if piece:
            for buffer, found in zip(self._buffers, self._found, strict=True):
                buffer.copy_(found)

    @torch.no_grad()
    def end(self) -> None:
        for mean, buffer in zip(self._means, self._running, strict=True):
            mean += buffer / self._pieces

    @torch.no_grad()
    def close(self) -> None:
        for buffer, mean in zip(self._running, self._means, strict=True):
            buffer.copy_(mean)
