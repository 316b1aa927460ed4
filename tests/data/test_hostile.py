"""Data sets made to hang, to fill the memory or to end in a traceback: each is refused, or its file skipped, by name."""

import gzip
import io
import os
import resource
import socket
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from fastgan.data import files, load, load_pair
from fastgan.data.text import load_text

MIB = 1 << 20


def picture(side: int = 4) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 7, np.uint8)).save(file, "png")
    return file.getvalue()


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "good.png").write_bytes(picture())
    return tmp_path / "set"


def test_what_is_no_file_is_named_and_never_waited_for(folder, monkeypatch):
    os.mkfifo(folder / "fifo.png")
    (folder / "linked.png").symlink_to(folder / "fifo.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(folder)  # a socket's path is short
        server.bind("sock.png")
        with pytest.warns(UserWarning, match=r"skipped 6 of 7 files") as caught:
            data = load(folder, resolution=4)
    assert data.files == ["good.png"]
    reasons = {file.rsplit("/", 1)[1]: reason for file, reason in data.skipped}
    assert reasons["fifo.png"] == reasons["linked.png"] == "a FIFO, expected a file"
    assert reasons["zero.png"] == "a device, expected a file" and reasons["sock.png"] == "a socket, expected a file"
    assert reasons["gone.png"] == "No such file or directory" and "ymbolic" in reasons["circle.png"]
    assert "fifo.png" in str(caught[0].message)
    with pytest.raises(ValueError, match=r"circle\.png: "):
        load(folder, resolution=4, strict=True)


@pytest.mark.parametrize("name", ["x.png", "x.npz", "x.zip", "x"])
def test_a_fifo_or_device_in_place_of_the_set(tmp_path, name):
    os.mkfifo(tmp_path / name)
    (tmp_path / f"zero.{name}").symlink_to("/dev/zero")
    for path in (tmp_path / name, tmp_path / f"zero.{name}"):
        for call in (load, load_pair, load_text):
            with pytest.raises(ValueError, match=rf"{name}: expected "):
                call(path)


def test_a_folder_linked_twice_is_read_twice_and_loops_end(folder):
    (folder / "a").mkdir()
    (folder / "a" / "x.png").write_bytes(picture())
    (folder / "b").symlink_to("a")
    (folder / "a" / "loop").symlink_to("../a")
    (folder / "a" / "up").symlink_to("../..")
    (folder / "good.png").unlink()
    with pytest.warns(UserWarning, match=r"a/up \(a link to .*, which this folder lies in\)"):
        data = load(folder)
    assert data.files == ["a/x.png", "b/x.png"] and data.class_names == ["a", "b"]


def test_links_that_multiply_are_bounded(folder):
    for level in range(12):
        (folder / f"level{level}").mkdir()
        for name in "pq":
            (folder / f"level{level}" / name).symlink_to(f"../level{level + 1}")
    (folder / "level12").mkdir()
    (folder / "level12" / "x.png").write_bytes(picture())
    began = time.perf_counter()
    with pytest.warns(UserWarning, match="more than 64 links to"):
        assert len(load(folder)) == 1 + 64
    assert time.perf_counter() - began < 10


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_of_too_many_pixels_are_refused_by_their_header(folder):
    for i, (width, height) in enumerate(((12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1))):
        (folder / f"bomb{i}.png").write_bytes(png(width, height))
    before = peak()
    for resolution in (8, None):
        with pytest.warns(UserWarning, match=r"bomb0\.png \(12000x12000 pixels, limit .*MAX_IMAGE_PIXELS"):
            assert len(load(folder, resolution=resolution)) == 1
    assert peak() - before < 64 * MIB


def packed(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_zip_members_that_grow_a_thousandfold_are_not_unpacked(tmp_path):
    path = packed(tmp_path / "x.zip", {"good.png": picture(), "bomb.png": bytes(100 * MIB)})
    before = peak()
    with pytest.warns(UserWarning, match=r"bomb\.png \(104857600 bytes packed in .* look like a zip bomb"):
        assert len(load(path)) == 1
    assert peak() - before < 64 * MIB
    packed(tmp_path / "x.npz", {"images.npy": bytes(100 * MIB)})
    with pytest.raises(ValueError, match=r"x\.npz: images\.npy: .*zip bomb"):
        load(tmp_path / "x.npz")


def test_zip_members_that_cannot_be_read_are_named(tmp_path, folder):
    path = packed(tmp_path / "x.zip", {"good.png": picture(), "locked.png": picture(), "lzma.png": picture()})
    whole = bytearray(path.read_bytes())
    directory = whole.index(b"PK\1\2")
    for name, at, value in ((b"locked.png", 8, 1), (b"lzma.png", 10, 14)):
        entry = whole.index(name, directory) - 46
        whole[entry + at] = value
    path.write_bytes(whole)
    with pytest.warns(UserWarning, match="skipped 2 of 3"):
        data = load(path)
    assert [file.rsplit("/", 1)[1] for file, _ in data.skipped] == ["locked.png", "lzma.png"]
    assert "encrypted" in data.skipped[0][1] and "method 14" in data.skipped[1][1]


def test_one_content_behind_many_names_and_many_near_bombs(tmp_path):
    path = packed(tmp_path / "x.zip", {f"{i}.png": picture() for i in range(9)})
    whole = bytearray(path.read_bytes())
    first, second = (whole.index(b"PK\1\2", start) for start in (0, whole.index(b"PK\1\2") + 1))
    whole[second + 42 : second + 46] = whole[first + 42 : first + 46]
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"x\.zip: not a readable zip file \([01]\.png overlaps another file"):
        load(path)
    packed(path, {f"{i}.png": bytes(40 * MIB) for i in range(3)})
    with pytest.raises(ValueError, match=r"x\.zip: .*125829120 bytes packed in .* where 67108864 are expected at most"):
        load(path)


def test_names_of_nothing_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("..", "a/", "b\\", "\\", "./", "C:", "good.png"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, picture() if "good" in name else b"")
    whole = (tmp_path / "x.zip").read_bytes().replace(b"..", b"\0.")  # zipfile reads a name up to its first zero: none
    for content in ((tmp_path / "x.zip").read_bytes(), whole):
        (tmp_path / "x.zip").write_bytes(content)
        assert load(tmp_path / "x.zip").files == ["good.png"]


def test_one_name_twice_in_a_zip_is_said(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("a/x.png", "a\\x.png", "b\\y.png"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, picture())
    with pytest.warns(UserWarning, match=r"a/x\.png \(the zip has two files of this name; the last is read\)"):
        data = load(tmp_path / "x.zip")
    assert data.files == ["a/x.png", "b/y.png"] and data.class_names == ["a", "b"]


def npy(header: bytes | str, data: bytes = b"", version: int = 1) -> bytes:
    header = header.encode() if isinstance(header, str) else header
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + data


def described(shape: str, descr: str = "'|u1'", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "content",
    [
        npy(described("(9, 3, 4, 4)"), bytes(48)),
        npy(described("(1, 3, 4, 4)"), bytes(480)),
        npy(described("(-1, -3, 4, 4)"), bytes(48)),
        npy(described("(1099511627776, 3, 1099511627776, 1099511627776)"), bytes(48)),
        npy(described("(1.0, 3, 4, 4)"), bytes(48)),
        npy(described("(1, 3, 4, 4)", "'|O'"), bytes(48)),
        npy(described("(1, 3, 4, 4)", "[('a', '|O'), ('b', '|u1')]"), bytes(48)),
        npy(described("(1, 3, 4, 4)", "'|S0'"), b""),
        npy(described("(1, 3, 4, 4)", "'nothing'"), bytes(48)),
        npy(described("(1, 3, 4, 4)", fortran="7"), bytes(48)),
        npy("(" * 5000 + "\n"),
        npy("-" * 9000 + "1\n"),
        npy("{'descr': '|u1' 'shape\n"),
        npy("{'descr': \n"),
        npy('"""\n'),
        npy("\0" * 50),
        npy(b"\xff\xfe\x80"),
        npy("{}" + " " * 60_000, version=2),
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x09\x00",
        b"\x93NUM",
        b"",
    ],
)
@pytest.mark.parametrize("member", ["images", "labels"])
def test_hostile_headers_of_arrays_are_named(tmp_path, content, method, member):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        if member == "labels":
            archive.writestr("images.npy", npy(described("(1, 3, 4, 4)"), bytes(48)))
        archive.writestr(f"{member}.npy", content)
    with pytest.raises(ValueError, match=rf"x\.npz: {member}\.npy: ") as caught:
        load(tmp_path / "x.npz")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_header_that_claims_what_follows_reads_nothing_of_it(tmp_path):
    """The member's bytes end before the elements that its header promises: other members lie there."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", npy(described("(4, 1, 8, 8)"), bytes(64)))
        archive.writestr("secret.npy", bytes(1000))
    with pytest.raises(ValueError, match=r"header claims 256 bytes for shape \[4, 1, 8, 8\], it has 64"):
        load(tmp_path / "x.npz")


def test_permission_and_folders_end_in_errors_that_name_the_file(tmp_path, monkeypatch):
    for suffix in (".npz", ".zip"):
        np.savez(path := tmp_path / f"x{suffix}", images=np.zeros((1, 3, 4, 4), np.uint8))

    def refuse(self, *_args, **_options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    for name in ("x.npz", "x.zip"):
        if (path := tmp_path / name).exists():
            with pytest.raises(PermissionError, match=name):
                load(path)


def test_a_folder_that_cannot_be_listed_is_named(folder, monkeypatch):
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    (folder / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.warns(UserWarning, match=r"closed \(Permission denied\)"):
        assert len(load(folder)) == 1
    (folder / "good.png").unlink()
    with pytest.raises(ValueError, match=r"no images found .*closed: Permission denied"):
        load(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0",
        lambda whole: whole[:7],
        lambda whole: struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 28) + whole[16:],
        lambda whole: struct.pack(">HBB", 0, 8, 255) + b"\xff" * 1020 + whole[16:],
        lambda whole: struct.pack(">HBB", 0, 13, 3) + whole[4:],
        lambda whole: struct.pack(">HBB2I", 0, 8, 2, 2, 784) + whole[16:],
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_headers_that_do_not_fit_are_named(tmp_path, damage, pack):
    whole = struct.pack(">HBB3I", 0, 8, 3, 2, 28, 28) + bytes(2 * 784)
    name = "train-images-idx3-ubyte" + ("" if pack is bytes else ".gz")
    (tmp_path / name).write_bytes(pack(damage(whole)))
    before = peak()
    with pytest.raises(ValueError, match=name):
        load(tmp_path)
    assert peak() - before < 64 * MIB


def test_a_gzip_bomb_of_idx_is_refused(tmp_path):
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", 9) as file:
        file.write(struct.pack(">HBB3I", 0, 8, 3, 100, 1024, 1024))
        for _ in range(100):
            file.write(bytes(MIB))
    before = peak()
    with pytest.raises(ValueError, match=r"images-idx3-ubyte\.gz: .*header says 104857600 bytes"):
        load(tmp_path)
    assert peak() - before < 64 * MIB


def test_names_stay_below_the_folder_and_on_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("../../up.png", "/etc/root.png", "C:\\temp\\drive.png", "..\\..\\win.png", "a\nb\x1b[2J.png"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, picture())
        archive.writestr("bad\nname.png", b"junk")
    with pytest.warns(UserWarning, match=r"'bad\\nname\.png'") as caught:
        data = load(tmp_path / "x.zip")
    assert "\n" not in str(caught[0].message)
    assert data.files == ["a\nb\x1b[2J.png", "etc/root.png", "temp/drive.png", "up.png", "win.png"]
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 3, 4, 4), np.uint8), files=np.array(["../../x", "/etc/passwd"]))
    assert load(tmp_path / "x.npz").files == ["x", "etc/passwd"]


def test_too_many_pixels_is_a_value_error_too():
    assert issubclass(files.TooLarge, ValueError) and issubclass(files.TooLarge, MemoryError)
