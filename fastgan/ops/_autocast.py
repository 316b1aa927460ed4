"""What autocast means to the ops: nothing.

An op's result has the dtype of its input, autocast or not, and what it sums and multiplies inside keeps its dtype. While
autocast is active parameters may be of another dtype than activations; they are brought to that of the input. Two stand-ins
of torch's own, `conv2d` and `conv_transpose2d`, do as those do: they cast their input. So do the layers of `fastgan.nn` and
`fastgan.models` that convolve.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from fastgan._torch_private import autocast_anywhere

P = ParamSpec("P")
T = TypeVar("T")


def is_autocast(device_type: str) -> bool:
    """Whether autocast is active for such a device; "meta" has none. (torch < 2.13 cannot trace `is_autocast_available`.)"""
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def autocast_like(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """t in the dtype of x while autocast is active: parameters stay float32 there, activations do not."""
    return t.to(x.dtype) if t.dtype != x.dtype and is_autocast(x.device.type) else t


def autocast(x: torch.Tensor) -> torch.Tensor:
    """x in the dtype that autocast, if active, convolves in; float64 stays."""
    if x.dtype == torch.float64 or not is_autocast(x.device.type):
        return x
    return x.to(torch.get_autocast_dtype(x.device.type))


def without_autocast(x: torch.Tensor) -> contextlib.AbstractContextManager:
    """Autocast off for the device of x; "meta" has none to be turned off."""
    return torch.autocast(x.device.type, enabled=False) if is_autocast(x.device.type) else contextlib.nullcontext()


def outside_autocast(function: Callable[P, T]) -> Callable[P, T]:
    """`function` with autocast off for the device of its first tensor."""

    @functools.wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        if not autocast_anywhere():
            return function(*arguments, **options)
        device = next((t.device.type for t in arguments if isinstance(t, torch.Tensor)), None)
        if device is None or not is_autocast(device):
            return function(*arguments, **options)
        with torch.autocast(device, enabled=False):
            return function(*arguments, **options)

    return run
