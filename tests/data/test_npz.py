"""npz files: our own, mapped; other people's layouts; damage."""

import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.data import Loader, archive, load, prepare, save_npz

RNG = np.random.default_rng(3)


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def is_mapped(data) -> bool:
    address = data.images.data_ptr()
    with open("/proc/self/maps") as maps:
        for line in maps:
            low, high = (int(end, 16) for end in line.split()[0].split("-"))
            if low <= address < high:
                return line.rstrip().endswith(".npz")
    return False


def test_prepare_folder_and_reload(tmp_path):
    for i, size in enumerate(((20, 13), (9, 9), (31, 40))):
        (tmp_path / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(*size, 3)).save(tmp_path / "set" / "ab"[i % 2] / f"{i}.png")
    (tmp_path / "set" / "a" / "bad.png").write_bytes(b"junk")
    seen = []
    with pytest.warns(UserWarning, match="skipped 1 of 4"):
        direct = load(tmp_path / "set", resolution=11)
    with pytest.warns(UserWarning, match="skipped 1 of 4"):
        data = prepare(tmp_path / "set", tmp_path / "o.npz", resolution=11, progress=lambda *at: seen.append(at))
    assert seen[-1] == (4, 4) and len(data.skipped) == 1
    again = load(tmp_path / "o.npz")
    for loaded in (data, again):
        assert torch.equal(loaded.images, direct.images) and torch.equal(loaded.labels, direct.labels)
        assert (loaded.class_names, loaded.files) == (direct.class_names, direct.files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.npz", "set"]
    assert is_mapped(again) and not is_mapped(direct)
    with zipfile.ZipFile(tmp_path / "o.npz") as written:
        assert written.testzip() is None
    with np.load(tmp_path / "o.npz") as arrays:
        assert np.array_equal(arrays["images"], direct.images)


def test_save_is_deterministic_and_atomic(tmp_path, monkeypatch):
    data = load("emoji:base", split="test", resolution=16)
    save_npz(data, tmp_path / "a.npz")
    save_npz(data, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    def full(*_args, **_options):
        raise OSError("No space left on device")

    whole = (tmp_path / "a.npz").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_npz(data, tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    with pytest.raises(ValueError, match=r"expected a name ending in \.npz"):
        save_npz(data, tmp_path / "a.zip")


def test_mapped_images_can_be_overwritten_without_harm(tmp_path):
    save_npz(load("emoji:base", split="test"), tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()
    data = load(tmp_path / "a.npz")
    data.images[0].fill_(1)
    assert (tmp_path / "a.npz").read_bytes() == before
    images, labels = next(Loader(load(tmp_path / "a.npz"), 50, flip=True, workers=1))
    assert images.shape == (50, 3, 32, 32) and labels.max() > 0


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_layouts(tmp_path, write):
    last, first, grey = pixels(5, 8, 8, 3), pixels(5, 3, 9, 9), pixels(4, 7, 7)
    path = tmp_path / "x.npz"
    write(path, images=last, labels=np.array([0, 2, 1, 2, 0], np.int32))
    data = load(path)
    assert np.array_equal(data.images.permute(0, 2, 3, 1), last)
    assert data.class_names == ["0", "1", "2"] and data.labels.tolist() == [0, 2, 1, 2, 0]
    write(path, first, labels=np.arange(5), class_names=np.array(list("vwxyz")))
    data = load(path)
    assert np.array_equal(data.images, first) and data.class_names == list("vwxyz")
    write(path, x=grey)
    assert np.array_equal(load(path).images[:, 0], grey) and load(path).num_classes == 0
    write(path, images=np.asfortranarray(first))
    assert np.array_equal(load(path).images, first)


def test_not_square(tmp_path):
    wide = pixels(3, 6, 11, 3)
    np.savez(tmp_path / "x.npz", images=wide)
    assert np.array_equal(load(tmp_path / "x.npz").images.permute(0, 2, 3, 1), wide[:, :, 2:8])
    assert load(tmp_path / "x.npz", resolution=4, crop="stretch").images.shape == (3, 3, 4, 4)
    with pytest.raises(ValueError, match="needs resolution="):
        load(tmp_path / "x.npz", crop="stretch")


def test_two_writers_of_one_file(tmp_path, monkeypatch):
    """Threads of one process, too: each writes a file of its own, and the last one's stays."""
    both, write_array = threading.Barrier(2), np.lib.format.write_array

    def together(file, array, **options):
        if array.ndim == 4:
            both.wait(60)
        write_array(file, array, **options)

    monkeypatch.setattr(np.lib.format, "write_array", together)
    data = load("emoji:base", split="test")
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(save_npz, data, tmp_path / "a.npz") for _ in range(2)]:
            done.result()
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert torch.equal(load(tmp_path / "a.npz").images, data.images)


class Unsafe:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((3, 3, 8, 8), np.float32)}, "images is float32"),
        ({"images": np.zeros((3, 5, 8, 8), np.uint8)}, r"images is uint8 \[3, 5, 8, 8\]"),
        ({"a": np.zeros(3), "b": np.zeros((2, 2), np.uint8)}, r"no array 'images'.*a float64 \[3\], b uint8 \[2, 2\]"),
        ({"images": pixels(3, 3, 8, 8), "labels": np.arange(4)}, r"\[4\] labels for 3 images"),
        ({"images": pixels(3, 3, 8, 8), "labels": np.zeros(3)}, "labels has dtype float64"),
        ({"images": pixels(2, 3, 8, 8), "labels": np.arange(2) - 1, "class_names": np.array(["a"])}, r"labels -1\.\.0"),
        ({"images": pixels(0, 3, 8, 8)}, "expected at least one image"),
        (
            {"images": pixels(0, 3, 8, 8), "labels": np.arange(0), "class_names": np.array(["a"])},
            "expected at least one image",
        ),
        ({"images": np.array([Unsafe()], dtype=object)}, "allow_pickle=False"),
    ],
)
def test_wrong_content_is_named(tmp_path, monkeypatch, arrays, message):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", **arrays)
    with pytest.raises(ValueError, match=rf"x\.npz: .*{message}"):
        load("x.npz")
    assert not os.path.exists("executed")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int64", ">i4"])
