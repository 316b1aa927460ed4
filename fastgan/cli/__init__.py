"""The program `fastgan`: train, sample, eval, convert, data, info. Heavy imports wait until a command needs them."""

import os
import sys

from fastgan.cli.options import UsageError
from fastgan.cli.reports import data, evaluate, info
from fastgan.cli.sample import convert, sample
from fastgan.cli.train import train

COMMANDS = {"train": train, "sample": sample, "eval": evaluate, "convert": convert, "data": data, "info": info}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 for a failure, 2 for a wrong command line, 128 + n for signal n."""
    argv = sys.argv[1:] if argv is None else argv
    command, *rest = argv or ["--help"]
    if command == "--version":
        import fastgan

        print(f"fastgan {fastgan.__version__}")
        return 0
    if command not in COMMANDS:
        known = command in ("-h", "--help")
        if not known:
            print(f"fastgan: unknown command {command!r}", file=sys.stderr)
        lines = "\n".join(f"  {name:8}{function.__doc__}" for name, function in COMMANDS.items())
        print(
            f"fastgan COMMAND ...\n\n{lines}\n\nfastgan COMMAND --help says more.", file=None if known else sys.stderr
        )
        return 0 if known and argv else 2
    try:
        code = COMMANDS[command](rest)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader is gone, as in `fastgan info | head -1`
        # Else the interpreter's last flush fails too, and says so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UsageError, ValueError, FileNotFoundError, ImportError) as error:
        if os.environ.get("FASTGAN_TRACEBACK") == "1":
            raise
        print(f"fastgan {command}: {error}", file=sys.stderr)
        return 1
