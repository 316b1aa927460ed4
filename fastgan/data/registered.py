"""Data sets that users add: a loader by name, and `module:function` where the user types it.

    @fastgan.data.register("mine")
    def load(*parts, split=None, resolution=None): ...             # fastgan train dcgan --data mine:cats --resolution 64

What follows the name after colons is passed on as text. Of the options of `fastgan.data.load` (`load_signals`, `load_text`) a
loader gets those that it has parameters for; one that it lacks must not be asked for. It returns anything that a
`fastgan.data.Loader` reads. A package brings a loader by its entry point `fastgan.data`.

`module:function` or `path/file.py:function` runs code, so only a user's own word is taken for it: `--data` on the command
line, or `code=True` in a call. A name that was read from a file, such as a run's config.json, imports nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastgan import user_code
from fastgan.data.dataset import Absent
from fastgan.registry import Registry

DATA = Registry("data set", "fastgan.data")


def loader(name: str, code: bool = False) -> tuple[Callable, list[str]] | None:
    """What loads the data set `name`, and the parts that follow its name; None where it is none that a user added.

    code: the user typed this name, so `module:function` is imported; from then on it counts as registered.
    """
    head, *parts = name.split(":")
    if DATA.owns(head):
        return None
    if "/" not in head and head in DATA:
        return DATA.resolve(head), parts
    if DATA.typed(name) or (code and parts and not Path(name).exists() and user_code.exists(name)):
        return DATA.resolve(name, code), []
    return None


def trust(*names: str) -> None:
    """Import the code that a user's own words name, so that `load` in this process finds these data sets."""
    for name in names:
        loader(name, code=True)


def load_registered(
    name: str | Path, options: Mapping[str, Any], entrance: Callable, code: bool = False
) -> tuple[Any, dict[str, Any]] | None:
    """The data set `name` where a user added it, and those of the `options` that its loader does not take and that are not at the
    defaults of `entrance`.

    Raises ValueError for parts after the name that the loader does not take. What the loader raises passes.
    """
    found = loader(name, code) if isinstance(name, str) else None
    if found is None:
        return None
    make, parts = found
    signature = inspect.signature(make)
    any_option = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    taken = {option: value for option, value in options.items() if any_option or option in signature.parameters}
    usual = inspect.signature(entrance).parameters
    left = {o: value for o, value in options.items() if o not in taken and value != usual[o].default}
    try:
        signature.bind(*parts, **taken)
    except TypeError as error:
        raise ValueError(f"data set {name}: its loader takes {signature} ({error})") from error
    return make(*parts, **taken), left


def absent(error: ValueError, *names: str) -> bool:
    """Whether `error`, raised where a part of the data sets `names` was asked for, says only that there is no such part. Loaders
    of users have errors of their own: each of theirs counts as one."""
    return isinstance(error, Absent) or any(loader(name) is not None for name in names)


def refuse(name: str | Path, options: Mapping[str, Any]) -> None:
    """ValueError that names the first of `options`, which the loader of data set `name` does not take."""
    for option, value in options.items():
        raise ValueError(f"{name}: {option}={value!r} is not offered: its loader takes no {option}")
