"""Shards as webdataset writes them, and as nobody should."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(i: int, side: int = 16, form: str = "PNG") -> bytes:
    """A smooth picture, different for each `i`: its first pixel is (i // 250, i % 250, ...)."""
    ramp = np.linspace(0, 100, side)
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = i // 250, i % 250
    pixels[..., 2] = (ramp[:, None] + ramp[::-1] + 7 * (i % 8)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_shards(folder: Path, count: int, shards: int, side: int = 16, form: str = "PNG") -> Path:
    """`count` pictures in `shards` files 000000.tar, ...; the class of picture i is i % 10."""
    ending = form.lower().replace("jpeg", "jpg")
    for shard in range(shards):
        members = []
        for i in range(shard * count // shards, (shard + 1) * count // shards):
            members += [(f"{i:06d}.{ending}", encoded(i, side, form)), (f"{i:06d}.cls", str(i % 10).encode())]
        write_tar(folder / f"{shard:06d}.tar", members)
    return folder
