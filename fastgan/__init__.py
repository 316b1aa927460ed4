"""fastgan: fused GAN kernels, models, training and metrics for PyTorch."""

import importlib
from typing import TYPE_CHECKING

from fastgan._allocator import tune_cpu_allocator

if TYPE_CHECKING:  # what is loaded when it is first asked for, as a type checker sees it
    from fastgan import (
        data,
        editing,
        export,
        losses,
        media,
        metrics,
        models,
        nn,
        ops,
        patch,
        recipes,
        sharing,
        training,
    )
    from fastgan.patch import PatchReport, accelerate, patch_ops, patched, unpatch
    from fastgan.runs import Run, run

__version__ = "0.2.0"

__all__ = [
    "PatchReport",
    "Run",
    "__version__",
    "accelerate",
    "data",
    "editing",
    "export",
    "losses",
    "media",
    "metrics",
    "models",
    "nn",
    "ops",
    "patch",
    "patch_ops",
    "patched",
    "recipes",
    "run",
    "sharing",
    "training",
    "tune_cpu_allocator",
    "unpatch",
]
_FROM = {name: "fastgan.patch" for name in ("accelerate", "patch_ops", "patched", "unpatch", "PatchReport")}
_FROM |= {name: "fastgan.runs" for name in ("Run", "run")}


def __getattr__(name: str):
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    if name in __all__:
        return importlib.import_module(f"fastgan.{name}")
    raise AttributeError(f"module 'fastgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({name for name in globals() if name.startswith("__")} | {*__all__})
