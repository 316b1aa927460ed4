"""Texts: strings; in a data set rows of token ids."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from fastgan.files import complete, named
from fastgan.media.medium import Medium, figure


class Text(Medium):
    """Sentences. What a token is, is the recipe's to say: its options go to `load`."""

    name, unit, expected = "text", "sentences", "a list of strings"
    side_by_side = True

    class Facts(TypedDict):
        """What a recipe needs to know of a corpus; `vocabulary` as `Vocabulary.to_dict` gives it."""

        name: str
        vocabulary_size: int
        length: int
        start: int
        end: int | None
        pad: int | None
        vocabulary: dict[str, Any] | None

    @classmethod
    def load(cls, name: str, **options):
        """See `fastgan.data.text.load_text`."""
        from fastgan.data.text import load_text

        return load_text(name, **options)

    @classmethod
    def describe(cls, dataset) -> dict[str, Any]:
        facts = super().describe(dataset)
        return facts | {"vocabulary": None if dataset.vocabulary is None else dataset.vocabulary.to_dict()}

    @classmethod
    def check(cls, samples, facts: Mapping[str, Any]) -> bool:
        return isinstance(samples, list) and all(isinstance(text, str) for text in samples)

    @classmethod
    def save(cls, samples: list[str], path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        """Lines of UTF-8, one for each: an end of a line within, which a tokenizer may know, becomes a space. A path without a
        suffix gets .txt."""
        path = named(path, (".txt",))
        with complete(path) as temporary:
            lines = (re.sub(r"\r\n|\r|\n", " ", text) for text in samples)
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> list[str]:
        """The lines that `save` wrote."""
        return path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")

    @classmethod
    def save_one(cls, sample: str, path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        return cls.save([sample], path)

    @classmethod
    def excerpt(cls, samples: list[str]) -> str:
        """The first three."""
        return "\n".join(f"  {text}" for text in samples[:3])

    @classmethod
    def html(cls, path: Path) -> str:
        """A numbered list: the same number is the same seed at every step."""
        return figure(f"<ol>{''.join(f'<li>{html.escape(line)}</li>' for line in cls.read(path))}</ol>", path)
