"""Metrics of generated images and text; each module is imported when first used.

`register` adds one of your own: `fastgan.metrics.suite` says how.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is loaded when it is first asked for, as a type checker sees it
    from fastgan.metrics import fid, images, kid, latent, meaning, modes, ngram, pairs, prdc, speech, suite, text
    from fastgan.metrics.suite import register

__all__ = [
    "fid",
    "images",
    "kid",
    "latent",
    "meaning",
    "modes",
    "ngram",
    "pairs",
    "prdc",
    "register",
    "speech",
    "suite",
    "text",
]


def __getattr__(name: str):
    if name == "register":
        return import_module("fastgan.metrics.suite").register
    if name in __all__:
        return import_module(f"fastgan.metrics.{name}")
    raise AttributeError(f"module 'fastgan.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
