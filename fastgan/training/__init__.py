"""Training: the engine that runs recipes, and what it is made of.

`Trainer` needs the packages of the extra `train`; importing this package does not.
"""

import importlib

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

__all__ = sorted(_NAMES)


def __getattr__(name: str):
    if name not in _NAMES:
        raise AttributeError(f"module 'fastgan.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastgan.training.{_NAMES[name]}"), name)
