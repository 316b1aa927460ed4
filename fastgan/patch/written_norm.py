"""Instance norm that a module of others writes out (mean, variance, division), computed by `norm_act`.

A module is taken where its forward is straight code of torch's smooth functions (no branch, no limit, no call of its own, nothing
stored) and gives the norm of images in float64, of large numbers and small ones: such code is one formula, and two formulas that
agree there are the same.
"""

import dis
import inspect
import math
import types
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.compiler import is_compiling

from fastgan import ops
from fastgan._torch_private import autocast_anywhere, tracing
from fastgan.patch import layers
from fastgan.patch.swap import PLAN, Accelerated, original

REFUSED = {"STORE_ATTR", "STORE_GLOBAL", "STORE_SUBSCR", "STORE_DEREF", "DELETE_ATTR", "IMPORT_NAME"}
REFUSED |= {"COMPARE_OP", "IS_OP", "CONTAINS_OP", "UNARY_NOT", "UNARY_INVERT", "BUILD_SLICE", "BINARY_SLICE"}
# One formula for all numbers and sizes: a limit, a comparison or a part of the image would not show on small ones.
SMOOTH = {"mean", "var", "std", "var_mean", "std_mean", "sum", "sqrt", "rsqrt", "reciprocal", "square", "pow"}
SMOOTH |= {"add", "sub", "mul", "div", "true_divide", "subtract", "multiply", "divide", "neg", "float_power"}
SMOOTH |= {"size", "shape", "numel", "view", "reshape", "expand", "expand_as", "unsqueeze", "flatten", "contiguous"}
LARGEST = 0.1  # of numbers that may be an epsilon
ARITHMETIC = {"+", "-", "*", "/", "**"}


class WrittenNorm(Accelerated):
    """The formula as one operation, for float32 and float64; its numbers are looked at anew when they change."""

    def forward(self, x):
        plan, numbers = self.__dict__[PLAN], _numbers(self)
        if plan.get("numbers") != numbers:
            plan.update(numbers=numbers, eps=epsilon(self, super().forward))
        eps = plan["eps"]
        usual = (
            type(x) in layers.PLAIN
            and x.dim() == 4
            and x.dtype in (torch.float32, torch.float64)
            and not is_compiling()
            and not tracing()
        )
        if eps is None or not usual or autocast_anywhere() or not layers.has_kernel("norm_act", x.device):
            return super().forward(x)
        pixels = x.shape[2] * x.shape[3]
        if pixels < 2 or not len(x) or not layers.pays(x, pixels):
            return super().forward(x)
        return ops.norm_act(x, act="linear", eps=eps)


def form_of(module: nn.Module) -> tuple[type, str] | None:
    """The form of a module that writes the norm out, and what it does; None for others."""
    forward = type(module).forward
    if module._modules or module._parameters or module._buffers or "forward" in vars(module):
        return None
    if not isinstance(forward, types.FunctionType) or "mean" not in forward.__code__.co_names:
        return None
    if not _is_straight(forward, module) or epsilon(module, module.forward) is None:
        return None
    return WrittenNorm, "instance norm, written out -> norm_act"


def _numbers(module: nn.Module) -> tuple:
    return tuple(value for value in vars(module).values() if isinstance(value, int | float))


def _is_straight(forward: types.FunctionType, module: nn.Module) -> bool:
    code = forward.__code__
    if code.co_freevars or code.co_cellvars or len(inspect.signature(forward).parameters) != 2:
        return False
    own = False  # whether `self` was read just before
    for step in dis.get_instructions(code):
        jumps = step.opcode in dis.hasjrel or step.opcode in dis.hasjabs
        if jumps or step.opname in REFUSED or (own and not isinstance(vars(module).get(step.argval), int | float)):
            return False
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and not own and step.argval not in SMOOTH:
            return False
        if step.opname == "BINARY_OP" and step.argrepr.removesuffix("=") not in ARITHMETIC:
            return False
        if isinstance(step.argval, slice):
            return False
        if step.opname == "LOAD_GLOBAL" and forward.__globals__.get(step.argval) not in (torch, F):
            return False
        if isinstance(step.argval, tuple) and code.co_varnames[0] in step.argval:
            return False  # two variables read at once: which is looked into is not told
        own = step.opname.startswith("LOAD_FAST") and step.argval == code.co_varnames[0]
    return True


def epsilon(module: nn.Module, forward: Callable) -> float | None:
    """The epsilon of instance norm where `forward` is that; None where it is something else."""
    numbers = (*_numbers(module), *original(module).forward.__code__.co_consts)
    held = dict.fromkeys(v for v in numbers if isinstance(v, float) and 0 < v <= LARGEST)
    pairs = []
    with torch.no_grad():
        for shape, scale in (((2, 3, 5, 7), 1.0), ((1, 2, 4, 3), 1e-3)):
            # Fixed numbers: a recording (frozen/) that meets random ones takes what follows from them for the network's.
            x = scale * torch.arange(math.prod(shape), dtype=torch.float64).square().sin().view(shape)
            kept = x.clone()
            try:
                y = forward(x)
            except Exception:
                return None
            if not isinstance(y, torch.Tensor) or y.shape != x.shape or not torch.equal(x, kept):
                return None
            pairs.append((x, y))
    for eps in held:
        if all(torch.allclose(y, F.instance_norm(x, eps=eps), rtol=1e-9, atol=1e-12) for x, y in pairs):
            return eps
    return None
