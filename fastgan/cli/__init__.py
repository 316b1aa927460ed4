"""The program `fastgan`: its commands by name. Heavy imports wait until a command needs them."""

import os
import re
import select
import signal
import sys
import tempfile
import traceback

from fastgan.cli.completion import completion
from fastgan.cli.convert import convert
from fastgan.cli.data import data
from fastgan.cli.edit import directions, project
from fastgan.cli.evaluate import evaluate
from fastgan.cli.explore import explore
from fastgan.cli.export import export
from fastgan.cli.info import info
from fastgan.cli.options import UsageError, as_options, speak_of
from fastgan.cli.sample import sample
from fastgan.cli.share import pull, push
from fastgan.cli.train import train
from fastgan.names import did_you_mean
from fastgan.training.signals import number_of, stopping

COMMANDS = {
    "train": train,
    "sample": sample,
    "eval": evaluate,
    "convert": convert,
    "project": project,
    "directions": directions,
    "explore": explore,
    "export": export,
    "push": push,
    "pull": pull,
    "data": data,
    "info": info,
    "completion": completion,
}
SPINS = 10_000  # of a waiting thread
HOME = """fastgan: GANs in PyTorch, from the data to the figures

the usual commands
  fastgan train dcgan --data emoji       train on emoji, which come with the package; writes runs/dcgan-emoji
  fastgan sample runs/dcgan-emoji        draw a grid of 16 samples; --seeds 0-63 draws more
  fastgan eval runs/dcgan-emoji          measure how near the samples are to the data: FD, KID, precision, recall
  fastgan data list                      data sets by name: size, resolution, classes, licence
  fastgan info                           what is installed, and what each operation runs on here

your own pictures: a folder, or a zip
  fastgan train dcgan --data photos/ --resolution 64 --out runs/mine

more
  fastgan train --help                   the recipes: what each is for, and how long it takes
  fastgan project RUN IMAGE...           find the latents of pictures
  fastgan directions RUN                 find ways to change pictures; fastgan sample RUN --direction 0 shows one
  fastgan explore RUN                    the generator in the browser: sliders, projection, a training's newest samples;
                                         fastgan:emoji in place of a RUN is a generator that comes with the package
  fastgan convert IN.pkl OUT.safetensors other projects' checkpoints, read without running their code
  fastgan export RUN OUT.onnx            for ONNX Runtime, OpenVINO, torch.export or AOTInductor
  fastgan push RUN FOLDER|user/name      share a generator with its card, here or on huggingface.co
  fastgan pull user/name                 fetch one from there
  fastgan completion bash|zsh|fish       commands and options at the Tab key
  fastgan COMMAND --help                 all options of a command; fastgan --version"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 for a failure, 2 for a wrong command line, 128 + n for signal n."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # a service may be started with them closed
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # a sample, or a file's name, may have letters that the terminal has not
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    argv = sys.argv[1:] if argv is None else argv
    command, *rest = argv or ["--help"]
    if command == "--version":
        import fastgan

        print(f"fastgan {fastgan.__version__}")
        return 0
    if command in ("-h", "--help"):
        print(HOME)
        return 0
    if command not in COMMANDS:
        known = f"{did_you_mean(command, COMMANDS)} (there are {', '.join(COMMANDS)})"
        print(f"fastgan: unknown command {command!r}{known}", file=sys.stderr)
        return 2
    _share_cores()
    speak_of({})  # before a command has read any, errors are about files
    try:
        with stopping():
            code = COMMANDS[command](rest)
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        number = number_of(stop)
        if command == "train" or number != signal.SIGINT:
            nothing = ": nothing was written" if command == "train" else ""
            print(f"fastgan {command}: stopped by {signal.Signals(number).name}{nothing}", file=sys.stderr)
        return 128 + number
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():  # as in `fastgan info | head -1`
            _drop_output()
            return 1
        if os.environ.get("FASTGAN_TRACEBACK") == "1":
            raise
        print(f"fastgan {command}: {as_options(_explain(error))}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # a full disk behind `fastgan info > FILE`
            _drop_output()
        return 1


def _share_cores() -> None:
    """Has threads that wait for others give up their core after a short while, unless the user has settled that.

    libgomp, which PyTorch for Linux computes with, has them spin for milliseconds. On cores that other programs use too they then
    wait for a thread that cannot run, as they keep its core. The variable is read when PyTorch is loaded.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def _reader_is_gone() -> bool:
    """Whether it was the output's pipe that broke: else another one did, or a connection."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:  # no file: another program's object
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> None:
    """Else the interpreter's last flush fails too, and says so."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: Exception) -> str:
    """What is shown of an error; of one that nobody foresaw, also where its traceback lies."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        other = f" -> {error.filename2}" if error.filename2 is not None else ""
        return f"{error.filename}{other}: {error.strerror}"
    # Errors of our own classes are raised with a sentence for the user.
    if isinstance(error, (UsageError, ValueError, OSError, ImportError)) or type(error).__module__.startswith(
        "fastgan."
    ):
        return str(error)
    if isinstance(error, MemoryError) or re.search(
        "OutOfMemory|allocate memory|not enough memory|size calculation", repr(error)
    ):
        asked = re.search(r"tried to allocate [\d.]+ \w+", str(error), re.IGNORECASE)
        return f"out of memory{f' ({asked[0]})' if asked else ''}: smaller networks, images or batches take less"
    what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", prefix="fastgan-", suffix=".txt", delete=False
        ) as file:
            traceback.print_exception(error, file=file)
    except OSError:
        return f"{what} (FASTGAN_TRACEBACK=1 shows where)"
    return f"{what}\nThe traceback is in {file.name}"
