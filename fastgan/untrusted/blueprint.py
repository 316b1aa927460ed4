"""Networks of sizes that a file names, built without memory: a file that asks for more than it holds is found out first."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn
from torch.nn.modules import module
from torch.nn.parameter import is_lazy

from fastgan.untrusted import BadFile, clip, shorten

SECONDS = 8.0
# Buffers that a state_dict leaves out, and values that a constructor replaces.
SPARE_ELEMENTS, SPARE_TENSORS = 1 << 20, 1000


def total(tensors: Iterable[torch.Tensor]) -> tuple[int, int]:
    """(elements, tensors), each storage counted once: a view that repeats one number holds one number."""
    sizes, count = {}, 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = max(sizes.get(storage.data_ptr(), 0), storage.nbytes() // tensor.element_size())
        count += 1
    return sum(sizes.values()), count


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """BadFile that names `where`, of whatever error a constructor raises on options that it was not made for."""
    try:
        yield
    except BadFile:
        raise
    except Exception as error:
        raise BadFile(f"{where}: {shorten(error) or type(error).__name__}") from error


@contextlib.contextmanager
def within(
    tensors: Iterable[torch.Tensor], where: str, spare: tuple[int, int] = (SPARE_ELEMENTS, SPARE_TENSORS)
) -> Iterator[None]:
    """Networks are made on the meta device, which has shapes and no memory; BadFile as soon as they have more elements or
    tensors than twice those of `tensors` and `spare`, and as `naming`."""
    elements, count = total(tensors)
    left = [2 * elements + spare[0], 2 * count + spare[1]]
    end = time.thread_time() + SECONDS

    def register(_, name: str, value) -> None:
        sized = isinstance(value, torch.Tensor) and not is_lazy(value)  # `check_fit` sees what it becomes
        left[0] -= value.numel() if sized else 0
        left[1] -= 1
        if min(left) < 0 or time.thread_time() > end:
            raise BadFile(f"{where}: the options ask for more than the file's {count} tensors of {elements} numbers")

    hooks = [
        module.register_module_parameter_registration_hook(register),
        module.register_module_buffer_registration_hook(register),
        module.register_module_module_registration_hook(register),
    ]
    try:
        with naming(where), torch.device("meta"):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def check_fit(network: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """BadFile that names the first tensor of `network` that `tensors` lacks, holds in another shape or kind, or does not know."""
    expected = network.state_dict()
    for name, own in expected.items():
        found = tensors.get(name)
        if found is None:
            raise BadFile(f"{where} lacks {name}, {clip(list(own.shape))}")
        if found.shape != own.shape:
            raise BadFile(f"{where}: {name} is {clip(list(found.shape))}, expected {clip(list(own.shape))}")
        if found.is_floating_point() != own.is_floating_point() or found.is_complex() or found.is_quantized:
            raise BadFile(f"{where}: {name} is {found.dtype}, expected {own.dtype}")
    unknown = next((name for name in tensors if name not in expected), None)
    if unknown is not None:
        raise BadFile(f"{where} has a tensor {clip(unknown)} that the network has not")
