"""Streams: every item once an epoch, shared out over ranks, shuffled in bounded memory, resumed at any batch."""

import itertools
import os
import signal
import threading

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fastgan.data import Loader
from fastgan.data.source import is_stream, once
from fastgan.data.text import load_text


class Plain(IterableDataset):
    """Numbers 0 .. n - 1, in another order in each epoch."""

    def __init__(self, n: int):
        self.n, self.epoch, self.read = n, 0, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for i in range(self.n):
            self.read += 1
            yield torch.tensor((i * 7 + self.epoch) % self.n), i


class Stateful(Plain):
    """The same, and it knows its place."""

    first = place = 0

    def __iter__(self):
        first, self.first, self.place = self.first, 0, self.first
        for i in range(first, self.n):
            self.read += 1
            self.place += 1
            yield torch.tensor((i * 7 + self.epoch) % self.n), i

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.first = state["place"]


class Shuffled(Stateful):
    shuffle_buffer = 10


class Holes(Shuffled):
    """Leaves out every fifth item, when it is decoded."""

    def decode(self, item):
        return None if item[1] % 5 == 1 else item


def factory(epoch: int):
    return ((torch.tensor((i * 7 + epoch) % 53), i) for i in range(53))


STREAMS = [lambda: Plain(53), lambda: Stateful(53), lambda: Shuffled(53), lambda: Holes(53), lambda: factory]
streams = pytest.mark.parametrize("make", STREAMS, ids=["plain", "stateful", "shuffled", "holes", "factory"])


def numbers(loader: Loader, batches: int) -> list[list[int]]:
    drawn = [next(loader)[0].tolist() for _ in range(batches)]
    loader.close()
    return drawn


