"""run.yaml: the options of a run as a file that people read, edit, and give to `fastgan train --config`.

It may come from anyone. No tag, alias or merge of YAML is read, so that it holds nothing but text, numbers, lists and mappings,
and no larger ones than it is itself. Plain words are what YAML 1.2 takes them for: `no` and `2026-11-28` are text, 1e-3 a number.
"""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fastgan.files import complete
from fastgan.training.settings import Settings, options
from fastgan.untrusted import BadFile, clip, open_regular, shorten

LONGEST = 256 << 10
TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp", "merge")
}
NAMED = {"": None, "~": None, "null": None, "true": True, "false": False}


class OptionsFile(NamedTuple):
    """recipe: the name in the file, if it has one. values: of the other keys. lines: where each stands, by its dotted path."""

    path: Path
    recipe: str | None
    values: dict[str, Any]
    lines: dict[str, int]

    def where(self, name: str) -> str:
        """What an error about an option says first; without a line where it is spelt otherwise."""
        return f"{self.path}:{self.lines[name]}: " if name in self.lines else f"{self.path}: "


def read(path: str | Path) -> OptionsFile:
    """Raises BadFile that names the file and the line, or FileNotFoundError."""
    with open_regular(path) as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise BadFile(f"{path} has more than {LONGEST >> 10} KiB, expected a file of options")
    try:
        node = yaml.compose(content.decode(), Loader=yaml.SafeLoader)
    except RecursionError as error:
        raise BadFile(f"{path} is nested too deeply") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        raise BadFile(f"{path}{line} is not YAML: {shorten(getattr(error, 'problem', None) or error)}") from error
    empty = node is None or node.value == ""
    if not empty and not isinstance(node, yaml.MappingNode):
        raise BadFile(f"{path}: expected lines such as `steps: 1000`")
    lines: dict[str, int] = {}
    values = {} if empty else _Reader(str(path), lines).mapping(node)
    recipe = None
    if not isinstance(values.get("recipe"), dict):
        recipe = values.pop("recipe", None)
        if recipe is not None and not isinstance(recipe, str):
            raise BadFile(f"{path}:{lines['recipe']}: recipe is {clip(recipe)}, expected the name of one")
    return OptionsFile(Path(path), recipe, values, lines)


class _Reader:
    """Values of nodes; fills `lines`."""

    def __init__(self, path: str, lines: dict[str, int]):
        self.path, self.lines = path, lines
        self.seen: set[int] = set()

    def mapping(self, node: yaml.MappingNode, within: str = "") -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.value:
            where = f"{self.path}:{key.start_mark.line + 1}: "
            if not isinstance(key, yaml.ScalarNode):
                raise BadFile(f"{where}expected the name of an option before the colon")
            name = key.value
            if name in made:
                raise BadFile(f"{where}{clip(name)} stands here a second time")
            self.lines[f"{within}{name}".replace("-", "_")] = key.start_mark.line + 1
            made[name] = self.value(value, f"{within}{name}.")
        return made

    def value(self, node: yaml.Node, within: str = "") -> Any:
        where = f"{self.path}:{node.start_mark.line + 1}: "
        if id(node) in self.seen:
            raise BadFile(f"{where}aliases (*name) are not read here: write the value out")
        if node.tag not in TAGS:
            raise BadFile(f"{where}tags such as {clip(node.tag)} are not read here")
        self.seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, within)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, within) for item in node.value]
        return node.value if node.style else scalar(node.value)


def scalar(text: str) -> Any:
    """What a plain word of YAML stands for: None, a bool, a number or itself."""
    if text.lower() in NAMED:
        return NAMED[text.lower()]
    # A longer one is beyond any range, as a float too.
    if len(text) < 40 and re.fullmatch(r"[-+]?[0-9]+(_[0-9]+)*", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return float(text)
    return text


def write(path: Path, recipe: str, settings: Settings, given: str = "") -> None:
    """All options but `out` and `resume`, with what they mean, so that `fastgan train --config` repeats the run. given: as in
    `fastgan.training.run.write_config`."""
    with complete(path) as temporary:
        temporary.write_text("\n".join(_lines(recipe, settings, given)) + "\n", encoding="utf-8")


def _lines(recipe: str, settings: Settings, given: str) -> Iterator[str]:
    yield "# All options of this run. To repeat it: fastgan train --config THIS_FILE --out ANOTHER_FOLDER"
    yield f"recipe: {_dump(recipe)}"
    section = None
    for option in options(settings.kind):
        if option.path in (("run", "out"), ("run", "resume")):
            continue
        if option.section != section:
            section = option.section
            yield from ("", "", *_comment(f"{section.title}: {section.about}".rstrip(": ")))
        yield from ("", *_comment(option.about))
        if given and option.path == ("run", "data"):
            yield f"# This run's was an object of Python ({given}), which the name need not lead to."
        yield f"{option.name}: {_dump(settings[option])}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 110)]


class _Dumper(yaml.SafeDumper):
    """Quotes what PyYAML, which follows YAML 1.1, takes for text, and `scalar` does not."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, None if scalar(text) == text else "'"),
)


def _dump(value: Any) -> str:
    value = json.loads(json.dumps(value, default=dataclasses.asdict))  # what config.json holds of it
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=2**31)
    return text.removesuffix("...\n").strip()
