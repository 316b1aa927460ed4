"""What every test shares: the same random numbers in every run, in which no value lies by chance so near a kink that rounding
decides its gradient; uninitialised memory is NaN, so that an element a kernel leaves unwritten shows. With
FASTGAN_EMULATE_CUDA=1 (or address, thread: under that sanitizer) the CUDA kernels run on CPU tensors as impl="cuda"; with
FASTGAN_TEST_DEVICE=cuda all tensors are on a GPU. Of several processes (pytest -n auto) each has one thread, like its children:
OpenMP's threads spin while they wait, and more of them than cores take ten times as long. Tests of threads ask for theirs."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from device import DEVICE
from golden import GOLDEN

if DEVICE.type != "cpu":
    torch.set_default_device(DEVICE)
    torch.backends.cudnn.allow_tf32 = False  # the tolerances are those of float32
if emulation := os.environ.get("FASTGAN_EMULATE_CUDA"):
    from cuda_emulation import emulated

    emulated.load(sanitize=None if emulation == "1" else emulation)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Each takes up to 2 GiB."""
    return min(os.cpu_count() or 1, 8)


def pytest_collection_modifyitems(config, items):
    """Without the golden vectors the tests that read them are left out; tests/test_golden.py says so."""
    if GOLDEN.is_dir():
        return
    kept = [item for item in items if not item.get_closest_marker("golden")]
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("golden")])
    items[:] = kept


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def nan_filled_empty():
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(deterministic)
