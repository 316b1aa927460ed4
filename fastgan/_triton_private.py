"""What fastgan uses of Triton that Triton does not promise: how a kernel that was compiled before is started again.

`kernel[grid](...)` looks at every argument at every call: 10 us where the launch itself takes 1 (triton 3.6 and 3.8;
bench/bench_host_cost.py). tests/ops/test_triton_private.py fails where a new Triton changes what is passed on here.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from triton.runtime import driver

MOST = 4096  # launches remembered


class _Known(NamedTuple):
    run: Callable
    function: object
    metadata: object
    constants: tuple


_known: dict[tuple, _Known] = {}


def launch(
    kernel: Any, grid: tuple[int, ...], tensors: Sequence[torch.Tensor | None], numbers: tuple, options: dict[str, Any]
) -> None:
    """kernel[grid](*tensors, *numbers, **options) on the device of the first tensor, for a kernel whose arguments come in this
    order: tensors, numbers, constants.

    The second launch of a kernel with the same numbers and options, on tensors of the same types, at multiples of 16 bytes where
    those were, goes straight to what was compiled. Under a profiler's hooks, and where Triton has other names, every launch is
    Triton's own.
    """
    if not isinstance(kernel, triton.JITFunction):  # interpreted
        kernel[grid](*tensors, *numbers, **options)
        return None
    active = driver.active
    device = active.get_current_device()
    if tensors[0].is_cuda and tensors[0].get_device() != device:
        with torch.cuda.device(tensors[0].device):
            return launch(kernel, grid, tensors, numbers, options)
    pointers, form = [], []
    for t in tensors:
        if t is None:
            pointers.append(None)
            form.append(None)
        else:
            pointer = t.data_ptr()
            pointers.append(pointer)
            form += (t.dtype, pointer % 16 == 0)
    key = kernel.fn, active, device, numbers, *options.values(), *form
    known = None if _hooked() else _known.get(key)
    if known is None:
        compiled = kernel[grid](*tensors, *numbers, **options)
        return _remember(key, compiled, [options[name] for name in kernel.arg_names[len(tensors) + len(numbers) :]])
    x, y, z = (*grid, 1, 1)[:3]
    stream = active.get_current_stream(device)
    known.run(x, y, z, stream, known.function, known.metadata, None, None, None, *pointers, *numbers, *known.constants)
    return None


def _hooked() -> bool:
    """Whether someone is to be told of launches: a chain of functions, or one, or None."""
    hook = triton.knobs.runtime.launch_enter_hook
    return bool(getattr(hook, "calls", hook))


def _remember(key: tuple, compiled: Any, constants: list) -> None:
    """Nothing, in a Triton whose compiled kernels have other names."""
    parts = [getattr(compiled, name, None) for name in ("run", "function", "packed_metadata")]
    if None not in parts:
        if len(_known) >= MOST:
            _known.clear()
        _known[key] = _Known(*parts, tuple(constants))
