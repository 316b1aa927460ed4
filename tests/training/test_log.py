"""metrics.jsonl with lines that are none, as kills and full disks leave them: what is whole is kept, the rest is named."""

import json
import os

import pytest

from fastgan.recipes.gan import GAN
from fastgan.training import RunConfig, Trainer, TrainingError
from fastgan.training.log import read_metrics
from fastgan.training.report import write_report
from fastgan.training.sinks import JSONLines

GOOD = [{"step": 1, "generator/loss": 0.5}, {"step": 2, "generator/loss": float("inf"), "count": 3}, {"step": 3}]
BAD = {
    "half a line": b'{"step": 2, "gener',
    "two in one": b'{"step": 2, "loss{"step": 4}',
    "garbage": b"\xff\xfe\x00\x01",
    "zeros": bytes(64),
    "no step": b'{"generator/loss": 1.0}',
    "a number": b"7",
    "a list": b"[1, 2]",
    "not a number": b"NaN",
    "text": b'"step"',
    "null": b"null",
    "step as text": b'{"step": "2", "loss": 1}',
    "step is a fraction": b'{"step": 1.5}',
    "step is true": b'{"step": true}',
    "step is NaN": b'{"step": NaN}',
    "step below 0": b'{"step": -1}',
    "step too large": b'{"step": 1' + b"0" * 400 + b"}",
    "too many digits": b'{"step": ' + b"1" * 5000 + b"}",
    "loss as text": b'{"step": 2, "generator/loss": "low"}',
    "loss as object": b'{"step": 2, "generator/loss": {}}',
    "loss too large": b'{"step": 2, "generator/loss": 1' + b"0" * 400 + b"}",
    "deep": b"[" * 100_000,
}


def same(rows, expected):
    return json.dumps(rows) == json.dumps(expected)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_what_is_whole_is_kept(tmp_path, bad, place):
    path, said = tmp_path / "metrics.jsonl", []
    lines = [json.dumps(row).encode() for row in GOOD]
    path.write_bytes(b"\n".join([*lines[:place], bad, *lines[place:]]))
    assert same(read_metrics(path, said.append), GOOD)
    assert len(said) == 1 and said[0].startswith(f"{path}:{place + 1} is left out: ")


def test_a_value_that_is_no_number(tmp_path):
    """NaN is of older versions' files."""
    path, nan = tmp_path / "metrics.jsonl", float("nan")
    path.write_text('{"step": 1, "kid": null, "fd": NaN}\r\n\n')
    assert same(read_metrics(path, pytest.fail), [{"step": 1, "kid": nan, "fd": nan}])


def test_the_record_is_json_for_any_reader(tmp_path):
    path, nan = tmp_path / "metrics.jsonl", float("nan")
    path.write_text(json.dumps(GOOD[1]) + "\n")
    sink = JSONLines(tmp_path, 2, {})
    sink.write(4, {"fd/gan": nan, "kid/gan": -float("inf"), "is/gan": 2.0})
    sink.close()
    assert [json.loads(line, parse_constant=pytest.fail) for line in path.open()] == [
        {"step": 2, "generator/loss": None, "count": 3},
        {"step": 4, "fd/gan": None, "kid/gan": None, "is/gan": 2.0},
    ]
    assert same(read_metrics(path)[1:], [{"step": 4, "fd/gan": nan, "kid/gan": nan, "is/gan": 2.0}])


def test_many_are_counted(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text("x\n" * 1000 + '{"step": 1}\n')
    assert read_metrics(path) == [{"step": 1}]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6 and said[-1] == f"{path}: 995 more lines are left out"


def test_resume_and_report_go_on(tiny, tmp_path, capsys):
    config = GAN.Config(steps=4, batch_size=8, units=(16, 8), latent=4)
    run = RunConfig(out=str(tmp_path / "run"), device="cpu", samples=4, log_every=1, checkpoint_every=2)
    Trainer(GAN, config, run, dataset=tiny).train()
    path = tmp_path / "run/metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], *BAD.values(), *lines[1:]]))
    write_report(tmp_path / "run")
    assert "metrics.jsonl:2 is left out" in (tmp_path / "run/report.html").read_text()
    config.steps, run.resume = 6, True
    Trainer(GAN, config, run, dataset=tiny).train()
    assert f"{path}:2 is left out" in capsys.readouterr().err
    assert [json.loads(line)["step"] for line in path.open()] == [1, 2, 3, 4, 5, 6]
    assert "left out" not in (tmp_path / "run/report.html").read_text()


def test_a_pipe_is_not_waited_for(tiny, tmp_path):
    config = GAN.Config(steps=2, batch_size=8, units=(16, 8), latent=4)
    run = RunConfig(out=str(tmp_path / "run"), device="cpu", samples=4)
    Trainer(GAN, config, run, dataset=tiny).train()
    (tmp_path / "run/metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "run/metrics.jsonl")
    os.mkfifo(tmp_path / "run/samples/step-00000003.png")
    write_report(tmp_path / "run")
    run.resume = True
    with pytest.raises(TrainingError, match=r"metrics.jsonl"):
        Trainer(GAN, config, run, dataset=tiny).train()
