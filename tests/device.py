"""Where the tests' tensors live. With FASTGAN_TEST_DEVICE=cuda in the environment it is a GPU, and the kernels under test are
those for it: FASTGAN_TEST_DEVICE=cuda pytest tests/ops tests/nn tests/losses tests/models
"""

import os

import torch

from fastgan.ops import _library, available

DEVICE = torch.device(os.environ.get("FASTGAN_TEST_DEVICE", "cpu"))


def kernels(op: str) -> list[str]:
    """The implementations of `op` that run on tensors of the tests' device, beside the reference."""
    return [impl for impl in available()[op] if impl != "reference" and _runs(op, impl)]


def _runs(op: str, impl: str) -> bool:
    try:
        _library.select(op, impl, torch.empty(0, device=DEVICE))
    except RuntimeError:
        return False
    return True


def seeded(seed: int) -> torch.Generator:
    """A generator on the tests' device."""
    return torch.Generator(DEVICE).manual_seed(seed)
