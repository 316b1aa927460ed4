"""What ends a run before its last step, and what it says then."""

from __future__ import annotations

import errno

from fastgan.training.compiled import CannotCompile
from fastgan.training.distributed import PeerLost
from fastgan.training.graphs import CannotCapture
from fastgan.training.recipe import RecipeConfig
from fastgan.training.sinks import SinkFailed
from fastgan.training.update import NotFinite

# What a run meets that is no mistake in its code.
FORESEEN = (NotFinite, PeerLost, SinkFailed, CannotCompile, CannotCapture, OSError)


class TrainingError(RuntimeError):
    """The run cannot go on; the message says why, what is safe on disk, and how to resume."""


class Interrupted(Exception):
    """A signal ended the run; the message says what is saved. `signal` is its number."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


def explain(error: Exception, step: int, config: RecipeConfig) -> tuple[str, str, str]:
    """What one of `FORESEEN` in training step `step` means, the option to resume without, and what to add; "" for none."""
    if isinstance(error, CannotCompile):
        return f"--compile: {error}", "compile", ""
    if isinstance(error, CannotCapture):
        return f"--graphs: step {step}: {error}", "graphs", ""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{'the disk is full' if full else f'step {step}: the run cannot be written'} ({error})", "", ""
    lower = isinstance(error, NotFinite) and hasattr(config, "lr")
    return f"step {step}: {error}", "", "\nA lower --lr usually helps." if lower else ""
