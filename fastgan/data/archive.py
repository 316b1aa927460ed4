"""Data sets as one .npz: written once, memory-mapped ever after, its checksums verified; and arrays as .npy."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fastgan.data.classes import Classes, numbered
from fastgan.data.dataset import ImageDataset, shown
from fastgan.data.files import relative_key
from fastgan.data.zips import blocks, open_zip
from fastgan.files import complete

AXES = ("NCHW", "NHWC")
_PIXELS = (np.dtype(np.uint8), np.dtype(np.uint16))
_HEADER = 1 << 14  # bytes at the beginning of an .npy that hold its header; numpy reads at most 10,000 of text
_LARGE = 1 << 26  # bytes of a member whose verification is remembered: 64 MiB take some 60 ms


def check_target(path: Path) -> None:
    """ValueError or OSError where no .npz can be written to ``path``: before the work that makes it, not after."""
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected a name ending in .npz")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, expected the name of a file")


def save_npz(dataset: ImageDataset, path: str | Path) -> None:
    """Write ``dataset`` in the layout that `load_npz` maps: atomic, uncompressed, the same bytes each time."""
    path = Path(path)
    check_target(path)
    arrays = {"images": dataset.images.numpy(), "axes": np.array(AXES[0])}
    if dataset.class_names:
        arrays |= {"labels": dataset.labels.numpy(), "class_names": np.array(dataset.class_names)}
    if dataset.files:
        arrays["files"] = np.array(dataset.files)
    with complete(path) as temporary, open(temporary, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def load_npz(path: Path, *, labels: bool = True, channels: int | None = None) -> tuple[ImageDataset, bool]:
    """Images from an .npz, whole and as they are stored, and whether the file says itself how that is (``axes``).

    Read without pickle, so a file can never run code. Arrays: ``images`` uint8 or uint16 [N, C, H, W], [N, H, W, C] or
    [N, H, W] (any name, if it is the only such array); optional ``axes``, "NCHW" or "NHWC"; optional ``labels`` integer [N]
    with optional ``class_names`` strings; optional ``files`` strings [N]. Without ``axes`` see `channels_axis`.

    ``images`` stored uncompressed as [N, C, H, W] (`save_npz`) are memory-mapped: all processes of a machine share
    one copy. Otherwise they are read into memory.

    The CRC-32 of every array that is used is verified; of images of more than 64 MiB once, which is remembered in
    ``$XDG_CACHE_HOME/fastgan/verified`` for as long as the file's size and times stay.

    Raises ValueError naming the file where it is damaged or its arrays do not fit this description.
    """
    with open_zip(path) as archive:
        try:
            members = _members(archive)
            images_header = _header(archive, members[_images_key(archive, members)])
            axes = _axes(_array(archive, _header(archive, members["axes"]))) if "axes" in members else None
            axis = channels_axis(images_header.shape, images_header.dtype, axes, channels)
            images = _mapped(archive, images_header) if axis == 1 else None
            if images is None:
                images = _array(archive, images_header)
            wanted = ("labels", "class_names", "files") if labels else ("files",)
            others = {key: _array(archive, _header(archive, members[key])) for key in wanted if key in members}
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    images = _channels_first(images, axis)
    files = _strings(path, "files", others.get("files"), len(images))
    classes = read_classes(path, others, len(images), "image")
    dataset = ImageDataset(
        torch.from_numpy(images),
        torch.from_numpy(classes.labels),
        name=str(path),
        class_names=classes.names,
        class_source=classes.source,
        files=[relative_key(file) for file in files],
    )
    return dataset, axes is not None


def load_npy(path: Path, *, channels: int | None = None) -> ImageDataset:
    """Images from an .npy: one array as `load_npz` describes ``images``, without classes and without a checksum.
    [N, C, H, W] is memory-mapped. Raises ValueError naming the file where it is damaged or of another kind."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(_HEADER)
    try:
        header = _read_header(path.name, first, size)
        axis = channels_axis(header.shape, header.dtype, None, channels)
        if 0 in header.shape:
            raise ValueError(f"images has shape {list(header.shape)}, expected at least one image")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    order = "F" if header.fortran else "C"
    images = np.memmap(path, header.dtype, mode="c", offset=header.start, shape=header.shape, order=order)
    return ImageDataset(torch.from_numpy(_channels_first(images, axis)), name=str(path))


