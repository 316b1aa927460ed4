"""Weights & Biases and Trackio without a network: what they keep of a run that is interrupted and resumed."""

import json
import os
import signal
import sqlite3
import time

import pytest
import torch

from fastgan.cli import main
from fastgan.media import Signal, Text
from fastgan.training import RunConfig, Trainer
from fastgan.training.sinks import find

pytestmark = pytest.mark.slow

LENGTH = ["--log-every", "1", "--checkpoint-every", "2", "--sample-every", "2"]
CONFIG = {"recipe": "gan", "config": {"steps": 4}, "run": {}, "data": {"name": "none"}}
SHORT = {"steps": 6, "batch_size": 8, "units": (16, 8), "latent": 4}


@pytest.fixture(autouse=True)
def local(tmp_path, monkeypatch):
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_PROJECT", "WANDB_DIR", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)


def interrupted_and_resumed(tiny, out, log):
    """A run of 6 steps that a signal ends after 4, and that is told to have written step 5 already."""
    from fastgan.recipes.gan import GAN
    from fastgan.training import Interrupted

    class Ending(GAN):
        def updates(self, step):
            if step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().updates(step)

    options = {"out": str(out), "device": "cpu", "samples": 4, "log_every": 1, "sample_every": 2, "log": log}
    with pytest.raises(Interrupted):
        Trainer(Ending, GAN.Config(**SHORT), RunConfig(**options), dataset=tiny).train()
    yield
    Trainer(GAN, GAN.Config(**SHORT), RunConfig(**options, resume=True), dataset=tiny).train()
    yield


def log_records(data):
    """Those of a file in LevelDB's log format after a header of 7 bytes: blocks of 32 KiB, of pieces with checksum (4 bytes),
    length (2) and kind (1: whole, 2, 3, 4: first, middle and last of a record)."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def wandb_records(folder, exits):
    """(run, configuration, rows, exit codes) of the offline files in `folder`, in the order of their making, once there are that
    many exits: wandb's own process writes them."""
    end = time.monotonic() + 60
    while len((found := read_wandb(folder))[3]) < exits and time.monotonic() < end:
        time.sleep(0.1)
    return found


def read_wandb(folder):
    from wandb.proto.wandb_internal_pb2 import Record

    runs, configs, rows, codes = set(), [], [], []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=os.path.getmtime):
        for data in log_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                runs.add((record.run.project, record.run.run_id, record.run.display_name))
                configs.append(
                    {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.run.config.update}
                )
            elif kind == "history":
                rows.append({i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item})
            elif kind == "exit":
                codes.append(record.exit.exit_code)
    return runs, configs, rows, codes


def test_wandb_offline(tiny, tmp_path):
    pytest.importorskip("wandb")
    steps = interrupted_and_resumed(tiny, tmp_path / "run", ("jsonl", "wandb"))
    next(steps)
    assert wandb_records(tmp_path / "run", 1)[3] == [1], "interrupted counts as failed"
    next(steps)
    runs, configs, rows, codes = wandb_records(tmp_path / "run", 2)
    assert runs == {("fastgan", (tmp_path / "run/wandb.id").read_text(), "run")} and codes == [1, 0]
    assert configs[0]["recipe"].endswith("Ending") or configs[0]["recipe"] == "gan"
    assert configs[0]["config"]["units"] == [16, 8] and configs[0]["run"]["log"] == ["jsonl", "wandb"]
    told = [row for row in rows if "generator/loss" in row]
    assert [row["step"] for row in told] == [1, 2, 3, 4, 5, 6]
    kept = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert [row["generator/loss"] for row in told] == [row["generator/loss"] for row in kept]
    shown = [row["step"] for row in rows if "samples" in row]
    assert shown == [0, 2, 4, 6]
    assert len(list((tmp_path / "run").glob("wandb/offline-run-*/files/media/images/*.png"))) == 4


def test_trackio_local(tiny_file, tmp_path, command, fastgan):
    pytest.importorskip("trackio")
    out = tmp_path / "run"
    for more in ([*LENGTH, "--steps", "4", "--log", "jsonl", "trackio"], ["--resume", "--steps", "6"]):
        process = fastgan("--out", str(out), *more)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert "Resumed existing run" in said
    with sqlite3.connect(tmp_path / "trackio/fastgan.db") as base:
        rows = base.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        ((configured,),) = base.execute("SELECT DISTINCT run_name FROM configs").fetchall()
    assert {name for name, *_ in rows} == {configured} == {f"run-{(out / 'trackio.id').read_text()}"}
    told = [(step, json.loads(text)) for _, step, text in rows]
    losses = [(step, row["generator/loss"]) for step, row in told if "generator/loss" in row]
    kept = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    assert losses == [(row["step"], row["generator/loss"]) for row in kept] and len(kept) == 6
    assert [step for step, row in told if "samples" in row] == [0, 2, 4, 6]
    assert len(list((tmp_path / "trackio/media").rglob("*.png"))) == 4


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_texts_and_sounds(tmp_path, monkeypatch, name):
    pytest.importorskip(name)
    sink = find((name,))[name](tmp_path, 0, CONFIG)
    sink.show(1, Text.save(["春眠不覺曉", "a | b\\n"], tmp_path / "texts"))
    facts = {"rate": 8000, "channels": 1, "length": 4000}
    sink.show(2, Signal.save(torch.sin(torch.arange(4000) / 4).expand(2, 1, -1), tmp_path / "sounds", facts))
    sink.write(4, {"x": float("nan"), "y": float("inf"), "z/w": 1.0})
    sink.close()
    if name == "wandb":
        media = [path.suffix for path in tmp_path.glob("wandb/offline-run-*/files/media/**/*.*")]
        assert sorted(media) == [".json", ".png", ".png", ".wav"]
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        assert events.Tags()["images"] == ["samples", "spectrogram"] and events.Tags()["tensors"] == [
            "samples/text_summary"
        ]
        (sound,) = events.Audio("sound")
        assert sound.step == 2 and sound.sample_rate == 8000


def test_both_at_once_beside_the_rest(tiny_file, command, tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    log = ["--log", "jsonl", "tensorboard", "wandb"]
    assert main([*command[3:], "--steps", "2", "--out", "a", *log]) == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} >= {
        "tensorboard",
        "wandb",
        "metrics.jsonl",
        "report.html",
    }
