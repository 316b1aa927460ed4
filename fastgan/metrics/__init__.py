"""Metrics of generated images and text; each module is imported when first used.

`register` adds one of your own: `fastgan.metrics.suite` says how.
"""

from importlib import import_module

__all__ = ["fid", "images", "kid", "latent", "modes", "ngram", "pairs", "prdc", "register", "suite", "text"]


def __getattr__(name: str):
    if name == "register":
        return import_module("fastgan.metrics.suite").register
    if name in __all__:
        return import_module(f"fastgan.metrics.{name}")
    raise AttributeError(f"module 'fastgan.metrics' has no attribute {name!r}")
