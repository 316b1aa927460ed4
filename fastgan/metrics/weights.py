"""Weights of published networks: known by the SHA-256 of their file, and read without running code from it."""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from fastgan.untrusted import BadFile, open_regular, read_tensors, torch_file

LARGEST_FILE = 2**32  # bytes; DINOv2's ViT-L/14 has 1.2 GB, CLIP's with its text encoder 1.7


def sha256(path: str | Path) -> str:
    """Of the file's content, in hexadecimal digits. Raises FileNotFoundError, and BadFile for what is no file of weights."""
    digest = hashlib.sha256()
    with _opened(path) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def read_weights(path: str | Path, expected: str = "") -> dict[str, torch.Tensor]:
    """Tensors by name from a file of torch.save; `expected`: the first digits of its SHA-256.

    Raises FileNotFoundError, and BadFile, a ValueError, for another hash or content.
    """
    with _opened(path) as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(expected):
        raise BadFile(
            f"{path}: SHA-256 is {found}, expected {expected}{'...' * (len(expected) < 64)}: not as published"
        )
    return _by_name(torch_file.loads(content, path), path)


def read_tensors_by_name(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file, or of one of torch.save, of whatever hash. Errors as of `read_weights`."""
    _opened(path).close()
    return read_tensors(path)[0] if Path(path).suffix == ".safetensors" else _by_name(torch_file.load(path), path)


def _by_name(state: Any, path: str | Path) -> dict[str, torch.Tensor]:
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise BadFile(f"{path} holds {type(state).__name__}, expected tensors by name")
    return state


def _opened(path: str | Path) -> BinaryIO:
    file = open_regular(path)
    size = os.fstat(file.fileno()).st_size
    if size > LARGEST_FILE:
        file.close()
        raise BadFile(f"{path} has {size} bytes, expected a file of weights of at most {LARGEST_FILE}")
    return file
