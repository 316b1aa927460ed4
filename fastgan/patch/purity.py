"""Whether one trace of a forward tells the whole story.

`torch.fx` follows one path and freezes what it does not know to be a tensor. So a forward is accepted only where there is
nothing to miss: no loops, no names but those listed in `PURE`, no arguments that may be absent, and every plain attribute that
it reads becomes a guard, compared at each call.
"""

import dis
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# Functions and methods whose results are determined by their arguments, tensors among them, and the modules they live in.
# fmt: off
PURE = frozenset([
    "torch", "F", "nn", "functional", "relu", "relu_", "leaky_relu", "leaky_relu_", "tanh", "tanh_", "sigmoid",
    "sigmoid_", "elu", "selu", "softplus", "silu", "add", "mul", "sub", "div", "cat", "conv2d",
    "conv_transpose2d", "linear", "interpolate", "pad", "shape", "size", "view", "reshape", "flatten", "mean",
    "sum", "chunk", "permute", "transpose", "unsqueeze", "squeeze", "contiguous", "avg_pool2d", "max_pool2d",
    "sqrt", "rsqrt", "pow", "exp", "softmax", "matmul", "bmm", "pixel_shuffle",
])
# fmt: on
PLAIN = (bool, int, float, str, type(None))


def guards_of(module: nn.Module, forward: Callable) -> dict[str, Any] | str:
    """The plain attributes that forward reads, with their values; or why a trace would not be the whole story."""
    code = getattr(forward, "__code__", None)
    if code is None:
        return "its forward is not a Python function"
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    if any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in parameters):
        return "its forward has optional arguments"
    if code.co_freevars or any(inspect.iscode(constant) for constant in code.co_consts):
        return "its forward defines or closes over other functions"
    if any(instruction.opname == "FOR_ITER" for instruction in dis.get_instructions(code)):
        return "its forward loops"
    guards = {}
    for name in code.co_names:
        value = vars(module).get(name, getattr(type(module), name, None))
        if name in module._modules or name in module._parameters or name in module._buffers:
            continue
        if name in vars(module) or (hasattr(type(module), name) and isinstance(value, (*PLAIN, tuple))):
            plain = isinstance(value, PLAIN) or (isinstance(value, tuple) and all(isinstance(v, PLAIN) for v in value))
            if not plain:
                return f"its forward reads self.{name}, which is {type(value).__name__}"
            guards[name] = value
        elif any(name in vars(child) for child in module.modules() if child is not module):
            return f"its forward may read {name!r} of a child"
        elif name not in PURE:
            return f"its forward uses {name!r}, which is not known to depend on its arguments alone"
        elif name in ("torch", "F", "nn") and forward.__globals__.get(name) not in (torch, F, nn):
            return f"its forward uses a {name!r} that is not torch's"
    return guards
