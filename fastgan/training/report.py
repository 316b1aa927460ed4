"""report.html of a run: one file that needs nothing else. Its page, style and scripts lie in templates/; what they show is
collected here."""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from fastgan.files import complete
from fastgan.media import Medium, medium_of
from fastgan.training.curves import Chart, Line, charts, sentence
from fastgan.training.log import read_metrics

TEMPLATES = Path(__file__).with_name("templates")
MOST_SAMPLES, MOST_BYTES = 100, 16 << 20  # of the steps whose samples the file holds
TILES = 4  # figures that stand on top
ENTRIES = 8  # of a list among the settings


def sample_files(folder: Path) -> list[Path]:
    """The file to show of each step, in order."""
    files = [path for path in folder.glob("step-*.*") if re.fullmatch(r"step-\d+", path.stem) and path.is_file()]
    # A medium may have written others beside it, of the same stem.
    files.sort(key=lambda path: (path.stem, path.suffix not in (".png", ".txt"), path.suffix))
    return [next(group) for _, group in itertools.groupby(files, key=lambda path: path.stem)]


class Sample(NamedTuple):
    """What a step's samples look like."""

    step: int
    html: Markup


def samples(files: list[Path], medium: type[Medium] | None) -> list[Sample]:
    """Of some of `files`, evenly spaced, the first and the last among them: as many as `MOST_BYTES` hold."""

    def sample(path: Path) -> Sample:
        return Sample(int(path.stem.removeprefix("step-")), Markup((medium or medium_of(path)).html(path)))

    if len(files) < 2:
        return [sample(path) for path in files]
    last = sample(files[-1])
    count = min(len(files), max(2, min(MOST_SAMPLES, MOST_BYTES // len(last.html))))
    return [sample(files[round(i * (len(files) - 1) / (count - 1))]) for i in range(count - 1)] + [last]


class Tile(NamedTuple):
    """A figure on top."""

    name: str
    value: str
    note: str = ""
    line: str = ""  # path of a sparkline
    about: str = ""


def _cost(rows: list[dict[str, Any]], machine: dict[str, Chart]) -> Iterable[Tile]:
    if seconds := [row["seconds"] for row in rows if math.isfinite(row.get("seconds", math.nan))]:
        hours, rest = divmod(int(seconds[-1]), 3600)
        yield Tile("training time", f"{hours}:{rest // 60:02d}:{rest % 60:02d}", "h:mm:ss")
    if "speed" in machine:
        line, *_ = machine["speed"].lines.values()
        yield Tile("speed", number(statistics.median(line.values)), f"{machine['speed'].unit}, median")
    if "memory" in machine:
        line, *_ = machine["memory"].lines.values()
        yield Tile("memory", number(max(line.values)), "MiB, peak")


def _figures(found: list[Chart], headline: Iterable[str]) -> Iterable[Tile]:
    """The last values, of those first whose names begin with one of `headline`."""
    first: dict[str, tuple[str, Line]] = {}
    columns = set()
    for figure, column, line in _measured(found):
        first.setdefault(figure, (column, line))
        columns.add(column)
    for name in sorted(first, key=lambda name: not name.startswith(tuple(headline)))[:TILES]:
        column, line = first[name]
        notes = [*([column] if len(columns) > 1 else []), f"step {line.steps[-1]:,}", *_best(name, line)]
        yield Tile(name, number(line.values[-1]), ", ".join(notes), line.sparkline(), sentence(name))


def _best(figure: str, line: Line) -> Iterable[str]:
    """The best value and its step, where that is not the last one."""
    from fastgan.metrics.suite import meaning

    choose = {"lower": min, "higher": max}.get(meaning(figure).better)
    points = [(value, step) for step, value in zip(line.steps, line.values, strict=True) if math.isfinite(value)]
    if choose and points:
        value, step = choose(points)
        if step != line.steps[-1]:
            yield f"best {number(value)} at {step:,}"


def _measured(found: list[Chart]) -> Iterable[tuple[str, str, Line]]:
    """Figure, column and line of what was measured."""
    for chart in found:
        for name, line in chart.lines.items():
            yield (name, "value", line) if chart.family else (chart.title, name, line)


def _table(found: list[Chart]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Columns, and the last values by figure and column."""
    columns: dict[str, None] = {}
    rows: dict[str, dict[str, str]] = {}
    for figure, column, line in _measured(found):
        columns[column] = None
        rows.setdefault(figure, {})[column] = number(line.values[-1])
    return list(columns), rows


def number(value: float) -> str:
    """Four digits, or all of a whole number."""
    whole = math.isfinite(value) and (abs(value) >= 1000 or value == int(value))
    return f"{value:,.0f}" if whole and abs(value) < 1e12 else f"{value:.4g}"


def setting(value: Any) -> str:
    """A value as options are written; long ones by their beginning or their length."""
    if value is None or value in ("", [], (), {}):
        return "-"
    if isinstance(value, dict):
        return f"{len(value)} entries"
    if isinstance(value, list | tuple):
        more = f" and {len(value) - ENTRIES} more" if len(value) > ENTRIES else ""
        return ", ".join(map(setting, value[:ENTRIES])) + more
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 300 else f"{text[:300]} ..."


def write_report(folder: Path, medium: type[Medium] | None = None) -> Path:
    """Write `report.html` from a run folder's config.json, metrics.jsonl and samples/; returns its path.

    medium: of the samples. None: as their files look.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    metrics, notes = folder / "metrics.jsonl", []
    rows = read_metrics(metrics, notes.append) if metrics.is_file() else []
    found = charts(rows)
    figures = [chart for chart in found if chart.kind == "figures"]
    machine = {chart.title: chart for chart in found if chart.kind == "machine"}
    files = sample_files(folder / "samples")
    shown = samples(files, medium)
    page = {
        "title": f"{config['recipe'].rpartition(':')[2]} on {config['data']['name']}",  # of MODULE:CLASS
        "step": max([row["step"] for row in rows] + [sample.step for sample in shown], default=0),
        "steps": config["config"]["steps"],
        "notes": notes,
        "tiles": [*_figures(figures, config.get("headline", ())), *_cost(rows, machine)],
        "settings": {"Data": config["data"], "Recipe": config["config"], "Run": config["run"]},
        "samples": shown,
        "sampled": len(files),
        "side_by_side": bool(shown) and (medium or medium_of(files[-1])).side_by_side,
        "table": _table(figures),
        "charts": [chart.data() for chart in found],
        "log_every": config["run"].get("log_every"),
    }
    path = folder / "report.html"
    with complete(path) as temporary:
        # A path may hold bytes that are no text in any encoding.
        temporary.write_text(_template().render(page), encoding="utf-8", errors="xmlcharrefreplace")
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"setting": setting, "sentence": sentence}
    environment.globals["inline"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return environment.get_template("report.html")
