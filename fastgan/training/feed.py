"""The loader's batches on the device. To a GPU they go one ahead: from pinned memory, on a stream of their own, while the step
before still computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from fastgan.data import Loader


class _Batch(NamedTuple):
    items: tuple[torch.Tensor, ...]
    consumed: int
    state: Any
    arrived: torch.cuda.Event | None


class Feed:
    """Endless iterator of batches, each item moved by `move`.

    ahead: copy each batch when the one before is asked for; by default on CUDA.

    Attributes: `consumed`, `state`: those of the loader after the batch that was handed out last. An error of the loader is
    raised when its batch is asked for.
    """

    def __init__(
        self,
        loader: Loader,
        move: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        ahead: bool | None = None,
    ):
        self.consumed, self.state = loader.consumed, loader.state
        self._loader, self._move = loader, move
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead = self._stream is not None if ahead is None else ahead
        self._next: _Batch | Exception | None = None

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, ...]:
        batch = self._fetch() if self._next is None else self._next
        self._next = None
        if isinstance(batch, Exception):
            raise batch
        self.consumed, self.state = batch.consumed, batch.state
        if batch.arrived is not None:
            here = torch.cuda.current_stream()
            here.wait_event(batch.arrived)
            for item in batch.items:
                item.record_stream(here)
        if self._ahead:
            self._next = self._fetch()
        return batch.items

    def _fetch(self) -> _Batch | Exception:
        try:
            items = next(self._loader)
        except Exception as error:  # whatever the data set raised
            return error
        place = self._loader.consumed, self._loader.state
        if self._stream is None:
            return _Batch(tuple(map(self._move, items)), *place, None)
        with torch.cuda.stream(self._stream):
            moved = tuple(self._move(item.pin_memory()) for item in items)
            return _Batch(moved, *place, self._stream.record_event())
