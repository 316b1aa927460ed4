"""Packages as pip would leave them: modules and a dist-info folder with entry points, in a folder of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def install(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, points: dict[str, dict[str, str]] | str, **modules: str
) -> None:
    """Make package `name` importable and known to importlib.metadata. points: target by name, by group, or the text of
    entry_points.txt. modules: their source."""
    text = points if isinstance(points, str) else ""
    if not isinstance(points, str):
        for group, rows in points.items():
            text += "\n".join([f"[{group}]", *(f"{key} = {value}" for key, value in rows.items()), ""])
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(text)
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(folder))
