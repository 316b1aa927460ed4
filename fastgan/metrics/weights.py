"""Weights of published networks: known by the SHA-256 of their file, and read without running code from it."""

import hashlib
import os
from pathlib import Path

import torch

from fastgan.untrusted import BadFile, open_regular, torch_file

LARGEST_FILE = 2**30  # bytes; the Inception network's weights are 95 MB


def sha256(path: str | Path) -> str:
    """Of the file's content, in hexadecimal digits. Raises FileNotFoundError, and BadFile for what is no file of weights."""
    return hashlib.sha256(_content(path)).hexdigest()


def read_weights(path: str | Path, expected: str = "") -> dict[str, torch.Tensor]:
    """Tensors by name from a file of torch.save; `expected`: the first digits of its SHA-256.

    Raises FileNotFoundError, and BadFile, a ValueError, for another hash or content.
    """
    content = _content(path)
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(expected):
        raise BadFile(
            f"{path}: SHA-256 is {found}, expected {expected}{'...' * (len(expected) < 64)}: not as published"
        )
    state = torch_file.loads(content, path)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise BadFile(f"{path} holds {type(state).__name__}, expected tensors by name")
    return state


def _content(path: str | Path) -> bytes:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_FILE:
            raise BadFile(f"{path} has {size} bytes, expected a file of weights of at most {LARGEST_FILE}")
        return file.read()
