"""A generator split over processes trains as a whole one does, in a part of the memory."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training.sharded_runs import RESUMED, RUNS

from fastgan import recipes
from fastgan.recipes import load_run
from fastgan.training import RunConfig, Trainer, load_checkpoint
from fastgan.training.engine import draw

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(torchrun, tmp_path_factory, pictures):
    """The folder of all runs by two processes, and what each process kept."""
    out = tmp_path_factory.mktemp("sharded")
    torchrun(2, Path(__file__).with_name("sharded_runs.py"), pictures, out)
    return out, [torch.load(out / f"{rank}.pt") for rank in range(2)]


def same_checkpoint(theirs: Path, ours: Path) -> None:
    """Parameters, averages, buffers and the optimisers' state, all whole."""
    theirs, ours = load_checkpoint(theirs), load_checkpoint(ours)
    assert theirs.step == ours.step == 4
    assert theirs.tensors.keys() == ours.tensors.keys()
    assert {name.split("/")[0] for name in ours.tensors} == {"network", "ema", "optimizer"}
    for name, tensor in ours.tensors.items():
        torch.testing.assert_close(
            theirs.tensors[name], tensor, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", RUNS)
def test_split_equals_whole(two, name):
    split, plain = (two[0] / mode / name for mode in ("split", "plain"))
    same_checkpoint(split, plain)
    grids = [path.name for path in sorted((plain / "samples").iterdir())]
    assert len(grids) == 2
    for grid in grids:  # parameters are equal to rounding, and so are pictures: some numbers lie between two levels
        a, b = (np.asarray(Image.open(folder / "samples" / grid)).astype(int) for folder in (split, plain))
        assert a.shape == b.shape and abs(a - b).max() <= 1 and (a != b).mean() < 1e-3


@pytest.mark.parametrize("name", RUNS)
def test_what_is_logged_is_the_same(two, name):
    """Losses, gradient norms and, of wgan-gp, the metrics during training, by processes with unequal shares."""
    split, plain = (
        [json.loads(line) for line in (two[0] / mode / name / "metrics.jsonl").open()] for mode in ("split", "plain")
    )
    assert any("energy/wgan-gp" in row for row in plain) == (name == "wgan-gp")
    for theirs, ours in zip(split, plain, strict=True):
        assert theirs.keys() == ours.keys()
        for key, value in ours.items():
            if not key.startswith(("speed/", "memory/", "seconds")):
                assert theirs[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("modes", ["plain-split", "split-plain"])
def test_either_mode_resumes_the_other(two, name, modes):
    same_checkpoint(two[0] / modes / name, two[0] / "plain" / name)


@pytest.mark.parametrize("name", [name for name in RUNS if name != "cyclegan"])
def test_each_process_keeps_half(two, name):
    _, ranks = two
    for kind in ("parameters", "average", "gradients", "optimizer"):
        whole = ranks[0][name][kind][1]
        kept = [found[name][kind][0] for found in ranks]
        assert whole > 0 and all(bytes_ <= 0.6 * whole for bytes_ in kept), (kind, kept, whole)
        assert sum(kept) >= whole
    scalars = ranks[0][name]["whole"]
    assert all(key.endswith("noise_strength") for key in scalars) and bool(scalars) == (name == "stylegan2")


def test_one_process_samples_from_a_split_run(two):
    out = two[0] / "split/stylegan2"
    recipe, networks = load_run(out)
    _, others = load_run(two[0] / "plain/stylegan2")
    assert torch.equal(draw(recipe, networks, [0, 1]), draw(recipe, others, [0, 1]))


@pytest.mark.parametrize(
    "name, config, run, reason",
    [
        ("stylegan2", {}, {}, "path length regularisation differentiates it twice: use --path-weight 0"),
        ("dcgan", {}, {"compile": True}, "leave out --compile"),
        ("dcgan", {}, {"precision": "fp16"}, "use --precision bf16"),
        ("dcgan", {}, {"channels_last": True}, "leave out --channels-last"),
        ("mle", {}, {"data": "tang-quatrains"}, "called token by token"),
    ],
)
def test_what_cannot_be_split_is_refused(pictures, tmp_path, name, config, run, reason):
    recipe = recipes.get(name)
    settings = RunConfig(
        **{"data": pictures, "out": str(tmp_path / "run"), "device": "cpu", **run}, shard_generator=True
    )
    with pytest.raises(ValueError, match=f"--shard-generator: {name}'s generator cannot be split here; .*{reason}"):
        Trainer(recipe, recipe.Config(**config), settings)
    assert not (tmp_path / "run").exists()


def test_a_dead_process_is_named(command, tmp_path):
    """FSDP's own collectives meet it first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out, started = tmp_path / "run", []
    more = ["--steps", "100000", "--checkpoint-every", "5", "--shard-generator", "--timeout", "20", "--out", str(out)]
    try:
        for rank in range(2):
            place = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = os.environ | {"OMP_NUM_THREADS": "1"} | {key: str(value) for key, value in place.items()}
            pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            started.append(subprocess.Popen([*command, *more], env=environment, cwd=tmp_path, **pipes))
        end = time.monotonic() + 60
        while not list(out.glob("checkpoints/step-00000005")):
            assert started[0].poll() is None and time.monotonic() < end
            time.sleep(0.02)
        started[1].send_signal(signal.SIGKILL)
        said, _ = started[0].communicate(timeout=60)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert started[0].returncode == 1 and "Traceback" not in said, said
    assert "another process has died or cannot be reached" in said and "Resume with" in said, said
