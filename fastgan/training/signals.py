"""Ctrl-C and a polite kill end a run between two steps, with a checkpoint."""

from __future__ import annotations

import contextlib
import signal


class StopSignal:
    """Within its context the first SIGINT or SIGTERM only sets `number`; a second one acts as usual."""

    def __init__(self):
        self.number = 0
        self._before = {}

    def __enter__(self) -> StopSignal:
        with contextlib.suppress(ValueError):  # only the main thread may; elsewhere a run just cannot be interrupted
            for number in (signal.SIGINT, signal.SIGTERM):
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
