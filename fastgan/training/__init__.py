"""Training: the engine that runs recipes, and what it is made of.

`Trainer` needs the packages of the extra `train`; importing this package does not.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is loaded when it is first asked for, as a type checker sees it
    from fastgan.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint
    from fastgan.training.compiled import compiled_step
    from fastgan.training.engine import Trainer
    from fastgan.training.errors import Interrupted, TrainingError
    from fastgan.training.run import RunConfig, RunOptions, run_options

_NAMES = {
    "Trainer": "engine",
    "RunConfig": "run",
    "RunOptions": "run",
    "run_options": "run",
    "Interrupted": "errors",
    "TrainingError": "errors",
    "load_checkpoint": "checkpoint",
    "Checkpoint": "checkpoint",
    "CheckpointError": "checkpoint",
    "compiled_step": "compiled",
}

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Interrupted",
    "RunConfig",
    "RunOptions",
    "Trainer",
    "TrainingError",
    "compiled_step",
    "load_checkpoint",
    "run_options",
]


def __getattr__(name: str):
    if name not in _NAMES:
        raise AttributeError(f"module 'fastgan.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastgan.training.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
