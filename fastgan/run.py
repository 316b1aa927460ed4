"""`python -m fastgan.run [--accelerate] script.py ...`: a program of others, its operations replaced, without an edit.

Python is started anew on the program, with the folder of fastgan's hook on PYTHONPATH; the processes that it starts are patched
likewise. In Python `fastgan.run(...)` trains (`fastgan.runs.run`), also where this module was imported.
"""

import os
import sys
import types

import fastgan


class _Run(types.ModuleType):
    """An import of the module makes it the attribute `run` of fastgan, where the function was."""

    def __call__(self, *given, **options):
        from fastgan.runs import run

        return run(*given, **options)


USAGE = """\
usage: python -m fastgan.run [--accelerate] SCRIPT.py [ARGUMENTS ...]
       python -m fastgan.run [--accelerate] -m MODULE [ARGUMENTS ...]
       python -m fastgan.run --hook

Runs a Python program with the custom operations of the packages it imports replaced by fastgan's (fastgan.patch_ops); with
--accelerate, networks too (fastgan.accelerate), when they are first called. What was done is said on stderr.
--hook prints a folder: PYTHONPATH=THAT_FOLDER FASTGAN_PATCH=1 (or FASTGAN_PATCH=accelerate) does the same to any command.
"""


def main(arguments: list[str]) -> int:
    folder = os.path.join(os.path.dirname(os.path.abspath(fastgan.__file__)), "_site")
    if arguments == ["--hook"]:
        print(folder)
        return 0
    mode = "1"
    if arguments[:1] == ["--accelerate"]:
        mode, arguments = "accelerate", arguments[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    if not arguments or (arguments[0].startswith("-") and arguments[0] != "-m"):
        print(USAGE, end="", file=sys.stderr)
        return 2
    if arguments[0] != "-m" and not os.path.exists(arguments[0]):
        print(f"python -m fastgan.run: there is no file {arguments[0]}", file=sys.stderr)
        return 2
    path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, "PYTHONPATH": path, "FASTGAN_PATCH": mode})


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
if __name__ in sys.modules:
    sys.modules[__name__].__class__ = _Run
