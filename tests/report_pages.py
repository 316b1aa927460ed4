"""A run folder without a run, and its report.html read as a browser reads it."""

import html.parser
import json
from pathlib import Path

import torch

from fastgan.media import Image
from fastgan.training.report import write_report

TRAINED = {
    "generator/loss": 2.0,
    "discriminator/loss": 0.5,
    "discriminator/real": 1.5,
    "speed/images_per_second": 800.0,
}
TRAINED |= {"speed/data_wait_share": 0.01, "memory/peak_mib": 500.5, "seconds": 3.0}
MEASURED = {"fd_efflite0/gan": 31.25, "precision/gan": 0.5}


def pictures(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8) * 2 - 1


def _refuse(word: str):
    raise ValueError(f"{word} is no JSON")


class Page(html.parser.HTMLParser):
    """tags: (name, attributes) in order; text: by the tag it stands in, outside templates too."""

    def __init__(self, source: str):
        super().__init__()
        self.source, self.tags, self.text, self._open = source, [], {}, []
        self.feed(source)
        self.data = (
            json.loads(self.text["script"][0], parse_constant=_refuse) if self.named("script", id="data") else None
        )

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        self._open = self._open[: -self._open[::-1].index(tag) - 1] if tag in self._open else self._open

    def handle_data(self, data):
        if self._open:
            self.text.setdefault(self._open[-1], []).append(data)

    def named(self, tag: str, **attributes) -> list[dict]:
        return [found for name, found in self.tags if name == tag and attributes.items() <= found.items()]


def report_of(folder: Path, rows=(), samples=(), medium=Image, name="bars", facts=None, **config) -> Page:
    """Of a run with these rows in its log and these samples, (step, samples) each."""
    (folder / "samples").mkdir(exist_ok=True)
    saved = {
        "recipe": "gan",
        "config": {"steps": 100, "lr": 2e-4, **config},
        "run": {"log_every": 10, "flip": True, "seed": 1},
        "data": {"name": name, "resolution": 8},
        "headline": ["fd_"],
    }
    (folder / "config.json").write_text(json.dumps(saved))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step, made in samples:
        medium.save(made, folder / "samples" / f"step-{step:08d}", facts)
    return Page(write_report(folder, medium if samples else None).read_text(encoding="utf-8"))
