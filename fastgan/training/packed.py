"""The one .safetensors file that a run is shared as, read; `fastgan.recipes.packed` writes it, and makes networks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import torch

from fastgan import fields
from fastgan.convert.network import checksum
from fastgan.untrusted import BadFile, parse_json, read_tensors

PACKED = "model.safetensors"  # of a folder that is shared


class About(TypedDict):
    """What the header says of a run."""

    recipe: str
    config: dict[str, Any]
    data: dict[str, Any]
    step: int


def read_packed(path: str | Path) -> tuple[About, dict[str, torch.Tensor]] | None:
    """Header and tensors of a file of `fastgan.recipes.packed.pack`; None for another .safetensors. Raises BadFile for a damaged
    one."""
    tensors, header = read_tensors(path)
    found = parse_json(header.get("fastgan", "{}").encode(), f"{path}: its header")
    if "recipe" not in found:
        return None
    if header.get("sha256") != checksum(header["fastgan"], tensors):
        raise BadFile(f"{path} does not match its SHA-256: it is damaged. Copy it again")
    return fields.record(About, found, f"{path}: its header"), tensors
