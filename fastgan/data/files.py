"""Images in folders and zip files: a sorted scan, and one parallel decode into one array."""

from __future__ import annotations

import os
import stat
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from fastgan.data.classes import MANIFEST, Classes, common_folders, find_classes, first_folders, parts_of
from fastgan.data.dataset import Absent, ImageDataset, shown
from fastgan.data.decode import (
    check_channels,
    check_whole,
    decode,
    in_threads,
    natural_resolution,
    natural_size,
    pillow,
)
from fastgan.data.zips import blocks, open_zip
from fastgan.sizes import Resolution, sides

EXTENSIONS = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LARGEST_FILE = 1 << 30  # bytes of one picture or recording: a larger file is none but a bomb
_LINK_LIMIT = 64  # visits of one folder through links: ten folders of two links each would ask for 1,024
_SHOWN = 5  # files named in the warning; ImageDataset.skipped has all
_KINDS = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))

Progress = Callable[[int, int], None]


class TooLarge(MemoryError, ValueError):
    """More pixels than the memory holds; a ValueError too, as the data or an option has to change."""


@dataclass
class Source:
    """Encoded files, images most often: sorted ``keys`` (posix paths) and ``read(key, limit) -> bytes``; ``skipped`` as
    found by the scan; ``manifests``: the keys of files called dataset.json."""

    name: str
    keys: list[str]
    read: Callable[[str, int], bytes]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)

    def below(self, folder: str) -> Source:
        """What lies in ``folder``, under keys relative to it."""
        start, name = f"{folder}/", f"{self.name}/{folder}"
        keys, manifests = (
            [key.removeprefix(start) for key in found if key.startswith(start)] for found in (self.keys, self.manifests)
        )
        skipped = [(file, reason) for file, reason in self.skipped if f"{file}/".startswith(f"{name}/")]
        return Source(name, keys, lambda key, limit: self.read(start + key, limit), skipped, manifests)


def open_source(path: Path, split: str | None, extensions: tuple[str, ...] = EXTENSIONS) -> Source:
    """All files with one of ``extensions`` (images unless given) of a folder or zip, or those of its part ``split``: a
    sub-folder, in any case where none fits exactly.

    Warns where ``split`` is None and sub-folders look like parts of one set, some of them held out. Raises ValueError
    that lists the sub-folders where ``split`` is none of them.
    """
    source = folder_source(path, extensions) if path.is_dir() else zip_source(path, extensions)
    if split is not None:
        return _part(source, split)
    parts, sure = parts_of(source.keys)
    if parts:
        first = min(parts, key=lambda name: "train" not in name.lower())
        taken = "are parts of one set, no classes" if sure else "may be a part of the set; it is read as a class"
        warnings.warn(
            f"{path}: sub-folders {shown(parts)} {taken}. All {len(source.keys)} files are read, held-out ones too: choose "
            f"a part with --split {first} (split={first!r})",
            stacklevel=2,
        )
    return source


def _part(source: Source, split: str) -> Source:
    shared, there = common_folders(source.keys) if source.keys else (), first_folders(source.keys)
    places = {name: "/".join([*shared, name]) for name in there}
    places |= {name: "/".join(shared[: i + 1]) for i, name in reversed(list(enumerate(shared)))}
    fitting = [name for name in places if name == split] or [n for n in places if n.casefold() == split.casefold()]
    if len(fitting) != 1:
        have = f"there are {shown(places, 20)}" if places else "there is none"
        raise Absent(f"{source.name}: split={split!r} needs a sub-folder of that name; {have}")
    return source.below(places[fitting[0]])


