"""IDX files, the format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist), plain or gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from fastgan.data.dataset import Absent, ImageDataset
from fastgan.data.zips import most_unpacked

# Where Debian's and Ubuntu's dataset-fashion-mnist puts its files, then the folder named after the package.
FASHION_FOLDERS = (Path("/usr/share/datasets/fashion-mnist"), Path("/usr/share/dataset-fashion-mnist"))
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_PREFIX = {"train": "train", "test": "t10k"}
_STEMS = {"images": ("images-idx3-ubyte", "images.idx3-ubyte"), "labels": ("labels-idx1-ubyte", "labels.idx1-ubyte")}


def read_idx(path: Path) -> np.ndarray:
    """One IDX file of unsigned bytes -> uint8 array. ValueError naming the file if it is damaged or of another type.

    The format has no checksum: flipped pixels of a plain file cannot be told; gzip adds a CRC-32, which is verified.
    """
    packed = path.stat().st_size
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\0\0\x08":
                raise ValueError(f"{path}: not an IDX file of unsigned bytes (starts with {start.hex() or 'nothing'})")
            sides = file.read(4 * start[3])
            shape = struct.unpack(f">{len(sides) // 4}I", sides[: len(sides) // 4 * 4])
            size = math.prod(shape)
            wrong = f"its header says {size} bytes for shape {list(shape[:8])}"
            if size > (most_unpacked(packed) if path.suffix == ".gz" else packed):
                raise ValueError(f"{path}: {packed} bytes, {wrong}")
            data = bytearray(size)
            got = file.readinto(data)
            if got != size or len(sides) != 4 * start[3] or file.read(1):
                raise ValueError(f"{path}: {'more than ' if got == size else ''}{got} bytes of data, {wrong}")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from error
    return np.frombuffer(data, np.uint8).reshape(shape)


def find_idx(folder: Path, kind: str, split: str) -> Path | None:
    """The file of ``kind`` (images, labels) and ``split`` (train, test) in ``folder``, or None."""
    candidates = (folder / f"{_PREFIX[split]}-{stem}{gz}" for stem in _STEMS[kind] for gz in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def is_idx_folder(folder: Path) -> bool:
    return any(find_idx(folder, "images", split) for split in _PREFIX)


def load_idx(folder: Path, split: str | None, *, name: str, class_names: tuple[str, ...] = ()) -> ImageDataset:
    """``split`` train (the default) or test of a folder with IDX files; labels where their file is there.

    Without ``class_names`` the classes are called "0", "1", ...
    """
    split = split or "train"
    if split not in _PREFIX:
        raise ValueError(f"{name}: split is {split!r}, expected one of 'train', 'test'")
    images_path, labels_path = find_idx(folder, "images", split), find_idx(folder, "labels", split)
    if images_path is None:
        raise Absent(f"{folder}: no {_PREFIX[split]}-images-idx3-ubyte[.gz] for split={split!r}")
    images = read_idx(images_path)
    if images.ndim != 3:
        raise ValueError(f"{images_path}: shape {list(images.shape)}, expected [N, H, W]")
    labels = None
    if labels_path is None:
        class_names = ()
    else:
        labels = read_idx(labels_path)
        if labels.shape != images.shape[:1]:
            raise ValueError(f"{labels_path}: shape {list(labels.shape)}, expected [{len(images)}] as the images")
        class_names = class_names or tuple(str(i) for i in range(int(labels.max(initial=0)) + 1))
        labels = torch.from_numpy(labels)
    return ImageDataset(
        torch.from_numpy(images[:, None]),
        labels,
        name=name,
        class_names=class_names,
        class_source="IDX" if class_names else "",
    )


def load_fashion_mnist(split: str | None) -> ImageDataset:
    """70,000 grey 28x28 images of clothes in 10 classes (Xiao et al. 2017, MIT License): train 60,000, test 10,000."""
    for folder in FASHION_FOLDERS:
        if is_idx_folder(folder):
            return load_idx(folder, split, name="fashion-mnist", class_names=FASHION_CLASSES)
    raise FileNotFoundError(
        f"fashion-mnist: no IDX files in {' or '.join(map(str, FASHION_FOLDERS))}. On Debian or Ubuntu: "
        "apt install dataset-fashion-mnist. Elsewhere fetch the four *-ubyte.gz files of "
        "https://github.com/zalandoresearch/fashion-mnist and give their folder in place of the name"
    )
