"""The CUDA and Triton kernels on a GPU, where there is one: the ordinary tests, with every tensor there.

To run one of them by hand: FASTGAN_TEST_DEVICE=cuda pytest tests/ops/test_upfirdn2d.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = ("ops", "nn", "losses", "models")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("folder", FOLDERS)
def test_on_the_gpu(folder):
    environment = {**os.environ, "FASTGAN_TEST_DEVICE": "cuda"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
