"""Shards: what names stand for them, every sample once an epoch, exact resume, shared out, damage."""

import itertools
import sys

import pytest
import torch
from data.shard_files import encoded, write_shards, write_tar

from fastgan.data import Loader, load, load_pair
from fastgan.data.source import once

pytestmark = pytest.mark.slow  # needs the extra "streams"


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0].int() * 250 + images[:, 1, 0, 0].int()).tolist()


def draw(loader: Loader, batches: int) -> list[list[int]]:
    drawn = [numbers(next(loader)[0]) for _ in range(batches)]
    loader.close()
    return drawn


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """103 pictures in 7 shards."""
    return write_shards(tmp_path_factory.mktemp("data") / "shards", 103, 7)


def test_names(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(shards.parent)
    for name in ("shards", "shards/", str(shards), "shards/{000000..000006}.tar", "shards/{000000,000001}.tar"):
        made = load(name)
        assert (made.resolution, made.channels, made.num_classes) == (16, 3, 0)
        assert made.about.startswith("2 shards" if "," in name else "7 shards")
    one = torch.cat([images for images, _ in once(load("shards/000003.tar"))])
    assert numbers(one) == list(range(3 * 103 // 7, 4 * 103 // 7))
    with pytest.raises(FileNotFoundError, match=r"000007.tar: no such shard; shards/\{000000\.\.000009\}.tar names it"):
        load("shards/{000000..000009}.tar")
    with pytest.raises(FileNotFoundError, match=r"none.tar: no such shard$"):
        load("none.tar")
    with pytest.raises(ValueError, match="more than 1000000 shards"):
        load("{0..99999999999}.tar")
    with pytest.raises(ValueError, match="split='val' needs a sub-folder"):
        load("shards", split="val")
    write_shards(tmp_path / "set" / "val", 3, 1)
    assert numbers(next(once(load(tmp_path / "set", split="val")))[0]) == [0, 1, 2]


def test_pictures_beside_a_tar_are_a_folder_of_pictures(tmp_path):
    write_shards(tmp_path / "mixed", 3, 1)
    (tmp_path / "mixed" / "cats").mkdir()
    (tmp_path / "mixed" / "cats" / "a.png").write_bytes(encoded(0))
    assert len(load(tmp_path / "mixed")) == 1


def test_classes(shards):
    made = load(shards, classes=10)
    labels = torch.cat([labels for _, labels in once(made)])
    assert labels.tolist() == [i % 10 for i in range(103)]
    assert made.num_classes == 10 and made.about == "7 shards, 10 classes"
    assert "labels are there: --classes N" in load(shards).about
    assert load(shards, classes=10, labels=False).num_classes == 0
    with pytest.raises(ValueError, match=r"shards/.*/000003 has label '3', expected 0\.\.2"):
        list(once(load(shards, classes=3)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_and_its_resume(shards, workers):
    whole = draw(Loader(load(shards), 5, seed=7, workers=workers), 70)
    drawn = list(itertools.chain(*whole))
    epochs = [drawn[i * 103 : (i + 1) * 103] for i in range(3)]
    assert all(sorted(epoch) == list(range(103)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert draw(Loader(load(shards), 5, seed=8), 5) != whole[:5]
    for broken in (1, 13, 20, 21, 44):
        first = Loader(load(shards), 5, seed=7)
        draw(first, broken)
        assert first.resume == "shards: resume is exact"
        assert (
            draw(Loader(load(shards), 5, seed=7, workers=workers, states=[first.state]), 70 - broken) == whole[broken:]
        )


def test_a_place_inside_an_epoch_of_many_windows(shards):
    def few():
        made = load(shards)
        made.shuffle_buffer = 8
        return made

    whole = draw(Loader(few(), 3, seed=1), 60)
    for broken in (2, 5, 8, 30, 33, 34, 35, 50):
        first = Loader(few(), 3, seed=1)
        draw(first, broken)
        assert draw(Loader(few(), 3, seed=1, states=[first.state]), 60 - broken) == whole[broken:]


@pytest.mark.parametrize("world", [2, 3, 7, 9])
def test_processes_read_disjoint_parts(shards, world):
    """As many shards as processes or more: whole shards; fewer: single samples."""
    seen = []
    for rank in range(world):
        loader = Loader(load(shards), 1, seed=3, rank=rank, world_size=world)
        mine = []
        while True:
            number = numbers(next(loader)[0])
            if loader.state["epoch"] > 0:
                break
            mine += number
        seen.append(mine)
        again = Loader(load(shards), 1, seed=3, rank=rank, world_size=world)
        states = [None] * world
        draw(again, 7)
        states[rank] = again.state
        resumed = Loader(load(shards), 1, seed=3, rank=rank, world_size=world, states=states)
        assert list(itertools.chain(*draw(resumed, len(mine) - 7))) == mine[7:]
    assert sorted(itertools.chain(*seen)) == list(range(103))
    assert min(map(len, seen)) >= 103 // world - 15


def damaged(folder, kind):
    """Three shards of 10, of which the second is damaged after its fifth sample."""
    write_shards(folder, 30, 3)
    path = folder / "000001.tar"
    data = path.read_bytes()
    place = data.index(b"000015.png")
    if kind == "cut":
        path.write_bytes(data[:place])
    elif kind == "cut inside":
        path.write_bytes(data[: place + 700])
    elif kind == "header":
        path.write_bytes(data[:place] + b"\xff" * 300 + data[place + 300 :])
    elif kind == "twice":
        members = [(f"{i:06d}.png", encoded(i)) for i in (10, 11, 12, 13, 14, 15, 15)]
        write_tar(path, members)
    return folder


@pytest.mark.parametrize("kind", ["cut", "cut inside", "header", "twice"])
def test_a_damaged_shard(tmp_path, kind):
    folder = damaged(tmp_path / "shards", kind)
    with pytest.warns(UserWarning, match=r"000001.tar: .*: what follows in this shard is left out"):
        seen = numbers(torch.cat([images for images, _ in once(load(folder))]))
    assert sorted({*range(10), *range(10, 14), *range(20, 30)} - set(seen)) == []
    assert set(seen) <= {*range(10), *range(10, 16), *range(20, 30)}
    with pytest.raises(ValueError, match=r"000001.tar: "):
        list(once(load(folder, strict=True)))


def test_bad_pictures_and_other_files(tmp_path):
    members = [("a/0.png", encoded(0)), ("a/0.json", b"{}"), ("a/1.png", encoded(1)[:50]), ("a/2.txt", b"no picture")]
    members += [("a/3.JPG", encoded(3, form="JPEG")), ("a/4.webp", encoded(4, form="WEBP")), (".hidden.png", b"x")]
    write_tar(tmp_path / "x.tar", members)
    made = load(tmp_path / "x.tar")
    with pytest.warns(UserWarning, match="skipped 1 unreadable so far"):
        images = torch.cat([images for images, _ in once(made)])
    assert len(images) == 3
    assert [(name.rpartition("/")[2], why) for name, why in made.skipped][1] == ("2", "no picture")
    with pytest.raises(ValueError, match=r"x.tar/a/1: "):
        list(once(load(tmp_path / "x.tar", strict=True)))


def test_what_is_no_tar(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"hello" * 1000)
    with pytest.warns(UserWarning, match="x.tar"), pytest.raises(ValueError, match="no pictures"):
        load(tmp_path / "x.tar")
    write_tar(tmp_path / "empty.tar", [])
    with pytest.raises(ValueError, match="no pictures"):
        load(tmp_path / "empty.tar")


def test_translation_refuses_them(shards):
    with pytest.raises(ValueError, match="its pictures are decoded one by one, and pairs of sets need every picture"):
        load_pair(shards, shards)


def test_without_the_package(shards, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ImportError, match=r'needs webdataset: pip install "fastgan\[streams\]"'):
        load(shards)
