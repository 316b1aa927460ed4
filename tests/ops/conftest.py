"""What the tests of operations share: a choice of the CPU kernels' level."""

import pytest
import torch

import fastgan.ops  # noqa: F401 - defines torch.ops.fastgan


@pytest.fixture
def cpu_level():
    """Chooses the instruction set of the kernels; what was chosen before comes back."""
    before = torch.ops.fastgan.cpu_level("")
    yield torch.ops.fastgan.cpu_level
    if before != "none":
        torch.ops.fastgan.cpu_level(before)
