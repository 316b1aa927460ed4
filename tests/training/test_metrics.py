"""Measurements during training: in metrics.jsonl and the report, on time, and without an effect on the weights."""

import json

import torch

from fastgan import recipes
from fastgan.training import RunConfig, Trainer


def test_measured_every_k_steps(tiny_file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = recipes.get("dcgan")

    def run(name, **options):
        config = recipe.Config(steps=5, batch_size=4, width=4, max_width=8, latent=4)
        files = {"data": str(tiny_file), "out": str(tmp_path / name), "resolution": 32, "samples": 1, "device": "cpu"}
        trainer = Trainer(recipe, config, RunConfig(**files, log_every=1, **options))
        trainer.train()
        return trainer

    measured, plain = run("measured", metrics_every=2, metrics_samples=20), run("plain")
    rows = [json.loads(line) for line in (measured.folder / "metrics.jsonl").read_text().splitlines()]
    found = [row for row in rows if "fd_efflite0/dcgan" in row]
    assert [row["step"] for row in found] == [2, 4, 5]
    assert {"kid_efflite0/dcgan", "precision_efflite0/dcgan", "recall_efflite0/dcgan"} <= found[0].keys()
    assert "fd_efflite0" in (measured.folder / "report.html").read_text()
    for mine, other in zip(measured.recipe.generator.parameters(), plain.recipe.generator.parameters(), strict=True):
        assert torch.equal(mine, other)
