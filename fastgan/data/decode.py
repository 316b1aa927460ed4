"""Encoded image -> array of pixels: orientation, colour, crop and resize with Pillow."""

from __future__ import annotations

import contextlib
import io
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from fastgan.data.pixels import with_channels
from fastgan.sizes import Resolution, resolution_of, sides

# Images of more pixels are decoded one at a time: 16 threads with one of them each would need 16 times up to 1.4 GB.
_LARGE_PIXELS, _LARGE = 1 << 25, threading.Lock()

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # channels: Pillow's name
PARTS = {"whole": (0, 1), "left": (0, 2), "right": (1, 2)}  # part: (index, how many side by side)


def pillow() -> Any:
    """The module ``PIL.Image``; ImportError with the remedy where Pillow is missing."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('reading or resizing images needs Pillow: pip install "fastgan[train]"') from error
    return Image


def crop_box(
    width: int, height: int, crop: str, part: str = "whole", resolution: Resolution = 1
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what is taken of ``part``: the largest centred region of the aspect ratio of
    ``resolution`` (``center``), or all of it (``stretch``, ``none``)."""
    index, count = PARTS[part]
    if width < count:
        raise ValueError(f"image of {width}x{height} pixels cannot be split in {count}")
    left, width = index * (width // count), width // count
    if crop != "center":
        return left, 0, left + width, height
    tall, wide = sides(resolution)
    across = min(width, max(1, round(height * wide / tall)))
    down = min(height, max(1, round(width * tall / wide)))
    x, y = left + (width - across) // 2, (height - down) // 2
    return x, y, x + across, y + down


def crop_of(facts: Mapping[str, Any]) -> str:
    """How pictures from outside are cut for a network that was trained on data of such ``facts``: squeezed where those were.
    (With ``none`` too the middle is taken: of a picture of the right aspect ratio that is all.)"""
    return "stretch" if facts.get("crop") == "stretch" else "center"


def check_whole(width: int, height: int, resolution: Resolution) -> None:
    """ValueError where ``crop="none"`` cannot bring a picture to ``resolution``: it neither cuts nor squeezes."""
    tall, wide = sides(resolution)
    if width * tall != height * wide:
        raise ValueError(
            f"{width}x{height} pixels do not become {wide}x{tall} with crop='none': crop='center' cuts, 'stretch' squeezes"
        )


def natural_size(data: Any, crop: str, part: str) -> tuple[int, int]:
    """Width and height in pixels of the region that ``crop`` takes where no resolution is asked for (``center``: the largest
    square), before any resize. Decodes the header only."""
    with _open(data) as image:
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:  # EXIF orientation 5..8: turned by 90 degrees
            width, height = height, width
    left, top, right, bottom = crop_box(width, height, crop, part)
    return right - left, bottom - top


def natural_resolution(name: str, width: int, height: int, crop: str) -> Resolution:
    """The resolution of pictures of one size where none is asked for: ``center`` takes the largest square, ``none`` all.
    Raises ValueError, which begins with ``name``, for ``stretch`` of what is not square."""
    if crop == "stretch" and width != height:
        raise ValueError(f"{name}: crop='stretch' of {width}x{height} images needs resolution=")
    return min(width, height) if crop == "center" else resolution_of(height, width)


def decode(
    data: Any, resolution: Resolution, crop: str, channels: int, part: str = "whole", bits: int = 8
) -> np.ndarray:
    """Encoded image, or a PIL image -> uint8 [channels, height, width], or uint16 for ``bits=16``.

    EXIF orientation applied; the first frame of an animation; ``channels`` 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA):
    alpha that is not asked for is composited on white, that of an opaque file is 255; Lanczos with antialiasing where the
    size changes. 16-bit grey keeps its bits for ``bits=16`` and is rounded to 8 otherwise; other files have 8, times 257 for
    ``bits=16``. An image of more than ``PIL.Image.MAX_IMAGE_PIXELS`` is refused by its header, before any memory is taken
    for it. (Of the formats only PNG carries checksums, which Pillow verifies: a flipped bit of a JPEG is another picture
    and cannot be told.)

    Raises whatever Pillow raises for a file that it cannot read, and ValueError for floating-point images (their range
    is not known), and for one that ``crop="none"`` does not bring to ``resolution``.
    """
    from PIL import ImageOps

    check_channels(channels)
    with _open(data) as opened, _LARGE if math.prod(opened.size) > _LARGE_PIXELS else contextlib.nullcontext():
        opened.load()
        image = ImageOps.exif_transpose(opened)
        left, top, right, bottom = box = crop_box(*image.size, crop, part, resolution)
        if crop == "none":
            check_whole(right - left, bottom - top, resolution)
        deep = _sixteen_bits(image) if image.mode.startswith("I") else None
        if deep is not None and bits == 16:
            grey = torch.from_numpy(
                resize_array(deep[None, None, top:bottom, left:right].astype(np.uint16), resolution)
            )
            return with_channels(grey, channels)[0].numpy()
        if deep is not None:
            image = pillow().fromarray(((deep + 128) // 257).astype(np.uint8))  # round(v / 257)
        image = _colour(image, channels)
        if box != (0, 0, *image.size):
            image = image.crop(box)
        pixels = _to_array(fit(image, resolution))
        return pixels if bits == 8 else pixels.astype(np.uint16) * 257


def check_channels(channels: int) -> None:
    """ValueError for more channels than files of pictures are read with."""
    if channels not in MODES:
        raise ValueError(
            f"channels is {channels}, and files of pictures have 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA): more of them "
            "are read from an npz or npy"
        )


def _open(data: Any) -> Any:
    """The lazy PIL image of ``data``, encoded or a copy of a PIL image; ValueError for one of too many pixels."""
    Image = pillow()
    image = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else data.copy()
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and math.prod(image.size) > limit:
        raise ValueError(f"{image.width}x{image.height} pixels, limit {limit} (PIL.Image.MAX_IMAGE_PIXELS)")
    return image


def fit(image: Any, resolution: Resolution) -> Any:
    """PIL image at ``resolution``, Lanczos; the same object where the size is right already."""
    height, width = sides(resolution)
    return image if image.size == (width, height) else image.resize((width, height), pillow().Resampling.LANCZOS)


def resize_array(images: np.ndarray, resolution: Resolution) -> np.ndarray:
    """uint8 or uint16 [N, C, H, W] at ``resolution``, by the same filter as files. Of 2 and 4 channels the last is alpha, by
    which colours are weighted: what nobody sees does not bleed into what is seen. Otherwise each channel is by itself."""
    Image = pillow()
    out = np.empty((*images.shape[:2], *sides(resolution)), images.dtype)

    def one(i: int) -> None:
        if images.shape[1] in (2, 3, 4) and images.dtype == np.uint8:  # all at once
            out[i] = _to_array(fit(Image.fromarray(np.ascontiguousarray(images[i].transpose(1, 2, 0))), resolution))
        elif images.dtype == np.uint8:
            for channel, target in zip(images[i], out[i], strict=True):
                target[:] = fit(Image.fromarray(np.ascontiguousarray(channel)), resolution)
        else:
            out[i] = np.clip(np.rint(deep(images[i].astype(np.float32))), 0, 65535)

    def deep(x: np.ndarray) -> np.ndarray:  # as floats: Pillow resizes no 16-bit integers
        if x.shape[0] in (2, 4) and resolution != resolution_of(*x.shape[1:]):
            weighted = [c * x[-1] for c in x[:-1]]
            *weighted, alpha = (np.asarray(fit(Image.fromarray(c), resolution)) for c in (*weighted, x[-1]))
            seen = alpha >= 0.5
            return np.stack([*(np.divide(c, alpha, out=np.zeros_like(c), where=seen) for c in weighted), alpha])
        return np.stack([np.asarray(fit(Image.fromarray(c), resolution)) for c in x])

    for _ in in_threads(one, range(len(images))):
        pass
    return out


def in_threads(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """``map(work, items)`` in order, over all usable cores where that is faster; stops at once on an exception.

    Pillow releases the GIL, yet threads fight for it between short calls: with two, 2,000 PNG files of 32x32 take
    80 us each in one thread and 156 in two, JPEG files of 512x512 3.4 ms and 1.8. The first four items decide,
    by their third-shortest time: not the first, slowed by imports, nor up to two broken files that fail at once.
    """
    head, seconds = [], []
    for item in items[:4]:
        began = time.perf_counter()
        head.append(work(item))
        seconds.append(time.perf_counter() - began)
    yield from head
    if len(items) <= 4 or sorted(seconds)[2] < 150e-6:
        yield from map(work, items[4:])
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ThreadPoolExecutor(cores, thread_name_prefix="fastgan-decode")
    try:
        yield from pool.map(work, items[4:])
    finally:
        pool.shutdown(cancel_futures=True)


def _sixteen_bits(image: Any) -> np.ndarray:
    """Pixels of a PIL image of integers, int64 [H, W]. ValueError where they do not fit into 16 bits."""
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit integer pixels of unknown range; convert to 8 or 16 bits")
    return pixels


def _colour(image: Any, channels: int) -> Any:
    Image = pillow()
    mode = MODES[channels]
    if image.mode == "F":
        raise ValueError("floating-point pixels of unknown range; convert to 8 or 16 bits")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if channels in (1, 3):
            image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _to_array(image: Any) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
