"""Features of a data set on disk: known by all that decides them, and either whole or computed again."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fastgan
from fastgan.files import complete
from fastgan.untrusted import torch_file

VERSION = 3  # of the file and of how features are computed here
_DIGEST = hashlib.sha256().digest_size


def folder() -> Path:
    """$XDG_CACHE_HOME/fastgan/features, ~/.cache/... by default."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "fastgan" / "features"


def key(extractor: nn.Module, images: torch.Tensor | str, keep: int) -> str:
    """Hexadecimal digits of a hash of every pixel (so of resize, crop and channels too) or of what stands for them, the extractor
    with its settings and weights, the rows that are kept, and the versions of what computes.

    1.5 GB of pixels a second on a core with SHA instructions; the features of as many take minutes.
    """
    settings = [getattr(extractor, name, None) for name in ("name", "dim", "resolution", "release")]
    content = images if isinstance(images, str) else tuple(images.shape)
    about = [VERSION, fastgan.__version__, type(extractor).__qualname__, *settings, keep, content]
    digest = hashlib.sha256(repr(about).encode())
    for name, tensor in extractor.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    for part in () if isinstance(images, str) else images.split(256):
        digest.update(part.contiguous().numpy())
    return digest.hexdigest()


def read(path: Path, key: str) -> dict[str, Any] | None:
    """What `write` wrote under the same key; None where there is nothing, or any bit of it has changed."""
    try:
        data = path.read_bytes() if path.is_file() else b""
        if data[:_DIGEST] != _checksum(key, data[_DIGEST:]):
            return None
        return torch_file.loads(data[_DIGEST:], path)
    except Exception:  # whatever is wrong with it, the features are computed again
        return None


def write(path: Path, key: str, content: dict[str, Any]) -> None:
    """`content`, tensors and numbers by name, at once or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = io.BytesIO()
    torch.save(content, saved)
    with complete(path) as temporary:
        temporary.write_bytes(_checksum(key, saved.getvalue()) + saved.getvalue())


def _checksum(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + data).digest()
