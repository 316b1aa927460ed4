"""An endless, deterministic batch stream that resumes at any sample and shards over ranks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch


class _Order:
    """Sample k of one stream: ``permutation(seed, stream, k // n)[k % n]``, and a fair coin per sample for flips."""

    def __init__(self, length: int, seed: int, stream: int) -> None:
        self._length, self._seed, self._stream = length, seed, stream
        self._epoch = -1
        self._index = self._coin = np.empty(0)

    def __call__(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices int64 [count] and coins bool [count] of the global samples first .. first + count - 1."""
        index, coin = np.empty(count, np.int64), np.empty(count, bool)
        done = 0
        while done < count:
            epoch, position = divmod(first + done, self._length)
            if epoch != self._epoch:
                rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, self._stream, epoch])))
                self._index, self._coin = rng.permutation(self._length), rng.random(self._length) < 0.5
                self._epoch = epoch
            step = min(count - done, self._length - position)
            index[done : done + step] = self._index[position : position + step]
            coin[done : done + step] = self._coin[position : position + step]
            done += step
        return index, coin


class Loader:
    """Endless iterator of batches; ``(images uint8 [B, C, H, W], labels int64 [B])`` for an ImageDataset.

    The k-th global sample and its flip depend on ``(seed, k)`` alone. Each epoch is one permutation of the data set,
    and batches run on across its edge, so no sample is lost or doubled whatever N, batch and world are. Of each
    ``world_size * batch_size`` samples in turn, the batch of one process alone, rank r takes number r, r + world_size,
    r + 2 world_size, ...: so a group of samples n, n + N/G, n + 2 N/G, ... of a minibatch standard deviation stays
    together on one rank, and shows the discriminator the same statistic.

    Args:
        dataset: an ImageDataset, a PairDataset (batches are then ``(a, b)``), or any map-style torch data set (its
            items are collated by torch; no flips).
        batch_size: samples per batch of this rank.
        seed: non-negative; the same on all ranks.
        workers: threads that assemble batches ahead, two batches each. They share the images, which are decoded
            already, so there is nothing to pickle or to fork. 0 assembles in the calling thread: a batch of 64 with
            flips takes 0.07 ms at 32 px, 0.14 at 64 and 4 at 256 (one core), so threads pay from about 256 px on.
        rank, world_size: this process's shard.
        start: number of GLOBAL samples consumed so far; the stream continues exactly there.
        flip: mirror each image left to right with probability 1/2 (also on if ``dataset.flip``).

    Attributes: ``consumed``: global samples handed out so far, ``start`` included: the ``start`` to resume with.
    ``wait_seconds``: time spent in ``next`` waiting for data.

    Raises ValueError for an empty data set, a batch size below 1, a rank outside the world, a negative seed or start.
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
    ) -> None:
        for name, value, least in (
            ("len(dataset)", len(dataset), 1),
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
        self._gathers = hasattr(dataset, "gather")
        self.flip = flip or getattr(dataset, "flip", False)
        if self.flip and not self._gathers:
            raise ValueError(f"Loader: flip=True needs an ImageDataset or PairDataset, got {type(dataset).__name__}")
        self.dataset, self.batch_size = dataset, batch_size
        self.consumed = self._planned = start
        self.wait_seconds = 0.0
        self._rank, self._world = rank, world_size
        lengths = dataset.streams if self._gathers else (len(dataset),)
        self._orders = [_Order(length, seed, stream) for stream, length in enumerate(lengths)]
        self._ahead: deque[Future] = deque()
        self._depth = 2 * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="fastgan-data") if workers else None

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, ...]:
        began = time.perf_counter()
        if self._pool is None:
            batch = self._assemble(*self._plan())
        else:
            while len(self._ahead) <= self._depth:
                self._ahead.append(self._pool.submit(self._assemble, *self._plan()))
            batch = self._ahead.popleft().result()
        self.wait_seconds += time.perf_counter() - began
        self.consumed += self.batch_size * self._world
        return batch

    def _plan(self) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        count = self.batch_size * self._world
        drawn = [order(self._planned, count) for order in self._orders]
        self._planned += count
        mine = slice(self._rank, None, self._world)
        return [index[mine] for index, _ in drawn], [coin[mine] if self.flip else None for _, coin in drawn]

    def _assemble(self, indices: list[np.ndarray], flips: list[np.ndarray | None]) -> tuple[torch.Tensor, ...]:
        if self._gathers:
            return self.dataset.gather(indices, flips)
        return torch.utils.data.default_collate([self.dataset[i] for i in indices[0].tolist()])

    def close(self) -> None:
        """Stop the worker threads; batches that were assembled ahead are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