def folder_source(root: Path, extensions: tuple[str, ...] = EXTENSIONS) -> Source:
    """All files with one of ``extensions`` under ``root``, links followed, hidden files and folders left out."""
    found: list[str] = []
    skipped: list[tuple[str, str]] = []
    visits: Counter[str] = Counter()

    def unreadable(error: OSError) -> None:
        skipped.append((str(error.filename), error.strerror or str(error)))

    def leads_back(folder: str, real: str) -> bool:
        above = Path(folder).relative_to(root).parents
        return any(os.path.realpath(root / part) == real for part in above)

    top = os.path.realpath(root)
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=unreadable):
        real = os.path.realpath(folder)
        visits[real] += 1
        reason = ""
        if visits[real] > _LINK_LIMIT:
            reason = f"more than {_LINK_LIMIT} links to {real}"
        elif real != top and f"{top}/".startswith(real.rstrip("/") + "/"):
            reason = f"a link to {real}, which this folder lies in"
        if reason:
            skipped.append((folder, reason))
        if reason or (visits[real] > 1 and leads_back(folder, real)):
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        start = Path(folder).relative_to(root)
        found += [(start / name).as_posix() for name in files if _is_one(name, extensions) or name == MANIFEST]
    return _source(root, found, extensions, lambda key, limit: read_file(root / key, limit), skipped)


def zip_source(path: Path, extensions: tuple[str, ...] = EXTENSIONS) -> Source:
    """All files with one of ``extensions`` in a zip, read in memory: nothing is ever extracted, so a member's path can reach no
    file."""
    archive = open_zip(path)
    members, skipped = {}, []
    for info in archive.infolist():
        key = relative_key(info.filename)
        hidden = key.startswith("__MACOSX/") or not all(map(_is_visible, PurePosixPath(key).parts))
        if not key or hidden or info.filename.endswith(("/", "\\")):
            continue
        if _is_one(key, extensions) and key in members:
            skipped.append((f"{path}/{key}", "the zip has two files of this name; the last is read"))
        members[key] = info

    def read(key: str, limit: int) -> bytes:
        if members[key].file_size > limit:
            raise ValueError(f"{members[key].file_size} bytes, limit {limit}")
        return b"".join(blocks(archive, members[key]))

    return _source(path, members, extensions, read, skipped)


def _source(
    path: Path, found: Iterable[str], extensions: tuple[str, ...], read: Callable[[str, int], bytes], skipped: list
) -> Source:
    found = sorted(found)
    manifests = [key for key in found if PurePosixPath(key).name == MANIFEST]
    return Source(str(path), [key for key in found if _is_one(key, extensions)], read, skipped, manifests)


def one_file(path: Path) -> Source:
    """The file alone."""
    return Source(str(path.parent), [path.name], lambda key, limit: read_file(path, limit))


def read_file(path: Path, limit: int) -> bytes:
    """Content of a regular file of at most ``limit`` bytes. A FIFO or device, or a link to one, might keep its reader
    waiting for ever: ValueError."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for test, kind in _KINDS if test(status.st_mode)), "a device")
        raise ValueError(f"{kind}, expected a file")
    if status.st_size > limit:
        raise ValueError(f"{status.st_size} bytes, limit {limit}")
    # /proc/kmsg and its like pass for files of no byte, and have their reader wait.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        return file.read(status.st_size)


def relative_key(name: str) -> str:
    """``name`` as a posix path that stays below the folder it is joined to: ``..\\a/b.png`` is ``a/b.png``."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..") and not (len(part) == 2 and part[1] == ":"))


