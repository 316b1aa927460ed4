"""Folders and zips of image files: every mode and odd size, labels, damage."""

import struct
import threading
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from fastgan.data import files, load, save_npz
from fastgan.data.classes import labels_from_paths
from fastgan.data.decode import in_threads

RNG = np.random.default_rng(7)


def picture(height: int, width: int, *channels: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, *channels), np.uint8)


def save(path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def classes(tmp_path):
    """Two classes in sub-folders, five images of odd sizes, and a text file that is none."""
    root = tmp_path / "set"
    for name, size in (
        ("cat/b", (13, 7)),
        ("cat/a", (9, 31)),
        ("dog/x", (17, 17)),
        ("dog/y", (8, 8)),
        ("dog/z", (1, 1)),
    ):
        save(root / f"{name}.png", picture(*size, 3))
    (root / "dog" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    save(root / ".hidden" / "h.png", picture(8, 8, 3))
    return root


def zipped(root, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*"), reverse=True):
            archive.write(file, f"wrapped/{file.relative_to(root)}")
        archive.writestr("__MACOSX/wrapped/cat/._b.png", b"junk")
    return path


def test_folder_and_zip_are_the_same_set(classes, tmp_path):
    folder = load(classes, resolution=8)
    assert folder.files == ["cat/a.png", "cat/b.png", "dog/x.png", "dog/y.png", "dog/z.png"]
    assert folder.class_names == ["cat", "dog"] and folder.labels.tolist() == [0, 0, 1, 1, 1]
    assert folder.images.shape == (5, 3, 8, 8) and folder.skipped == []
    packed = load(zipped(classes, tmp_path / "set.zip"), resolution=8)
    assert (packed.images == folder.images).all() and packed.class_names == folder.class_names
    assert packed.labels.tolist() == folder.labels.tolist()


def test_centre_crop_stretch_and_exact_size(tmp_path):
    wide, tall = picture(9, 14, 3), picture(15, 8, 3)
    save(tmp_path / "wide" / "i.png", wide)
    save(tmp_path / "tall" / "i.png", tall)
    assert np.array_equal(load(tmp_path / "wide").images[0].permute(1, 2, 0), wide[:, 2:11])
    assert np.array_equal(load(tmp_path / "tall").images[0].permute(1, 2, 0), tall[3:11])
    stretched = load(tmp_path / "wide", resolution=6, crop="stretch").images[0].permute(1, 2, 0)
    assert np.array_equal(stretched, Image.fromarray(wide).resize((6, 6), Image.Resampling.LANCZOS))
    with pytest.raises(ValueError, match=r"stretch.*14x9.*needs resolution="):
        load(tmp_path / "wide", crop="stretch")
    with pytest.raises(ValueError, match=r"differ in size.*tall/i\.png.*wide/i\.png.*give resolution="):
        load(tmp_path)


def test_modes_become_rgb(tmp_path):
    grey, alpha = picture(11, 11), picture(11, 11, 4)
    deep = RNG.integers(0, 65536, (11, 11)).astype(np.uint16)
    cases = {
        "bit": (Image.fromarray(grey).convert("1"), lambda im: np.asarray(im.convert("RGB"))),
        "grey": (Image.fromarray(grey), lambda im: np.stack([grey] * 3, -1)),
        "deep": (Image.fromarray(deep), lambda im: np.stack([np.round(deep / 257.0)] * 3, -1)),
        "palette": (Image.fromarray(alpha[..., :3]).quantize(7), lambda im: np.asarray(im.convert("RGB"))),
    }
    for name, (image, expected) in cases.items():
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "i.png")
        assert np.array_equal(load(tmp_path / name).images[0].permute(1, 2, 0), expected(image)), name
    weight = alpha[..., 3:].astype(float) / 255
    composite = alpha[..., :3] * weight + 255 * (1 - weight)
    save(tmp_path / "alpha" / "i.png", alpha)
    loaded = load(tmp_path / "alpha").images[0].permute(1, 2, 0).numpy()
    assert np.abs(loaded - composite).max() <= 1
    save(tmp_path / "la" / "i.png", np.stack([grey, alpha[..., 3]], -1))
    loaded = load(tmp_path / "la", channels=1).images[0, 0].numpy()
    assert np.abs(loaded - (grey * weight[..., 0] + 255 * (1 - weight[..., 0]))).max() <= 1
    (tmp_path / "cmyk").mkdir()
    Image.fromarray(alpha, "CMYK").save(tmp_path / "cmyk" / "i.jpg")
    assert load(tmp_path / "cmyk").images.shape == (1, 3, 11, 11)


def test_transparent_palette_and_orientation(tmp_path):
    image = Image.new("P", (5, 5), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    (tmp_path / "clear").mkdir()
    image.save(tmp_path / "clear" / "i.png", transparency=1)
    assert (load(tmp_path / "clear").images == 255).all()
    pixels = picture(6, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    save(tmp_path / "turned" / "i.png", pixels, exif=exif)
    assert np.array_equal(load(tmp_path / "turned").images[0].permute(1, 2, 0), pixels[::-1, ::-1])


@pytest.fixture
def damaged(classes):
    whole = (classes / "dog" / "x.png").read_bytes()
    (classes / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (classes / "cat" / "empty.jpg").write_bytes(b"")
    (classes / "cat" / "text.gif").write_text("this is no image")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    (classes / "dog" / "rot.png").write_bytes(flipped)
    return classes


def test_bad_files_are_named_counted_and_skipped(damaged, tmp_path):
    for path in (damaged, zipped(damaged, tmp_path / "set.zip")):
        with pytest.warns(UserWarning, match=r"skipped 4 of 9 files: .*empty\.jpg \(not an image\)") as caught:
            data = load(path, resolution=8)
        assert len(caught) == 1
        assert len(data) == 5 and data.labels.tolist() == [0, 0, 1, 1, 1]
        assert [file.rsplit("/", 1)[1] for file, _ in data.skipped] == ["empty.jpg", "text.gif", "cut.png", "rot.png"]
        assert all(reason for _, reason in data.skipped)
        with pytest.raises(ValueError, match=r"empty\.jpg: not an image"):
            load(path, resolution=8, strict=True)


def test_good_images_keep_their_pixels_beside_bad_ones(damaged):
    with pytest.warns(UserWarning, match="skipped 4"):
        mixed = load(damaged, resolution=8)
    for file, _ in mixed.skipped:
        (damaged / file.removeprefix(f"{damaged}/")).unlink()
    assert (load(damaged, resolution=8).images == mixed.images).all()


def test_large_images_in_threads_keep_their_order(tmp_path):
    good = [np.full((600, 600, 3), i, np.uint8) for i in range(12)]
    for i, pixels in enumerate(good):
        save(tmp_path / f"{i:02}.png", pixels)
    (tmp_path / "00bad.png").write_bytes(b"junk")
    (tmp_path / "07bad.png").write_bytes((tmp_path / "07.png").read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"skipped 2 of 14 files: .*00bad\.png \(not an image\); .*07bad\.png"):
        data = load(tmp_path, resolution=4)
    assert data.images[:, 0, 0, 0].tolist() == list(range(12))
    (tmp_path / "00bad.png").unlink()
    with pytest.raises(ValueError, match=r"07bad\.png: "):
        load(tmp_path, resolution=4, strict=True)


@pytest.mark.parametrize("pause", [0.0, 0.001])
def test_in_threads_uses_threads_for_long_work_only(pause):
    def work(i: int) -> tuple[int, int]:
        if pause:  # a sleep of 0 gives the core to whoever waits for one
            time.sleep(pause)
        return i, threading.get_ident()

    done = list(in_threads(work, range(30)))
    assert [i for i, _ in done] == list(range(30))
    assert (len({thread for _, thread in done}) > 1) == (pause > 0)
    for n in range(4):
        assert [i for i, _ in in_threads(work, range(n))] == list(range(n))


def test_warning_is_short_for_many_files(tmp_path):
    save(tmp_path / "good.png", picture(4, 4, 3))
    for i in range(40):
        (tmp_path / f"bad{i}.png").write_bytes(b"junk")
    with pytest.warns(UserWarning, match=r"skipped 40 of 41 files: .*; and 35 more") as caught:
        assert len(load(tmp_path).skipped) == 40
    assert len(str(caught[0].message)) < 1500


def test_nothing_readable(tmp_path):
    with pytest.raises(ValueError, match=r"no images found \(looked for .*\.png"):
        load(tmp_path)
    (tmp_path / "a.png").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"none of 1 images is readable; first: .*a\.png \(not an image\)"):
        load(tmp_path)
    (tmp_path / "set.zip").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"set\.zip: not a readable zip"):
        load(tmp_path / "set.zip")
    with pytest.raises(ValueError, match=r"expected a folder, a \.zip or an \.npz"):
        load(tmp_path / "a.png")


def test_zip_members_outside_are_read_in_memory_only(tmp_path):
    save(tmp_path / "i.png", picture(5, 5, 3))
    data = (tmp_path / "i.png").read_bytes()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path = tmp_path / "deep" / "er" / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../../escaped.png", f"{tmp_path}/absolute.png", "inside.png"):
            archive.writestr(name, data)
    before = sorted(tmp_path.rglob("*"))
    assert len(load(path)) == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_bombs_are_refused(tmp_path, monkeypatch):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "bomb.png").write_bytes(bomb)
    save(tmp_path / "set" / "good.png", picture(8, 8, 3))
    with pytest.warns(UserWarning, match=r"bomb\.png \(Image size \(3600000000 pixels\) exceeds limit"):
        assert len(load(tmp_path / "set", resolution=8)) == 1
    monkeypatch.setattr(files, "LARGEST_FILE", 1000)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("huge.png", b"\0" * 1001)
        archive.write(tmp_path / "set" / "good.png", "good.png")
    with pytest.warns(UserWarning, match=r"huge\.png \(1001 bytes, limit 1000\)"):
        assert len(load(tmp_path / "set.zip", resolution=8)) == 1


@pytest.mark.parametrize(
    ("keys", "labels", "names"),
    [
        (["a.png", "b.png"], [0, 0], []),
        (["x/a.png", "x/b.png"], [0, 0], []),
        (["x/a.png", "b.png"], [0, 0], []),
        (["w/x/a.png", "w/y/b.png"], [0, 1], ["x", "y"]),
        (["w/x/1/a.png", "w/x/2/b.png", "w/y/c.png"], [0, 0, 1], ["x", "y"]),
        (["../x/a.png", "/y/b.png"], [0, 1], ["x", "y"]),
        (["ab/i.png", "ac/i.png"], [0, 1], ["ab", "ac"]),
    ],
)
def test_labels_from_paths(keys, labels, names):
    index, class_names = labels_from_paths(keys)
    assert index.tolist() == labels and class_names == names


def test_split_folders_links_and_progress(tmp_path):
    for split, n in (("train", 3), ("test", 2)):
        for i in range(n):
            save(tmp_path / "set" / split / f"{i}.png", picture(4, 4, 3))
    (tmp_path / "set" / "train" / "loop").symlink_to(tmp_path / "set" / "train")
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(tmp_path / "set", split="train", progress=lambda *at: seen.append(at))) == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert len(load(tmp_path / "set", split="test")) == 2
    with pytest.raises(ValueError, match="split='test' needs a sub-folder"):
        load(tmp_path / "set" / "train", split="test")
    assert len(load(zipped(tmp_path / "set", tmp_path / "set.zip"), split="test")) == 2
    save_npz(load(tmp_path / "set", split="train"), tmp_path / "set.npz")
    with pytest.raises(ValueError, match="split='test' is not offered for a file"):
        load(tmp_path / "set.npz", split="test")


def test_too_large_for_memory_says_what_to_do(tmp_path, monkeypatch):
    save(tmp_path / "i.png", picture(4, 4, 3))
    with pytest.raises(MemoryError, match=r"fastgan data prepare .* OUT\.npz --resolution 4000000"):
        load(tmp_path, resolution=4_000_000)
    stored = load(tmp_path, store=tmp_path)
    assert (stored.images == load(tmp_path).images).all()
    assert [path.name for path in tmp_path.iterdir()] == ["i.png"]
