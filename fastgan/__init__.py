"""fastgan: fused GAN kernels, models, training and metrics for PyTorch."""

import importlib

from fastgan._allocator import tune_cpu_allocator

__version__ = "0.2.0"

_LAZY_MODULES = ("data", "losses", "media", "metrics", "models", "nn", "ops", "patch", "recipes", "training")
_LAZY_NAMES = {name: "fastgan.patch" for name in ("accelerate", "patch_ops", "patched", "unpatch", "PatchReport")}
_LAZY_NAMES |= {name: "fastgan.runs" for name in ("Run", "run")}

__all__ = ["__version__", "tune_cpu_allocator", *_LAZY_MODULES, *_LAZY_NAMES]


def __getattr__(name: str):
    if name in _LAZY_MODULES:
        return importlib.import_module(f"fastgan.{name}")
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(_LAZY_NAMES[name]), name)
    raise AttributeError(f"module 'fastgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
