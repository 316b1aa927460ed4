"""Tables: rich's where a person looks, aligned plain text in a pipe or a file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` of cells under the titles `columns`; a title that begins with ">" is that of numbers, which end together.

    On a terminal the last cells are wrapped to its width, without colours where NO_COLOR is set; elsewhere a row is a line.
    """
    if getattr(sys.stdout, "isatty", bool)() and importlib.util.find_spec("rich") is not None:
        _rich(columns, rows)
        return
    cells = [[title.removeprefix(">") for title in columns], *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [title.startswith(">") for title in columns]
    for row in cells:
        padded = [f"{cell:{'>' if r else '<'}{w}}" for cell, w, r in zip(row, widths, right, strict=True)]
        print("  ".join(padded).rstrip())


def _rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in columns:  # the last is prose
        right = title.startswith(">")
        table.add_column(
            title.removeprefix(">"), justify="right" if right else "left", no_wrap=title != columns[-1], overflow="fold"
        )
    for row in rows:
        table.add_row(*map(Text, row))  # as they are: "[C]" is no style
    Console().print(table)
