"""How long the default runs of the recipes take on one machine, as `bench/recipe_durations.py` measured it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from fastgan.recipes import RECIPES
from fastgan.training.settings import Settings

FILE = Path(__file__).with_name("durations.json")
# Options that a run may have and take as long.
_FREE = {"out", "resume", "seed", "device", "timeout", "workers", "log", "log_every", "keep"}


@dataclass(frozen=True)
class Durations:
    """recipes: by name; `steps` of the default run and the `seconds` that it takes in all, of which `start` are before the first
    step; the others are its parts. load: of the machine, by others, before it began; `busy`: it was
    such that the processor time of one thread was measured."""

    processor: str
    cores: int
    date: str
    torch: str
    fastgan: str
    load: float
    busy: bool
    recipes: dict[str, dict[str, float]]

    @property
    def machine(self) -> str:
        return f"{self.cores} CPU core{'s' * (self.cores > 1)} ({self.processor})"

    @property
    def how(self) -> str:
        """Sentences on what the times are of, and what they are worth."""
        clock = "processor time of one thread, as others used the machine" if self.busy else "the machine idle"
        return (
            f"about: the default run on {self.machine}, {clock},\n"
            "summed up from the fastest of a few steps of each kind: a whole run takes up to a third more;\n"
            f"{self.date}, fastgan {self.fastgan}, torch {self.torch}. No GPU timed.\n"
            "In a clone of the repository `python bench/recipe_durations.py` times your machine."
        )

    def of(self, settings: Settings) -> float | None:
        """Seconds that a run of these settings would take there; None where they are not the defaults, but for the length and
        what costs no time."""
        measured = self.recipes.get(RECIPES.name_of(settings.kind, elsewhere=True))
        usual = Settings.of(settings.kind)
        free = {name: getattr(usual.run, name) for name in _FREE}
        same = dataclasses.replace(settings.run, **free) == usual.run and usual.recipe == dataclasses.replace(
            settings.recipe, steps=usual.recipe.steps
        )
        if measured is None or not same or settings.run.device not in ("auto", "cpu"):
            return None
        return measured["start"] + (measured["seconds"] - measured["start"]) * settings.recipe.steps / measured["steps"]


def read() -> Durations | None:
    """What was measured; None where the file is absent."""
    return Durations(**json.loads(FILE.read_text(encoding="utf-8"))) if FILE.is_file() else None


def spoken(seconds: float) -> str:
    """ "40 s", "5 min", "2.5 h", "3 days": two figures, as it is an estimate."""
    for size, unit, until in ((1, "s", 90), (60, "min", 90), (3600, "h", 36), (86400, "days", float("inf"))):
        if (value := seconds / size) < until:
            return f"{value:.0f} {unit}" if value >= 9.5 or unit in ("s", "min") else f"{value:.1f} {unit}"
    raise AssertionError
