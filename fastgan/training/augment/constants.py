"""Constants where the images are. Each is made once for a device: a copy from the host waits for a GPU, and cannot be part of a
CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch


def constant(numbers: tuple, like: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """`numbers`, nested as a tensor's are, on the device of `like` and of its type unless another is given."""
    return placed(torch.tensor, numbers, dtype=dtype or like.dtype, device=like.device)


def placed(make: Callable[..., torch.Tensor], *arguments, **options) -> torch.Tensor:
    """make(*arguments, **options), made once and never written to."""
    return make(*arguments, **options) if torch.compiler.is_compiling() else _once(make, *arguments, **options)


@functools.cache
def _once(make, *arguments, **options):
    with torch.inference_mode(False), torch.no_grad():
        return make(*arguments, **options)