def test_labels_of_every_integer_type(tmp_path, dtype):
    np.savez(tmp_path / "x.npz", images=pixels(3, 3, 8, 8), labels=np.array([0, 2, 1], dtype))
    data = load(tmp_path / "x.npz")
    assert data.labels.tolist() == [0, 2, 1] and data.class_names == ["0", "1", "2"]
    assert data.about == "3 images, 3 classes (labels of the npz): 0, 1, 2"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.array([0, 1 << 40])}, r"labels 0\.\.1099511627776, expected 0\.\.65535"),
        ({"labels": np.array([0, (1 << 64) - 1], np.uint64)}, r"labels 0\.\.18446744073709551615"),
        ({"labels": np.array([0, (1 << 64) - 1], np.uint64), "class_names": np.array(["a"])}, r"expected 0\.\.0"),
        ({"labels": np.array([-1, 0])}, r"labels -1\.\.0"),
        ({"labels": np.array([[0, 1], [1, 0]])}, r"\[2, 2\] labels for 2 images"),
        ({"labels": np.array(0)}, r"\[\] labels for 2 images"),
        ({"labels": np.arange(2), "class_names": np.array([["a", "b"]])}, r"class_names is <U1 \[1, 2\]"),
        ({"labels": np.arange(2), "class_names": np.arange(2)}, r"class_names is int64 \[2\]"),
        ({"files": np.array(["a"])}, r"files is <U1 \[1\], expected strings \[2\]"),
        ({"files": "beyond Unicode"}, "files holds numbers beyond Unicode"),
    ],
)
def test_labels_and_names_out_of_range_are_named(tmp_path, arrays, message):
    if arrays == {"files": "beyond Unicode"}:  # an array that cannot even be shown
        arrays = {"files": np.frombuffer(b"\xff" * 8, "<U1")}
    np.savez(tmp_path / "x.npz", images=pixels(2, 3, 8, 8), **arrays)
    with pytest.raises(ValueError, match=rf"x\.npz: .*{message}"):
        load(tmp_path / "x.npz")
    if "files" not in arrays:
        assert load(tmp_path / "x.npz", labels=False).num_classes == 0


def same(a, b) -> bool:
    return torch.equal(a.images, b.images) and a.labels.tolist() == b.labels.tolist() and a.class_names == b.class_names


def test_every_flipped_bit_is_noticed(tmp_path):
    """Of our own file: an error, or (a date, a comment's flag) the very same data set. Never another one."""
    data = load("emoji", split="test", resolution=4)
    data = data.subset(torch.arange(0, len(data), 60))
    save_npz(data, tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    path = tmp_path / "b.npz"
    harmless = 0
    places = [*range(0, len(whole) - 260, 5), *range(len(whole) - 260, len(whole))]  # all of the zip's directory
    for at in places:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            loaded = load(path)
        except ValueError as error:
            assert "b.npz" in str(error)
            continue
        harmless += 1
        assert same(loaded, data) and loaded.files == data.files, f"bit {at % 8} of byte {at}"
    assert harmless < 0.25 * len(places)


def test_large_arrays_are_verified_once_for_each_state_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(archive, "_LARGE", 100)
    path = tmp_path / "a.npz"
    save_npz(load("emoji:base", split="test"), path)
    read = []
    blocks = archive.blocks
    monkeypatch.setattr(
        archive, "blocks", lambda zipped, info: map(lambda b: read.append(len(b)) or b, blocks(zipped, info))
    )

    def bytes_read() -> int:
        read.clear()
        load(path)
        return sum(read)

    first, again = bytes_read(), bytes_read()
    assert first > 2 * 190 * 3072 - 10_000 and again < first - 190 * 3072
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3] ^= 4
    before = os.stat(path)
    path.write_bytes(whole)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ValueError, match=r"a\.npz: images\.npy: Bad CRC-32"):
        load(path)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    whole[len(whole) // 3] ^= 4
    path.write_bytes(whole)
    assert bytes_read() == bytes_read() == first


def test_prepare_refuses_a_target_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("fastgan.data.catalog.load", lambda *_args, **_options: pytest.fail("decoded in vain"))
    (tmp_path / "d.npz").mkdir()
    for name, error in (("x.zip", ValueError), ("no/x.npz", FileNotFoundError), ("d.npz", IsADirectoryError)):
        with pytest.raises(error, match=name):
            prepare("emoji", tmp_path / name)


def test_damage_is_named(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, images=pixels(20, 3, 8, 8))
    whole = bytearray(path.read_bytes())
    for content in (whole[: len(whole) // 2], b"", b"junk"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npz: not a readable npz file"):
            load(path)
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"x\.npz: "):
        load(path)
    assert archive.save_npz is save_npz
