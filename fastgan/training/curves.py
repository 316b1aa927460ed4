"""What the curves of report.html show: the rows of a log, sorted into charts and reduced to what an eye can tell apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

POINTS = 400  # of one line: a chart is about as many pixels wide
DIGITS = 5


@dataclass
class Line:
    """Numbers of one name, in the order of the log."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def thin(self) -> dict[str, Any]:
        """At most `POINTS` groups of neighbours, JSON-able: `steps` and `values` are medians, so that one spike moves none; `low`
        and `high`, where a group has several values, what they reach. `lost` counts values that are no numbers."""
        steps, values = np.array(self.steps), np.array(self.values, dtype=np.float64)
        finite = np.abs(values) < 1e300  # above that a median, which adds two, may be infinite
        steps, values = steps[finite], values[finite]
        size = -(-len(values) // POINTS) or 1
        cut = range(0, len(values), size)
        groups = [values[i : i + size] for i in cut]
        made: dict[str, Any] = {
            "steps": [int(steps[i + len(group) // 2]) for i, group in zip(cut, groups, strict=True)],
            "values": _short(np.median(group) for group in groups),
            "lost": int((~finite).sum()),
        }
        if size > 1:
            made |= {"low": _short(group.min() for group in groups), "high": _short(group.max() for group in groups)}
        return made

    def sparkline(self, width: float = 96, height: float = 24) -> str:
        """The path of a small line without axes, for an SVG of this size; empty below two points."""
        line = self.thin()
        steps, values = line["steps"], line["values"]
        if len(values) < 2:
            return ""
        across = (steps[-1] - steps[0]) or 1
        least, span = min(values), (max(values) - min(values)) or 1
        places = (
            f"{2 + (width - 4) * (step - steps[0]) / across:.1f} {2 + (height - 4) * (1 - (value - least) / span):.1f}"
            for step, value in zip(steps, values, strict=True)
        )
        return "M" + "L".join(places)


def _short(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]


@dataclass
class Chart:
    """Lines that share their axes.

    Attributes:
        title, unit: of the chart and of its values.
        kind: "figures" of measurements, "training" or "machine".
        about: what the values mean; empty where nobody says it.
        family: whether the lines are figures, as bleu-2 and bleu-3 are, and not columns of one.
        lines: by name.
    """

    title: str
    unit: str
    kind: str
    about: str = ""
    family: bool = False
    lines: dict[str, Line] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """JSON-able, for curves.js."""
        series = [{"name": name, **line.thin()} for name, line in self.lines.items()]
        return {"title": self.title, "unit": self.unit, "kind": self.kind, "about": self.about, "series": series}


class Place(NamedTuple):
    """Where a number of the log is drawn, and what it is multiplied by."""

    kind: str
    title: str
    unit: str
    line: str
    scale: float = 1.0
    family: bool = False


def place_of(name: str, measured: bool) -> Place:
    """Of the number `name` of a row: of a measurement, or of training."""
    group, _, quantity = name.rpartition("/")
    if quantity in ("loss", "gradient"):  # of all networks in one chart
        return Place("training", quantity, quantity if quantity == "loss" else "norm", group or name)
    if quantity.endswith("_per_second"):
        unit = quantity.removesuffix("_per_second")
        return Place("machine", "speed", f"{unit}/s", unit)
    if name == "speed/data_wait_share":
        return Place("machine", "waiting for data", "% of the time", "waiting", 100.0)
    if name == "memory/peak_mib":
        return Place("machine", "memory", "MiB", "peak")
    if name == "data/skipped":
        return Place("machine", "unreadable items", "items", "left out")
    kind = "figures" if measured else "training"
    if quantity == "value":  # bleu-2, bleu-3, ... in one chart
        title = group.rpartition("-")[0] or group
        return Place(kind, title, title, group, family=True)
    return Place(kind, group or name, group or name, quantity)


def sentence(figure: str) -> str:
    """What a figure means, and which direction is better."""
    from fastgan.metrics.suite import meaning

    better, about = meaning(figure)
    return ": ".join(part for part in (f"{better} is better".capitalize() if better else "", about) if part)


def charts(rows: Iterable[dict[str, Any]]) -> list[Chart]:
    """Those of a log's rows: first what was measured, then training, then what it cost. A measurement's rows say no seconds."""
    numbers: dict[tuple[str, bool], Line] = defaultdict(Line)
    for row in rows:
        measured, step = "seconds" not in row, row["step"]
        for name, value in row.items():
            line = numbers[name, measured]
            line.steps.append(step)
            line.values.append(value)
    found: dict[tuple[str, str], Chart] = {}
    for (name, measured), line in numbers.items():
        if name not in ("step", "seconds"):
            place = place_of(name, measured)
            about = sentence(place.title) if measured else ""
            made = Chart(place.title, place.unit, place.kind, about, place.family)
            chart = found.setdefault((place.kind, place.title), made)
            chart.lines[place.line] = Line(line.steps, [value * place.scale for value in line.values])
    order = ("figures", "training", "machine")
    return sorted(found.values(), key=lambda chart: order.index(chart.kind))
