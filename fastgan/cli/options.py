"""What the commands share: how options are read, and how errors speak of them."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Callable

from fastgan.cli.arguments import Argument, arguments, flag, read
from fastgan.fields import docstring
from fastgan.options import check_ranges

# What `train` and `sample` need beyond torch: module -> package
EXTRA = {
    "tyro": "tyro",
    "rich": "rich",
    "yaml": "pyyaml",
    "tensorboard": "tensorboard",
    "safetensors": "safetensors",
    "PIL": "pillow",
}
MOST_SEEDS = 100_000

_names: dict[str, str] = {}  # of the options that errors may speak of, by every spelling in Python


class UsageError(Exception):
    """A mistake in the command line; shown without a traceback."""


def need_extra() -> None:
    missing = [package for module, package in EXTRA.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing: pip install 'fastgan[train]'")


def purpose(command: Callable) -> str:
    """What a command is for: its docstring up to the colon, after which stands how it is called."""
    return docstring(command).partition(":")[0]


def parse(config, argv: list[str], program: str, description: str, **spelt: str):
    """An instance of the dataclass `config` from the command line; SystemExit where that is wrong, or asks for help,
    ValueError for a number out of its range. spelt: options by what the library calls them, where that is another name."""
    speak_of({field.name: field.name for field in dataclasses.fields(config)} | spelt)
    options = config(**read(arguments(config), argv, program, description))
    check_ranges(options)
    return options


def parse_settings(settings, words: dict[str, str], argv: list[str], program: str, description: str):
    """`settings` (`fastgan.training.settings.Settings`) with what the command line changes.

    words: the help of options that are no settings, by name; they have been read.

    Exits and raises as `parse` does.
    """
    from fastgan.training.settings import options, spellings

    known = spellings(settings.kind)
    # A recipe that speaks of its seed does not mean the run's.
    both = {".".join(option.path[1:]) for option in known.values() if option.name == ".".join(option.path)}
    speak_of({name: name for name in words} | {name: option.name for name, option in known.items() if name not in both})
    # tyro knows each option by its name alone, and says no to a nested one with "--model.no-deep".
    spelt = {flag(spelling): flag(option.name) for spelling, option in known.items()}
    for spelling, option in known.items():
        spelt |= {no: flag(option.name, "no_") for no in (flag(spelling, "no_"), flag(f"no_{spelling}"))}
    members = options(settings.kind)
    found = read(
        [*of_words(words), *(of_setting(option, settings[option]) for option in members)],
        [_translated(word, spelt) for word in argv],
        program,
        description,
    )
    changed = {option.name: found[option.name] for option in members if found[option.name] is not settings[option]}
    return settings.updated(changed)


def of_words(words: dict[str, str]) -> list[Argument]:
    return [Argument(name, str | None, None, about) for name, about in words.items()]


def of_setting(option, value) -> Argument:
    """`option` (`fastgan.training.settings.Option`) as an argument that is `value` unless it is given."""
    return Argument(option.name, option.hint, value, option.about, (option.section.title, option.section.about))


def trust_data(names: str | tuple[str, ...], argv: list[str]) -> None:
    """Import the code that `--data module:function` names, where that is among the words of the command line: a name may come
    from a file too, as the options of a run that is resumed do."""
    from fastgan.data.registered import trust

    names = [names] if isinstance(names, str) else names
    trust(*(name for name in names if any(word == name or word.endswith(f"={name}") for word in argv)))


def _translated(word: str, spelt: dict[str, str]) -> str:
    name, given, value = word.partition("=")
    return spelt.get(name.replace("_", "-"), name) + given + value


def speak_of(names: dict[str, str]) -> None:
    """Let `as_options` know these options of the command, and no others."""
    _names.clear()
    _names.update(names)


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
        if name not in _names or not (given or stated or re.search(r"[_.]", name)):
            return word[0]
        option = flag(_names[name], "no_" * (given == "=False"))
        return option + (" " if given == "=" and re.match(r"""[-\w'"(\[]""", after) else "")

    return re.sub(r"(?<![\w./-])([a-z]\w*(?:\.[a-z]\w*)*)\b(=(?:True|False)\b|=|)(?![/.]\w)", spell, message)


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
