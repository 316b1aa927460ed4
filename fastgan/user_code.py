"""Code that a user names: `module:Attribute` or `path/file.py:Attribute`. Finding it runs it, so the name must be the user's own
word: never one that was read from a file."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from fastgan.fields import clip

_files: dict[str, str] = {}  # modules that were read from a file by its path: name -> path


def find(name: str) -> Any:
    """What `name` stands for. A module is looked for in the working directory first, as by `python -m`; a file may import its
    neighbours.

    Raises ValueError where there is no such module, file or attribute. What the code itself raises passes.
    """
    place, _, attribute = absolute(name).rpartition(":")
    if place.endswith(".py"):
        return _attribute(_read(Path(place)), attribute, name)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if not f"{place}.".startswith(f"{error.name}."):  # it is there, and lacks another one
            raise
        raise ValueError(f"{clip(name)}: there is no module {error.name!r}, installed or in {os.getcwd()}") from error
    return _attribute(module, attribute, name)


def exists(name: str) -> bool:
    """Whether there is a file or a package for `name`, of which nothing is run."""
    place = absolute(name).rpartition(":")[0]
    if place.endswith(".py"):
        return os.path.isfile(place)
    root = place.partition(".")[0]
    found = importlib.machinery.PathFinder.find_spec(root, [os.getcwd(), *sys.path]) if root.isidentifier() else None
    return root in sys.modules or found is not None


def absolute(name: str) -> str:
    """`name`, from whichever folder its file is looked for."""
    place, _, attribute = name.rpartition(":")
    return f"{os.path.abspath(os.path.expanduser(place))}:{attribute}" if place.endswith(".py") else name


def name_of(target: Any) -> str:
    """The name by which `find` finds a class or function again; `__main__:Attribute`, which nobody else finds, in a notebook."""
    module = target.__module__
    file = getattr(sys.modules["__main__"], "__file__", None) if module == "__main__" else _files.get(module)
    return f"{module if file is None else os.path.abspath(file)}:{target.__qualname__}"


def _attribute(module: ModuleType, attribute: str, name: str) -> Any:
    try:
        return functools.reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        raise ValueError(f"{clip(name)}: there is no {attribute!r} in {module.__name__}") from error


def _read(path: Path) -> ModuleType:
    """The module in the file `path`. It is called what `import` would call it, so that processes of our own find it too, unless
    that name means another module."""
    for name, file in _files.items():
        if file == str(path):
            return sys.modules[name]
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last: a file called signal.py hides no module
    importlib.invalidate_caches()
    name = path.stem if _is_called(path) else f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    _files[name] = str(path)
    return sys.modules[name]


def _is_called(path: Path) -> bool:
    """Whether the module that `import` finds by the file's name is this file."""
    if path.stem in sys.modules:
        return getattr(sys.modules[path.stem], "__file__", None) == str(path)
    found = importlib.util.find_spec(path.stem) if path.stem.isidentifier() else None
    return found is not None and found.origin == str(path)
