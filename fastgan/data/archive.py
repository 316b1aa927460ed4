"""Data sets as one .npz: written once, memory-mapped ever after."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastgan.data.dataset import ImageDataset
from fastgan.data.decode import crop_box, resize_array


def save_npz(dataset: ImageDataset, path: str | Path) -> None:
    """Write ``dataset`` in the layout that :func:`load_npz` maps: atomic, uncompressed, the same bytes each time."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected a name ending in .npz")
    arrays = {"images": dataset.images.numpy()}
    if dataset.class_names:
        arrays |= {"labels": dataset.labels.numpy(), "class_names": np.array(dataset.class_names)}
    if dataset.files:
        arrays["files"] = np.array(dataset.files)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, array in arrays.items():
                    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_npz(path: Path, *, resolution: int | None = None, crop: str = "center") -> ImageDataset:
    """Images from an .npz; read without pickle, so a file can never run code.

    Arrays: ``images`` uint8 [N, C, H, W], [N, H, W, C] or [N, H, W] with C 1 or 3 (any name, if it is the only such
    array; where both readings are possible the first holds); optional ``labels`` integer [N] with optional
    ``class_names`` strings; optional ``files`` strings [N].

    ``images`` stored uncompressed as [N, C, H, W] (:func:`save_npz`) are memory-mapped: loading costs nothing and all
    processes of a machine share one copy. Otherwise they are read into memory. ``resolution`` and ``crop`` as in
    :func:`fastgan.data.load` are applied here to images that are not square.

    Raises ValueError naming the file where it is damaged or its arrays do not fit this description.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a readable npz file (no zip directory at its end: truncated or another format)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            name = _images_key(archive)
            images = _mapped(path, archive.zip.getinfo(f"{name}.npy"))
            if images is None:
                images = archive[name]
            labels, class_names, files = (archive.get(key) for key in ("labels", "class_names", "files"))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    images = _channels_first(path, images)
    if images.shape[2] != images.shape[3]:
        left, top, right, bottom = crop_box(images.shape[3], images.shape[2], crop)
        images = images[:, :, top:bottom, left:right]
        if crop == "stretch":
            if resolution is None:
                raise ValueError(f"{path}: crop='stretch' of {right}x{bottom} images needs resolution=")
            images = resize_array(images, resolution)
    if labels is not None:
        if labels.dtype.kind not in "iu":
            raise ValueError(f"{path}: labels has dtype {labels.dtype}, expected integers")
        if class_names is None:
            class_names = np.array([str(i) for i in range(int(labels.max(initial=-1)) + 1)])
    return ImageDataset(
        torch.from_numpy(images),
        None if labels is None else torch.from_numpy(labels.astype(np.int64)),
        name=str(path),
        class_names=() if labels is None else class_names.tolist(),
        files=() if files is None else files.tolist(),
    )


def _images_key(archive: Any) -> str:
    if "images" in archive:
        return "images"
    headers = {}
    for name in archive.files:
        with archive.zip.open(f"{name}.npy") as member:
            headers[name] = _header(member)
    found = [name for name, (shape, _, dtype) in headers.items() if dtype == np.uint8 and len(shape) in (3, 4)]
    if len(found) != 1:
        have = ", ".join(f"{name} {dtype} {list(shape)}" for name, (shape, _, dtype) in headers.items())
        raise ValueError(f"no array 'images' of uint8 [N, C, H, W], [N, H, W, C] or [N, H, W]; it has: {have}")
    return found[0]


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran order, dtype) of an open .npy; leaves ``member`` at the first element."""
    version = np.lib.format.read_magic(member)
    return (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(member)


def _mapped(path: Path, info: zipfile.ZipInfo) -> np.ndarray | None:
    """The array as a copy-on-write map of the file (writable for torch, never written back); None if compressed."""
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)  # zip local file header: name and extra lengths at 26 and 28
        file.seek(int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little"), os.SEEK_CUR)
        shape, fortran, dtype = _header(file)
        if fortran or dtype != np.uint8 or len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
            return None
        return np.memmap(path, np.uint8, mode="c", offset=file.tell(), shape=shape)


def _channels_first(path: Path, images: np.ndarray) -> np.ndarray:
    shape = list(images.shape)
    if images.dtype == np.uint8:
        if images.ndim == 3:
            return images[:, None]
        if images.ndim == 4 and shape[1] in (1, 3):
            return images
        if images.ndim == 4 and shape[3] in (1, 3):
            return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    raise ValueError(
        f"{path}: images is {images.dtype} {shape}, expected uint8 [N, C, H, W], [N, H, W, C] or [N, H, W]"
    )
