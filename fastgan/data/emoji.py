"""The embedded emoji: 3,781 pairs of 32x32 RGB images in two styles (licences in assets/NOTICE.txt)."""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fastgan.data.dataset import ImageDataset

ASSETS = Path(__file__).parent / "assets"
STYLES = ("google", "twitter")


def is_test(base: str) -> bool:
    """The held-out rule: CRC-32 of the base emoji's code points (ASCII, upper case) is divisible by 10.

    Of 1,906 base emoji, 190 are held out. A variant follows its base, and both styles are split alike.
    """
    return zlib.crc32(base.encode()) % 10 == 0


@lru_cache
def _array(name: str) -> np.ndarray:
    with np.load(ASSETS / "emoji32.npz") as archive:  # a zip: only the array asked for is inflated
        return archive[name]


@lru_cache
def _bases() -> tuple[str, ...]:
    # By order, as variants follow their base: 205 of 1,875 variants also differ from it in a selector (U+FE0F) or more.
    bases: list[str] = []
    for code, first in zip(_array("codepoints").tolist(), _array("is_base").tolist(), strict=True):
        bases.append(code if first else bases[-1])
    return tuple(bases)


@lru_cache
def _style(style: str) -> ImageDataset:
    return ImageDataset(
        torch.from_numpy(np.ascontiguousarray(_array(style).transpose(0, 3, 1, 2))),
        torch.from_numpy(_array("label")),
        name=f"emoji:{style}",
        class_names=_array("category_names").tolist(),
        files=_array("codepoints").tolist(),
    )


def load_emoji(style: str, *, base_only: bool, split: str | None) -> ImageDataset:
    """One style (google, twitter), 9 classes; ``files`` are the code points.

    The images of the whole set are decoded once per process and shared by all that load it: do not write to them.
    """
    if split not in (None, "train", "test"):
        raise ValueError(f"emoji: split is {split!r}, expected one of 'train', 'test'")
    whole = _style(style)
    keep = np.ones(len(whole), bool)
    if base_only:
        keep &= _array("is_base")
    if split is not None:
        held_out = np.fromiter((is_test(base) for base in _bases()), bool, len(whole))
        keep &= held_out if split == "test" else ~held_out
    if keep.all():
        return whole
    name = f"{whole.name}:base" if base_only else whole.name
    return whole.subset(torch.from_numpy(np.flatnonzero(keep))).replace(name=name)
