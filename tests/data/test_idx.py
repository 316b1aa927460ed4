"""IDX files made here, plain and gzip, whole and damaged."""

import gzip
import struct

import numpy as np
import pytest
import torch

from fastgan.data import idx, load


def write_idx(path, array: np.ndarray) -> None:
    data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture(params=["", ".gz"])
def folder(tmp_path, request):
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 30), ("t10k", 20)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{request.param}", rng.integers(0, 256, (n, 28, 28), np.uint8))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{request.param}", np.arange(n, dtype=np.uint8) % 10)
    return tmp_path


def test_folder(folder):
    train, test = load(folder), load(folder, split="test")
    assert train.images.shape == (30, 1, 28, 28) and test.images.shape == (20, 1, 28, 28)
    expected = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    assert np.array_equal(train.images[:, 0].numpy(), expected)
    assert train.labels.tolist() == [*range(10)] * 3
    assert train.class_names == [str(i) for i in range(10)]


def test_colour_is_a_view_and_resize_keeps_order(folder):
    grey, colour = load(folder, resolution=32), load(folder, resolution=32, channels=3)
    assert grey.images.shape == (30, 1, 32, 32)
    assert torch.equal(colour.images, grey.images.repeat(1, 3, 1, 1))
    assert colour.images.stride(1) == 0


def test_fashion_mnist(folder, monkeypatch):
    monkeypatch.setattr(idx, "FASHION_FOLDERS", (folder / "none", folder))
    data = load("fashion-mnist")
    assert data.num_classes == 10 and data.class_names[9] == "Ankle boot" and len(data) == 30
    assert len(load("fashion-mnist:ankle")) == len(load("fashion-mnist:shirt")) == 3
    with pytest.raises(ValueError, match=r"unknown part.*t-shirt-top.*ankle-boot"):
        load("fashion-mnist:s")
    monkeypatch.setattr(idx, "FASHION_FOLDERS", (folder / "none",))
    with pytest.raises(FileNotFoundError, match="apt install dataset-fashion-mnist"):
        load("fashion-mnist")


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_damage_is_named(folder, name):
    path = idx.find_idx(folder, "images" if "images" in name else "labels", "train")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{name}.*(its header says|damaged gzip)"):
        load(folder)
    path.write_bytes(gzip.compress(b"hello") if path.suffix else b"hello")
    with pytest.raises(ValueError, match=f"{name}.*not an IDX file"):
        load(folder)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=name):
        load(folder)


def test_labels_missing_or_of_another_length(folder):
    labels = idx.find_idx(folder, "labels", "train")
    write_idx(labels, np.zeros(7, np.uint8))
    with pytest.raises(ValueError, match=r"shape \[7\], expected \[30\]"):
        load(folder)
    labels.unlink()
    assert load(folder).num_classes == 0
    idx.find_idx(folder, "images", "test").unlink()
    with pytest.raises(ValueError, match="no t10k-images-idx3-ubyte"):
        load(folder, split="test")
