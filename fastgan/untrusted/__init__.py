"""Files that anyone may have made. Nothing in them is executed, and what they claim is checked before memory is given to it.

`open_regular`, `read_json` and `read_tensors` read; `pickles` interprets pickles by an allow-list, and `torch_file` what
`torch.save` wrote; `blueprint` builds networks of a file's options without memory, so that they can be compared with its
tensors first. Every error is a BadFile (a ValueError) that names the file, or FileNotFoundError.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import torch

from fastgan.fields import clip, shorten

__all__ = ["BadFile", "clip", "open_regular", "parse_json", "read_json", "read_tensors", "shorten"]

LONGEST_JSON = 64 << 20


class BadFile(ValueError):
    """A file that is damaged, of another kind, or holds what it must not; the message names it."""


def open_regular(path: str | Path) -> BinaryIO:
    """`path` for reading. Raises BadFile for a folder, a device or a pipe (which would be waited for), or without permission."""
    try:
        # Without O_NONBLOCK the open itself waits for the other end of a pipe.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
        raise BadFile(f"{path} is {kind}, expected a file")
    return os.fdopen(handle, "rb")


def parse_json(content: bytes, where: str | Path) -> dict[str, Any]:
    """The JSON object in `content`; BadFile for anything else."""
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise BadFile(f"{where} is nested too deeply") from error
    except ValueError as error:
        raise BadFile(f"{where} is not JSON: {shorten(error)}") from error
    if not isinstance(found, dict):
        raise BadFile(f"{where} holds {clip(found)}, expected an object")
    return found


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in file `path`, of at most 64 MiB."""
    with open_regular(path) as file:
        content = file.read(LONGEST_JSON + 1)
    if len(content) > LONGEST_JSON:
        raise BadFile(f"{path} has more than {LONGEST_JSON >> 20} MiB, expected a file of options")
    return parse_json(content, path)


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file; its data are mapped, not copied."""
    from safetensors import safe_open

    open_regular(path).close()
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict
    except Exception as error:  # the library's own error, and torch's for types and shapes that it does not have
        raise BadFile(f"{path} is no whole .safetensors file: {shorten(error)}") from error
