"""Which neighbouring modules fastgan computes in one step, why it leaves others alone, and the steps themselves.

A step takes the original modules, uses their parameters where they are and asks again at every call whether its conditions
hold: hooks added later are seen, and a module that stopped to qualify is simply called.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from fastgan import ops
from fastgan._torch_private import hooks
from fastgan.ops import _library
from fastgan.ops._checks import FLOATS
from fastgan.ops.conv_forms import FOLD
from fastgan.patch import forms


class Act(NamedTuple):
    """An activation of `bias_act` with gain 1, and the form of it that overwrites its argument, if torch has one."""

    name: str
    alpha: float
    inplace: Callable | None


class Rule(NamedTuple):
    """`count` modules that run as one: step(modules, x, residual) -> y. Without a step, `what` says why not."""

    step: Callable | None
    count: int
    what: str


LINEAR_MAPS = (*forms.CONVOLUTIONS, *forms.TRANSPOSED, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
         nn.GroupNorm, nn.LayerNorm)  # fmt: skip
INSTANCE_NORMS = {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}  # and the rank of their batches
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.SELU, nn.Softplus, nn.SiLU)


PLAIN_ACTIVATIONS = {
    nn.ReLU: Act("relu", 0.0, torch.relu_),
    nn.Tanh: Act("tanh", 0.0, torch.tanh_),
    nn.Sigmoid: Act("sigmoid", 0.0, torch.sigmoid_),
    nn.SELU: Act("selu", 0.0, torch.selu_),
    nn.SiLU: Act("swish", 0.0, lambda y: F.silu(y, inplace=True)),
}


def runs_as(module: nn.Module, kinds: Sequence[type]) -> type | None:
    """The torch class among `kinds` whose forward this module runs: the class itself, or a subclass that only adds to it
    (a parametrised one, for example)."""
    kind = type(module)
    if kind not in kinds:
        kind = next((kind for kind in kinds if isinstance(module, kind)), None)
    if kind is None or type(module).forward is not kind.forward:
        return None
    own = getattr(kind, "_conv_forward", None)
    return kind if getattr(type(module), "_conv_forward", None) is own else None


def activation(module: nn.Module) -> Act | str | None:
    """The activation that `module` is; a sentence where it is one in a form `bias_act` does not have; else None."""
    kind = runs_as(module, ACTIVATIONS)
    if kind is nn.LeakyReLU:
        slope = module.negative_slope
        act = Act("lrelu", slope, lambda y: F.leaky_relu_(y, slope))
        return act if slope >= 0 else f"LeakyReLU with the negative slope {slope}"
    if kind is nn.ELU:
        return Act("elu", 1.0, F.elu_) if module.alpha == 1 else f"ELU with alpha {module.alpha}, not 1"
    if kind is nn.Softplus:
        plain = module.beta == 1 and module.threshold == 20
        return Act("softplus", 0.0, None) if plain else "Softplus with another beta or threshold than 1 and 20"
    return PLAIN_ACTIVATIONS.get(kind)


def has_kernel(op: str, device: torch.device) -> bool:
    """Whether `op` has more than its reference on this device."""
    return _has_kernel(op, device.type)


@functools.cache  # asked for each layer at each call; kernels are loaded with fastgan.ops, once
def _has_kernel(op: str, device: str) -> bool:
    kernels = ("cpp",) if device == "cpu" else ("triton", "cuda")
    return any(_library.availability(op, kernel).loaded for kernel in kernels)


def _without_kernel(op: str, module: nn.Module) -> str:
    device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    anywhere = torch.cuda.is_available() and has_kernel(op, torch.device("cuda"))
    return "" if has_kernel(op, device) or anywhere else f"{op} has no kernel for {device.type} here"


def rule(modules: Sequence[nn.Module], i: int) -> Rule:
    """What becomes of modules[i] and its followers."""
    module = modules[i]
    after = modules[i + 1] if i + 1 < len(modules) else None
    act = None if after is None else activation(after)
    if type(module) in INSTANCE_NORMS:
        if module.track_running_stats:
            return Rule(None, 1, "instance norm with running statistics, which differ between training and evaluation")
        if seen := hooks(module):
            return Rule(None, 1, f"instance norm with {seen}")
        if why := _without_kernel("norm_act", module):
            return Rule(None, 1, why)
        if isinstance(act, Act) and not hooks(after):
            return Rule(norm, 2, f"instance norm + {act.name} -> norm_act")
        return Rule(norm, 1, "instance norm -> norm_act")
    if fixed_filter(module):
        if why := _without_kernel("upfirdn2d", module):
            return Rule(None, 1, why)
        return Rule(filtered, 1, f"depthwise {type(module).__name__} with a fixed filter -> upfirdn2d")
    kind = runs_as(module, (*LINEAR_MAPS, *NORMS))
    other = "" if hooks(module) else forms.other_form(module)
    if kind is None or act is None:
        return Rule(_alone if other else None, 1, other)
    if isinstance(act, str):
        return Rule(None, 1, f"{kind.__name__} + {act}")
    if seen := (module._forward_hooks and "forward hooks") or hooks(after):
        return Rule(None, 1, f"{kind.__name__} + {act.name} with {seen} between or after them")
    if act.name == "softplus" and kind in NORMS:
        return Rule(None, 1, f"{kind.__name__} + softplus, which torch cannot compute in place")
    if not other and (kind in NORMS or module.bias is None):  # then all there is to gain is a large result's memory
        if getattr(after, "inplace", False):
            return Rule(None, 1, f"{kind.__name__} + {act.name} in place: nothing to gain")
        if kind in (*forms.CONVOLUTIONS, *forms.TRANSPOSED) and module.out_channels <= FOLD.channels:
            return Rule(None, 1, f"{kind.__name__} to {module.out_channels} channels + {act.name}: nothing to gain")
    fused = "bias_act, in place without gradients" if kind in LINEAR_MAPS else "in place without gradients"
    return Rule(_activated, 2, f"{kind.__name__} + {act.name} -> {fused}" + f"; {other}" * bool(other))


def is_sequence(module: nn.Module) -> bool:
    """Whether calling the module is calling its children in turn, with nobody looking on."""
    if not isinstance(module, nn.Sequential):
        return False
    in_order = type(module).forward is nn.Sequential.forward or getattr(type(module), "runs_in_order", False)
    return in_order and not hooks(module)


def flat(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """`modules`, with those of sequences among them in their place."""
    found: list[nn.Module] = []
    for module in modules:
        found += flat(module._modules.values()) if is_sequence(module) else [module]
    return found


def candidates(modules: Sequence[nn.Module]) -> set[int]:
    """Where `modules` have a step now. Elsewhere a call is just the module's: asking `rule` of all 13 of a DCGAN's
    discriminator costs 3% of its time for one image."""
    i, found = 0, set()
    while i < len(modules):
        step, count, _ = rule(modules, i)
        if step is not None:
            found.add(i)
        i += count
    return found


def run(
    modules: Sequence[nn.Module], x: torch.Tensor, residual: torch.Tensor | None = None, steps: set[int] | None = None
) -> torch.Tensor:
    """modules[-1](... modules[0](x)) + residual, step by step. `steps`: `candidates`, if known."""
    i = 0
    while i < len(modules):
        if steps is not None and i not in steps:
            x = modules[i](x)
            i += 1
            continue
        step, count, _ = rule(modules, i)
        if step is norm and i + count == len(modules):
            return norm(modules[i:], x, residual)
        x = modules[i](x) if step is None else step(modules[i : i + count], x)
        i += count
    return x if residual is None else x + residual


def _plain(modules, x, residual=None):
    for module in modules:
        x = module(x)
    return x if residual is None else x + residual


# Devices where a step is one under autocast too. On the CPU nothing was gained by it.
AUTOCAST = {"cuda"}


def fuses(act: Act, device: torch.device) -> bool:
    """Whether `bias_act` and `norm_act` stand in for the modules under what autocast is active: their results have the type of
    the input, as those of the modules have, but for softplus, which autocast computes in float32 on a GPU."""
    return not torch.is_autocast_enabled(device.type) or (device.type in AUTOCAST and act.name != "softplus")


def norm(modules, x, residual=None):
    module = modules[0]
    act = activation(modules[1]) if len(modules) > 1 else Act("linear", 0.0, None)
    batch = x.dim() == INSTANCE_NORMS[type(module)] and x.dtype in FLOATS
    if not batch or x[0:1, 0:1].numel() <= 1 or not has_kernel("norm_act", x.device) or not fuses(act, x.device):
        return _plain(modules, x, residual)
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        return _plain(modules, x, residual)
    return ops.norm_act(x, module.weight, module.bias, residual, act.name, act.alpha, module.eps)


def _activated(modules, x):
    module, after = modules
    recorded = forms.recorded(module, x)
    if module.bias is None and recorded and type(module) is not nn.Conv2d:  # nothing may be written over
        return _plain(modules, x)
    kernel = x.dtype in FLOATS and has_kernel("bias_act", x.device)
    if not kernel or torch.compiler.is_compiling() or not fuses(activation(after), x.device):
        return _plain(modules, x)
    linear = type(module) in LINEAR_MAPS and module.bias is not None and not hooks(module)
    if linear and (recorded or x.device.type != "cpu"):
        act = activation(after)
        y = forms.without_bias(module, x)
        dim = y.dim() - 1 if type(module) is nn.Linear else y.dim() - 1 - len(module.kernel_size)
        return ops.bias_act(y, module.bias, dim, act.name, act.alpha, 1.0)
    return activated(after, _alone([module], x))


def activated(after, y):
    """after(y) for a y that nobody else has seen: in place where that is allowed."""
    act = activation(after)
    free = not (torch.is_grad_enabled() and y.requires_grad) and not torch.compiler.is_compiling()
    return after(y) if not free or act.inplace is None or hooks(after) else act.inplace(y)


def _alone(modules, x):
    (module,) = modules
    return module(x) if hooks(module) else forms.run(module, x)


def fixed_filter(module: nn.Module) -> bool:
    """Whether the module is a depthwise convolution whose weight is not learnt."""
    return (
        type(module) in (nn.Conv2d, nn.ConvTranspose2d)
        and module.groups == module.in_channels == module.out_channels > 1
        and not module.weight.requires_grad
        and module.bias is None
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and tuple(module.dilation) == (1, 1)
        and not hooks(module)
    )


def filtered(modules, x):
    (module,) = modules
    f = module.weight[0, 0]
    batch = x.dim() == 4 and x.dtype == f.dtype and x.dtype in FLOATS and has_kernel("upfirdn2d", x.device)
    # The same filter for every channel is a fact about numbers, asked for at every call: a few kB.
    if not batch or torch.compiler.is_compiling() or not torch.equal(module.weight, f.expand_as(module.weight)):
        return module(x)
    (sy, sx), (py, px) = module.stride, module.padding
    if type(module) is nn.Conv2d:
        return ops.upfirdn2d(x, f, down=[sx, sy], padding=[px, px, py, py], flip_filter=True)
    ky, kx = f.shape
    oy, ox = module.output_padding
    padding = [kx - 1 - px, kx - px - sx + ox, ky - 1 - py, ky - py - sy + oy]
    return ops.upfirdn2d(x, f, up=[sx, sy], padding=padding)
