"""Batches one ahead: the loader's own, in its order, with the place of the one handed out."""

import pytest
import torch
from torch.utils.data import TensorDataset

from fastgan.data import Loader
from fastgan.training.distributed import choose_speed
from fastgan.training.feed import Feed

CPU = torch.device("cpu")


def loader():
    return Loader(TensorDataset(torch.arange(10.0)[:, None], torch.arange(10)), 4, seed=1)


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_and_places(ahead):
    plain, feed = loader(), Feed(loader(), lambda x: 2 * x, CPU, ahead)
    assert feed.consumed == 0
    for _ in range(6):
        expected, found = next(plain), next(feed)
        assert all(torch.equal(2 * a, b) for a, b in zip(expected, found, strict=True))
        assert feed.consumed == plain.consumed


def test_an_error_waits_for_its_turn():
    def broken():
        yield (torch.zeros(2),)
        yield (torch.ones(2),)
        raise OSError("the disk is gone")

    source = broken()
    source_with_place = type("Source", (), {"consumed": 0, "state": None, "__next__": lambda self: next(source)})()
    feed = Feed(source_with_place, lambda x: x, CPU, ahead=True)
    assert [float(next(feed)[0].sum()) for _ in range(2)] == [0, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(feed)


@pytest.mark.parametrize(
    ("asked", "device", "deterministic", "said"),
    [
        (False, "cpu", True, ""),
        (True, "cpu", True, ""),
        (False, "cuda", False, "fast: cuDNN's algorithms are chosen by timing"),
        (True, "cuda", True, "deterministic: cuDNN takes algorithms that repeat"),
    ],
)
def test_speed_or_repetition(asked, device, deterministic, said, monkeypatch):
    for flag in ("deterministic", "benchmark"):
        monkeypatch.setattr(torch.backends.cudnn, flag, False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    line = choose_speed(asked, torch.device(device))
    assert torch.backends.cudnn.deterministic is deterministic and torch.backends.cudnn.benchmark is not deterministic
    assert (
        line.startswith(said)
        and (not said or "convolutions in TF32, products in float32" in line)
        and bool(line) == bool(said)
    )
