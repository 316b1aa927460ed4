"""Images in folders and zip files: a sorted scan, labels from sub-folders, one parallel decode into one array."""

from __future__ import annotations

import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from fastgan.data.dataset import ImageDataset
from fastgan.data.decode import decode, in_threads, natural_size, pillow

EXTENSIONS = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MEMBER_LIMIT = 1 << 30  # bytes of one zip member: a larger one is no image but a bomb
_SHOWN = 5  # files named in the warning; ImageDataset.skipped has all

Progress = Callable[[int, int], None]


@dataclass
class Source:
    """Encoded images: sorted ``keys`` (posix paths) and ``read(key) -> bytes``; ``skipped`` as found by the scan."""

    name: str
    keys: list[str]
    read: Callable[[str], bytes]
    skipped: list[tuple[str, str]] = field(default_factory=list)


def folder_source(root: Path) -> Source:
    """All images under ``root``, links followed, hidden files and folders left out."""
    keys: list[str] = []
    skipped: list[tuple[str, str]] = []
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        skipped.append((str(error.filename), error.strerror or str(error)))

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=unreadable):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up the tree
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        keys += [Path(folder, name).relative_to(root).as_posix() for name in files if _is_image(name)]
    return Source(str(root), sorted(keys), lambda key: (root / key).read_bytes(), skipped)


def zip_source(path: Path) -> Source:
    """All images in a zip, read in memory: nothing is ever extracted, so a member's path can reach no file."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a readable zip file ({error})") from error
    sizes = {
        info.filename: info.file_size
        for info in archive.infolist()
        if not info.filename.startswith("__MACOSX/") and all(map(_is_visible, PurePosixPath(info.filename).parts))
    }

    def read(key: str) -> bytes:
        if sizes[key] > _MEMBER_LIMIT:
            raise ValueError(f"{sizes[key]} bytes, limit {_MEMBER_LIMIT}")
        return archive.read(key)

    return Source(str(path), sorted(key for key in sizes if _is_image(key)), read)


def read_images(
    source: Source,
    *,
    resolution: int | None,
    crop: str,
    channels: int | None,
    strict: bool,
    part: str = "whole",
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> ImageDataset:
    """Decode every image of ``source`` once, over all cores, in the order of its keys.

    Images are RGB unless ``channels=1``. ``resolution=None`` keeps the size where all images share one. Unreadable
    files are listed in ``skipped`` and named in one warning; ``strict=True`` raises ValueError naming the first.
    The pixels go to memory, or to an unnamed file in the folder ``store``. ``progress(done, total)`` after each image.

    Raises ValueError where no image is readable or sizes differ; MemoryError where half of the memory is too small.
    """
    pillow()
    if not source.keys:
        raise ValueError(f"{source.name}: no images found (looked for {', '.join(EXTENSIONS)})")
    if strict and source.skipped:
        raise ValueError("{}: {}".format(*source.skipped[0]))
    resolution = resolution or _common_side(source, crop, part)
    channels = channels or 3
    total = len(source.keys)
    images = _allocate((total, channels, resolution, resolution), store, source.name)

    def one(row: int) -> str | None:
        try:
            images[row] = decode(source.read(source.keys[row]), resolution, crop, channels, part)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises a dozen unrelated types for broken files
            if strict:
                raise ValueError(f"{_full(source, source.keys[row])}: {_reason(error)}") from error
            return _reason(error)
        return None

    labels, class_names = labels_from_paths(source.keys)
    kept: list[int] = []
    skipped = list(source.skipped)
    for row, failure in enumerate(in_threads(one, range(total))):
        if failure is None:
            kept.append(row)
        else:
            skipped.append((_full(source, source.keys[row]), failure))
        if progress is not None:
            progress(row + 1, total)
    if not kept:
        raise ValueError(f"{source.name}: none of {total} images is readable; first: {skipped[0][0]} ({skipped[0][1]})")
    _warn_skipped(source.name, skipped, total)
    for place, row in enumerate(kept):
        if place != row:
            images[place] = images[row]
    return ImageDataset(
        torch.from_numpy(images[: len(kept)]),
        torch.from_numpy(labels[kept]),
        name=source.name,
        class_names=class_names,
        files=[source.keys[row] for row in kept],
        skipped=skipped,
    )


def labels_from_paths(keys: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Class index int64 [N] and sorted class names: the first folder below the one that all keys share.

    No classes (zeros, empty list) where an image lies outside any such folder.
    """
    folders = [[part for part in PurePosixPath(key).parts[:-1] if part not in ("/", "..", ".")] for key in keys]
    first, last = min(folders), max(folders)
    depth = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    if any(len(folder) <= depth for folder in folders):
        return np.zeros(len(keys), np.int64), []
    class_names = sorted({folder[depth] for folder in folders})
    index = {name: i for i, name in enumerate(class_names)}
    return np.array([index[folder[depth]] for folder in folders], np.int64), class_names


def _is_visible(name: str) -> bool:
    return not name.startswith(".") or name == ".."


def _is_image(name: str) -> bool:
    name = PurePosixPath(name).name
    return _is_visible(name) and name.lower().endswith(EXTENSIONS)


def _full(source: Source, key: str) -> str:
    return f"{source.name}/{key}"


def _reason(error: Exception) -> str:
    return "not an image" if type(error).__name__ == "UnidentifiedImageError" else str(error) or type(error).__name__


def _warn_skipped(name: str, skipped: list[tuple[str, str]], total: int) -> None:
    if skipped:
        shown = "; ".join(f"{file} ({reason})" for file, reason in skipped[:_SHOWN])
        more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        warnings.warn(f"{name}: skipped {len(skipped)} of {total} files: {shown}{more}", stacklevel=2)


def _common_side(source: Source, crop: str, part: str) -> int:
    def size(key: str) -> tuple[int, int] | None:
        try:
            return natural_size(source.read(key), crop, part)
        except Exception:
            return None  # the decode names it, with the reason

    first: dict[tuple[int, int], str] = {}
    for key, found in zip(source.keys, in_threads(size, source.keys), strict=True):
        if found is not None:
            first.setdefault(found, key)
    if len(first) > 1:
        (a, file_a), (b, file_b) = list(first.items())[:2]
        raise ValueError(f"{source.name}: images differ in size ({file_a}: {a}, {file_b}: {b}): give resolution=")
    width, height = next(iter(first), (1, 1))
    if width != height:
        raise ValueError(f"{source.name}: crop='stretch' of {width}x{height} images needs resolution=")
    return width


def _allocate(shape: tuple[int, ...], store: str | Path | None, name: str) -> np.ndarray:
    if store is not None:
        with tempfile.TemporaryFile(dir=store) as file:
            return np.memmap(file, np.uint8, mode="w+", shape=shape)
    need = int(np.prod(shape, dtype=np.int64))
    if hasattr(os, "sysconf") and need > (limit := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2):
        raise MemoryError(
            f"{name}: {shape[0]} images need {need / 2**30:.1f} GiB, more than half of the memory "
            f"({limit / 2**30:.1f} GiB); write them to a file that is memory-mapped: "
            f"fastgan data prepare {name} OUT.npz --resolution {shape[-1]}"
        )
    return np.empty(shape, np.uint8)
