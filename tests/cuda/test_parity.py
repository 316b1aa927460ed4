"""The CUDA kernels without a GPU: the ordinary tests of their ops, with the kernels emulated on CPU tensors.

To run one of them by hand: FASTGAN_EMULATE_CUDA=1 pytest tests/ops/test_upfirdn2d.py -k cuda
"""

import os
import subprocess
import sys

import pytest
from cuda_emulation import emulated

TESTS = emulated.HERE.parent / "ops"
FILES = ("test_upfirdn2d.py", "test_filtered_lrelu.py", "test_filtered_snake.py", "test_modulated_conv2d.py")
FILES += ("test_modulated_conv2d_weight.py",)
RUNS = [(file, "not golden") for file in FILES] + [
    pytest.param(file, "golden", marks=pytest.mark.golden)
    for file in FILES
    if file != "test_modulated_conv2d_weight.py"
]
pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """Where the processes note which kernels they launched."""
    return tmp_path_factory.mktemp("parity") / "launches"


@pytest.fixture(scope="module")
def start(launches):
    """Starts the tests of a file that these options of pytest choose."""
    emulated.build(emulated.kernels())  # once, before they all ask for it
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "FASTGAN_EMULATE_CUDA": "1", "OMP_NUM_THREADS": "1"}
    environment["FASTGAN_EMULATED_LAUNCHES"] = str(launches)
    started = []

    def process(path, *options: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen([*command, *options, str(path)], env=environment, **pipes))
        return started[-1]

    yield process
    for process in started:
        process.kill()


@pytest.fixture(scope="module")
def runs(request, start):
    """The processes of the runs that were asked for, side by side."""
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    asked = {item.callspec.id: item.callspec.params for item in items}
    return {name: start(TESTS / params["file"], "-k", "cuda", "-m", params["marked"]) for name, params in asked.items()}


@pytest.mark.parametrize(("file", "marked"), RUNS)
def test_emulated(file, marked, runs, request):
    process = runs[request.node.callspec.id]
    output, _ = process.communicate()
    assert process.returncode == 0, output[-5000:]
    assert " passed" in output


@pytest.mark.slow
def test_every_form_of_every_kernel_is_executed(runs, start, launches):
    """Each element type, factor and number of taps by itself, here or by the own tests of kernels that take few of them."""
    processes = [start(TESTS.parent / "cuda" / name) for name in ("test_streams.py", "test_products.py")]
    for file in FILES:
        name = f"{file}-not golden"
        processes.append(runs[name] if name in runs else start(TESTS / file, "-k", "cuda", "-m", "not golden"))
    assert [process.wait() for process in processes] == [0] * len(processes)
    every_kernel = emulated.kernels_of(emulated.build(emulated.kernels()))
    executed = set(map(int, launches.read_text().split()))
    assert not [name for at, name in every_kernel.items() if at not in executed]
