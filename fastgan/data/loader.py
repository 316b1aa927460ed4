"""An endless, deterministic flow of batches that resumes where it was and is shared out over ranks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from fastgan._surroundings import on_cpu
from fastgan.data.source import Batch, IndexReader, State, StreamReader, is_stream, of_rank

_MOST_LEFT_OUT = 1000  # items in a row that a stream may leave out before it counts as unreadable


class Loader:
    """Endless iterator of batches; ``(images uint8 [B, C, H, W], labels int64 [B])`` for an ImageDataset.

    :mod:`fastgan.data.source` says what it reads. Of an indexed source the k-th global sample and its flip depend on
    ``(seed, k)`` alone. Each epoch is one permutation of the data set, and batches run on across its edge, so no sample
    is lost or doubled whatever N, batch and world are. Of each ``world_size * batch_size`` samples in turn, the batch of
    one process alone, rank r takes number r, r + world_size, r + 2 world_size, ...: so a group of samples n, n + N/G,
    n + 2 N/G, ... of a minibatch standard deviation stays together on one rank, and shows the discriminator the same
    statistic. A stream decides its own order, and is read by one thread, ahead of those that decode.

    Args:
        dataset: an ImageDataset, a PairDataset (batches are then ``(a, b)``), any map-style torch data set (its items are
            collated by torch; no flips), or a stream.
        batch_size: samples per batch of this rank.
        seed: non-negative; the same on all ranks.
        workers: threads that assemble batches ahead, one for each and one more; images share their memory, so there is
            nothing to pickle or to fork. 0 assembles in the calling thread: a batch of 64 decoded images with flips takes
            0.07 ms at 32 px, 0.14 at 64 and 4 at 256, so for these threads pay from about 256 px on.
        rank, world_size: this process's shard.
        start: number of GLOBAL samples consumed so far; an indexed source continues exactly there.
        flip: mirror each image left to right with probability 1/2 (also on if ``dataset.flip``).
        states: of a stream: the ``state`` of every rank's loader, in order of ranks, to continue where these were. With
            another ``world_size`` than theirs all begin the next epoch.

    Attributes: ``consumed``: global samples handed out so far, ``start`` included: the ``start`` to resume with.
    ``state``: of a stream: the place after the last batch, as JSON can hold it; None for an indexed source, and before the
    first batch. ``resume``: of a stream: how exactly it resumes, in words. ``wait_seconds``: time spent in ``next`` waiting
    for data.

    Raises ValueError for an empty data set, a batch size below 1, a rank outside the world, a negative seed or start;
    TypeError for what is neither an indexed source nor a stream. ``next`` raises what the source does, and ValueError where
    a stream gives nothing.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        flip: bool = False,
        states: Sequence[State] | None = None,
    ) -> None:
        stream = is_stream(dataset)
        for name, value, least in (
            *(() if stream else (("len(dataset)", len(dataset), 1),)),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("workers", workers, 0),
            ("world_size", world_size, 1),
            ("start", start, 0),
        ):
            if value < least:
                raise ValueError(f"Loader: {name} is {value}, expected at least {least}")
        if not 0 <= rank < world_size:
            raise ValueError(f"Loader: rank is {rank}, expected 0..{world_size - 1}")
        self.flip = flip or getattr(dataset, "flip", False)
        if self.flip and not (hasattr(dataset, "gather") or hasattr(dataset, "decode")):
            raise ValueError(f"Loader: flip=True needs an ImageDataset or PairDataset, got {type(dataset).__name__}")
        self.dataset, self.batch_size = dataset, batch_size
        self.consumed, self.wait_seconds = start, 0.0
        self._world = world_size
        options = {"seed": seed, "flip": self.flip, "rank": rank, "world_size": world_size}
        if stream:
            self.state = of_rank(states, rank, world_size)
            self._reader = StreamReader(dataset, batch_size, **options, state=self.state)
        else:
            self.state = None
            self._reader = IndexReader(dataset, batch_size, **options, start=start)
        self.resume = self._reader.resume
        if stream and states is not None and len(states) != world_size:
            self.resume += (
                f". {len(states)} processes read it before, and {world_size} do now: they begin its next epoch"
            )
        self._held: tuple[Batch, list] = ((), [])
        self._ahead: deque[Future] = deque()
        self._depth = workers + 1 if workers else 0  # each more that waits is memory out of the caches
        self._reading, self._pool = (
            ThreadPoolExecutor(count, thread_name_prefix=f"fastgan-{name}") if workers else None
            for count, name in ((1, "read"), (workers, "data"))
        )

    def __repr__(self) -> str:
        return (
            f"Loader({type(self.dataset).__name__}, batches of {self.batch_size}, {self.consumed} samples handed out)"
        )

    def __iter__(self) -> Iterator[Batch]:
        return self

    @on_cpu
    def __next__(self) -> Batch:
        began = time.perf_counter()
        (batch, states), size, empty = self._held, self.batch_size, 0
        while len(states) < size:
            more, later = self._next()
            batch = tuple(torch.cat(two) for two in zip(batch, more, strict=True)) if batch and more else batch or more
            states = states + later
            empty = 0 if later else empty + size
            if empty >= _MOST_LEFT_OUT:
                raise ValueError(f"none of {empty} items in a row could be read")
        self.state = states[size - 1]
        self._held = (tuple(part[size:] for part in batch), states[size:]) if len(states) > size else ((), [])
        self.wait_seconds += time.perf_counter() - began
        self.consumed += size * self._world
        return batch if len(states) == size else tuple(part[:size] for part in batch)

    def _next(self) -> tuple[Batch, list]:
        """What was assembled next: as a rule a batch, less where a stream leaves items out."""
        if self._pool is None:
            return self._reader.assemble(self._reader.read())
        while len(self._ahead) <= self._depth:
            plan = self._reading.submit(self._reader.read)
            self._ahead.append(self._pool.submit(self._assemble, plan))
        return self._ahead.popleft().result()

    def _assemble(self, plan: Future) -> tuple[Batch, list]:
        return self._reader.assemble(plan.result())

    @property
    def skipped(self) -> int:
        """How many items were unreadable so far."""
        return len(getattr(self.dataset, "skipped", ()))

    def close(self) -> None:
        """Stop the worker threads; batches that were assembled ahead are dropped."""
        for pool in (self._reading, self._pool):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
