"""torchrun on recordings: two processes learn what one with twice the batch learns."""

from pathlib import Path

import numpy as np
import pytest

import fastgan
from fastgan.cli import main
from fastgan.data.wav import write_wav
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.log import read_metrics

# Two steps with discriminators. SGD is not to be had here: AdamW's eps hides what is 0 but for rounding.
OPTIONS = ["--steps", "2", "--warmup", "0", "--judge", "0.03", "--log-every", "1", "--samples", "2", "--device", "cpu"]


@pytest.mark.slow
def test_two_processes(torchrun, tmp_path):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for i in range(5):
        x = np.random.default_rng(i).normal(0, 0.1, 9000) + 0.3 * np.sin(np.arange(9000) * 0.05 * (i + 1))
        write_wav(sounds / f"{i}.wav", x[None].clip(-1, 1), 8000)
    command = ["train", "vocoder", "--data", str(sounds), *OPTIONS]
    torchrun(
        2, Path(fastgan.__file__).with_name("__main__.py"), *command, "--batch-size", "1", "--out", tmp_path / "two"
    )
    assert main([*command, "--batch-size", "2", "--out", str(tmp_path / "one")]) == 0
    two, one = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    for a, b in zip(two, one, strict=True):
        for name in ("generator", "discriminator"):
            assert a[f"{name}/loss"] == pytest.approx(b[f"{name}/loss"], rel=1e-3)
    two, one = (load_checkpoint(tmp_path / name / "checkpoints").tensors for name in ("two", "one"))
    assert two.keys() == one.keys()
    averages = [name for name in one if name.startswith("ema/generator")]
    assert averages and all((two[name] - one[name]).abs().max() < 5e-3 for name in averages)
