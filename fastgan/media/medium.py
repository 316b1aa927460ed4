"""What a kind of sample is: the contract between the engine, the command line, the report, and a medium."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import torch

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")  # of lines in pictures and charts


class Medium:
    """Base of the kinds of samples. Nothing is ever an instance of one: a recipe names the class.

    Attributes:
        name: of one sample ("image").
        unit: of many ("images"): what a batch counts.
        Options: dataclass of the options of a run that only this medium has, each with a default and a docstring; `load` takes
            them by name.
        Facts: TypedDict of what `describe` says.
        expected: what `Recipe.sample` returns, in words.
        side_by_side: whether report.html opens with the first and the last samples next to each other.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    expected: ClassVar[str] = "a tensor"
    side_by_side: ClassVar[bool] = False

    @dataclass
    class Options:
        """None."""

    class Facts(TypedDict):
        """What a recipe needs to know of a data set."""

        name: str

    @classmethod
    def load(cls, name: str, **options):
        """The data set called `name`. Raises ValueError, FileNotFoundError or ImportError that says what was expected."""
        raise NotImplementedError(f"{cls.__name__}.load")

    @classmethod
    def describe(cls, dataset) -> dict[str, Any]:
        """JSON-able facts of a data set, at least those in `Facts`: attributes of it, by name.

        Raises ValueError that names the first one which the data set lacks.
        """
        name = getattr(dataset, "name", type(dataset).__name__)
        facts = {"name": name}
        for fact in [fact for fact in cls.Facts.__annotations__ if fact != "name"]:
            if not hasattr(dataset, fact):
                raise ValueError(
                    f"{name}: a recipe on {cls.unit} needs to know {fact}, and the data set has no such attribute: give "
                    "it one, or replace the recipe's `describe`"
                )
            facts[fact] = getattr(dataset, fact)
        return facts

    @classmethod
    def to_device(cls, item: torch.Tensor, device: torch.device, layout: torch.memory_format) -> torch.Tensor:
        """One tensor of a batch, of whatever type the data set stores, as a recipe's losses want it. `layout`: the memory
        format of the networks."""
        return item.to(device, non_blocking=True)

    @classmethod
    def check(cls, samples, facts: Mapping[str, Any]) -> bool:
        """Whether `samples` are of this kind: asked before anything is written. ValueError where the `facts` lack what `save`
        needs."""
        return isinstance(samples, torch.Tensor)

    @classmethod
    def save(cls, samples, path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        """Write several samples in one file, to be looked at; what is heard or read beside it goes into files of the same
        stem. `path` may lack a suffix, its folder exists; `facts`: what `describe` said. Returns the file to show."""
        raise NotImplementedError(f"{cls.__name__}.save")

    @classmethod
    def save_one(cls, sample, path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        """Write one sample alone, as other programs read it."""
        raise NotImplementedError(f"{cls.__name__}.save_one")

    @classmethod
    def excerpt(cls, samples) -> str:
        """What a run prints of its samples; empty: nothing."""
        return ""

    @classmethod
    def html(cls, path: Path) -> str:
        """A <figure> that shows a file which `save` returned, for report.html; it should hold all it needs. By default a link
        to the file."""
        where = html.escape(f"{path.parent.name}/{path.name}")  # report.html lies above the folder of samples
        return figure(f'<a href="{where}">{html.escape(path.name)}</a>', path)


def first(dataset) -> torch.Tensor | None:
    """What the first item of a data set begins with, as a batch of one; None where there is no item, or it is no tensor."""
    from fastgan.data.source import once

    item = next(iter(next(once(dataset, size=1), ())), None)
    return item if isinstance(item, torch.Tensor) else None


def figure(content: str, path: Path) -> str:
    """<figure> of HTML `content` with the file's name as its caption."""
    return f"<figure>{content}<figcaption>{html.escape(path.stem.replace('-', ' '))}</figcaption></figure>"
