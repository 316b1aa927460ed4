"""README.md of a shared folder: a model card in the hub's form, made of what a run knows of itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from fastgan.files import to_json
from fastgan.media import Image, Signal, Text


def card(
    name: str, made: Any, about: dict[str, Any], license: str, files: Sequence[str], measured: dict[str, Any]
) -> str:
    """Markdown with YAML in front. name: user/name, or a title; about: the model file's header; measured: metrics.json."""
    import yaml

    head = {
        "library_name": "fastgan",
        "license": license,
        "pipeline_tag": _task(made),
        "tags": list(dict.fromkeys(["fastgan", "gan", about.get("recipe") or about["model"].partition(".")[0]])),
    }
    title = name.rpartition("/")[2]
    where = name if "/" in name else "USER/NAME"
    said = ("samples", "features")
    columns = {label: _finite(v) for label, v in measured.items() if isinstance(v, dict) and label not in said}
    # Paths stay at home.
    data = " | ".join(PurePath(name).name for name in measured.get("data", ())) or about.get("data", {}).get("name")
    if columns:
        head["model-index"] = [_index(title, _task(made), data, columns)]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---\n\n# {title}", _said(made, about)]
    if "samples.png" in files:
        parts.append("![Samples, not selected: seeds 0 to 15](samples.png)")
    if "samples.txt" in files:
        parts.append("Samples, not selected: [samples.txt](samples.txt).")
    given = " --input FOLDER" * ("input" in made.sample_options)
    parts.append(
        f"## Use\n\n```bash\npip install 'fastgan[train,hub]'\nfastgan pull {where} here\nfastgan sample here{given}\n```\n\n"
        f'```python\nfrom fastgan import sharing\n\nrecipe, networks = sharing.load("{where}")\n```'
    )
    if columns:
        parts.append(_table(columns, measured, data))
    chosen = about.get("config", about.get("arguments"))
    parts.append(f"## Options\n\n```json\n{to_json(chosen, 1)}\n```")
    return "\n\n".join(parts) + "\n"


def _finite(values: dict[str, float | None]) -> dict[str, float]:
    """Without figures that are no numbers, of which the hub's model-index has none."""
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def _task(made: Any) -> str:
    """The hub's name of what the networks do."""
    if hasattr(made, "translate") or hasattr(made, "upscale"):
        return "image-to-image"
    if issubclass(made.medium, Text):
        return "text-generation"
    if issubclass(made.medium, Signal):
        return "audio-to-audio" if hasattr(made, "heard") else "other"
    return "unconditional-image-generation" if issubclass(made.medium, Image) else "other"


def _said(made: Any, about: dict[str, Any]) -> str:
    if "recipe" not in about:
        return f"{about['model']}, converted by fastgan from `{about.get('source')}`."
    facts = [f"{made.medium.unit}"]
    if "resolution" in made.data:
        size = made.data["resolution"]
        facts = [f"{made.medium.unit} of {size if isinstance(size, int) else '{}x{}'.format(*size)} pixels"]
    if getattr(made.config, "conditional", False):
        facts.append(f"{made.data['num_classes']} classes")
    return f"Recipe {about['recipe']} of fastgan on {about['data']['name']}: {', '.join(facts)}; step {about['step']}."


def _index(title: str, task: str, data: str, columns: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The hub's model-index: one result, a metric for each figure."""
    figures = [
        {"type": name, "value": value, "name": name if len(columns) == 1 else f"{name}, {label}"}
        for label, values in columns.items()
        for name, value in values.items()
    ]
    return {
        "name": title,
        "results": [{"task": {"type": task}, "dataset": {"name": data, "type": data}, "metrics": figures}],
    }


def _table(columns: dict[str, dict[str, float]], measured: dict[str, Any], data: str) -> str:
    from fastgan.metrics import suite

    count = measured["samples"]
    if isinstance(count, dict):
        count = ", ".join(f"{n} ({label})" for label, n in count.items())
    lines = [f"## Figures\n\n`fastgan eval` on {count} samples, against {data}.\n"]
    lines += [f"| figure | {' | '.join(columns)} | better |", f"|---|{'---|' * len(columns)}---|"]
    for name in dict.fromkeys(name for values in columns.values() for name in values):
        cells = [f"{values[name]:.4f}" if name in values else "-" for values in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {suite.meaning(name)[0]} |")
    if features := measured.get("features"):
        lines.append(f"\nFeatures: {', '.join(f'{name} {value}' for name, value in features.items())}.")
    lines += [f"\n{note}" for note in measured.get("notes", ())]
    return "\n".join(lines)