def read_images(
    source: Source,
    *,
    resolution: Resolution | None,
    crop: str,
    channels: int | None,
    strict: bool,
    bits: int | None = None,
    labels: bool = True,
    part: str = "whole",
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> ImageDataset:
    """Decode every image of ``source`` once, over all cores, in the order of its keys, and find their classes unless
    ``labels=False``.

    Images are RGB of 8 bits unless ``channels`` and ``bits`` say otherwise. ``resolution=None`` keeps the size where all
    images share one. Unreadable files are listed in ``skipped`` and named in one warning; ``strict=True`` raises ValueError
    naming the first. The pixels go to memory, or to an unnamed file in the folder ``store``. ``progress(done, total)`` after
    each image.

    Raises ValueError where no image is readable, sizes differ, or one does not become ``resolution`` with ``crop="none"``;
    `TooLarge` where half of the memory is too small.
    """
    pillow()
    channels, bits = channels or 3, bits or 8
    check_channels(channels)
    if not source.keys:
        first = "; {}: {}".format(*source.skipped[0]) if source.skipped else ""
        raise ValueError(f"{source.name}: no images found (looked for {', '.join(EXTENSIONS)}){first}")
    if strict and source.skipped:
        raise ValueError("{}: {}".format(*source.skipped[0]))
    none = Classes(np.zeros(len(source.keys), np.int64), [], "")
    classes = find_classes(source.name, source.keys, source.manifests, source.read) if labels else none
    resolution = _resolution(source, resolution, crop, part)
    total = len(source.keys)
    images = _allocate((total, channels, *sides(resolution)), bits, store, source.name)

    def one(row: int) -> str | None:
        try:
            images[row] = decode(source.read(source.keys[row], LARGEST_FILE), resolution, crop, channels, part, bits)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises a dozen unrelated types for broken files
            if strict:
                raise ValueError(f"{full_name(source, source.keys[row])}: {reason(error)}") from error
            return reason(error)
        return None

    kept: list[int] = []
    skipped = list(source.skipped)
    for row, failure in enumerate(in_threads(one, range(total))):
        if failure is None:
            kept.append(row)
        else:
            skipped.append((full_name(source, source.keys[row]), failure))
        if progress is not None:
            progress(row + 1, total)
    if not kept:
        raise ValueError(f"{source.name}: none of {total} images is readable; first: {skipped[0][0]} ({skipped[0][1]})")
    warn_skipped(source.name, skipped, total)
    for place, row in enumerate(kept):
        if place != row:
            images[place] = images[row]
    return ImageDataset(
        torch.from_numpy(images[: len(kept)]),
        torch.from_numpy(classes.labels[kept]),
        name=source.name,
        class_names=classes.names,
        class_source=classes.source,
        files=[source.keys[row] for row in kept],
        skipped=skipped,
    )


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _is_one(name: str, extensions: tuple[str, ...]) -> bool:
    name = PurePosixPath(name).name
    return _is_visible(name) and name.lower().endswith(extensions)


def full_name(source: Source, key: str) -> str:
    return f"{source.name}/{shown([key])}"


def reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image"
    return shown([(error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__])


def warn_skipped(name: str, skipped: list[tuple[str, str]], total: int) -> None:
    if skipped:
        listed = "; ".join(f"{file} ({reason})" for file, reason in skipped[:_SHOWN])
        more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        warnings.warn(f"{name}: skipped {len(skipped)} of {total} files: {listed}{more}", stacklevel=2)


def _resolution(source: Source, asked: Resolution | None, crop: str, part: str) -> Resolution:
    """What all images are brought to: what was ``asked`` for, or the size that they share."""
    if asked is not None and crop != "none":
        return asked

    def size(key: str) -> tuple[int, int] | None:
        try:
            return natural_size(source.read(key, LARGEST_FILE), crop, part)
        except Exception:
            return None  # the decode names it, with the reason

    first: dict[tuple[int, int], str] = {}
    for key, found in zip(source.keys, in_threads(size, source.keys), strict=True):
        if found is not None:
            first.setdefault(found, key)
    if asked is not None:
        for found, key in first.items():
            try:
                check_whole(*found, asked)
            except ValueError as error:
                raise ValueError(f"{full_name(source, key)}: {error}") from error
        return asked
    if len(first) > 1:
        (a, file_a), (b, file_b) = list(first.items())[:2]
        raise ValueError(
            f"{source.name}: images differ in size ({shown([file_a])}: {a}, {shown([file_b])}: {b}): give resolution="
        )
    return natural_resolution(source.name, *next(iter(first), (1, 1)), crop)


def _allocate(shape: tuple[int, ...], bits: int, store: str | Path | None, name: str) -> np.ndarray:
    dtype = np.dtype(f"uint{bits}")
    if store is not None:
        with tempfile.TemporaryFile(dir=store) as file:
            return np.memmap(file, dtype, mode="w+", shape=shape)
    need = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if hasattr(os, "sysconf") and need > (limit := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2):
        size = shape[2:] if shape[2] != shape[3] else shape[2:3]
        raise TooLarge(
            f"{name}: {shape[0]} images need {need / 2**30:.1f} GiB, more than half of the memory "
            f"({limit / 2**30:.1f} GiB); write them to a file that is memory-mapped: "
            f"fastgan data prepare {name} OUT.npz --resolution {' '.join(map(str, size))}"
        )
    return np.empty(shape, dtype)
