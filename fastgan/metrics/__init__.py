"""Metrics of generated images and text; each module is imported when first used."""

from importlib import import_module

__all__ = ["fid", "images", "kid", "latent", "modes", "ngram", "pairs", "prdc", "suite", "text"]


def __getattr__(name: str):
    if name in __all__:
        return import_module(f"fastgan.metrics.{name}")
    raise AttributeError(f"module 'fastgan.metrics' has no attribute {name!r}")
