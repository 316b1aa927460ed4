"""The options of a training run by name, as the command line, a YAML file, a preset and `fastgan.run` spell them.

An option is called like its field (`lr`), after the fields it is nested in (`model.width`). One of the recipe that would be
taken for another of the run, or for a word that those four use themselves, gets a prefix: `recipe.seed`. The prefixes `run.` and
`recipe.` may be written before any other name as well.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastgan import fields
from fastgan.names import did_you_mean
from fastgan.options import Names, Range, allowed, check_range
from fastgan.training.recipe import Recipe, RecipeConfig
from fastgan.training.run import GROUPS, RunOptions, run_options

# Of the command line and of `fastgan.run`: no option is called so, or begins so.
WORDS = {"config", "preset", "help", "run", "recipe", "dataset", "sinks"}


@dataclass(frozen=True)
class Section:
    """Options that belong together; `about` says what to."""

    title: str
    about: str


@dataclass(frozen=True)
class Option:
    """path: its fields, from `Settings` on. bounds: of its numbers, or its names."""

    name: str
    path: tuple[str, ...]
    section: Section
    hint: Any
    bounds: Range | Names
    about: str


@dataclass(frozen=True)
class Settings:
    """All options of a run of the recipe `kind`."""

    kind: type[Recipe]
    run: RunOptions
    recipe: RecipeConfig

    @classmethod
    def of(cls, kind: type[Recipe], preset: str | None = None) -> Settings:
        """The defaults, or those of a preset. Raises ValueError that lists the presets for an unknown one."""
        made = cls(kind, run_options(kind)(**kind.run_defaults), kind.Config())
        if preset is None:
            return made
        if preset not in kind.presets:
            known = f"known: {', '.join(kind.presets)}" if kind.presets else "there is none"
            raise ValueError(f"{kind.name} has no preset {preset!r}{did_you_mean(preset, kind.presets)}; {known}")
        return made.updated(kind.presets[preset].options, lambda name: f"preset {preset}: ")

    def __getitem__(self, option: Option) -> Any:
        return functools.reduce(getattr, option.path, self)

    def updated(self, values: Mapping[str, Any], where: Callable[[str], str] = lambda name: "") -> Settings:
        """With the `values` of options by any of their spellings, or nested: {"lr": 0.1, "model": {"width": 8}}.

        where: what an error says first, by an option's spelling.

        Raises ValueError that names an option that is unknown, given twice, of another type or out of its range.
        """
        known = spellings(self.kind)
        made, given = self, set()
        for name, value in _flat(values, known):
            if name not in known:
                raise ValueError(
                    f"{where(name)}{self.kind.name} has no option {fields.clip(name)}{did_you_mean(name[:80], known)}"
                )
            option = known[name]
            if option.name in given:
                raise ValueError(f"{where(name)}{option.name} is given twice")
            given.add(option.name)
            try:
                value = _number(value, option.hint)
                check_range(option.bounds, value, option.name)
                value = fields.conform(value, option.hint, option.name)
            except ValueError as error:
                raise type(error)(f"{where(name)}{error}") from error
            made = _put(made, option.path, value)
        return made


def _number(value: Any, hint: Any) -> Any:
    """1e4 as a whole number, 1 as a float: what the command line makes of them."""
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return float(value) if hint is float and type(value) is int and abs(value) < 2**63 else value


def _flat(values: Mapping[str, Any], known: Mapping[str, Option], within: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{within}{key}".replace("-", "_")
        if isinstance(value, Mapping) and any(spelling.startswith(f"{name}.") for spelling in known):
            yield from _flat(value, known, f"{name}.")
        else:
            yield name, value


def _put(instance: Any, path: tuple[str, ...], value: Any) -> Any:
    """The dataclass `instance` with another value at `path`."""
    name, *rest = path
    return dataclasses.replace(instance, **{name: _put(getattr(instance, name), tuple(rest), value) if rest else value})


@functools.cache
def options(kind: type[Recipe]) -> tuple[Option, ...]:
    """The options of a run of recipe `kind`, in the order of their fields."""
    found: list[Option] = []
    taken: set[str] = set()
    groups = [*GROUPS.items(), (kind.medium.name, kind.medium.Options)]
    for part, cls in (("run", run_options(kind)), ("recipe", kind.Config)):
        for path, owner in _leaves(cls, (part,)):
            *nest, field = path[1:]
            hint = fields.hints(owner)[field]
            # As the command line spells it: --flip, --no-flip.
            flags = {".".join([*nest, f"{no}{field}"]) for no in ("", "no_") if not no or hint is bool}
            own = not flags & taken and path[1] not in WORDS
            taken |= flags
            title = ".".join(nest if own and nest else path[:-1])
            if part == "run":  # its fields come from several classes
                title, owner = next(group for group in groups if field in group[1].__dataclass_fields__)
            section = Section(title, fields.about(owner))
            spelt = ".".join(path[own:])
            found.append(Option(spelt, path, section, hint, allowed(owner)[field], fields.docs(owner).get(field, "")))
    return tuple(found)


def _leaves(cls: type, within: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], type]]:
    """Paths of the fields that are no dataclasses themselves, and the dataclass that each is a field of; nested ones last."""
    nested = []
    for field in dataclasses.fields(cls):
        hint = fields.hints(cls)[field.name]
        if dataclasses.is_dataclass(hint) and field.init:
            nested.append(_leaves(hint, (*within, field.name)))
        elif field.init:
            yield (*within, field.name), cls
    for leaves in nested:
        yield from leaves


@functools.cache
def spellings(kind: type[Recipe]) -> dict[str, Option]:
    """Every option of recipe `kind` by its name, and by its whole path, `run.data` or `recipe.lr`."""
    made = {option.name: option for option in options(kind)}
    return made | {".".join(option.path): option for option in options(kind)}
