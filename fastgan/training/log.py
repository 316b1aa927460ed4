"""What goes into a run's log, and how it is read: rows of metrics.jsonl, files of samples."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan.media import Image, Medium, Text
from fastgan.options import EXACT
from fastgan.training.recipe import Recipe
from fastgan.training.run import RunOptions

SAID = 5  # lines that `read_metrics` names, of those it leaves out


class Meter:
    """What training costs, for a row of the log.

    Args:
        loader: of the data, which knows how long it was waited for.
        unit: what a batch counts.
        per_step: of them in a step, over all processes.
        step, seconds: where the run begins.
    """

    def __init__(self, loader, device: torch.device, unit: str, per_step: int, step: int, seconds: float):
        self.loader, self.device, self.unit, self.per_step = loader, device, unit, per_step
        self._step, self._seconds, self._waited = step, seconds, 0.0
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return self._seconds + time.perf_counter() - self._began

    def row(self, step: int) -> dict[str, float]:
        """Speed and waiting since the last row; unreadable items, memory and seconds of training so far."""
        now, waited = time.perf_counter(), self.loader.wait_seconds
        passed = now - self._began
        self._seconds += passed
        row = {
            f"speed/{self.unit}_per_second": (step - self._step) * self.per_step / passed,
            "speed/data_wait_share": (waited - self._waited) / passed,
            "data/skipped": self.loader.skipped or None,
            "memory/peak_mib": memory_mib(self.device),
            "seconds": self._seconds,
        }
        self._began, self._step, self._waited = now, step, waited
        return {name: value for name, value in row.items() if value is not None}


def measure(
    recipe: Recipe, networks: dict[str, nn.Module], run: RunOptions, say: Callable[[Any], None]
) -> dict[str, float]:
    """What `recipe.evaluate` finds during a run, as "figure/column". What cannot be measured is said; the run is worth more."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *where, **more: say(message)
        try:
            columns = recipe.evaluate(networks, dataclasses.asdict(run), run.metrics_samples)
        except (ValueError, OSError, ImportError) as error:
            say(f"not measured ({error})")
            return {}
    return {f"{name}/{column}": value for column, values in columns.items() for name, value in values.items()}


def memory_mib(device: torch.device) -> float | None:
    """Greatest memory use so far, in MiB: of this process on the CPU (None on Windows), of its tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # On Linux ru_maxrss begins with what the process that started this one held, a notebook's gigabytes for one.
    status = Path("/proc/self/status")
    if status.exists() and (peak := re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"), re.M)):
        return int(peak[1]) / 2**10
    try:
        import resource
    except ImportError:
        return None
    # macOS counts bytes, Linux KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def read_metrics(path: Path, say: Callable[[str], None] | None = None) -> list[dict]:
    """The rows of a metrics.jsonl: objects of numbers, with a step. null is NaN: JSON has neither that nor infinity.

    say: called with a sentence for each of the first lines that are none, and for how many more there are; by default it goes to
    stderr. A kill or a full disk may leave half a line, on which a resumed run then goes on.
    """
    say = say or (lambda text: print(text, file=sys.stderr))
    rows, bad = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                rows.append(_row(json.loads(line.decode())))
            except (ValueError, RecursionError) as error:
                bad.append(f"{path}:{number} is left out: {str(error) or 'nested too deeply'}")
    for sentence in bad[:SAID]:
        say(sentence)
    if bad[SAID:]:
        say(f"{path}: {len(bad) - SAID} more lines are left out")
    return rows


def _row(value: Any) -> dict:
    if not isinstance(value, dict) or type(value.get("step")) is not int or not 0 <= value["step"] <= EXACT:
        raise ValueError("expected an object with a step")
    value = {name: math.nan if number is None else number for name, number in value.items()}
    for number in value.values():
        if type(number) is not float and (type(number) is not int or abs(number) > EXACT):
            raise ValueError("expected numbers")
    return value


def save_samples(
    samples: torch.Tensor | list[str],
    path: Path,
    medium: type[Medium] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write samples as `medium` does (None: lists as texts, tensors as images), in a folder that is made. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    medium = medium or (Text if isinstance(samples, list) else Image)
    return medium.save(samples, path, facts)
