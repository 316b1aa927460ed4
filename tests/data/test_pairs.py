"""Two sets at once: unpaired streams, matched names, side-by-side images."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.data import Loader, PairDataset, load, load_pair

RNG = np.random.default_rng(11)


def save(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def test_emoji_unpaired_covers_each_side_once():
    data = load_pair("emoji:google:food", "emoji:google:animals")
    assert not data.paired and (len(data.a), len(data.b), len(data)) == (131, 159, 159)
    loader = Loader(data, 1, seed=4)
    drawn = [next(loader) for _ in range(159)]
    for batches, side, n in (([a for a, _ in drawn[:131]], data.a, 131), ([b for _, b in drawn], data.b, 159)):
        got = torch.cat(batches).flatten(1).numpy()
        assert got.shape[0] == n
        assert np.array_equal(np.unique(got, axis=0), np.unique(side.images.flatten(1).numpy(), axis=0))
    resumed = next(Loader(data, 3, seed=4, start=140, workers=2))
    for side in (0, 1):
        assert torch.equal(resumed[side], torch.cat([pair[side] for pair in drawn[140:143]]))
    a, b = data[150]
    assert torch.equal(a, data.a.images[19]) and torch.equal(b, data.b.images[150])
    with pytest.raises(IndexError):
        data[159]


def test_unpaired_streams_are_independent_even_for_equal_lengths():
    google, twitter = load("emoji:google:base"), load("emoji:twitter:base")
    data = load_pair("emoji:google:base", "emoji:twitter:base")
    a, b = next(Loader(data, 50))
    together = sum(
        bool(torch.equal(x, google.images[i]) and torch.equal(y, twitter.images[i]))
        for x, y in zip(a, b, strict=True)
        for i in range(0, 1906)
    )
    assert together < 3


def test_emoji_paired_for_evaluation():
    data = load_pair("emoji:google", "emoji:twitter", paired=True, split="test", flip=True)
    assert data.a.files == data.b.files and len(data) == len(load("emoji", split="test"))
    a, b = next(Loader(data, 64))
    position = {tuple(x.flatten().tolist()): i for i, x in enumerate(data.a.images)}
    mirrored = 0
    for x, y in zip(a, b, strict=True):
        i = position.get(tuple(x.flatten().tolist()))
        if i is None:
            i, mirrored = position[tuple(x.flip(-1).flatten().tolist())], mirrored + 1
            y = y.flip(-1)
        counterparts = data.b.images[(data.a.images == data.a.images[i]).flatten(1).all(1)]
        assert (counterparts == y).flatten(1).all(1).any()
    assert mirrored > 10


def test_paired_folders_match_by_name(tmp_path):
    same = [picture(6, 6) for _ in range(3)]
    for name, pixels in zip(("x/1", "x/2", "3"), same, strict=True):
        save(tmp_path / "A" / f"{name}.png", pixels)
        save(tmp_path / "B" / f"{name}.bmp", 255 - pixels)
    save(tmp_path / "A" / "only.png", picture(6, 6))
    save(tmp_path / "B" / "0.png", picture(6, 6))
    data = load_pair(tmp_path, paired=True)
    assert len(data) == 3 and torch.equal(data.b.images, 255 - data.a.images)
    assert sorted(file.rsplit("/", 1)[1] for file, _ in data.skipped) == ["0.png", "only.png"]
    assert {reason for _, reason in data.skipped} == {"no counterpart"}
    assert len(load_pair(tmp_path)) == 4 and not load_pair(tmp_path).paired
    save(tmp_path / "A" / "3.bmp", picture(6, 6))
    with pytest.raises(ValueError, match="'3' occurs with more than one extension"):
        load_pair(tmp_path, paired=True)


def test_train_and_test_folders(tmp_path):
    for name, n in (("trainA", 3), ("trainB", 2), ("testA", 1), ("testB", 1)):
        for i in range(n):
            save(tmp_path / name / f"{name}{i}.png", picture(9, 12))
    data = load_pair(tmp_path, resolution=8)
    assert (len(data.a), len(data.b)) == (3, 2) and data.a.images.shape == (3, 3, 8, 8)
    assert len(load_pair(tmp_path, resolution=8, split="test").a) == 1
    with pytest.raises(ValueError, match="counterpart of the same name"):
        load_pair(tmp_path, resolution=8, paired=True)


def test_side_by_side(tmp_path):
    images = [picture(8, 16) for _ in range(3)]
    for i, pixels in enumerate(images):
        save(tmp_path / "set" / "train" / f"{i}.png", pixels)
    (tmp_path / "set" / "train" / "bad.png").write_bytes(b"junk")
    with pytest.warns(UserWarning, match="skipped 1 of 4") as caught:
        data = load_pair(tmp_path / "set", split="train")
    assert len(caught) == len(data.skipped) == 1 and data.paired
    for a, b, pixels in zip(data.a.images, data.b.images, images, strict=True):
        assert np.array_equal(torch.cat([a, b], -1).permute(1, 2, 0), pixels)
    assert (data.resolution, data.channels, len(data)) == (8, 3, 3)
    with pytest.warns(UserWarning, match="skipped 1 of 4"):
        assert not load_pair(tmp_path / "set", split="train", paired=False).paired


def test_errors():
    with pytest.raises(ValueError, match="give resolution= and channels="):
        PairDataset(load("emoji"), load("emoji", channels=1), paired=True)
    with pytest.raises(ValueError, match=r"has 3781 images and .* 1906"):
        PairDataset(load("emoji"), load("emoji:base"), paired=True)
    with pytest.raises(ValueError, match="expected two sets, or a folder or zip of side-by-side images"):
        load_pair("emoji")
