"""What every test shares: uninitialised memory is NaN, so that an element a kernel leaves unwritten shows."""

import pytest
import torch


@pytest.fixture(autouse=True)
def nan_filled_empty():
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(deterministic)