def channels_axis(shape: tuple[int, ...], dtype: np.dtype, axes: str | None, channels: int | None) -> int | None:
    """Which axis of an array of images is their channels: 1 or 3, or None for grey [N, H, W].

    What ``axes`` says; else axis 1 if it has 1 or 3 entries, or axis 3 if that has; else the one of both that has ``channels``
    entries, as the caller asks for; else the one that has 2 or 4. ValueError where none of this decides, or the array is none
    of images.
    """
    about = f"images is {dtype} {list(shape[:8])}"
    if dtype not in _PIXELS or len(shape) not in (3, 4):
        raise ValueError(f"{about}, expected uint8 or uint16 [N, C, H, W], [N, H, W, C] or [N, H, W]")
    if len(shape) == 3:
        return None
    if axes is not None:
        return axes.index("C")
    for few in ((1, 3), (channels,), (2, 4)):
        found = [axis for axis in (1, 3) if shape[axis] in few]
        if len(found) == 1 or (found and few == (1, 3)):
            return found[0]
    choice = "" if shape[1] == shape[3] else f"give channels={shape[1]} or channels={shape[3]}, or "
    raise ValueError(
        f"{about}: its channels may be the {shape[1]} of axis 1 or the {shape[3]} of axis 3: {choice}add to the npz an "
        "array axes that is 'NCHW' or 'NHWC'"
    )


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those arrays of an .npz that are called by one of ``names``; its only array, whatever it is called, is ``names[0]``.

    Read without pickle, sizes and CRC-32 verified. Raises ValueError naming the file where it is damaged or has no ``names[0]``.
    """
    with open_zip(path) as archive:
        try:
            members = _members(archive)
            if len(members) == 1:
                members = {names[0]: next(iter(members.values()))}
            if names[0] not in members:
                raise ValueError(f"no array {names[0]!r}; it has: {shown(members, 20)}")
            return {name: _array(archive, _header(archive, members[name])) for name in names if name in members}
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def read_classes(path: Path, arrays: Mapping[str, np.ndarray], count: int, what: str) -> Classes:
    """The classes that ``labels`` and ``class_names`` among the arrays of an .npz give to ``count`` items, each a ``what``.

    Raises ValueError naming the file where they do not fit.
    """
    labels = arrays.get("labels")
    if labels is None:
        return Classes(np.zeros(count, np.int64), [], "")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: labels has dtype {labels.dtype}, expected integers")
    if labels.shape != (count,):
        raise ValueError(f"{path}: {list(labels.shape)} labels for {count} {what}s, expected one per {what}")
    names = _strings(path, "class_names", arrays.get("class_names"), None)
    if not names or not count:
        names = numbered(labels, str(path))
    elif int(labels.max()) >= len(names) or int(labels.min()) < 0:
        raise ValueError(f"{path}: labels {int(labels.min())}..{int(labels.max())}, expected 0..{len(names) - 1}")
    return Classes(labels.astype(np.int64), names, "labels of the npz")


class _Header(NamedTuple):
    """Of an .npy, the member ``info`` of a zip or a file: what numpy wrote, and at which byte the elements ``start``."""

    info: zipfile.ZipInfo | None
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {}
    for info in archive.infolist():
        # The name stands in the file twice; opening compares them. So no flipped bit makes labels unseen.
        try:
            archive.open(info).close()
        except Exception as error:  # BadZipFile, OSError, NotImplementedError, RuntimeError, struct.error
            raise ValueError(f"{shown([info.filename])}: {shown([str(error)])}") from error
        members[info.filename.removesuffix(".npy")] = info
    return members


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        yield from blocks(archive, info)
    except ValueError as error:
        raise ValueError(f"{shown([info.filename])}: {error}") from error


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    first = next(_blocks(archive, info), b"")[:_HEADER]
    return _read_header(info.filename, first, info.file_size)._replace(info=info)


def _read_header(name: str, first: bytes, size: int) -> _Header:
    """The header at the beginning ``first`` of an .npy of ``size`` bytes."""
    name, start = shown([name]), io.BytesIO(first)
    try:
        one = np.lib.format.read_magic(start) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(start)
    except Exception as error:  # numpy parses it as Python source, with all that can be wrong with that
        raise ValueError(f"{name}: damaged header ({type(error).__name__}: {shown([str(error)])})") from error
    if dtype.hasobject:
        raise ValueError(f"{name}: holds Python objects, which are not read (allow_pickle=False)")
    if not all(isinstance(side, int) and side >= 0 for side in shape) or not dtype.itemsize:
        raise ValueError(f"{name}: shape {shape[:8]} of {dtype}, expected sides from 0 on and elements of a size")
    claimed = math.prod(shape) * dtype.itemsize
    if start.tell() + claimed != size:
        raise ValueError(
            f"{name}: its header claims {claimed} bytes for shape {list(shape[:8])}, it has {size - start.tell()}"
        )
    return _Header(None, shape, fortran, dtype, start.tell())


def _images_key(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> str:
    if "images" in members:
        return "images"
    found, have = [], []
    for name, info in members.items():
        with contextlib.suppress(ValueError):  # an array of another kind, which is none of ours
            header = _header(archive, info)
            have.append(f"{name} {header.dtype} {list(header.shape)}")
            if header.dtype in _PIXELS and len(header.shape) in (3, 4):
                found.append(name)
    if len(found) != 1:
        raise ValueError(
            f"no array 'images' of uint8 or uint16 [N, C, H, W], [N, H, W, C] or [N, H, W]; it has: {shown(have, 20)}"
        )
    return found[0]


def _array(archive: zipfile.ZipFile, header: _Header) -> np.ndarray:
    content = bytearray(header.info.file_size)
    at = 0
    for block in _blocks(archive, header.info):
        content[at : at + len(block)] = block
        at += len(block)
    array = np.frombuffer(content, header.dtype, offset=header.start)
    return array.reshape(header.shape, order="F" if header.fortran else "C")


def _mapped(archive: zipfile.ZipFile, header: _Header) -> np.ndarray | None:
    """The verified array as a copy-on-write map of the file (writable for torch, never written back); None where it is
    compressed or of another layout."""
    info = header.info
    if info.compress_type != zipfile.ZIP_STORED or header.fortran or 0 in header.shape:
        return None
    _verify(archive, info)
    with open(archive.filename, "rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)  # zip local file header: name and extra lengths at 26 and 28
    skip = 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little") + header.start
    return np.memmap(archive.filename, header.dtype, mode="c", offset=info.header_offset + skip, shape=header.shape)


def _verify(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Reads a member to its end, where its CRC-32 is compared; a large one only if that is not on record."""
    status = os.stat(archive.filename)
    state = (os.path.realpath(archive.filename), status.st_size, status.st_mtime_ns, status.st_ctime_ns, info.CRC)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    record = Path(base, "fastgan", "verified", hashlib.sha256(repr(state).encode()).hexdigest())
    if info.file_size > _LARGE and os.path.exists(record):
        return
    for _ in _blocks(archive, info):
        pass
    if info.file_size > _LARGE:
        with contextlib.suppress(OSError):  # a read-only home: verified again next time
            record.parent.mkdir(parents=True, exist_ok=True)
            record.touch()


def _axes(array: np.ndarray) -> str:
    found = [axes for axes in AXES if array.dtype.kind == "U" and not array.ndim and array == axes]
    if not found:
        raise ValueError(f"axes is {array.dtype} {list(array.shape)}, expected one string, {' or '.join(AXES)}")
    return found[0]


def _strings(path: Path, name: str, array: np.ndarray | None, count: int | None) -> list[str]:
    if array is None:
        return []
    if array.dtype.kind != "U" or array.ndim != 1 or count not in (None, len(array)):
        expected = "strings [classes]" if count is None else f"strings [{count}]"
        raise ValueError(f"{path}: {name} is {array.dtype} {list(array.shape)}, expected {expected}")
    if array.view(f"{array.dtype.str[0]}u4").max(initial=0) > sys.maxunicode:  # tolist would end in a SystemError
        raise ValueError(f"{path}: {name} holds numbers beyond Unicode, expected strings")
    return array.tolist()


def _channels_first(images: np.ndarray, axis: int | None) -> np.ndarray:
    if axis != 1:
        images = images[:, None] if axis is None else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return np.require(images, requirements="A")  # the place of an array in a zip may be odd
