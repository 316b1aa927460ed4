"""report.html of a run: curves as inline SVG, samples as data URIs; one file that needs nothing else."""

from __future__ import annotations

import html
import itertools
import json
import math
import re
from pathlib import Path

from fastgan.files import complete
from fastgan.media import COLOURS, Medium, medium_of
from fastgan.training.log import read_metrics

WIDTH, HEIGHT, LEFT, BOTTOM, POINTS, SHOWN = 460, 220, 58, 24, 400, 8
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:980px;padding:0 1rem;color:#111}
h2{margin-top:2rem}table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0;vertical-align:top}
figure{display:inline-block;margin:0 1rem 1rem 0}figcaption{color:#555}img{max-width:100%;image-rendering:pixelated}
pre{background:#f4f4f5;padding:.6rem}"""


def curve(title: str, series: dict[str, list[tuple[float, float]]]) -> str:
    """An SVG line chart. Long series are reduced to `POINTS` means; a point that is not finite breaks no line."""
    thinned = {name: _thin([p for p in points if math.isfinite(p[1])]) for name, points in series.items()}
    xs = [x for points in thinned.values() for x, _ in points]
    ys = [y for points in thinned.values() for _, y in points]
    if not xs:
        return ""
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    if y1 == y0:
        y0, y1 = y0 - 0.5, y1 + 0.5

    def place(x: float, y: float) -> str:
        px = LEFT + (x - x0) / ((x1 - x0) or 1) * (WIDTH - LEFT - 8)
        return f"{px:.1f},{8 + (y1 - y) / (y1 - y0) * (HEIGHT - BOTTOM - 8):.1f}"

    parts = [
        f'<figure><svg width="{WIDTH}" height="{HEIGHT}" font-size="11" role="img"><title>{html.escape(title)}</title>'
    ]
    for i in range(5):
        value = y0 + (y1 - y0) * i / 4
        y = float(place(x0, value).split(",")[1])
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 8}" stroke="#e4e4e7"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{value:.3g}</text>')
    for x, anchor in ((x0, "start"), (x1, "end")):
        at = place(x, y0).split(",")[0]
        parts.append(f'<text x="{at}" y="{HEIGHT - 6}" text-anchor="{anchor}" fill="#555">{x:g}</text>')
    for colour, points in zip(COLOURS * (1 + len(thinned) // len(COLOURS)), thinned.values(), strict=False):
        line = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    keys = ", ".join(
        f'<span style="color:{COLOURS[i % len(COLOURS)]}">{html.escape(name)}</span>' for i, name in enumerate(thinned)
    )
    return "".join(parts) + f"</svg><figcaption>{html.escape(title)}: {keys}</figcaption></figure>"


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def sample_files(folder: Path) -> list[Path]:
    """The file to show of each step, in order."""
    files = [path for path in folder.glob("step-*.*") if re.fullmatch(r"step-\d+", path.stem) and path.is_file()]
    # A medium may have written others beside it, of the same stem.
    files.sort(key=lambda path: (path.stem, path.suffix not in (".png", ".txt"), path.suffix))
    return [next(group) for _, group in itertools.groupby(files, key=lambda path: path.stem)]


def _table(values: dict) -> str:
    rows = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in values.items())
    return f"<table>{rows}</table>"


def write_report(folder: Path, medium: type[Medium] | None = None) -> Path:
    """Write `report.html` from a run folder's config.json, metrics.jsonl and samples/; returns its path.

    medium: of the samples. None: as their files look.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    metrics, left_out = folder / "metrics.jsonl", []
    rows = read_metrics(metrics, left_out.append) if metrics.is_file() else []
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                group, _, quantity = name.rpartition("/")
                # Losses share one chart; what else one network reports shares another; so does a family of figures.
                if quantity == "loss":
                    title, series = "loss", group
                elif quantity == "value":  # bleu-2, bleu-3, ... in one chart
                    title, series = group.rpartition("-")[0] or group, group
                else:
                    title, series = group, quantity
                charts.setdefault(title, {}).setdefault(series, []).append((row["step"], value))
    shown = sample_files(folder / "samples")
    if len(shown) > SHOWN:
        shown = [shown[round(i * (len(shown) - 1) / (SHOWN - 1))] for i in range(SHOWN)]
    figures = [(medium or medium_of(path)).html(path) for path in reversed(shown)]
    recipe = config["recipe"].rpartition(":")[2]  # of MODULE:CLASS
    title = html.escape(f"{recipe} on {config['data']['name']}")
    body = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>",
        f"<h1>{title}</h1>",
        f"<p>{rows[-1]['step'] if rows else 0} of {config['config']['steps']} steps.</p>",
        "".join(f"<p>{html.escape(sentence)}</p>" for sentence in left_out),
        "<h2>Samples</h2>" + "".join(figures),
        "<h2>Curves</h2>" + "".join(curve(name, series) for name, series in charts.items()),
        "<h2>Configuration</h2>" + _table({**config["config"], **config["run"]}),
    ]
    path = folder / "report.html"
    with complete(path) as temporary:
        # A path may hold bytes that are no text in any encoding.
        temporary.write_text("\n".join(body), encoding="utf-8", errors="xmlcharrefreplace")
    return path
