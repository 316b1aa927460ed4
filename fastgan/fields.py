"""Dataclasses whose values come from a file or a caller, checked against their own type hints."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import math
import numbers
import os
import sys
import textwrap
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Union


def clip(value: Any, length: int = 80) -> str:
    """What an error message shows of `value`, whoever made it: bounded in length and in time, whatever it holds."""
    if isinstance(value, str):
        text = repr(value[: length + 1])
        return text if len(value) <= length else f"{text[:length]}..."
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() <= 64):
        return repr(value)
    if isinstance(value, list | tuple) and len(value) <= 8 and all(isinstance(v, int | float | str) for v in value):
        inner = ", ".join(clip(v, length // 4) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    kind = type(value).__name__
    return f"a {kind} of {len(value)}" if isinstance(value, list | tuple | dict | set | bytes) else f"a {kind}"


def shorten(error: object, length: int = 400) -> str:
    """An error's message for use in another one: those of torch list every tensor, and any may quote a file's own text, whose
    escape sequences would reach the terminal."""
    text = str(error)
    text = text if len(text) <= length else text[:length] + " ..."
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


class Mismatch(ValueError):
    """A value that its field's type does not allow."""


def _expected(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_expected(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple and ... not in typing.get_args(hint):
        return f"({', '.join(map(_expected, typing.get_args(hint)))})"
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "nothing"}
    return plain.get(hint) or str(hint).replace("typing.", "")


def conform(value: Any, hint: Any, name: str) -> Any:
    """`value` as `hint` wants it: lists become tuples, NumPy's numbers Python's, paths text, and dicts the dataclasses that they
    describe; nothing else changes. Raises Mismatch that names the field."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        for part in parts:
            try:
                return conform(value, part, name)
            except Mismatch:
                continue
    elif origin is Literal:
        if isinstance(value, str | int) and value in parts:
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        each = (parts[0],) * len(value) if parts[1:] == (...,) else parts
        if len(each) == len(value):
            return tuple(conform(v, h, f"{name}[{i}]") for i, (v, h) in enumerate(zip(value, each, strict=True)))
    elif origin is list and isinstance(value, list):
        return [conform(v, parts[0], f"{name}[{i}]") for i, v in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        return {conform(k, parts[0], name): conform(v, parts[1], f"{name}[{clip(k)}]") for k, v in value.items()}
    elif hint in (int, float):
        whole = isinstance(value, numbers.Integral) and abs(int(value)) < 2**63
        real = hint is float and isinstance(value, numbers.Real) and math.isfinite(value)
        if not isinstance(value, bool) and (whole or real):
            return value if type(value) in (int, float) else int(value) if whole else float(value)
    elif hint is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    elif dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return build(hint, value, name)
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise Mismatch(f"{name} is {clip(value)}, expected {_expected(hint)}")


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Type by field name of a dataclass or a TypedDict; Any for a class made in a function, whose annotations only that function
    understands."""
    try:
        return typing.get_type_hints(cls)
    except NameError:
        return {field.name: Any for field in dataclasses.fields(cls)}


def docstring(thing: type | Callable) -> str:
    """That of a class or a function, read from its source under `python -OO`, which keeps none; empty where there is none, or
    where it is the signature that Python makes of a dataclass."""
    text = thing.__doc__ or ""
    if not text.startswith(f"{thing.__name__}(") and (text or sys.flags.optimize < 2):
        return text
    with contextlib.suppress(OSError, TypeError, SyntaxError, IndexError):  # made by a function, or typed at a prompt
        return ast.get_docstring(ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]) or ""
    return ""


def about(cls: type) -> str:
    """A dataclass's docstring as one line; empty where it has none."""
    return " ".join(docstring(cls).split())


@functools.cache
def docs(cls: type) -> dict[str, str]:
    """Docstring by field name of a dataclass, as one line; those whose source is not at hand are absent."""
    found = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        except (OSError, TypeError, SyntaxError, AttributeError):  # made by a function, or typed at a prompt
            continue
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = getattr(below.value, "value", None)
                if isinstance(field.target, ast.Name) and isinstance(text, str):
                    found[field.target.id] = " ".join(text.split())
    return found


def check(family: str, config: Any) -> None:
    """Mismatch unless each field of the dataclass `config` is of its type, as `conform` makes it."""
    for field in dataclasses.fields(config):
        value = conform(getattr(config, field.name), hints(type(config))[field.name], f"{family}: {field.name}")
        object.__setattr__(config, field.name, value)


def at_least(family: str, config: Any, **least: float) -> None:
    """ValueError for the first field below what is given for it."""
    for name, smallest in least.items():
        if not getattr(config, name) >= smallest:
            raise ValueError(f"{family}: {name} is {getattr(config, name)}, expected at least {smallest}")


def build(cls: type, values: Any, where: str) -> Any:
    """The dataclass `cls` of `values`, absent ones as in `cls.before`, which says what held before an option came, else at their
    defaults. Raises Mismatch that names `where` and the field."""
    if not isinstance(values, dict):
        raise Mismatch(f"{where} is {clip(values)}, expected an object of options")
    values = {**getattr(cls, "before", {}), **values}
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    unknown = [name for name in values if name not in names]
    if unknown:
        raise Mismatch(f"{where} has the unknown option {clip(unknown[0])}; known are {', '.join(names)}")
    made = {name: conform(value, hints(cls)[name], f"{where}: {name}") for name, value in values.items()}
    return cls(**made)


def brief(options: Any) -> str:
    """repr of a dataclass, without the fields that are at their defaults."""
    shown = []
    for field in dataclasses.fields(options):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        value = getattr(options, field.name)
        if field.repr and not (type(value) is type(default) and value == default):
            shown.append(f"{field.name}={value!r}")
    return f"{type(options).__name__}({', '.join(shown)})"


def record(cls: type, values: Any, where: str) -> dict[str, Any]:
    """`values` as the TypedDict `cls` describes them; what it does not name is kept. Raises Mismatch as `build` does."""
    if not isinstance(values, dict):
        raise Mismatch(f"{where} is {clip(values)}, expected an object")
    missing = [name for name in hints(cls) if name not in values]
    if missing:
        raise Mismatch(f"{where} lacks {missing[0]}")
    return values | {name: conform(values[name], hint, f"{where}: {name}") for name, hint in hints(cls).items()}
