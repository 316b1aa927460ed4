"""Weights of published networks: known by the SHA-256 of their file, and read without running code from it."""

import hashlib
from pathlib import Path

import torch

from fastgan.untrusted import BadFile, torch_file

LARGEST_FILE = 2**30  # bytes; the Inception network's weights are 95 MB


def sha256(path: str | Path) -> str:
    """Of the file's content, in hexadecimal digits. Raises FileNotFoundError, and ValueError for what is no file of weights."""
    return hashlib.sha256(_content(Path(path))).hexdigest()


def read_weights(path: str | Path, expected: str = "") -> dict[str, torch.Tensor]:
    """Tensors by name from a file of torch.save; `expected`: the first digits of its SHA-256.

    Raises FileNotFoundError, and ValueError for another hash or content.
    """
    data = _content(Path(path))
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(expected):
        raise ValueError(
            f"{path}: SHA-256 is {found}, expected {expected}{'...' * (len(expected) < 64)}: not as published"
        )
    try:
        state = torch_file.loads(data, Path(path).name)
    except BadFile as error:
        raise ValueError(f"{path}: expected tensors by name, as torch.save writes them ({error})") from error
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise ValueError(f"{path}: holds {type(state).__name__}, expected tensors by name")
    return state


def _content(path: Path) -> bytes:
    if not path.is_file():  # a FIFO would wait for ever
        raise FileNotFoundError(f"{path}: no such file of weights")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"{path}: {size} bytes, expected a file of weights of at most {LARGEST_FILE}")
    return path.read_bytes()
