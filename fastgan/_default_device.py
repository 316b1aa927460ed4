"""fastgan keeps data, draws by seed and new networks on the CPU until it moves them itself, whatever `torch.set_default_device`
says."""

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
