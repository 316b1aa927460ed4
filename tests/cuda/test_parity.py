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
def runs(request):
    """The processes of the runs that were asked for, side by side."""
    emulated.build(emulated.kernels())  # once, before they all ask for it
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cuda"]
    environment = {**os.environ, "FASTGAN_EMULATE_CUDA": "1", "OMP_NUM_THREADS": "1"}
    wanted = {item.callspec.id: item.callspec.params for item in request.session.items if item.path == request.path}
    started = {
        name: subprocess.Popen(
            [*command, "-m", params["marked"], str(TESTS / params["file"])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, params in wanted.items()
    }
    yield started
    for process in started.values():
        process.kill()


@pytest.mark.parametrize(("file", "marked"), RUNS)
def test_emulated(file, marked, runs, request):
    process = runs[request.node.callspec.id]
    output, _ = process.communicate()
    assert process.returncode == 0, output[-5000:]
    assert " passed" in output
