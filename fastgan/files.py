"""Files that are whole or absent, and what their names say."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# suffix -> Pillow's name and its options
PICTURES = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}
# Suffixes beside Pillow's that are nobody's idea of a dot in a name.
FORMATS = (
    ".avi .csv .flac .html .json .mkv .md .mov .mp3 .mp4 .npy .npz .ogg .pkl .pt .pth .safetensors .svg .txt .wav .webm"
    " .zip"
)


@contextlib.contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` when the block has ended; a failed block leaves nothing."""
    temporary = path.with_name(f".{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk, met by a write
            error.filename = str(path)
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that any reader takes (RFC 8259), which has no NaN and no infinity: a number that is one, as a figure may be, is null.

    What must come back as it was is written by json.dumps with allow_nan=False instead.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def named(path: Path, suffixes: Iterable[str]) -> Path:
    """`path` if it ends in one of `suffixes`, else with the first of them added: in "run.v2" the dot is part of the name.

    Raises ValueError for the suffix of a format that is none of these.
    """
    from PIL import Image

    if path.name in ("", ".."):
        raise ValueError(f"{path} is a folder, expected the name of a file")
    suffix, (first, *others) = path.suffix.lower(), suffixes
    if suffix in (first, *others):
        return path
    if suffix in FORMATS.split() or suffix in Image.registered_extensions():
        raise ValueError(
            f"{path}: {suffix} is not written here; expected a name that ends with {', '.join([first, *others])}"
        )
    return path.with_name(path.name + first)


def check_beside(out: Path, *others: Path) -> None:
    """FileExistsError for one of the files that are written beside `out` where it is there and `out` is not: it is of something
    else, and nobody has named it."""
    for path in others if not os.path.lexists(out) else ():
        if os.path.lexists(path):
            raise FileExistsError(f"{path} is there, and would be replaced with {out}: choose another name")


def nearest(folder: Path) -> Path:
    """`folder`, or the innermost of those around it that exists."""
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), Path())


def check_writable(folder: Path) -> None:
    """ValueError that names what is in the way of files in `folder`."""
    if not writable(folder):
        why = "may not be written to" if nearest(folder).is_dir() else "is no folder"
        raise ValueError(f"nothing can be written to {folder}: {nearest(folder)} {why}; choose another --out")


def writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which need not exist yet."""
    return nearest(folder).is_dir() and os.access(nearest(folder), os.W_OK | os.X_OK)
