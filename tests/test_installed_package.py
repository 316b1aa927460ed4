"""One installed package that brings a name of every kind; all of them in one run, by name alone."""

import json
import sys

import pytest
from packages import install

from fastgan.cli import main

SOURCE = '''
from dataclasses import dataclass
import torch
from fastgan.data import ImageDataset
from fastgan.losses.adversarial import Adversarial
from fastgan.metrics.suite import Row
from fastgan.models import build
from fastgan.recipes.gan import GAN, GANConfig

@dataclass
class Config(GANConfig):
    """A GAN of a gallery."""
    loss: str = "gallery"

class Gallery(GAN):
    Config = Config
    run_defaults = {"data": "gallery:3"}
    metrics = ("edges", "kid")
    def __init__(self, config, data):
        super().__init__(config, data)
        self.judge = build("gallery.judge", size=4)

class Judge(torch.nn.Linear):
    @dataclass
    class Config:
        size: int = 1
    def __init__(self, config):
        super().__init__(config.size, 1)

class Features(torch.nn.Module):
    name, dim = "gallery", 3
    def forward(self, images):
        return images.expand(-1, 3, -1, -1).float().mean((2, 3))

class Sink:
    def __init__(self, folder, step, config):
        self.file = open(folder / "gallery.txt", "a")
    def write(self, step, values):
        self.file.write(f"{step} {sorted(values)[0]}\\n")
    def show(self, step, path): ...
    def close(self):
        self.file.close()

def load(count, split=None):
    return ImageDataset(torch.arange(12 * 192).reshape(12, 3, 8, 8).mul(int(count)).to(torch.uint8), name="gallery")

LOSS = Adversarial("gallery", "hinge without a margin", lambda r, f: f - r, lambda r, f: -f)
EDGES = Row("edges", ("edges",), ("samples",), lambda samples: samples.diff(dim=-1).abs().mean())
'''
POINTS = {
    "recipes": {"gallery": "gallery:Gallery"},
    "models": {"gallery.judge": "gallery:Judge"},
    "data": {"gallery": "gallery:load"},
    "metrics": {"edges": "gallery:EDGES"},
    "extractors": {"gallery": "gallery:Features"},
    "losses": {"gallery": "gallery:LOSS"},
    "sinks": {"gallery": "gallery:Sink"},
}


@pytest.fixture
def gallery(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    install(
        monkeypatch,
        tmp_path / "site",
        "gallery",
        {f"fastgan.{kind}": rows for kind, rows in POINTS.items()},
        gallery=SOURCE,
    )
    yield tmp_path / "runs" / "Gallery-gallery-3"
    sys.modules.pop("gallery", None)


def test_all_of_a_package_by_name(gallery, capsys):
    sizes = ["--units", "4", "4", "--latent", "4", "--batch-size", "4", "--samples", "4", "--device", "cpu"]
    assert main(["train", "--help"]) == 0 and "gallery" in capsys.readouterr().out and "gallery" not in sys.modules
    train = ["train", "gallery", "--steps", "2", "--log", "jsonl", "gallery", "--log-every", "1"]
    assert main([*train, *sizes]) == 0
    saved = json.loads((gallery / "config.json").read_text())
    assert saved["recipe"] == "gallery" and saved["config"]["loss"] == "gallery" and saved["run"]["data"] == "gallery:3"
    assert len((gallery / "gallery.txt").read_text().splitlines()) == 2
    assert main(["train", "gallery", "--out", str(gallery), "--resume", "--steps", "3"]) == 0
    assert main(["sample", str(gallery), "--device", "cpu"]) == 0
    assert main(["eval", str(gallery), "--samples", "8", "--extractor", "gallery", "--device", "cpu"]) == 0
    assert list(json.loads((gallery / "metrics.json").read_text())["Gallery"]) == ["edges", "kid_gallery"]


def test_without_the_package_the_run_says_what_it_lacks(gallery, monkeypatch, capsys):
    sizes = ["--units", "4", "4", "--latent", "4", "--batch-size", "4", "--samples", "4", "--device", "cpu"]
    assert main(["train", "gallery", "--steps", "1", *sizes]) == 0
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not path.endswith("site")])
    capsys.readouterr()
    assert main(["sample", str(gallery), "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "unknown recipe 'gallery'" in said and "--recipe 'MODULE:CLASS'" in said
