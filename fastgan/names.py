"""Names that users type: recipes, models, data sets, commands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'dcgan'?", or nothing where no known name is near `word`."""
    near = difflib.get_close_matches(word.lower(), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
