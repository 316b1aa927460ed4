"""What a command can be told: `Argument`s of a dataclass or of a run's settings, read by tyro and listed for a shell."""

from __future__ import annotations

import dataclasses
import os
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from fastgan import fields
from fastgan.names import did_you_mean

REQUIRED = dataclasses.MISSING


class Argument(NamedTuple):
    """name: as an option is called in Python, "model.deep". default: `REQUIRED` for one that is given by its place alone.
    group: title and meaning of those that it is listed with; "" for the first."""

    name: str
    hint: Any
    default: Any
    about: str
    group: tuple[str, str] = ("", "")


def arguments(config: type) -> list[Argument]:
    """The fields of a dataclass, those of its own before those of its bases, whose docstrings are the titles of groups."""
    hints, docs = typing.get_type_hints(config, include_extras=True), fields.docs(config)
    found = []
    for owner in config.__mro__[:-1]:
        group = ("", "") if owner is config else (fields.about(owner), "")
        for name in owner.__annotations__:
            default = config.__dataclass_fields__[name].default
            found.append(Argument(name, hints[name], default, docs.get(name, ""), group))
    return found


def read(known: Sequence[Argument], argv: list[str], program: str, about: str) -> dict[str, Any]:
    """Values by name, of all that are `known`; those that `argv` leaves alone are the very defaults.

    SystemExit, after a sentence on stderr, where `argv` cannot be read; after the help where it asks for that.
    """
    if not getattr(sys.stdout, "isatty", bool)():  # tyro looks at it once
        os.environ.setdefault("PYTHON_TYRO_UTF8_BOXES", "False")
    import tyro

    groups: dict[tuple[str, str], list[int]] = {("", ""): []}
    for i, argument in enumerate(known):
        groups.setdefault(argument.group, []).append(i)
    sections = []
    for (title, text), members in groups.items():
        made = dataclasses.make_dataclass("Section", [(f"option{i}", _typed(known[i])) for i in members])
        made.__doc__ = text
        values = {f"option{i}": tyro.MISSING if known[i].default is REQUIRED else known[i].default for i in members}
        sections.append((title, made, made(**values)))
    (_, first, top), *others = sections
    nested = [(f"section{i}", Annotated[made, tyro.conf.arg(name=title)]) for i, (title, made, _) in enumerate(others)]
    whole = dataclasses.make_dataclass("Options", [(f.name, f.type) for f in dataclasses.fields(first)] + nested)
    default = whole(**vars(top), **{f"section{i}": values for i, (_, _, values) in enumerate(others)})
    options = dict(prog=program, description=about, registry=_registry(), return_unknown_args=True)
    found, unknown = tyro.cli(whole, default=default, args=argv, **options)
    if unknown:
        print(f"{program}: {_unknown(unknown, known)} ({program} --help lists all)", file=sys.stderr)
        raise SystemExit(2)
    parts = [found, *(getattr(found, f"section{i}") for i in range(len(others)))]
    values = {name: value for part in parts for name, value in vars(part).items()}
    return {argument.name: values[f"option{i}"] for i, argument in enumerate(known)}


def flag(name: str, no: str = "") -> str:
    """ "model.deep" -> "--model.deep", or "--model.no-deep"."""
    *nest, last = name.split(".")
    return "--" + ".".join([*nest, no + last]).replace("_", "-")


def flags(argument: Argument) -> list[str]:
    """The options that `argument` is on the command line; none for one that is given by its place."""
    if argument.default is REQUIRED:
        return []
    return [flag(argument.name), *([flag(argument.name, "no_")] if argument.hint is bool else [])]


def integer(text: str) -> int:
    """ "500", "10_000" and "1e4" -> int. Raises ValueError for what is no whole number."""
    try:
        number = Decimal(text)
        # The exponent is bounded before the number is written out: 1e999999999 would fill the memory.
        if number.is_finite() and number.adjusted() < 30 and number == number.to_integral_value():
            return int(number)
    except InvalidOperation:
        pass
    raise ValueError(f"{text!r} is not a whole number such as 500, 10_000 or 1e4")


def choices(hint: Any) -> list[str]:
    """The words that an option of this type takes, where they are few."""
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    parts = get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType, Annotated) else ()
    return [word for part in parts for word in choices(part)]


def _typed(argument: Argument) -> Any:
    """The type of the field by which tyro knows it."""
    import tyro

    required = argument.default is REQUIRED
    name = argument.name.upper() if required else _metavar(argument.hint)
    shown = {} if required or argument.hint is bool else {"name": argument.name, "prefix_name": False}
    if argument.default in (None, REQUIRED):  # the text says what that means
        shown["help_behavior_hint"] = ""
    if argument.hint is bool:
        made = tyro.conf.arg(name=argument.name, prefix_name=False, help=argument.about)
    else:
        made = tyro.conf.arg(metavar=name, help=argument.about, **shown)
    return Annotated[tyro.conf.Positional[argument.hint] if required else argument.hint, made]


def _metavar(hint: Any) -> str:
    """What stands for a value in the help: INT, INT|INT INT, {center,stretch}."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _metavar(parts[0])
    if origin in (typing.Union, types.UnionType):
        return "|".join(dict.fromkeys(_metavar(part) for part in parts if part is not types.NoneType))
    if origin is Literal:
        return f"{{{','.join(map(str, parts))}}}"
    if origin is tuple:
        return f"{_metavar(parts[0])} ..." if parts[1:] == (...,) else " ".join(map(_metavar, parts))
    return {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}.get(hint, "VALUE")


def _registry():
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def integers(field):
        if field.type is not int:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda words: integer(words[0]),
            is_instance=lambda value: type(value) is int,
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _unknown(words: Sequence[str], known: Iterable[Argument]) -> str:
    """What is wrong with `words`, of which the first is unknown, and the others may be its values."""
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not options:
        return (
            f"{' '.join(words)!r} is one word too many" if not words[1:] else f"{' '.join(words)!r} are words too many"
        )
    names = [name for argument in known for name in flags(argument)]
    return ", and ".join(f"there is no option {word}{did_you_mean(word, names)}" for word in options)
