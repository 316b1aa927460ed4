"""Files that are whole or absent, and what their names say."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

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
    """A temporary name beside `path`, which becomes `path` when the block has ended; a failed block leaves nothing. Of several
    writers at once each has a name of its own, and the last one's file stays."""
    temporary, claim = _claim(path)
    with claim:
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk, met by a write
                error.filename = str(path)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def _claim(path: Path) -> tuple[Path, contextlib.AbstractContextManager]:
    """A temporary name beside `path`, and what keeps other writers from it: a lock, so that the name of one that was killed is
    taken again."""
    try:
        import fcntl  # noqa: F401
    except ImportError:  # Windows, which renames no file that is open
        return path.with_name(f".{path.name}"), contextlib.nullcontext()
    for number in itertools.count():
        temporary = path.with_name(f".{number}.{path.name}" if number else f".{path.name}")
        try:
            file = open(temporary, "ab")  # noqa: SIM115 - open as long as the name is claimed
        except OSError as error:
            error.filename = str(path)
            raise
        with contextlib.suppress(FileNotFoundError):
            # Between its opening and its lock the file may have got its name, by a writer that then ended.
            if lock(file) and os.path.samestat(os.fstat(file.fileno()), os.stat(temporary)):
                file.truncate(0)
                return temporary, file
        file.close()
    raise AssertionError("there is always another name")


def lock(file: IO) -> bool:
    """Lock an open file until it is closed; False if another process has it. Where locks are unknown everybody gets one."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        file.seek(2**30)  # Windows keeps others from reading what is locked: a byte far behind the content
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


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
        raise ValueError(f"nothing can be written to {folder}: {nearest(folder)} {why}; choose another place")


def writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which need not exist yet."""
    return nearest(folder).is_dir() and os.access(nearest(folder), os.W_OK | os.X_OK)
