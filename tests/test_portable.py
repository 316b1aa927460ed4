"""The package without what Windows lacks. It never ran there: these are the differences that are known."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from fastgan import files
from fastgan.training import checkpoint

# fastgan after all that it imports from others, which have their own ways on Windows.
WITHOUT = """
import importlib, os, pathlib, pkgutil, signal, sys
import torch, fastgan

def modules():
    found = (module.name for module in pkgutil.walk_packages(fastgan.__path__, "fastgan."))
    return [name for name in found if not name.endswith(("_C", "_C_cuda", "__main__", "nn.keras"))]  # keras is an extra

for name in modules():
    importlib.import_module(name)
for name in [name for name in sys.modules if name.startswith("fastgan.") and not name.startswith(("fastgan.ops", "fastgan._"))]:
    del sys.modules[name]
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None  # its import is an ImportError
for name in ("SIGHUP", "SIGKILL", "SIGUSR1"):
    delattr(signal, name)
for name in ("O_NONBLOCK", "fork", "getloadavg", "getuid", "sched_getaffinity"):
    delattr(os, name)
for name in modules():
    importlib.import_module(name)

from fastgan.training.log import memory_mib
from fastgan.training.signals import StopSignal, stopping
pathlib.Path.exists = lambda self: False  # no /proc
assert memory_mib(torch.device("cpu")) is None
with stopping(), StopSignal() as stop:
    assert stop.number == 0
"""


def test_imports_and_stops_without_posix():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_where_a_folder_cannot_be_opened(tmp_path, monkeypatch):
    opened = os.open

    def refusing(path, *rest):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(checkpoint.os, "open", refusing)
    checkpoint._sync_folder(tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    try:
        checkpoint._sync_folder(tmp_path)
        raise AssertionError("a folder was opened")
    except PermissionError:
        pass


def test_the_lock_of_windows(tmp_path, monkeypatch):
    calls, held = [], []

    def locking(number, mode, count):
        calls.append((os.lseek(number, 0, os.SEEK_CUR), mode, count))
        if held:
            raise OSError(36, "Resource deadlock avoided")
        held.append(number)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    with open(tmp_path / "a", "wb") as file:
        assert files.lock(file) and not files.lock(file)
    assert calls == [(2**30, 2, 1)] * 2  # far behind the note, which stays readable


def test_memory_of_a_cpu_is_counted_here():
    from fastgan.training.log import memory_mib

    assert sys.platform == "win32" or memory_mib(torch.device("cpu")) > 10


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone counts the parent's")
def test_memory_is_not_that_of_who_started_the_process():
    """A process of a notebook that holds gigabytes."""
    ask = "import torch; from fastgan.training.log import memory_mib; print(memory_mib(torch.device('cpu')))"
    script = (
        f"import subprocess, sys; b = b'1' * (3 << 30); subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 10 < float(done.stdout) < 2000
