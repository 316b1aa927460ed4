"""Runs that are killed, interrupted, damaged or out of range, as a user meets them: in processes of their own."""

import hashlib
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastgan.recipes.gan import GAN
from fastgan.training import RunConfig, Trainer, TrainingError, load_checkpoint


def wait_for(path, process, seconds=600):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def finish(process, code=0):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    return output


def digest(run):
    tensors = load_checkpoint(run).tensors
    return {name: hashlib.sha256(t.numpy().tobytes()).hexdigest() for name, t in tensors.items()}


LENGTH = ["--steps", "400", "--checkpoint-every", "25", "--sample-every", "200"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, command):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    subprocess.run([*command, *LENGTH, "--out", str(out)], check=True, capture_output=True)
    return out


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_weights(fastgan, tmp_path, unbroken):
    out = tmp_path / "run"
    process = fastgan("--out", str(out), *LENGTH)
    for seen in ("step-00000050", "step-00000125"):
        wait_for(out / "checkpoints" / seen, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        (out / "checkpoints" / ".tmp-step-00099999").mkdir()
        process = fastgan("--out", str(out), "--resume")
    assert "resuming" in finish(process)
    assert digest(out) == digest(unbroken)
    # The log has each step once, as if nothing had happened.
    steps = [[json.loads(line)["step"] for line in (run / "metrics.jsonl").open()] for run in (out, unbroken)]
    assert steps[0] == steps[1] == list(range(10, 401, 10))
    assert (out / "samples/step-00000400.png").read_bytes() == (unbroken / "samples/step-00000400.png").read_bytes()
    assert not list((out / "checkpoints").glob(".tmp*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_prints_the_command_that_resumes(fastgan, tmp_path, unbroken, number):
    process = fastgan("--out", "a run", *LENGTH)
    wait_for(tmp_path / "a run/checkpoints/step-00000025", process)
    process.send_signal(number)
    output = finish(process, 128 + number)
    step = load_checkpoint(tmp_path / "a run").step
    assert f"saved step {step}" in output
    line = output.strip().splitlines()[-1].strip()
    assert line == "fastgan train gan --out 'a run' --resume"
    assert "Traceback" not in output
    output = finish(fastgan(*shlex.split(line)[3:]))
    assert f"at step {step}" in output
    assert digest(tmp_path / "a run") == digest(unbroken)


@pytest.mark.slow
def test_resume_passes_over_a_damaged_checkpoint_aloud(fastgan, tmp_path, unbroken):
    out = tmp_path / "run"
    finish(fastgan("--out", str(out), *LENGTH))
    newest = out / "checkpoints/step-00000400/tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    output = finish(fastgan("--out", str(out), "--resume"))
    assert "damaged checkpoint passed over" in output and "at step 375" in output
    assert digest(out) == digest(unbroken)


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(fastgan, tmp_path):
    out = tmp_path / "run"
    finish(fastgan("--out", str(out), "--steps", "20", "--checkpoint-every", "10"))
    output = finish(fastgan("--out", str(out), "--resume", "--steps", "200", "--batch-loss", "1e38"), 1)
    assert "not finite" in output and "step-00000020" in output and "--resume" in output and "Traceback" not in output
    kept = load_checkpoint(out)
    assert all(np.isfinite(t.numpy()).all() for t in kept.tensors.values())


def test_an_existing_run_is_not_overwritten(fastgan, tmp_path):
    out = tmp_path / "run"
    finish(fastgan("--out", str(out), "--steps", "2"))
    assert "already holds a run: add --resume" in finish(fastgan("--out", str(out), "--steps", "2"), 1)
    assert "holds no run" in finish(fastgan("--out", str(tmp_path / "none"), "--resume"), 1)


@pytest.mark.slow
def test_killed_20_times_also_while_writing(tmp_path, tiny_file):
    script = Path(__file__).with_name("killed_runs.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, tiny_file, tmp_path], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert len(found["attempts"]) == 21 and found["writing"] >= 5
    for (_, last), (first, _) in itertools.pairwise(found["attempts"]):
        assert first % 5 == 0 and last - 2 * 5 <= first <= last + 1
    assert digest(tmp_path / "killed") == digest(tmp_path / "alone")


# A file system of its own, which root may mount and, where the kernel lets it, anybody in a user namespace.
ISOLATED = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path, command):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1m none {disk}"
    probe = subprocess.run([*ISOLATED, "sh", "-c", mount], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no file system can be mounted here: {probe.stderr.strip()}")
    train = shlex.join([*command, "--steps", "100000", "--checkpoint-every", "20", "--out", str(disk / "run")])
    shell = f"{mount} && ({train} --keep 100000; echo code $?; cp -r {disk}/run {tmp_path}/kept)"
    done = subprocess.run([*ISOLATED, "sh", "-c", shell], capture_output=True, text=True, timeout=120)
    output = done.stdout + done.stderr
    assert "code 1" in output and "the disk is full" in output and "Traceback" not in output, output
    said = []
    kept = load_checkpoint(tmp_path / "kept", say=said.append)
    assert not said and f"The last good checkpoint is {disk}/run/checkpoints/{kept.path.name}" in output
    # With room again the run goes on from there.
    final = ["--steps", str(kept.step + 1), "--checkpoint-every", "250", "--keep", "3"]
    again = subprocess.run(
        [*command, *final, "--out", str(tmp_path / "kept"), "--resume"], capture_output=True, text=True
    )
    assert f"at step {kept.step}" in again.stdout and load_checkpoint(tmp_path / "kept").step == kept.step + 1


def test_data_that_cannot_be_read_stop_the_run_and_lose_nothing(tiny, tmp_path):
    class Broken(type(tiny)):
        def gather(self, indices, flips):
            if self.left == 0:
                raise OSError("the disk with the images is gone")
            self.left -= 1
            return super().gather(indices, flips)

    data = Broken(tiny.images, name="broken")
    data.left = 30
    config = GAN.Config(steps=100, batch_size=8, units=(16, 8), latent=4)
    run = RunConfig(out=str(tmp_path / "run"), device="cpu", samples=4, checkpoint_every=10)
    with pytest.raises(
        TrainingError, match=r"(?s)step 31: no batch of data \(OSError: the disk with the images is gone\)"
    ):
        Trainer(GAN, config, run, dataset=data).train()
    assert load_checkpoint(tmp_path / "run").step == 30
    run.resume, data.left = True, 1000
    Trainer(GAN, config, run, dataset=data).train()
    assert load_checkpoint(tmp_path / "run").step == 100
