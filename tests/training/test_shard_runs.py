"""Runs on shards from the command line: killed and resumed bit for bit, sampled, measured, on two processes, in little memory."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from data.shard_files import write_shards

from fastgan.training import load_checkpoint

pytestmark = pytest.mark.slow  # needs the extra "streams"

TINY = [
    "--width",
    "4",
    "--max-width",
    "8",
    "--latent",
    "6",
    "--samples",
    "4",
    "--sample-every",
    "100",
    "--device",
    "cpu",
]


def start(*argv, processes: int = 1) -> subprocess.Popen:
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    return subprocess.Popen(
        [sys.executable, *launch, "-m", "fastgan", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def fastgan(*argv, processes: int = 1) -> tuple[str, float]:
    """What it printed, and the most memory that it held, in MB."""
    process = start(*argv, processes=processes)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, printed
    return printed, usage.ru_maxrss * 1024 / 1e6


def train(data, out, steps: int, *more, processes: int = 1, every: int = 2) -> tuple[str, float]:
    options = ["--data", data, "--steps", steps, "--out", out, "--checkpoint-every", every, "--batch-size", 8, *TINY]
    return fastgan("train", "dcgan", *options, *more, processes=processes)


def kill_at_checkpoint(data, out: Path, *more, every: int = 2) -> None:
    """Begin a run and kill it after its first checkpoint."""
    options = ["--data", data, "--steps", 1000, "--out", out, "--checkpoint-every", every, "--batch-size", 8, *TINY]
    process = start("train", "dcgan", *options, *more)
    end = time.monotonic() + 120
    while time.monotonic() < end and not list(out.glob("checkpoints/step-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    printed = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, printed


def same_weights(ours: Path, theirs: Path) -> None:
    ours, theirs = (load_checkpoint(folder / "checkpoints") for folder in (ours, theirs))
    assert ours.step == theirs.step
    for name, tensor in theirs.tensors.items():
        assert torch.equal(ours.tensors[name], tensor), name


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """300 pictures of 40x40 in 10 shards."""
    return write_shards(tmp_path_factory.mktemp("data") / "shards", 300, 10, side=40)


def test_killed_resumed_sampled_measured(shards, tmp_path):
    pattern = f"{shards}/{{000000..000009}}.tar"
    options = ["--resolution", 32, "--flip", "--classes", 10, "--conditional"]
    kill_at_checkpoint(pattern, tmp_path / "killed", *options)
    printed, _ = fastgan("train", "dcgan", "--out", tmp_path / "killed", "--resume", "--steps", 60, "--workers", 3)
    assert "shards: resume is exact" in printed and "10 shards, 10 classes" in printed
    train(shards, tmp_path / "whole", 60, *options)
    same_weights(tmp_path / "killed", tmp_path / "whole")
    assert (tmp_path / "killed" / "report.html").stat().st_size > 1000
    fastgan("sample", tmp_path / "killed", "--seeds", "0-3", "--out", tmp_path / "grid.png")
    printed, _ = fastgan("eval", tmp_path / "killed", "--samples", 20, "--metrics", "fd,kid", "--device", "cpu")
    figures = json.loads((tmp_path / "killed" / "metrics.json").read_text())["dcgan"]
    assert set(figures) == {"fd_efflite0", "kid_efflite0"}


def test_two_processes_resume_and_one_goes_on(shards, tmp_path):
    """The place of each is in the checkpoint; another number of them begins the next epoch."""
    train(shards, tmp_path / "half", 4, "--resolution", 32, processes=2)
    shutil.copytree(tmp_path / "half", tmp_path / "other")
    train(shards, tmp_path / "half", 6, "--resume", processes=2)
    train(shards, tmp_path / "whole", 6, "--resolution", 32, processes=2)
    same_weights(tmp_path / "half", tmp_path / "whole")
    places = load_checkpoint(tmp_path / "half" / "checkpoints").state["streams"]
    assert len(places) == 2 and all(place["epoch"] == 0 for place in places)
    train(shards, tmp_path / "other", 6, "--resume")
    assert load_checkpoint(tmp_path / "other" / "checkpoints").state["streams"][0]["epoch"] == 1


def test_translation_refuses_a_stream(shards, tmp_path):
    process = start("train", "cyclegan", "--data", shards, shards, "--out", tmp_path / "run")
    printed = process.communicate()[0]
    assert process.returncode not in (0, -9) and "pairs of sets need every picture by its number" in printed
    assert not (tmp_path / "run").exists()


def test_twenty_thousand_pictures_in_half_their_memory(tmp_path):
    """Decoded they are 983 MB. What the run and a pass over all of them hold beyond the same on 200 pictures is less than half;
    it is what the shuffle buffer and the batches ahead need, whatever the number of pictures."""
    large = write_shards(tmp_path / "large", 20_000, 10, side=128, form="JPEG")
    small = write_shards(tmp_path / "small", 200, 1, side=128, form="JPEG")
    kill_at_checkpoint(large, tmp_path / "run", every=40)
    _, held = fastgan("train", "dcgan", "--out", tmp_path / "run", "--resume", "--steps", 140, "--workers", 2)
    _, base = train(small, tmp_path / "base", 140, "--workers", 2, every=40)
    assert held - base < 983 / 2
    train(large, tmp_path / "whole", 140, "--workers", 2, every=40)
    same_weights(tmp_path / "run", tmp_path / "whole")
    fastgan("sample", tmp_path / "run", "--seeds", "0-3", "--out", tmp_path / "grid.png")
    count = "import sys, resource; from fastgan.data import load; from fastgan.data.source import images_once; "
    count += "print(sum(map(len, images_once(load(sys.argv[1])))), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    (seen, most), (_, least) = (
        map(int, subprocess.check_output([sys.executable, "-c", count, folder]).split()) for folder in (large, small)
    )
    assert seen == 20_000 and (most - least) * 1024 < 983e6 / 2
