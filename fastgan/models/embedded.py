"""Trained generators that come with the package, by name: fastgan:emoji. Each is a file of `fastgan.recipes.packed` in assets/,
beside a JSON of what it was trained with and what was measured of it."""

from __future__ import annotations

from pathlib import Path

from fastgan.names import did_you_mean

PREFIX = "fastgan:"
ASSETS = Path(__file__).parent / "assets"


def names() -> list[str]:
    """fastgan:emoji, ..."""
    return [f"{PREFIX}{file.stem}" for file in sorted(ASSETS.glob("*.safetensors"))]


def locate(path: str | Path) -> Path:
    """The file of an embedded generator; any other path as it is.

    Raises ValueError that lists the names for one that there is not.

    Example: `locate("fastgan:emoji")`
    """
    name = str(path)
    if not name.startswith(PREFIX):
        return Path(path)
    if name not in (known := names()):
        raise ValueError(f"there is no {name}{did_you_mean(name, known)}; known: {', '.join(known)}")
    return ASSETS / f"{name.removeprefix(PREFIX)}.safetensors"
