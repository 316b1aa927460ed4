"""Tables that users extend: recipes, models, data sets, losses, extractors, metrics and sinks, by name.

A name is one of fastgan's own, or a program's (`RECIPES.register`), or an installed package's, which says in its pyproject.toml

    [project.entry-points."fastgan.recipes"]
    mine = "mypackage.recipes:Mine"

A name of fastgan's own is never replaced: registering it is a ValueError, and a package that offers it is passed over with a
warning. A program's registration wins over a package's, and its later one over its earlier.

Nothing is imported, and no package is looked at, before somebody asks for a name that is not fastgan's own, or for all names.
"""

from __future__ import annotations

import functools
import importlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

from fastgan import user_code
from fastgan.fields import clip
from fastgan.names import did_you_mean


class Packaged(list):
    """The entry points that packages offer by one name."""


class Entry(NamedTuple):
    """`target`: "module:Attribute", the object itself, or `Packaged`."""

    target: Any
    help: str = ""


class Registry(Mapping[str, Entry]):
    """Names and what they stand for, as a mapping of name to `Entry`.

    Args:
        kind: what a name is the name of, for messages: "recipe".
        group: the entry points that packages extend it by: "fastgan.recipes".
    """

    def __init__(self, kind: str, group: str):
        self.kind, self.group = kind, group
        self._ours: dict[str, Entry] = {}
        self._given: dict[str, Entry] = {}
        self._typed: dict[str, Any] = {}

    def own(self, rows: Mapping[str, str | tuple[str, str]]) -> Registry:
        """Take up fastgan's own names: "module:Attribute", or a pair of that and a line of help, by name."""
        self._ours |= {name: Entry(row) if isinstance(row, str) else Entry(*row) for name, row in rows.items()}
        return self

    def __getitem__(self, name: str) -> Entry:
        return self._ours.get(name) or self._given.get(name) or self._packaged()[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._ours, **self._packaged(), **self._given})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def owns(self, name: str) -> bool:
        """Whether `name` is one of fastgan's own."""
        return name in self._ours

    def added(self) -> list[str]:
        """The names that are not fastgan's own."""
        return [name for name in self if name not in self._ours]

    def __repr__(self) -> str:
        return f"{self.kind}s: {', '.join(self)}"

    def register(self, name: str, target: Any = None, help: str = "") -> Any:
        """Let `name` stand for `target`, and return it; without a target a decorator: `@RECIPES.register("mine")`.

        Args:
            name: letters, digits, "_", "." and "-".
            target: the object, or "module:Attribute", which is imported when it is first asked for.
            help: a line for the list of names.

        Raises ValueError for a name of another form, or one of fastgan's own.
        """
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"{self.kind} {clip(name, 200)}: expected a name of letters, digits, '_', '.' and '-'")
        if name in self._ours:
            raise ValueError(f"{self.kind} {name!r} is one of fastgan's own: choose another name")
        if target is None:
            return functools.partial(self.register, name, help=help)
        self._given[name] = Entry(target, help)
        return target

    def resolve(self, name: str, code: bool = False) -> Any:
        """What `name` stands for, imported where it has to be.

        code: a person typed this name, so it may be `module:Attribute` or `path/file.py:Attribute`, whose code then runs
        (`fastgan.user_code`); from then on it counts as registered. Never true for a name that was read from a file.

        Raises ValueError for an unknown name; ImportError that names the package whose entry point cannot be imported.
        """
        if self.typed(name):
            return self._typed[user_code.absolute(name)]
        entry = self.get(name)
        if entry is None:
            if not code or ":" not in name:
                raise ValueError(self.unknown(name, code))
            return self._typed.setdefault(user_code.absolute(name), user_code.find(name))
        if isinstance(entry.target, str):
            module, _, attribute = entry.target.partition(":")
            return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        return self._load(entry.target) if isinstance(entry.target, Packaged) else entry.target

    def typed(self, name: str) -> bool:
        """Whether `name` is code that the user of this process named, and another process knows only if told again."""
        return user_code.absolute(name) in self._typed

    def unknown(self, name: str, code: bool = False) -> str:
        """The message for a name that is not here."""
        if ":" in name and not code:
            return f"{self.kind} {clip(name, 200)} is code to import, and only registered names are looked up here"
        more = ", or MODULE:NAME, or FILE.py:NAME" if code else ""
        return f"unknown {self.kind} {clip(name, 200)}{did_you_mean(name[:80], self)}; known: {', '.join(self)}{more}"

    def name_of(self, target: Any, elsewhere: bool = False) -> str:
        """The name by which `resolve` finds the class or function `target` again: the registered one, or that of its code. A
        class that was made in a function, where nobody finds it, goes by the registered one that it derives from, if any.

        elsewhere: in another process, which does not know what this program has registered.
        """
        for kind in target.__mro__ if "<locals>" in target.__qualname__ and isinstance(target, type) else [target]:
            if found := self._registered(kind, elsewhere):
                return found
        return user_code.name_of(target)

    def _registered(self, target: Any, elsewhere: bool) -> str | None:
        own = f"{target.__module__}:{target.__qualname__}"
        for name, entry in self.items():
            if elsewhere and name in self._given:
                continue
            points = entry.target if isinstance(entry.target, Packaged) else ()
            if entry.target is target or entry.target == own or [p.value for p in points] == [own]:
                return name
        return None

    def _packaged(self) -> dict[str, Entry]:
        found: dict[str, Packaged] = {}
        for point in _entry_points(self.group):
            if point.name in self._ours:
                warnings.warn(
                    f"package {_package(point)} offers the {self.kind} {point.name!r}, which is one of fastgan's own and stays"
                    f" so; the package's is {point.value}",
                    stacklevel=3,
                )
            elif point not in found.setdefault(point.name, Packaged()):
                found[point.name].append(point)
        return {name: Entry(points, f"from {' and '.join(map(_package, points))}") for name, points in found.items()}

    def _load(self, points: Packaged) -> Any:
        point = points[0]
        if points[1:]:
            packages, values = " and ".join(map(_package, points)), " and ".join(p.value for p in points)
            raise ValueError(f"packages {packages} both offer the {self.kind} {point.name!r}: {values}")
        try:
            return point.load()
        except Exception as error:
            raise ImportError(
                f"{self.kind} {point.name!r} of package {_package(point)} ({point.value}) cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error


def _entry_points(group: str) -> Iterable[metadata.EntryPoint]:
    try:
        return metadata.entry_points(group=group)
    except Exception:  # one package's unreadable entry_points.txt spoils the reading of all
        found = []
        for package in metadata.distributions():
            try:
                found += package.entry_points.select(group=group)
            except Exception as error:
                warnings.warn(f"the entry points of package {package.name} cannot be read: {error}", stacklevel=5)
        return found


def _package(point: metadata.EntryPoint) -> str:
    return point.value if point.dist is None else point.dist.name