@streams
def test_every_item_once_an_epoch(make):
    kept = 42 if isinstance(make(), Holes) else 53
    drawn = list(itertools.chain(*numbers(Loader(make(), 5), -(-3 * kept // 5))))
    epochs = [drawn[i * kept : (i + 1) * kept] for i in range(3)]
    assert len({frozenset(e) for e in epochs if kept == 53}) <= 1
    assert all(len(set(e)) == kept for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@streams
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("after", [0, 2])
def test_resume_is_exact_at_any_batch_whatever_the_workers(make, before, after):
    whole = numbers(Loader(make(), 4, seed=3), 40)
    for broken in (1, 2, 3, 12, 13, 14, 29):
        first = Loader(make(), 4, seed=3, workers=before)
        assert numbers(first, broken) == whole[:broken]
        second = Loader(make(), 4, seed=3, workers=after, start=first.consumed, states=[first.state])
        assert second.consumed == 4 * broken
        assert numbers(second, 40 - broken) == whole[broken:]


@streams
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_an_epoch(make, world):
    drawn = []
    for rank in range(world):
        loader = Loader(make(), 1, rank=rank, world_size=world)
        whole = numbers(Loader(make(), 1, rank=rank, world_size=world), 30)
        while (batch := next(loader))[0] is not None and loader.state["epoch"] == 0:
            drawn.append(int(batch[1]))
        again = Loader(make(), 1, rank=rank, world_size=world)
        numbers(again, 11)
        states = [None] * rank + [again.state] + [None] * (world - rank - 1)
        assert numbers(Loader(make(), 1, rank=rank, world_size=world, states=states), 19) == whole[11:]
    assert sorted(drawn) == [i for i in range(53) if not (isinstance(make(), Holes) and i % 5 == 1)]


def test_a_state_saves_reading_all_again():
    first = Loader(Shuffled(10_000), 8)
    numbers(first, 1000)
    later = Shuffled(10_000)
    numbers(Loader(later, 8, states=[first.state]), 1)
    assert later.read <= 20


def test_another_number_of_ranks_begins_the_next_epoch():
    loaders = [Loader(Stateful(40), 4, rank=r, world_size=2) for r in range(2)]
    for loader in loaders:
        numbers(loader, 3)
    one = Loader(Stateful(40), 4, states=[loader.state for loader in loaders])
    assert "2 processes read it before, and 1 do now: they begin its next epoch" in one.resume
    assert numbers(one, 1) == numbers(Loader(Stateful(40), 4, states=[{"epoch": 1}]), 1)


def test_shuffling_holds_no_more_than_the_buffer():
    data = Shuffled(10_000)
    loader = Loader(data, 4, seed=1)
    first = numbers(loader, 1)
    assert data.read == 10
    assert first != numbers(Loader(Shuffled(10_000), 4, seed=2), 1)


def test_what_waits_to_be_trained_on_is_bounded():
    data, entered = Plain(10**9), threading.Event()
    loader = Loader(data, 10, workers=2)
    next(loader)
    entered.wait(0.5)
    assert data.read <= 10 * 6
    loader.close()


def test_flips_of_a_stream_are_resumed():
    class Pictures(Shuffled):
        flip = True

        def decode(self, item):
            return torch.arange(3, dtype=torch.uint8).repeat(1, 3, 1) + item[1], item[1]

    def draw(loader, batches):
        return torch.cat([next(loader)[0] for _ in range(batches)])

    whole = draw(Loader(Pictures(53), 5), 20)
    mirrored = whole[:, 0, 0, 0] > whole[:, 0, 0, 2]
    assert 30 < int(mirrored.sum()) < 70
    first = Loader(Pictures(53), 5)
    draw(first, 7)
    assert torch.equal(draw(Loader(Pictures(53), 5, states=[first.state]), 13), whole[35:])
    with pytest.raises(ValueError, match="flip=True needs"):
        Loader(Plain(3), 1, flip=True)


@pytest.mark.parametrize("dataset", [*(make() for make in STREAMS), TensorDataset(torch.arange(53))])
@pytest.mark.parametrize("world", [1, 3])
def test_one_pass(dataset, world):
    parts = [list(once(dataset, r, world, size=8)) for r in range(world)]
    assert all(len(batch[0]) <= 8 for part in parts for batch in part)
    seen = [torch.cat([batch[-1] for batch in part]).tolist() for part in parts]
    kept = [i for i in range(53) if not (isinstance(dataset, Holes) and i % 5 == 1)]
    assert sorted(itertools.chain(*seen)) == kept
    assert all(part == sorted(part) for part in seen)


def test_what_gathers_batches_is_indexed():
    texts = load_text("oracle")
    assert not is_stream(texts)
    assert len(next(once(texts, size=8))[0]) == 8


def test_torchs_loader_may_read_in_processes_of_its_own():
    loader = Loader(DataLoader(TensorDataset(torch.arange(40)), batch_size=None, num_workers=2), 8)
    assert sorted(itertools.chain(*numbers(loader, 5))) == list(range(40))


@pytest.mark.slow  # torch waits 10 s for what is left of the worker
def test_a_dead_worker_process_is_an_error():
    class Deadly(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            if i == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.tensor(i)

    loader = Loader(DataLoader(Deadly(), batch_size=None, num_workers=1), 4, workers=1)
    with pytest.raises(RuntimeError, match=r"DataLoader worker .*(is killed|exited)"):
        for _ in range(10):
            next(loader)
    loader.close()


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_worker_that_dies_as_it_hands_over_is_said(error):
    class Dying(DataLoader):
        def __iter__(self):
            yield torch.zeros(1)
            raise error

    loader = Loader(Dying(TensorDataset(torch.arange(4)), batch_size=None), 1)
    next(loader)
    with pytest.raises(RuntimeError, match="DataLoader worker exited while it handed over an item"):
        next(loader)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (iter([1, 2]), "ends after one pass, expected a data set, or a function"),
        ((i for i in range(3)), "generator ends after one pass"),
        (7, "int is no data set"),
        (DataLoader(TensorDataset(torch.arange(4)), batch_size=2), "gives batches, expected single items"),
    ],
)
def test_what_cannot_be_read_again_and_again(dataset, message):
    with pytest.raises(TypeError, match=message):
        is_stream(dataset)


@pytest.mark.parametrize("workers", [0, 1])
def test_streams_that_give_nothing(workers):
    class Unreadable(Plain):
        def decode(self, item):
            return None

    class Gone(Plain):
        def __iter__(self):
            yield from itertools.islice(super().__iter__(), 7)
            raise OSError("disk gone")

    class Unkept(Stateful):
        def state_dict(self):
            return {"place": torch.tensor(3)}

    for dataset, error, message in (
        (Plain(0), ValueError, "Plain gives no item in epoch 0"),
        (Unreadable(50), ValueError, "none of 1000 items in a row"),
        (Gone(50), OSError, "disk gone"),
        (Unkept(200), TypeError, r"Unkept.state_dict\(\): .* expected finite numbers"),
        (lambda epoch: ({"image": i} for i in range(9)), TypeError, "an item is a dict of image; expected a tuple"),
    ):
        loader = Loader(dataset, 4, workers=workers)
        with pytest.raises(error, match=message):
            for _ in range(100):
                next(loader)
        loader.close()
    first = Loader(Plain(53), 5)
    numbers(first, 8)
    with pytest.raises(ValueError, match="it has changed"):
        next(Loader(Plain(20), 5, states=[first.state]))
