"""What a run tells: metrics.jsonl and TensorBoard, the progress line, the sample grids. Used by rank 0 alone."""

from __future__ import annotations

import errno
import json
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fastgan.files import complete
from fastgan.media import Image, Medium, Text
from fastgan.media import save_grid as save_grid
from fastgan.options import EXACT

SAID = 5  # lines that `read_metrics` names, of those it leaves out


class MetricsLog:
    """One JSON object per logged step in `metrics.jsonl`, and the same numbers in TensorBoard's event files.

    A resumed run continues at `step`: lines of later steps are cut off, and TensorBoard is told to forget them.
    """

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "metrics.jsonl"
        if self.path.exists() and not self.path.is_file():  # a pipe would be waited for
            raise FileExistsError(errno.EEXIST, "is no ordinary file", str(self.path))
        if self.path.exists():
            kept = [row for row in read_metrics(self.path) if row["step"] <= step]
            with complete(self.path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = open(self.path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open for the whole run
        self._hook, threading.excepthook = threading.excepthook, self._failed
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def _failed(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard's own thread could not write: its traceback is not shown, as the next call raises the error again."""
        if not issubclass(failure.exc_type, OSError):
            self._hook(failure)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def show(self, step: int, path: Path) -> None:
        """Show a sample grid, or sample texts, in TensorBoard."""
        if path.suffix == ".txt":
            self._board.add_text("samples", path.read_text(encoding="utf-8").replace("\n", "  \n"), step)
            return
        import numpy as np
        from PIL import Image

        self._board.add_image("samples", np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        try:
            self._file.close()
            self._board.close()
        finally:
            threading.excepthook = self._hook


def memory_mib(device: torch.device) -> float:
    """Greatest memory use so far, in MiB: of this process on the CPU, of its tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def read_metrics(path: Path, say: Callable[[str], None] | None = None) -> list[dict]:
    """The rows of a metrics.jsonl: objects of numbers, with a step.

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
    row = {name: number for name, number in value.items() if number is not None}
    if any(type(v) not in (int, float) or (type(v) is int and abs(v) > EXACT) for v in row.values()):
        raise ValueError("expected numbers")
    return row


class Progress:
    """A bar on a terminal; elsewhere a plain line now and then: often at first, then every `PLAIN_EVERY` seconds."""

    PLAIN_EVERY = 15.0

    def __init__(self, total: int, done: int, unit: str = "images"):
        self.total, self.unit = total, unit
        self._began, self._next_line = time.perf_counter(), 1.0
        # The estimate follows the last shows: phases of a run differ in the cost of a step.
        self._recent = deque([(done, self._began)], maxlen=5)
        self._bar = None
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn()]
            self._bar = Progress(*columns)
            self._task = self._bar.add_task("train", total=total, completed=done, text="")
            self._bar.start()

    def show(self, step: int, values: dict[str, float], rate: float) -> None:
        losses = "  ".join(
            f"{name.removesuffix('/loss')} {v:.3f}" for name, v in values.items() if name.endswith("/loss")
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=f"{losses}  {rate:.0f} {self.unit}/s")
            return
        now = time.perf_counter()
        elapsed = now - self._began
        first, then = self._recent[0]
        self._recent.append((step, now))
        if elapsed < self._next_line and step < self.total:
            return
        self._next_line = elapsed + min(self.PLAIN_EVERY, max(elapsed, 2.0))
        left = (now - then) / max(step - first, 1) * (self.total - step)
        clock = f"{int(left) // 60}:{int(left) % 60:02d}"
        print(f"step {step}/{self.total}  {losses}  {rate:.0f} {self.unit}/s  ETA {clock}", flush=True)

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        print(text, flush=True) if self._bar is None else self._bar.console.print(text, markup=False, highlight=False)

    def headline(self, step: int, values: dict[str, float], names: tuple[str, ...]) -> None:
        """A line of the figures whose names begin with one of `names`."""
        shown = [f"{name} {value:.3f}" for name, value in values.items() if name.startswith(names)]
        if shown:
            self.say(f"step {step}: " + "  ".join(shown))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


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
