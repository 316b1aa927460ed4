"""Where a run is told of: metrics.jsonl, the terminal or notebook, TensorBoard, Weights & Biases, Trackio, report.html, and what
users add. Rank 0 alone has any.

A sink is made by calling what its name stands for with (folder, step, config):

    folder: of the run; it exists and is this process's own.
    step: that the run begins at: 0 in a new one; what a resumed run had told of later steps is told again.
    config: what config.json says, JSON-able: recipe (its name), config (its options), run, data (facts).

It may name the package it needs as `package`, and how to get that as `pip`; both are checked before anything is written.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from fastgan.fields import shorten
from fastgan.files import complete, to_json
from fastgan.media import Medium
from fastgan.registry import Registry
from fastgan.training.log import read_metrics
from fastgan.training.recipe import Recipe
from fastgan.training.report import write_report
from fastgan.training.run import read_config


class SinkFailed(RuntimeError):
    """A sink that was asked for by name could not be opened."""


class Sink(Protocol):
    """What a run tells and shows; a class that derives from this one needs only what it uses.

    An exception in `write` or `show` ends no run: it is said once, with the sink's name, and the sink is called again.
    """

    def write(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name at a step, which may come twice: losses, speed, memory and "seconds" of training in one call, figures
        of a measurement in another."""

    def show(self, step: int, path: Path) -> None:
        """Samples at a step, as the recipe's medium saves them: a picture or a .txt; beside it, where the medium has them, other
        files of the same stem (.wav)."""

    def close(self) -> None:
        """The run has ended: at its last step, interrupted or failed."""


class JSONLines(Sink):
    """The run's own record: an object per `write` in metrics.jsonl, where null is a number that is NaN or infinite. A resumed run
    cuts off the lines of later steps."""

    def __init__(self, folder: Path, step: int, config: dict[str, Any]):
        path = folder / "metrics.jsonl"
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise FileExistsError(errno.EEXIST, "is no ordinary file", str(path))
        if path.exists():
            kept = [row for row in read_metrics(path) if row["step"] <= step]
            with complete(path) as temporary:
                temporary.write_text("".join(to_json(row) + "\n" for row in kept), encoding="utf-8")
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open for the whole run

    def write(self, step: int, values: dict[str, float]) -> None:
        self._file.write(to_json({"step": step, **values}) + "\n")

    def close(self) -> None:
        self._file.close()


class Console(Sink):
    """A bar on a terminal, and in a notebook that has ipywidgets; elsewhere a plain line now and then: often at first, then every
    `PLAIN_EVERY` seconds. Of a measurement the figures whose names begin with one of `headline`, in their first column.

    Args:
        total, done: steps of the run, and those already made.
        unit: what a batch counts.
    """

    PLAIN_EVERY = 15.0

    def __init__(self, total: int, done: int, unit: str, headline: tuple[str, ...]):
        self.total, self.unit, self.headline = total, unit, headline
        self._began, self._next_line = time.perf_counter(), 1.0
        # The estimate follows the last rows: phases of a run differ in the cost of a step.
        self._recent = deque([(done, self._began)], maxlen=5)
        self._bar = _bar()
        if self._bar is not None:
            self._task = self._bar.add_task("train", total=total, completed=done, text="")
            self._bar.start()

    def write(self, step: int, values: dict[str, float]) -> None:
        if _measured(values):
            shown = [(name.rpartition("/"), v) for name, v in values.items() if name.startswith(self.headline)]
            figures = [f"{name} {v:.3f}" for (name, _, column), v in shown if column == shown[0][0][2]]
            if figures:
                print(f"step {step}: {'  '.join(figures)}", flush=True)
            return
        losses = [f"{name.removesuffix('/loss')} {v:.3f}" for name, v in values.items() if name.endswith("/loss")]
        rate = values[f"speed/{self.unit}_per_second"]
        speed = f"{rate:{'.0f' if rate >= 10 else '.2g'}} {self.unit}/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text="  ".join([*losses, speed]), refresh=step == self.total)
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
        print(f"step {step}/{self.total}  {'  '.join(losses)}  {speed}  ETA {clock}", flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar():
    """rich's, above which lines of `print` appear; None where neither a terminal nor a notebook can show one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    notebook = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    if not (notebook or getattr(sys.stdout, "isatty", bool)()):
        return None
    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn()]
    # A notebook keeps the bar in a widget of its own and what is printed below it.
    return Progress(*columns, console=console, redirect_stdout=not notebook, redirect_stderr=not notebook)


class Report(Sink):
    """report.html, written anew whenever there is something to see, and at the end. Of a long run's log it takes seconds: at most
    a `SHARE` of the time goes into it."""

    SHARE = 0.05

    def __init__(self, folder: Path, medium: type[Medium]):
        self.folder, self.medium = folder, medium
        self._place = os.stat(folder)
        self._due = 0.0

    def write(self, step: int, values: dict[str, float]) -> None:
        if _measured(values):
            self._write_if_due()

    def show(self, step: int, path: Path) -> None:
        self._write_if_due()

    def close(self) -> None:
        self._write()

    def _write_if_due(self) -> None:
        began = time.perf_counter()
        if began >= self._due:
            self._write()
            ended = time.perf_counter()
            self._due = ended + (ended - began) / self.SHARE

    def _write(self) -> None:
        if os.path.samestat(self._place, os.stat(self.folder)):  # else it has gone, and another one may be there
            write_report(self.folder, self.medium)


def _measured(values: dict[str, float]) -> bool:
    """Whether these are the figures of a measurement; a row of training has its seconds."""
    return "seconds" not in values


RECORD = "jsonl"
SINKS = Registry("sink", "fastgan.sinks").own(
    {
        RECORD: ("fastgan.training.sinks:JSONLines", "metrics.jsonl in the run folder, always written"),
        "tensorboard": ("fastgan.training.loggers:TensorBoard", "event files in the run folder"),
        "wandb": ("fastgan.training.loggers:WandB", "Weights & Biases; WANDB_MODE=offline keeps it local"),
        "trackio": ("fastgan.training.loggers:Trackio", "Trackio's local store: trackio show --project fastgan"),
    }
)


def find(names: Sequence[str]) -> dict[str, Callable[..., Sink]]:
    """What makes the sinks of these names, the record first, whether it is named or not. A caller's own words: of those with a
    colon the code is imported.

    Raises ValueError for a name that is unknown or comes twice; ImportError with the pip command for a package that is missing.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"log is {tuple(names)}, which names {name!r} {count} times; expected each once")
    found = {}
    for name in dict.fromkeys([RECORD, *names]):
        found[name] = SINKS.resolve(name, code=True)
        if package := getattr(found[name], "package", None):
            try:
                importlib.import_module(package)
            except ImportError as error:
                pip = getattr(found[name], "pip", package)
                raise ImportError(f"log to {name}: {package} is not usable ({error}): pip install '{pip}'") from error
    return found


