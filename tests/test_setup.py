"""What setup.py decides to build: with an nvcc that is not run, on a machine without GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is None, reason="torch is a CPU build"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU that is here is built for"),
]
ROOT = Path(__file__).parents[1]
EVERY = "8.0;8.6;8.9;9.0;10.0;12.0+PTX"
CHOICES = {  # environment, what is said
    "no GPU": ({}, "no (no GPU here; FASTGAN_CUDA=1 "),
    "asked for": ({"FASTGAN_CUDA": "1"}, f"yes (nvcc in {{home}}, torch {torch.__version__}, archs {EVERY})"),
    "architectures": ({"TORCH_CUDA_ARCH_LIST": "8.6"}, f"yes (nvcc in {{home}}, torch {torch.__version__}, archs 8.6)"),
    "refused": ({"FASTGAN_CUDA": "0", "TORCH_CUDA_ARCH_LIST": "8.6"}, "no (FASTGAN_CUDA=0)"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_cuda_kernels_are_built_where_there_is_a_gpu_or_they_are_asked_for(case, tmp_path):
    environment, said = CHOICES[case]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch()
    kept = {k: v for k, v in os.environ.items() if k not in ("FASTGAN_CUDA", "TORCH_CUDA_ARCH_LIST")}
    command = [sys.executable, "setup.py", "--version"]
    environment = {**kept, "CUDA_HOME": str(tmp_path), **environment}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert f"fastgan build: CUDA kernels: {said.format(home=tmp_path)}" in done.stderr
