"""The stream of batches: nothing lost or doubled, shards that add up, exact resume, flips."""

import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from fastgan.data import ImageDataset, Loader
from fastgan.data.dataset import take


def dataset(n: int, size: int = 4, flip: bool = False) -> ImageDataset:
    """Every image is different and no image is its own mirror; the label of image i is i."""
    images = torch.zeros(n, 3, size, size, dtype=torch.uint8)
    images[:, 0] = (torch.arange(n) % 256).to(torch.uint8)[:, None, None]
    images[:, 1] = (torch.arange(n) // 256).to(torch.uint8)[:, None, None]
    images[:, 2] = torch.arange(size, dtype=torch.uint8)
    return ImageDataset(images, torch.arange(n), name="test", class_names=[str(i) for i in range(n)], flip=flip)


def draw(loader: Loader, batches: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = [next(loader) for _ in range(batches)]
    return torch.cat([images for images, _ in drawn]), torch.cat([labels for _, labels in drawn])


@pytest.mark.parametrize(
    ("n", "batch", "world"), [(1, 3, 1), (7, 2, 2), (12, 4, 1), (13, 5, 3), (101, 8, 4), (5, 16, 2)]
)
def test_every_sample_once_per_epoch(n, batch, world):
    steps = -(-3 * n // (batch * world))
    ranks = [draw(Loader(dataset(n), batch, seed=5, rank=r, world_size=world), steps)[1] for r in range(world)]
    stream = torch.stack([labels.view(steps, batch) for labels in ranks], 2).flatten()
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
    if n > 12:
        assert stream[:n].tolist() != stream[n : 2 * n].tolist() != list(range(n))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_in_turn_are_the_one_process_batch(world):
    data = dataset(29)
    one = Loader(data, 4 * world, seed=9, flip=True, start=11)
    many = [Loader(data, 4, seed=9, flip=True, start=11, rank=r, world_size=world) for r in range(world)]
    for _ in range(20):
        parts = [next(loader) for loader in many]
        images, labels = next(one)
        assert torch.equal(torch.stack([p[0] for p in parts], 1).flatten(0, 1), images)
        assert torch.equal(torch.stack([p[1] for p in parts], 1).flatten(), labels)
    assert {loader.consumed for loader in many} == {one.consumed} == {11 + 20 * 4 * world}


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("after", [0, 2])
def test_resume_is_exact_whatever_the_workers(before, after):
    data = dataset(37, flip=True)
    unbroken = draw(Loader(data, 6, seed=3), 30)
    first = Loader(data, 6, seed=3, workers=before)
    head = draw(first, 13)
    tail = draw(Loader(data, 6, seed=3, workers=after, start=first.consumed), 17)
    first.close()
    for whole, a, b in zip(unbroken, head, tail, strict=True):
        assert torch.equal(whole, torch.cat([a, b]))


def test_sample_depends_on_seed_and_position_only():
    data = dataset(50)
    whole = draw(Loader(data, 1, seed=1, flip=True), 120)
    for batch, start in ((7, 0), (16, 20), (50, 49)):
        images, labels = next(Loader(data, batch, seed=1, flip=True, start=start))
        assert torch.equal(images, whole[0][start : start + batch])
        assert torch.equal(labels, whole[1][start : start + batch])
    assert not torch.equal(draw(Loader(data, 50, seed=2), 1)[1], whole[1][:50])


def test_flip_mirrors_about_half_and_nothing_else():
    data = dataset(500)
    images, labels = draw(Loader(data, 100, flip=True), 10)
    mirrored = images[:, 2, 0, 0] != 0
    assert 400 < int(mirrored.sum()) < 600
    expected = data.images[labels]
    assert torch.equal(images[~mirrored], expected[~mirrored])
    assert torch.equal(images[mirrored], expected[mirrored].flip(-1))
    plain, labels = draw(Loader(data, 100), 10)
    assert torch.equal(plain, data.images[labels])
    # The coin is tossed anew in each epoch: some images come both ways.
    first, second = dict(zip(labels[:500].tolist(), mirrored[:500], strict=True)), mirrored[500:]
    assert any(first[k] != flipped for k, flipped in zip(labels[500:].tolist(), second, strict=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("width", [7, 8, 24])
def test_mirrored_rows_of_any_width(dtype, width):
    images = torch.randint(0, 256, (6, 3, 4, width)).to(dtype)
    odd = torch.cat([torch.zeros(1, dtype=dtype), images.flatten()])[1:].view(
        images.shape
    )  # not at a multiple of 8 bytes
    for source in (images, odd, images.transpose(2, 3).contiguous().transpose(2, 3), images[::2], images[..., :-1]):
        index, flips = np.array([1, 0, 2]), np.array([True, False, True])
        found = take(source, index, flips)
        assert torch.equal(found[1].int(), source[0].int())
        assert torch.equal(found[[0, 2]].int(), source[[1, 2]].int().flip(-1))


def test_batches_are_fresh_contiguous_tensors():
    data = dataset(8)
    kept = data.images.clone()
    for flip in (False, True):
        images, labels = next(Loader(data, 8, flip=flip))
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.shape == (8, 3, 4, 4) and images.is_contiguous()
        images.fill_(0)
    assert torch.equal(data.images, kept)


def test_wait_seconds_counts_only_waiting():
    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            time.sleep(0.02)
            return torch.full((2,), i), i

    blocking = Loader(Slow(), 2)
    next(blocking)
    assert 0.04 <= blocking.wait_seconds < 1
    ahead = Loader(Slow(), 2, workers=2)
    next(ahead)
    first = ahead.wait_seconds
    time.sleep(0.5)  # the threads fill the queue meanwhile
    values, labels = next(ahead)
    assert ahead.wait_seconds - first < 0.04
    assert torch.equal(values[:, 0], labels)
    ahead.close()


def test_error_in_a_worker_reaches_the_caller():
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            raise OSError("disk gone")

    loader = Loader(Broken(), 2, workers=1)
    with pytest.raises(OSError, match="disk gone"):
        next(loader)
    loader.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"rank": 2, "world_size": 2}, r"rank is 2, expected 0\.\.1"),
        ({"start": -5}, "start is -5"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Loader(dataset(3), **{"batch_size": 2} | arguments)


def test_flip_of_other_data_sets_is_refused():
    other = torch.utils.data.TensorDataset(torch.arange(6))
    assert sorted(next(Loader(other, 6))[0].tolist()) == list(range(6))
    with pytest.raises(ValueError, match="flip=True needs an ImageDataset"):
        Loader(other, 2, flip=True)


def test_items_are_views_and_workers_get_no_copy():
    data = dataset(3000, size=16)
    image, label = data[2999]
    assert image.data_ptr() == data.images[2999].data_ptr() and label == 2999
    assert len(ForkingPickler.dumps(data)) < 100_000  # the 2.3 MB of pixels go through shared memory
    loader = torch.utils.data.DataLoader(data, batch_size=100, num_workers=2)
    assert np.array_equal(torch.cat([labels for _, labels in loader]), np.arange(3000))
