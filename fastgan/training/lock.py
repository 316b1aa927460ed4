"""One writer per run: a lock that the system drops when its process ends, however it ends, and a note of who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import IO

from fastgan.files import lock


class RunHeld(RuntimeError):
    """Another process writes to the run; the message says which."""


class RunLock:
    """The lock of a run folder: `.lock` in it, which stays there and says who had it last."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / ".lock"
        self._file: IO | None = None

    def check(self) -> None:
        """Raises RunHeld if another process has the lock. Changes nothing."""
        if self.path.is_file():
            with open(self.path, "rb") as file:
                if not lock(file):
                    raise RunHeld(self._who())

    def hold(self) -> None:
        """Take the lock until `release`. Raises RunHeld."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 - open as long as the lock is held
        try:
            if not lock(file):
                time.sleep(0.1)  # perhaps it was a `check`, which lets go at once
                if not lock(file):
                    raise RunHeld(self._who())
            note = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            file.truncate(0)
            file.write(json.dumps(note) + "\n")
            file.flush()
        except BaseException:
            file.close()
            raise
        self._file = file

    @property
    def held(self) -> bool:
        return self._file is not None

    def in_place(self) -> bool:
        """Whether the lock that is held still lies in the folder: False once that was moved or deleted."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            return False

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _who(self) -> str:
        try:
            note = json.loads(self.path.read_text(encoding="utf-8"))
            who = f"process {int(note['pid'])} on {note['host']}, since {note['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        return f"{self.folder} is being written by {who}: wait for its end, stop it, or choose another --out"
