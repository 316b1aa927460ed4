"""What the commands share: how options are read, and how errors speak of them."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from fastgan.options import check_ranges

# What `train` and `sample` need beyond torch: module -> package
EXTRA = {
    "tyro": "tyro",
    "rich": "rich",
    "tensorboard": "tensorboard",
    "safetensors": "safetensors",
    "PIL": "pillow",
}
MOST_SEEDS = 100_000

_names: set[str] = set()  # of this command's options, as Python spells them


class UsageError(Exception):
    """A mistake in the command line; shown without a traceback."""


def need_extra() -> None:
    missing = [package for module, package in EXTRA.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing: pip install 'fastgan[train]'")


def parse(config, default, argv: list[str], program: str, description: str):
    """An instance of the dataclass `config` from the command line; SystemExit where that is wrong, or asks for help,
    ValueError for a number out of its range."""
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

    markers = (tyro.conf.OmitArgPrefixes,)
    options = tyro.cli(
        config, default=default, args=argv, prog=program, description=description, config=markers, registry=registry
    )
    _names.update(_field_names(options))
    check_ranges(options)
    return options


def _field_names(options) -> Iterable[str]:
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        yield from _field_names(value) if dataclasses.is_dataclass(value) else [field.name]


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


def as_options(message: str) -> str:
    """`message` of the library, which names Python arguments, as the command line spells them: "give resolution=64" ->
    "give --resolution 64", "resolution=(96, 160)" -> "--resolution 96 160", "grad_accum is 3" -> "--grad-accum is 3"."""

    def pair(found: re.Match) -> str:
        name, height, width = found.groups()
        return f"{name}={height} {width}" if name in _names else found[0]

    message = re.sub(r"\b([a-z]\w*)=\((\d+), (\d+)\)", pair, message)

    def spell(word: re.Match) -> str:
        name, given = word.groups()
        after = message[word.end() :]
        # A word such as "data" is an option only before "=" or "is VALUE"; one such as "batch_size" is no English.
        stated = re.match(r""" is ([-'"(\[\d]|(None|True|False|nan|inf)\b)""", after)
        if name not in _names or not (given or stated or "_" in name):
            return word[0]
        option = ("--no-" if given == "=False" else "--") + name.replace("_", "-")
        return option + (" " if given == "=" and re.match(r"""[-\w'"(\[]""", after) else "")

    return re.sub(r"(?<![\w./-])([a-z]\w*)\b(=(?:True|False)\b|=|)(?![/.]\w)", spell, message)


def seed_list(text: str, option: str = "--seeds") -> list[int]:
    """ "0-3,7" -> [0, 1, 2, 3, 7]. Raises UsageError that names `option`."""
    seeds: list[int] = []
    for part in text.split(","):
        if not (found := re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part, re.ASCII)):
            raise UsageError(f"{option} is {text!r}, expected numbers and ranges such as 0-15,20")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first >= MOST_SEEDS - len(seeds):
            raise UsageError(f"{option} is {text!r}: expected ranges that rise, and at most {MOST_SEEDS} seeds in all")
        seeds += range(first, last + 1)
    return seeds
