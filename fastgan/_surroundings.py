"""fastgan keeps data, draws by seed and new networks on the CPU until it moves them itself, and its networks in float32, whatever
torch's default device and dtype are; what it trains records gradients, and rounds as its options say, whatever the caller is in
the midst of."""

import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def on_cpu(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, in which tensors that are made without a device are on the CPU."""

    @functools.wraps(function)
    def made_on_cpu(*arguments: P.args, **options: P.kwargs) -> T:
        if torch.get_default_device().type == "cpu":  # as a rule: the other way every call of torch takes longer
            return function(*arguments, **options)
        with torch.device("cpu"):
            return function(*arguments, **options)

    return made_on_cpu


def in_float32(function: Callable[P, T]) -> Callable[P, T]:
    """`on_cpu`, and what is made without a dtype is float32. For what builds or calls fastgan's own networks: data sets of users
    keep their default, which is one for all threads."""

    @functools.wraps(function)
    def made_in_float32(*arguments: P.args, **options: P.kwargs) -> T:
        before = torch.get_default_dtype()
        if before == torch.float32:
            return function(*arguments, **options)
        torch.set_default_dtype(torch.float32)
        try:
            return function(*arguments, **options)
        finally:
            torch.set_default_dtype(before)

    return on_cpu(made_in_float32)


def apart(function: Callable[P, T]) -> Callable[P, T]:
    """`in_float32`, outside the caller's `no_grad`, `inference_mode` and autocast."""

    @functools.wraps(function)
    def recorded(*arguments: P.args, **options: P.kwargs) -> T:
        with contextlib.ExitStack() as left:
            for context in (torch.inference_mode(False), torch.enable_grad()):
                left.enter_context(context)
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    left.enter_context(torch.autocast(kind, enabled=False))
            return function(*arguments, **options)

    return in_float32(recorded)
