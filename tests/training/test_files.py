"""Samples in files: the format that the name says, whole or absent."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from fastgan.files import complete, writable
from fastgan.sampling import save_video
from fastgan.training.log import save_samples

GRID = torch.linspace(-1, 1, 4 * 3 * 64).view(4, 3, 8, 8)


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP"), ("a.bmp", "BMP"), ("a.tiff", "TIFF")],
)
def test_the_suffix_decides_the_format(tmp_path, name, form):
    path = save_samples(GRID, tmp_path / "new" / name)
    assert path == tmp_path / "new" / name
    with Image.open(path) as picture:
        assert picture.format == form and picture.size == (176, 176)


@pytest.mark.parametrize("name", ["run.v2", "grid", "0.5", "a.b.c", "seeds-0-15.final"])
def test_a_dot_in_a_name_is_no_suffix(tmp_path, name):
    assert save_samples(GRID, tmp_path / name).name == name + ".png"
    assert save_samples(["text"], tmp_path / name).name == name + ".txt"


@pytest.mark.parametrize(
    ("samples", "suffixes"), [(GRID, ("gif", "pdf", "txt", "mp4", "psd")), (["a"], ("png", "md", "json"))]
)
def test_formats_that_are_not_written(tmp_path, samples, suffixes):
    for suffix in suffixes:
        with pytest.raises(
            ValueError, match=rf"a\.{suffix}: \.{suffix} is not written here; expected a name that ends"
        ):
            save_samples(samples, tmp_path / f"a.{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [".", "..", "/"])
def test_a_folder_is_no_file(folder):
    with pytest.raises(ValueError, match="is a folder, expected the name of a file"):
        save_samples(GRID, Path(folder))


@pytest.mark.parametrize(("name", "written"), [("walk.v2", "walk.v2.gif"), ("WALK.GIF", "WALK.GIF"), ("w", "w.gif")])
def test_videos(tmp_path, name, written):
    assert save_video(GRID, tmp_path / name) == tmp_path / written
    with Image.open(tmp_path / written) as picture:
        assert picture.format == "GIF" and picture.n_frames == 4
    with pytest.raises(ValueError, match=r"\.png is not written here; expected a name that ends with \.gif, \.mp4"):
        save_video(GRID, tmp_path / "walk.png")


def test_texts_are_utf8(tmp_path):
    path = save_samples(["春眠不覺曉", "é"], tmp_path / "texts")
    assert path.read_bytes() == "春眠不覺曉\né\n".encode()


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(OSError, match="full"), complete(path) as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_writers_at_once(tmp_path):
    path = tmp_path / "file.gif"
    (tmp_path / ".file.gif").write_text("of one that was killed, and longer")
    with complete(path) as first:
        first.write_text("the first one's")
        with complete(path) as second:
            second.write_text("half of the seco")
            with complete(path) as third:
                third.write_text("third")
            assert path.read_text() == "third"
        assert first != second and first.suffix == second.suffix == ".gif"
        assert path.read_text() == "half of the seco" and first.read_text() == "the first one's"
    assert path.read_text() == "the first one's" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError) as missing, complete(tmp_path / "none" / "x.txt"):
        pass
    assert missing.value.filename == str(tmp_path / "none" / "x.txt")


def test_writable(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert writable(tmp_path / "new" / "folder") and not writable(file) and not writable(file / "new")
    assert writable(Path("new"))
    assert not writable(Path("/proc/self/new"))
