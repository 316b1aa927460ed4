"""Kinds of samples: what `fastgan` does differently for images, texts and signals.

A recipe says which kind it makes (`Recipe.medium`). `Medium` is the contract; derive from it for another kind.
"""

from pathlib import Path

from fastgan.media.image import Image, save_grid
from fastgan.media.medium import COLOURS, Medium
from fastgan.media.signal import Signal
from fastgan.media.text import Text

__all__ = ["COLOURS", "Image", "Medium", "Signal", "Text", "medium_of", "save_grid"]


def medium_of(path: Path) -> type[Medium]:
    """The kind of the samples that a file made by `Medium.save` holds, by what it looks like."""
    if path.with_suffix(".wav").is_file():
        return Signal
    return {".txt": Text, ".png": Image}.get(path.suffix, Medium)
