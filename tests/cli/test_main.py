"""What the program says when it fails: a line, never a traceback, whatever was raised."""

import errno
import os
import subprocess
import sys

import pytest
import torch

import fastgan.cli
from fastgan.cli import main
from fastgan.cli.options import UsageError
from fastgan.training.checkpoint import CheckpointError


@pytest.fixture
def failing(monkeypatch, tmp_path):
    """`main` of a command that raises what it is given."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(error):
        def command(_):
            raise error

        monkeypatch.setitem(fastgan.cli.COMMANDS, "info", command)
        return main(["info"])

    return run


def test_words_that_info_does_not_take(capsys):
    assert main(["info", "--help"]) == 0 and "fastgan info" in capsys.readouterr().out
    assert main(["info", "all"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "fastgan info" in said.err


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_a_program_without_standard_streams(closed, tmp_path):
    """As a service is started; what is opened next would else have the number of the output, and be printed into."""
    command = f"{sys.executable} -m fastgan completion bash {closed}; echo $? > code"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "code").read_text() == "0\n" and not done.stderr


@pytest.mark.parametrize("given", [None, type("Tee", (), {"write": lambda *a: None, "flush": lambda *a: None})()])
def test_an_output_that_is_no_file(given, monkeypatch):
    from fastgan.cli.table import show
    from fastgan.training import sinks

    monkeypatch.setattr(sys, "stdout", given)
    show(["a", ">b"], [["x", "1"]])
    assert sinks._bar() is None


def test_help_without_docstrings():
    """As python -OO leaves none: what a command is for, and the titles of its options, stand in docstrings."""
    asked = "from fastgan.cli import main, COMMANDS\nfor c in COMMANDS:\n  try: main([c, '--help'])\n  except SystemExit: pass"
    said = [
        subprocess.run([sys.executable, *how, "-c", asked], capture_output=True, text=True) for how in ([], ["-OO"])
    ]
    assert said[0].stdout == said[1].stdout and not said[1].stderr
    assert (
        "Metrics of a run" in said[1].stdout and "translation" in said[1].stdout and "None" not in said[1].stdout[:40]
    )


def test_a_broken_connection_is_said(failing, capsys):
    assert failing(BrokenPipeError(errno.EPIPE, "Broken pipe")) == 1
    assert capsys.readouterr().err == "fastgan info: [Errno 32] Broken pipe\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes without SIGPIPE")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_is_gone_is_no_error(unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        [sys.executable, "-m", "fastgan", "data", "list"], stdout=writing, stderr=subprocess.PIPE, env=environment
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def recursion():
    def deeper():
        deeper()

    try:
        deeper()
    except RecursionError as error:
        return error


UNFORESEEN = [
    KeyError("config"),
    TypeError("'NoneType' object is not iterable"),
    AttributeError("no attribute"),
    RuntimeError("mat1 and mat2 shapes\ncannot be multiplied"),
    recursion(),
    IndexError("list index out of range"),
    ZeroDivisionError("division by zero"),
    AssertionError(),
    SyntaxError("tokenize"),
    StopIteration(),
    Exception("\udcff"),
]


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
def test_what_nobody_foresaw_is_one_line_and_where_its_traceback_lies(failing, error, capsys, tmp_path):
    assert failing(error) == 1
    what, where = capsys.readouterr().err.splitlines()
    assert what.startswith(f"fastgan info: {type(error).__name__}")
    (file,) = tmp_path.iterdir()
    assert where == f"The traceback is in {file}" and "Traceback" in file.read_text() and __file__ in file.read_text()


def test_without_a_place_for_the_traceback(failing, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert failing(KeyError("config")) == 1
    assert capsys.readouterr().err == "fastgan info: KeyError: 'config' (FASTGAN_TRACEBACK=1 shows where)\n"


EXPECTED = [
    (UsageError("--a is wrong"), "--a is wrong"),
    (ValueError("x is 3, expected 4"), "x is 3, expected 4"),
    (CheckpointError("no whole checkpoint in r"), "no whole checkpoint in r"),
    (ImportError("mp4 needs PyAV"), "mp4 needs PyAV"),
    (
        FileNotFoundError("nowhere: no such file, and no corpus of that name"),
        "nowhere: no such file, and no corpus of that name",
    ),
    (PermissionError(errno.EACCES, "Permission denied", "r/config.json"), "r/config.json: Permission denied"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "file/r"), "file/r: Not a directory"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", ".a", None, "a"), ".a -> a: Is a directory"),
    (MemoryError(), "out of memory: smaller networks, images or batches take less"),
    (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2048 bytes. Error code 12"),
        "out of memory (tried to allocate 2048 bytes): smaller networks, images or batches take less",
    ),
    (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
        "out of memory (Tried to allocate 2.00 GiB): smaller networks, images or batches take less",
    ),
    (OSError(errno.EROFS, "Read-only file system", "r"), "r: Read-only file system"),
]


@pytest.mark.parametrize(("error", "said"), EXPECTED, ids=lambda value: type(value).__name__)
def test_mistakes_of_the_user_are_said_plainly(failing, error, said, capsys, tmp_path):
    assert failing(error) == 1
    assert capsys.readouterr().err == f"fastgan info: {said}\n" and list(tmp_path.iterdir()) == []


def test_ctrl_c_is_quiet(failing, capsys):
    assert failing(KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "")


def test_the_traceback_can_be_asked_for(failing, monkeypatch):
    monkeypatch.setenv("FASTGAN_TRACEBACK", "1")
    with pytest.raises(KeyError):
        failing(KeyError("config"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_the_letters(tmp_path, encoding):
    code = (
        "import fastgan.cli as c; c.COMMANDS['info'] = lambda _: print('\\u6625 \\udcff') or 0; exit(c.main(['info']))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    assert done.stdout.decode(encoding).strip() == ("春" if encoding == "utf-8" else "\\u6625") + " \\udcff"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_to_a_full_disk():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fastgan", "data", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and done.stderr == "fastgan data: [Errno 28] No space left on device\n"


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp's variable")
@pytest.mark.parametrize("policy", [None, "active"])
def test_waiting_threads_leave_their_core(policy):
    """As libgomp itself says when PyTorch loads it."""
    mine = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    mine |= {"OMP_DISPLAY_ENV": "verbose"} | ({"OMP_WAIT_POLICY": policy} if policy else {})
    said = subprocess.run([sys.executable, "-m", "fastgan", "info"], env=mine, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert (f"GOMP_SPINCOUNT = '{fastgan.cli.SPINS}'" in said.stderr) == (policy is None), said.stderr
