"""What a `fastgan.data.Loader` reads: an indexed source, or a stream.

An *indexed source* has a length and gives any item by its number: an ImageDataset, a PairDataset, sentences, any map-style
torch data set. Sample k of a run is a function of (seed, k), so the number of samples is all that a checkpoint keeps. It may
give whole batches, of one or several indices of the lengths `streams`: ``gather(indices, flips)``.

A *stream* is read from its beginning to its end: a torch IterableDataset, any object that can be iterated again and again,
or a function that takes the number of an epoch and returns an iterable. Its end is followed by the next epoch. What a
stream may have besides ``__iter__``, each optional:

- ``set_epoch(epoch)``, called before each pass with 0, 1, 2, ...: its order may depend on it.
- ``state_dict()`` and ``load_state_dict(state)``: the place after the last item, in numbers, strings, lists and dicts, and the
  way back: the next pass goes on from there, any other begins at the beginning. Without them a resumed run reads its pass
  again up to its place.
- ``part(rank, world_size, seed)``: what one process reads. Without it, process r takes items r, r + world_size, ...
- ``decode(item)``, called in worker threads: a tuple of tensors and numbers, or None for an item to leave out.
- ``resume``: how exactly it resumes, in words that a run prints.
- ``shuffle_buffer``: how many items, before ``decode``, are held and shuffled at a time. 0, or none: as they come.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from fastgan.data.decode import in_threads

_MARK = 64  # items between marks of a stream that is not shuffled: what a resumed run reads once more
_EXACT = "a stream that knows its place: resume is exact"
_AGAIN = "a stream without a state: a resumed run reads its epoch again up to its place; exact if the order is the same"

Batch = tuple[torch.Tensor, ...]
State = dict[str, Any]


def is_stream(dataset: Any) -> bool:
    """Whether `dataset` is a stream; False for an indexed source. Raises TypeError for what is neither."""
    kind = type(dataset).__name__
    if isinstance(dataset, DataLoader) and dataset.batch_sampler is not None:
        raise TypeError(f"{kind} gives batches, expected single items: give its data set, or batch_size=None")
    if isinstance(dataset, IterableDataset):
        return True
    if hasattr(dataset, "__len__") and (hasattr(dataset, "__getitem__") or hasattr(dataset, "gather")):
        return False
    if isinstance(dataset, Iterator):
        raise TypeError(f"{kind} ends after one pass, expected a data set, or a function: epoch -> iterable")
    if not (hasattr(dataset, "__iter__") or callable(dataset)):
        raise TypeError(f"{kind} is no data set: it has neither a length and items by number, nor can it be iterated")
    return True


def about(dataset: Any) -> str:
    """What a run says of its data."""
    if hasattr(dataset, "about"):
        return dataset.about
    return f"{len(dataset)} items" if hasattr(dataset, "__len__") else f"a stream ({type(dataset).__name__})"


def once(dataset: Any, rank: int = 0, world_size: int = 1, size: int = 64) -> Iterator[Batch]:
    """One pass over the items rank, rank + world_size, ..., in the order in which they are stored and unmirrored, in batches
    of at most `size` as a Loader would give them. Of a stream that never ends, this does not either."""
    if is_stream(dataset):
        decode = getattr(dataset, "decode", None)
        items = itertools.islice(_pass(dataset, 0), rank, None, world_size)
        while chunk := list(itertools.islice(items, size)):
            good = chunk if decode is None else [item for item in in_threads(decode, chunk) if item is not None]
            if good:
                yield collate(good)
        return
    for index in torch.arange(rank, len(dataset), world_size).split(size):
        yield chosen(dataset, index)


def chosen(dataset: Any, index: torch.Tensor) -> Batch:
    """Items of an indexed source by their numbers, int64 [N], unmirrored, as one batch."""
    gather = getattr(dataset, "gather", None)
    return gather([index.numpy()], [None]) if gather else collate([dataset[i] for i in index.tolist()])


def images_once(dataset: Any, rank: int = 0, world_size: int = 1, size: int = 64) -> Iterator[torch.Tensor]:
    """The images of one pass as `once` gives them: views where they lie in one tensor, in memory or in a mapped file."""
    if isinstance(images := getattr(dataset, "images", None), torch.Tensor):
        yield from images[rank::world_size].split(size)
    else:
        yield from (batch[0] for batch in once(dataset, rank, world_size, size))


def evenly(length: int, count: int) -> torch.Tensor:
    """Numbers of `count` of `length` items, or of all, int64, ascending: evenly over the whole, whose beginning may be of one
    kind, and over what returns in it at any distance (three views of each thing, one after the other), which equal steps may
    always meet at the same place."""
    return lowest(torch.arange(length, device="cpu"), count)


def lowest(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """Where in ascending `numbers` of items, int64 [N], those of the `count` lowest places are, or all: item i has the place
    frac(i phi), phi the golden ratio; the places of consecutive items fill the unit interval evenly (Weyl)."""
    if len(numbers) <= count:
        return torch.arange(len(numbers), device="cpu")
    places = numbers.double() * ((5**0.5 - 1) / 2) % 1
    return places.argsort()[:count].sort().values


class Spread:
    """At most `count` of rows [n, ...] that arrive in batches, how many in all being unknown: those of the `lowest` places, which
    lie evenly among all. They are numbers `first`, `first + step`, ... of the whole, as one of `step` processes reads it."""

    def __init__(self, count: int, first: int = 0, step: int = 1) -> None:
        self._count, self._next, self._step = count, first, step
        self._held: list[Batch] = []  # rows and their numbers; the first is what is left of all before

    def add(self, rows: torch.Tensor) -> None:
        numbers = torch.arange(len(rows), device="cpu") * self._step + self._next
        self._next += len(rows) * self._step
        self._held.append((rows, numbers))
        if sum(len(numbers) for _, numbers in self._held[1:]) >= self._count:
            self._held = [self.kept()]

    def kept(self) -> Batch:
        """(rows, int64 numbers), in their order. Raises ValueError where there was no batch."""
        if not self._held:
            raise ValueError("there is no item")
        rows, numbers = map(torch.cat, zip(*self._held, strict=True))
        chosen = lowest(numbers, self._count)
        return rows[chosen], numbers[chosen]


def collate(items: list[Any]) -> Batch:
    """Items as one batch of tensors. Raises TypeError for items that are dicts, whose order says nothing."""
    if isinstance(items[0], dict):
        raise TypeError(
            f"an item is a dict of {', '.join(map(str, items[0]))}; expected a tuple such as (image, label)"
        )
    batch = default_collate(items)
    return (batch,) if isinstance(batch, torch.Tensor) else tuple(batch)


def _pass(dataset: Any, epoch: int) -> Iterator[Any]:
    if hasattr(dataset, "set_epoch") and hasattr(dataset, "__iter__"):
        dataset.set_epoch(epoch)
    try:
        yield from dataset if hasattr(dataset, "__iter__") else dataset(epoch)
    except (EOFError, ConnectionError) as error:
        # torch's, without a word, where a worker died as it handed over a tensor
        if not isinstance(dataset, DataLoader):
            raise
        raise RuntimeError("DataLoader worker exited while it handed over an item") from error


class _Order:
    """Sample k of one index: ``permutation(seed, number, k // n)[k % n]``, and a fair coin per sample for flips."""

    def __init__(self, length: int, seed: int, number: int) -> None:
        self._length, self._seed, self._number = length, seed, number
        self._epoch = -1
        self._index = self._coin = np.empty(0)

    def __call__(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices int64 [count] and coins bool [count] of the global samples first .. first + count - 1."""
        index, coin = np.empty(count, np.int64), np.empty(count, bool)
        done = 0
        while done < count:
            epoch, position = divmod(first + done, self._length)
            if epoch != self._epoch:
                rng = generator(self._seed, self._number, epoch)
                self._index, self._coin = rng.permutation(self._length), rng.random(self._length) < 0.5
                self._epoch = epoch
            step = min(count - done, self._length - position)
            index[done : done + step] = self._index[position : position + step]
            coin[done : done + step] = self._coin[position : position + step]
            done += step
        return index, coin


def generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on `key` alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


class IndexReader:
    """Batches of an indexed source: ``read`` draws numbers, one caller at a time; ``assemble`` may run in any thread."""

    resume = ""

    def __init__(
        self, dataset: Any, batch_size: int, *, seed: int, flip: bool, rank: int, world_size: int, start: int
    ) -> None:
        self._dataset, self._gathers = dataset, hasattr(dataset, "gather")
        lengths = dataset.streams if self._gathers else (len(dataset),)
        self._orders = [_Order(length, seed, number) for number, length in enumerate(lengths)]
        self._place, self._batch, self._flip = start, batch_size, flip
        self._rank, self._world = rank, world_size

    def read(self) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        count = self._batch * self._world
        drawn = [order(self._place, count) for order in self._orders]
        self._place += count
        mine = slice(self._rank, None, self._world)
        return [index[mine] for index, _ in drawn], [coin[mine] if self._flip else None for _, coin in drawn]

    def assemble(self, plan: tuple[list[np.ndarray], list[np.ndarray | None]]) -> tuple[Batch, list[None]]:
        indices, _ = plan
        if self._gathers:
            return self._dataset.gather(*plan), [None] * self._batch
        return collate([self._dataset[i] for i in indices[0].tolist()]), [None] * self._batch


class StreamReader:
    """Items of a stream, epoch after epoch: ``read`` takes the next, one caller at a time; ``assemble`` decodes them in any
    thread and gives with each one the state from which a new reader goes on after it.

    A pass is cut into windows of `shuffle_buffer` items, each of which is shuffled on its own: so a state is the place where
    a window began and a number in it, and a resumed run needs to read that window only.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        seed: int,
        flip: bool,
        rank: int,
        world_size: int,
        state: State | None,
    ) -> None:
        self._batch, self._seed, self._flip, self._rank = batch_size, seed, flip, rank
        self._name = getattr(dataset, "name", type(dataset).__name__)
        self._decode = getattr(dataset, "decode", None)
        self._buffer = getattr(dataset, "shuffle_buffer", 0)
        divides = hasattr(dataset, "part")
        self._source = dataset.part(rank, world_size, seed) if divides else dataset
        # Of what all processes read alike, this one's items: the first is number `_first`, then every `_step`-th.
        self._first, self._step = (0, 1) if divides else (rank, world_size)
        self._stateful = hasattr(self._source, "state_dict") and hasattr(self._source, "load_state_dict")
        self.resume = getattr(self._source, "resume", _EXACT if self._stateful else _AGAIN)
        self._items = self._endless(**(state or {}))

    def read(self) -> list[tuple[Any, bool, State]]:
        return list(itertools.islice(self._items, self._batch))

    def assemble(self, drawn: list[tuple[Any, bool, State]]) -> tuple[Batch, list[State]]:
        items, states = [], []
        for item, mirrored, state in drawn:
            item = item if self._decode is None else self._decode(item)
            if item is not None:
                items.append((item[0].flip(-1), *item[1:]) if mirrored else item)
                states.append(state)
        return (collate(items) if items else ()), states

    def _endless(
        self, epoch: int = 0, window: int = 0, offset: int = 0, place: Any = None
    ) -> Iterator[tuple[Any, bool, State]]:
        size = self._buffer or _MARK
        while True:
            skip = self._first + self._step * size * window
            if place is not None:
                self._source.load_state_dict(place)
                skip = self._step - 1
            items = itertools.islice(_pass(self._source, epoch), skip, None, self._step)
            begun, count = window, size
            while count == size:
                rng = generator(self._seed, self._rank, epoch, window)
                held = itertools.islice(items, size)
                if self._buffer:
                    held = list(held)
                    held = [held[i] for i in rng.permutation(len(held))]
                state, count = {"epoch": epoch, "window": window, "place": place}, 0
                for count, item in enumerate(held, 1):
                    mirrored = self._flip and rng.random() < 0.5
                    if count > offset:
                        yield item, mirrored, {**state, "offset": count}
                if count < offset:
                    raise ValueError(f"{self._name} ends before the place where the run is to go on: it has changed")
                window, offset = window + 1, 0
                place = self._plain(self._source.state_dict()) if self._stateful else None
            if begun == 0 and window == 1 and count == 0:
                raise ValueError(f"{self._name} gives no item in epoch {epoch}")
            epoch, window, place = epoch + 1, 0, None

    def _plain(self, state: Any) -> Any:
        """A copy of `state`, as a checkpoint will give it back."""
        try:
            return json.loads(json.dumps(state, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{self._name}.state_dict(): {error}; expected finite numbers, strings, lists and dicts"
            ) from error


def of_rank(states: list[State] | None, rank: int, world_size: int) -> State | None:
    """Where process `rank` goes on, from the states of all processes of the run before. Another number of processes
    divides a stream differently: they begin its next epoch together."""
    if states is None or len(states) == world_size:
        return states and states[rank]
    return {"epoch": 1 + max(state["epoch"] for state in states)}
