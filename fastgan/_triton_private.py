"""What fastgan uses of Triton that Triton does not promise: how a kernel that was compiled before is started again.

`kernel[grid](...)` looks at every argument at every call: 10 us where the launch itself takes 1 (triton 3.6 and 3.8;
bench/bench_host_cost.py). tests/ops/test_triton_private.py fails where a new Triton changes what is passed on here.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from triton.runtime import driver


class _Known(NamedTuple):
    run: Callable
    function: object
    packed_metadata: object


class Launch:
    """kernel[grid](*tensors, *numbers, **options), for a kernel whose arguments come in this order: tensors, numbers, constants.

    Who makes one keeps it. Its second call on tensors of the same types, at multiples of 16 bytes where those were, goes straight
    to what was compiled. Under a profiler's hooks, and where Triton has other names, every call is Triton's own.
    """

    __slots__ = ("_after", "_known", "grid", "kernel", "numbers", "options")

    def __init__(self, kernel: Any, grid: tuple[int, ...], numbers: tuple, options: dict[str, Any]) -> None:
        self.kernel, self.grid, self.numbers, self.options = kernel, (*grid, 1, 1)[:3], numbers, options
        self._after = (*numbers, *(options[name] for name in kernel.arg_names if name in options))
        self._known: dict[tuple, _Known] = {}

    def __call__(self, *tensors: torch.Tensor | None) -> None:
        """On the device of the first tensor."""
        if not isinstance(self.kernel, triton.JITFunction):  # interpreted
            self._start(tensors)
            return
        active = driver.active
        device = active.get_current_device()
        if tensors[0].is_cuda and tensors[0].get_device() != device:
            with torch.cuda.device(tensors[0].device):
                self(*tensors)
            return
        pointers, form = [], [active, device]
        for t in tensors:
            if t is None:
                pointers.append(None)
                form.append(None)
            else:
                pointer = t.data_ptr()
                pointers.append(pointer)
                form += (t.dtype, pointer % 16 == 0)
        form = tuple(form)
        known = self._known.get(form)
        if known is None or _hooked():
            self._remember(form, self._start(tensors))
            return
        run, function, metadata = known
        stream = active.get_current_stream(device)
        run(*self.grid, stream, function, metadata, None, None, None, *pointers, *self._after)

    def _start(self, tensors: Sequence[torch.Tensor | None]) -> Any:
        return self.kernel[self.grid](*tensors, *self.numbers, **self.options)

    def _remember(self, form: tuple, compiled: Any) -> None:
        """Nothing, in a Triton whose compiled kernels have other names."""
        parts = [getattr(compiled, name, None) for name in _Known._fields]
        if None not in parts:
            self._known[form] = _Known(*parts)


def _hooked() -> bool:
    """Whether someone is to be told of launches: a chain of functions, or one, or None."""
    hook = triton.knobs.runtime.launch_enter_hook
    return bool(getattr(hook, "calls", hook))
