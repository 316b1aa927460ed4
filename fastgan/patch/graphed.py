"""Inference by CUDA graphs: a module's forward is recorded once for each kind of input and then replayed by one call, which is
what small images wait for on a GPU (the host's time, not its own)."""

import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from fastgan.cuda_graph import Cuda

WARM_UP = 2  # calls of a kind that run as ever: kernels are compiled and chosen
MOST = 8  # kinds of inputs that have a graph; others run as ever
Backend = Cuda  # what captures; tests put one in its place that records on the CPU


class Graphed:
    """The forward of `module`, in evaluation mode and without gradients by a graph; otherwise, for what is no tensor on its
    device, while compiling and within somebody's capture as ever.

    A graph holds the addresses of parameters and buffers: where they are others the module is captured anew, and values may
    change in place. What the forward's Python decided is as it was when it was captured.
    """

    def __init__(self, module: nn.Module, device: torch.device):
        self._module, self._device = module, device
        self._backend = Backend(device)
        self._calls: dict[tuple, int] = {}
        self._graphs: dict[tuple, Callable] = {}
        self._held: tuple[int, ...] = ()  # the addresses that they hold

    def __deepcopy__(self, memo):
        return Graphed(memo.get(id(self._module), self._module), self._device)

    def __reduce__(self):
        return Graphed, (self._module, self._device)

    def __call__(self, *arguments, **options):
        def forward():
            return type(self._module).forward(self._module, *arguments, **options)

        flat, spec = tree_flatten((arguments, options))
        key = self._key(flat, spec)
        if key is None:
            return forward()
        if (seen := self._calls.setdefault(key, 0)) < WARM_UP:
            self._calls[key] = seen + 1
            return self._backend.aside(forward)
        if key not in self._graphs:
            self._graphs[key] = self._capture(flat, spec)
        return self._graphs[key](flat)

    def _key(self, flat: list, spec) -> tuple | None:
        """What must be equal for a graph to hold; None where there is to be none."""
        busy = torch.is_grad_enabled() or self._module.training or torch.compiler.is_compiling()
        if busy or (self._device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            return None
        if not flat or any(not isinstance(x, torch.Tensor) or x.device.type != self._device.type for x in flat):
            return None
        inputs = tuple((x.shape, x.stride(), x.dtype, x.device) for x in flat)
        kind = self._device.type
        mode = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind), torch.is_inference_mode_enabled()
        held = tuple(t.data_ptr() for t in (*self._module.parameters(), *self._module.buffers()))
        if held != self._held:  # what the graphs read is gone
            self._held = held
            self._calls.clear()
            self._graphs.clear()
        key = inputs, str(spec), mode
        return key if key in self._calls or len(self._calls) < MOST else None

    def _capture(self, flat: list[torch.Tensor], spec) -> Callable:
        fixed = [x.clone() for x in flat]
        arguments, options = tree_unflatten(fixed, spec)

        def forward():
            return type(self._module).forward(self._module, *arguments, **options)

        try:
            replay, result = self._backend.capture(forward)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            warnings.warn(f"{type(self._module).__name__} runs without a CUDA graph: {why}", stacklevel=4)
            return lambda inputs: self._plainly(inputs, spec)

        def run(inputs: list[torch.Tensor]):
            for held, x in zip(fixed, inputs, strict=True):
                held.copy_(x)
            replay()
            return tree_map(lambda y: y.clone() if isinstance(y, torch.Tensor) else y, result)

        return run

    def _plainly(self, inputs: list[torch.Tensor], spec):
        arguments, options = tree_unflatten(inputs, spec)
        return type(self._module).forward(self._module, *arguments, **options)