class Sinks:
    """All sinks of a run, as one.

    What one of them raises is said once and ends no run, except that the record's own disk fails: an OSError of metrics.jsonl
    passes.

    Args:
        names: those to be made when the run begins.
        given: sinks that exist; names among them are in `names` too.

    Raises what `find` raises; TypeError for a given one that is no sink.
    """

    def __init__(self, names: Sequence[str], given: Sequence[Sink | str]):
        self._given = [sink for sink in given if not isinstance(sink, str)]
        for sink in self._given:
            methods = [getattr(sink, name, None) for name in ("write", "show", "close")]
            if isinstance(sink, type) or not all(map(callable, methods)):
                what = f"the class {sink.__name__}" if isinstance(sink, type) else f"a {type(sink).__name__}"
                raise TypeError(f"sinks[{given.index(sink)}] is {what}, expected an object with write, show and close")
        self._factories = find(names)
        self._sinks: list[tuple[str, Sink]] = []
        self._said: set[int] = set()

    def open(self, folder: Path, step: int, recipe: Recipe) -> None:
        """Make those that were named. Raises SinkFailed, or OSError where the disk is the reason."""
        saved = read_config(folder)
        config = {name: saved[name] for name in ("recipe", "config", "run", "data")}
        for name, make in self._factories.items():
            try:
                self._sinks.append((name, make(folder, step, config)))
            except OSError:
                raise
            except Exception as error:
                raise SinkFailed(f"{name} cannot be opened ({type(error).__name__}: {shorten(error)})") from error
        self._sinks += [(type(sink).__name__, sink) for sink in self._given]
        console = Console(recipe.config.steps, step, recipe.medium.unit, recipe.headline)
        self._sinks += [("the progress line", console), ("report.html", Report(folder, recipe.medium))]

    def write(self, step: int, values: dict[str, float]) -> None:
        self._each(lambda sink: sink.write(step, dict(values)))

    def show(self, step: int, path: Path) -> None:
        self._each(lambda sink: sink.show(step, path))

    def close(self) -> None:
        """The last one first. Never raises: an error on the way out must not hide the one that led here."""
        self._sinks.reverse()
        self._each(lambda sink: sink.close(), closing=True)
        self._sinks.clear()

    def _each(self, tell: Callable[[Sink], None], closing: bool = False) -> None:
        for name, sink in self._sinks:
            try:
                tell(sink)
            except Exception as error:
                if isinstance(sink, JSONLines) and isinstance(error, OSError) and not closing:
                    raise
                if id(sink) not in self._said:
                    self._said.add(id(sink))
                    with contextlib.suppress(OSError):  # stdout may be what failed
                        print(f"{name} was not written: {type(error).__name__}: {shorten(error)}", flush=True)
