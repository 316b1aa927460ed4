"""The CUDA kernels without a GPU: the ordinary tests of their ops, with the kernels emulated on CPU tensors.

To run one of them by hand: FASTGAN_EMULATE_CUDA=1 pytest tests/ops/test_upfirdn2d.py -k cuda
"""

import os
import subprocess
import sys

import pytest
from cuda_emulation import emulated

TESTS = emulated.HERE.parent / "ops"
FILES = ("test_upfirdn2d.py", "test_filtered_lrelu.py", "test_modulated_conv2d.py", "test_modulated_conv2d_weight.py")
pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def runs():
    """The files' processes, side by side."""
    emulated.build(emulated.kernels())  # once, before they all ask for it
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cuda"]
    environment = {**os.environ, "FASTGAN_EMULATE_CUDA": "1", "OMP_NUM_THREADS": "1"}
    started = {
        file: subprocess.Popen(
            [*command, str(TESTS / file)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for file in FILES
    }
    yield started
    for process in started.values():
        process.kill()


@pytest.mark.parametrize("file", FILES)
def test_emulated(file, runs):
    output, _ = runs[file].communicate()
    assert runs[file].returncode == 0, output[-5000:]
    assert " passed" in output
