import os
import subprocess
import sys

import numpy as np
import pytest

from fastgan.data import load

TINY = ["--units", "16", "8", "--latent", "4", "--batch-size", "8", "--samples", "4", "--device", "cpu"]


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory):
    """64 grey images of 8x8: a bright bar at a random height."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (64, 1, 8, 8), dtype=np.uint8)
    for image, row in zip(images, rng.integers(0, 8, 64), strict=True):
        image[0, row] += 180
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, images=images)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """22 images of 32x32 in colour; the label of each is its number."""
    images = np.random.default_rng(0).integers(0, 256, (22, 3, 32, 32), dtype=np.uint8)
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    np.savez(path, images=images, labels=np.arange(len(images)))
    return str(path)


@pytest.fixture(scope="session")
def torchrun():
    """Run a script in a number of processes; returns what they printed."""

    def run(processes: int, *argv) -> str:
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([*launch, *map(str, argv)], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def tiny(tiny_file):
    return load(tiny_file)


@pytest.fixture(scope="session")
def command(tiny_file):
    """The command line of a tiny run."""
    return [sys.executable, "-m", "fastgan", "train", "gan", "--data", str(tiny_file), *TINY]


@pytest.fixture
def fastgan(tmp_path, command):
    """Start a tiny run in a process of its own."""
    started = []

    def start(*argv):
        process = subprocess.Popen(
            [*command, *argv], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
