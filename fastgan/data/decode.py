"""Encoded image -> uint8 array: orientation, colour, crop and resize with Pillow."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

PARTS = {"whole": (0, 1), "left": (0, 2), "right": (1, 2)}  # part: (index, how many side by side)


def pillow() -> Any:
    """The module ``PIL.Image``; ImportError with the remedy where Pillow is missing."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading or resizing images needs Pillow: pip install "fastgan[train]"') from error
    return Image


def crop_box(width: int, height: int, crop: str, part: str = "whole") -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the square (``center``) or full (``stretch``) region of ``part``."""
    index, count = PARTS[part]
    if width < count:
        raise ValueError(f"image of {width}x{height} pixels cannot be split in {count}")
    left, width = index * (width // count), width // count
    side = min(width, height)
    if crop == "stretch":
        return left, 0, left + width, height
    x, y = left + (width - side) // 2, (height - side) // 2
    return x, y, x + side, y + side


def natural_size(data: bytes, crop: str, part: str) -> tuple[int, int]:
    """Width and height in pixels of the region that ``crop`` takes, before any resize. Decodes the header only."""
    Image = pillow()
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:  # EXIF orientation 5..8: turned by 90 degrees
            width, height = height, width
    left, top, right, bottom = crop_box(width, height, crop, part)
    return right - left, bottom - top


def decode(data: bytes, resolution: int, crop: str, channels: int, part: str = "whole") -> np.ndarray:
    """Encoded image -> uint8 [channels, resolution, resolution].

    EXIF orientation applied; the first frame of an animation; transparency composited on white; 16-bit grey scaled to
    8 bits; Lanczos with antialiasing where the size changes. Pillow's decompression-bomb limit stays on.

    Raises whatever Pillow raises for a file that it cannot read, and ValueError for floating-point images (their range
    is not known).
    """
    Image = pillow()
    from PIL import ImageOps

    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        image = ImageOps.exif_transpose(opened)
    image = _colour(image, channels)
    box = crop_box(*image.size, crop, part)
    if box != (0, 0, *image.size):
        image = image.crop(box)
    return _to_array(fit(image, resolution))


def fit(image: Any, resolution: int) -> Any:
    """PIL image -> resolution x resolution, Lanczos; the same object where the size is right already."""
    size = (resolution, resolution)
    return image if image.size == size else image.resize(size, pillow().Resampling.LANCZOS)


def resize_array(images: np.ndarray, resolution: int) -> np.ndarray:
    """uint8 [N, C, H, W] -> uint8 [N, C, resolution, resolution], by the same filter as files."""
    Image = pillow()
    out = np.empty((*images.shape[:2], resolution, resolution), np.uint8)

    def one(i: int) -> None:
        pixels = images[i, 0] if images.shape[1] == 1 else images[i].transpose(1, 2, 0)
        out[i] = _to_array(fit(Image.fromarray(np.ascontiguousarray(pixels)), resolution))

    # Threads fight for the GIL on small images: 60,000 of 28x28 to 32 take 3.6 s in two threads and 1.2 s in one.
    for _ in (in_threads if images[0, 0].size >= 128 * 128 else map)(one, range(len(images))):
        pass
    return out


def in_threads(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """``map(work, items)`` in order over all usable cores (Pillow releases the GIL); stops at once on an exception."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ThreadPoolExecutor(cores, thread_name_prefix="fastgan-decode")
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _colour(image: Any, channels: int) -> Any:
    Image = pillow()
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "F":
        raise ValueError("floating-point pixels of unknown range; convert to 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("32-bit integer pixels of unknown range; convert to 8 or 16 bits")
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8)).convert(mode)  # round(v / 257)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _to_array(image: Any) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
