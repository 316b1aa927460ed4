"""A recipe outside the repository, on signals: trained, killed, resumed, measured, sampled, reported; no edit in fastgan."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastgan import recipes
from fastgan.cli import main
from fastgan.data.wav import decode, write_wav
from fastgan.training import load_checkpoint
from fastgan.training.report import write_report

# Three runs, each in a fork of one process, which has the imports behind it: killed at its first checkpoint, continued; alone.
RUNS = """
import os, signal, sys, time
from pathlib import Path
import torch
from fastgan.cli import main
from fastgan.training import Trainer, load_checkpoint
torch.set_num_threads(1)
TRAIN = ["train", "./signal_recipe.py:Chirps", "--steps", "24", "--batch-size", "8", "--checkpoint-every", "2"]
def start(*argv):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = main([*TRAIN, "--sample-every", "12", "--metrics-every", "24", "--device", "cpu", *argv])
            sys.stdout.flush()
        finally:
            os._exit(code)
    return child
child = start("--out", "run")
while not list(Path("run/checkpoints").glob("step-*")):
    time.sleep(0.001)
os.kill(child, signal.SIGKILL)
assert os.waitpid(child, 0)[1] == signal.SIGKILL and 0 < load_checkpoint("run").step < 24
assert os.waitpid(start("--out", "run", "--resume"), 0)[1] == 0
assert os.waitpid(start("--out", "alone"), 0)[1] == 0
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with the recipe in it and nothing of the repository, and two runs: one was killed, and continued."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copy(Path(__file__).with_name("signal_recipe.py"), folder)
    done = subprocess.run([sys.executable, "-c", RUNS], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


@pytest.fixture
def run(outside):
    return outside / "run"


def test_a_killed_run_ends_as_an_unbroken_one(outside, run):
    said = (outside / "said").read_text()
    assert "64 signals of 256 samples (0.032 s at 8000 Hz), 1 channel, no classes" in said
    assert "resuming run at step" in said
    one, other = load_checkpoint(run), load_checkpoint(outside / "alone")
    assert one.step == other.step == 24 and one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    for name in ("png", "spectrogram.png", "wav"):
        mine, same = (folder / "samples" / f"step-00000024.{name}" for folder in (run, outside / "alone"))
        assert mine.read_bytes() == same.read_bytes()


def test_the_report(run):
    report = (run / "report.html").read_text()
    assert report.count("data:audio/wav;base64,") == 3 and report.count("data:image/png;base64,") == 6
    assert "<title>Chirps on chirps</title>" in report and '"unit": "signals/s"' in report
    # As somebody does who has the folder alone, and not the recipe.
    assert write_report(run).read_text() == report


def test_figures(outside, run, monkeypatch, capsys):
    monkeypatch.chdir(outside)
    assert main(["eval", "run", "--samples", "10", "--recipe", "./signal_recipe.py:Chirps", "--device", "cpu"]) == 0
    assert re.search(r"figure +Chirps .*\nloudness +0\.\d+\n", capsys.readouterr().out)
    figure = json.loads((run / "metrics.json").read_text())["Chirps"]["loudness"]
    recipe, networks = recipes.load_run(run, recipe="./signal_recipe.py:Chirps")
    samples, data = recipe.sample(networks, list(range(10))), recipe.load_data("chirps", recipe.config)
    assert figure == pytest.approx(float((samples.square().mean() / data.signals.square().mean()).sqrt()))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loudness/Chirps" in row] == [24]


def test_samples(outside, run, monkeypatch, capsys):
    monkeypatch.chdir(outside)
    where = ["--recipe", "./signal_recipe.py:Chirps", "--device", "cpu"]
    assert main(["sample", "run", "--seeds", "0-2", *where]) == 0
    assert capsys.readouterr().out == "run/samples/seeds-0-2.png\n"
    samples, rate = decode((run / "samples/seeds-0-2.wav").read_bytes(), ".wav")
    assert rate == 8000 and samples.shape == (1, 3 * 256 + 2 * 256)
    assert main(["sample", "run", "--seeds", "0-2", "--separate", *where]) == 0
    assert capsys.readouterr().out == "run/samples/seeds-0-2: 3 signals\n"
    files = sorted(path.name for path in (run / "samples/seeds-0-2").iterdir())
    assert files == ["seed0000.wav", "seed0001.wav", "seed0002.wav"]
    recipe, networks = recipes.load_run(run, recipe=f"{outside}/signal_recipe.py:Chirps")
    for i, file in enumerate(files):
        one = decode((run / "samples/seeds-0-2" / file).read_bytes(), ".wav")[0]
        assert np.abs(one - recipe.sample(networks, [i])[0].numpy()).max() <= 1 / 32768
        assert np.abs(one - samples[:, i * 512 : i * 512 + 256]).max() == 0
    assert main(["sample", "run", "--seeds", "0", "--out", "one.wav", *where]) == 0
    assert (outside / "one.wav").exists() and (outside / "one.png").exists()
    assert main(["sample", "run", "--interpolate", "4", *where]) == 1
    assert "--interpolate is nothing for Chirps" in capsys.readouterr().err


def test_recordings(outside, monkeypatch, capsys):
    monkeypatch.chdir(outside)
    for i in range(3):
        (outside / "songs").mkdir(exist_ok=True)
        write_wav(outside / "songs" / f"{i}.wav", np.sin(np.arange(800) * 0.1 * (i + 1))[None] * 0.5, 16000)
    argv = [
        "train",
        "./signal_recipe.py:Chirps",
        "--data",
        "songs",
        "--steps",
        "1",
        "--batch-size",
        "4",
        "--device",
        "cpu",
    ]
    assert main([*argv, "--length", "128", "--out", "songs-run"]) == 0
    assert "18 signals of 128 samples (0.008 s at 16000 Hz)" in capsys.readouterr().out
    assert main([*argv, "--data", "chirps", "--length", "64", "--rate", "4000", "--out", "short"]) == 0
    assert "64 signals of 64 samples (0.016 s at 4000 Hz)" in capsys.readouterr().out
    facts = recipes.read_run("songs-run", "./signal_recipe.py:Chirps")
    assert facts.data["rate"] == 16000 and facts.run.length == 128
    before = sorted(os.listdir(outside))
    for wrong, said in (
        (["--data", "emoji"], "emoji: no such file or folder"),
        (["--resolution", "64"], "--resolution"),
        (["--flip"], "--flip"),
        (["--rate", "0"], "--rate is 0, expected at least 1"),
    ):
        try:
            assert main([*argv, "--out", "wrong", *wrong]) == 1
        except SystemExit as stop:
            assert stop.code == 2
        assert said in capsys.readouterr().err
    assert sorted(os.listdir(outside)) == before


def test_the_options_are_those_of_signals(outside, monkeypatch, capsys):
    monkeypatch.chdir(outside)
    with pytest.raises(SystemExit):
        main(["train", "./signal_recipe.py:Chirps", "--help"])
    said = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert all(f"--{option}" in said for option in ("rate", "length", "channels", "split", "strict", "width"))
    assert "recordings of another rate are resampled" in said and "--flip" not in said and "--crop" not in said
