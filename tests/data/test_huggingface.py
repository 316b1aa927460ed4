"""Data sets of the package datasets: saved, read from a folder of pictures, as objects, as streams with their own state."""

import itertools
import sys

import numpy as np
import pytest
import torch
from data.shard_files import encoded
from PIL import Image

from fastgan import media
from fastgan.data import Loader, load
from fastgan.data.source import once
from fastgan.recipes import get

pytestmark = pytest.mark.slow  # needs the extra "streams"


@pytest.fixture(scope="module")
def made():
    import datasets

    kinds = datasets.Features(
        {"id": datasets.Value("int64"), "photo": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    rows = {"id": [*range(60)], "photo": [{"bytes": encoded(i), "path": None} for i in range(60)]}
    return datasets.Dataset.from_dict(rows | {"kind": [i % 3 for i in range(60)]}, features=kinds)


@pytest.fixture(scope="module")
def saved(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "saved"
    made.save_to_disk(str(path), num_shards=4)
    return path


def numbers(batches) -> list[int]:
    return list(
        itertools.chain(
            *((images[:, 0, 0, 0].int() * 250 + images[:, 1, 0, 0].int()).tolist() for images, _ in batches)
        )
    )


def test_a_saved_set_is_read_by_number(saved):
    for name in (saved, str(saved), f"hf:{saved}"):
        data = load(name)
        assert (len(data), data.resolution, data.class_names, data.about) == (
            60,
            16,
            ["a", "b", "c"],
            "60 images, 3 classes",
        )
    assert numbers(once(data)) == list(range(60))
    assert torch.cat([labels for _, labels in once(data)]).tolist() == [i % 3 for i in range(60)]
    loader = Loader(data, 7, seed=1)
    whole = numbers(next(loader) for _ in range(20))
    assert sorted(whole[:60]) == list(range(60)) and loader.state is None
    assert numbers([next(Loader(data, 7, seed=1, start=35, workers=2))]) == whole[35:42]
    small = load(saved, resolution=8, channels=1, labels=False)
    assert next(once(small))[0].shape[1:] == (1, 8, 8) and small.num_classes == 0
    assert small.fingerprint != data.fingerprint == load(f"hf:{saved}").fingerprint


def test_samples_have_the_classes_of_a_saved_set(made, tmp_path, monkeypatch):
    """As often as it has them, and no picture is decoded for it."""
    made.select([*range(0, 60, 3), *range(1, 30, 3), *range(2, 32, 3)]).save_to_disk(str(tmp_path / "uneven"))
    data = load(tmp_path / "uneven", resolution=32)
    assert not hasattr(load(tmp_path / "uneven", labels=False), "labels")
    monkeypatch.setattr(type(data), "decode", None)
    assert torch.bincount(data.labels).tolist() == [20, 10, 10]
    kind = get("dcgan")
    recipe = kind(kind.Config(conditional=True, width=4, max_width=4), media.Image.describe(data))
    drawn = recipe.classes_drawn(lambda: data)(range(40))
    assert (torch.bincount(drawn) - torch.tensor([20, 10, 10])).abs().max() <= 1


def test_parts(made, tmp_path):
    import datasets

    parts = datasets.DatasetDict({"train": made.select(range(50)), "test": made.select(range(50, 60))})
    parts.save_to_disk(str(tmp_path / "parts"))
    assert len(load(tmp_path / "parts")) == 50
    assert len(load(tmp_path / "parts", split="test")) == 10
    with pytest.raises(ValueError, match="split='val' is not there; there are train, test"):
        load(tmp_path / "parts", split="val")


def test_a_folder_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for i in range(12):
        path = tmp_path / "photos" / ("cat" if i < 6 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i))
    data = load(f"hf:{tmp_path / 'photos'}")
    assert data.class_names == ["cat", "dog"] and sorted(numbers(once(data))) == list(range(12))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_stream_resumes_where_it_was(made, world):
    def stream():
        data = load(made.to_iterable_dataset(num_shards=4))
        data.shuffle_buffer = 10
        return data

    seen = []
    for rank in range(world):
        loader = Loader(stream(), 3, seed=2, rank=rank, world_size=world)
        assert "resume is exact" in loader.resume
        whole = numbers(next(loader) for _ in range(30))
        seen.append(whole[: 60 // world])
        for broken in (1, 4, 9, 17):
            first = Loader(stream(), 3, seed=2, rank=rank, world_size=world)
            numbers(next(first) for _ in range(broken))
            states = [first.state] * world
            later = Loader(stream(), 3, seed=2, rank=rank, world_size=world, states=states)
            assert numbers(next(later) for _ in range(30 - broken)) == whole[3 * broken :]
    assert sorted(itertools.chain(*seen)) == list(range(60))


def test_objects_and_their_errors(made, tmp_path, monkeypatch):
    assert load(made).num_classes == 3
    broken = made.map(lambda row: {"photo": {"bytes": b"no picture", "path": None} if row["id"] == 5 else row["photo"]})
    with pytest.warns(UserWarning, match="skipped 1 unreadable so far: item 5"):
        assert 5 not in numbers(once(load(broken)))
    with pytest.raises(ValueError, match="Dataset: item 5"):
        list(once(load(broken, strict=True)))
    with pytest.raises(ValueError, match=r"no column of pictures \(datasets.Image\); its columns are id, kind"):
        load(made.remove_columns("photo"))
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load("hf:no/such")
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ValueError, match="datasets cannot read it"):
        load(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'needs datasets: pip install "fastgan\[streams\]"'):
        load(tmp_path)


def test_items_without_a_class(made, tmp_path):
    import datasets

    for missing in (None, -1):
        kinds = [missing if i in (3, 7) else i % 3 for i in range(60)]
        some = made.remove_columns("kind").add_column("kind", kinds).cast_column("kind", made.features["kind"])
        data = load(some)
        assert (data.num_classes, data.about) == (0, "60 images, 2 of them without a class, no classes")
        assert sorted(numbers(once(data))) == list(range(60))
        assert load(some.select([0, 1, 2, 4, 5])).class_names == ["a", "b", "c"]
    datasets.DatasetDict({"test": made, "val": made}).save_to_disk(str(tmp_path / "parts"))
    with pytest.raises(ValueError, match="parts has several parts, test, val: choose one, such as split='test'"):
        load(tmp_path / "parts")
    assert len(load(tmp_path / "parts", split="val")) == 60


def test_pil_pictures_of_a_torch_set():
    pictures = [(Image.fromarray(np.full((4, 6), i, np.uint8)), i % 2) for i in range(9)]

    class Photos(torch.utils.data.Dataset):
        def __len__(self):
            return len(pictures)

        def __getitem__(self, i):
            return pictures[i]

    assert next(once(load(Photos(), classes=2, channels=1)))[0][:, 0, 0, 0].tolist() == list(range(9))
