"""Ctrl-C, a polite kill and a lost terminal end a run between two steps, with a checkpoint, and anything else with a word."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

# SIGHUP, which Windows has not: the terminal is gone.
NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C asked the program to end."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def number_of(stop: KeyboardInterrupt) -> int:
    """The signal behind it."""
    return stop.number if isinstance(stop, Stopped) else signal.SIGINT


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Within this context SIGTERM and SIGHUP raise `Stopped`, as SIGINT raises KeyboardInterrupt.

    What is ignored (nohup) stays so. Processes of torchrun keep the usual actions: it tells what happened to them, and one that
    waits for another in C++ would not get to see the exception.
    """

    def stop(number: int, frame) -> None:
        raise Stopped(number)

    before = {}
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        with contextlib.suppress(ValueError):  # only the main thread may
            for number in NUMBERS:
                if signal.getsignal(number) == signal.SIG_DFL:
                    before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopSignal:
    """Within its context the first SIGINT, SIGTERM or SIGHUP only sets `number`; a second one acts as usual."""

    def __init__(self):
        self.number = 0
        self._before = {}

    def __enter__(self) -> StopSignal:
        with contextlib.suppress(ValueError):  # only the main thread may; elsewhere a run just cannot be interrupted
            for number in NUMBERS:
                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame) -> None:
        self.number = number
        signal.signal(number, self._before[number])

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name
