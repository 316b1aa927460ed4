"""Two neighbours as one: what rewritten forwards (source.py) and chains (chain.py) call in the place of act(layer(x)).

A layer's result that nobody else sees may be written over: the activation then needs no memory of its own, which on the CPU is
most of its time for large images (32 channels of 256x256 pixels, forward and backward: 0.79 of the whole). Instance norm takes
in the activation, and a residual. On a GPU bias and activation are one kernel.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from fastgan import ops
from fastgan._torch_private import hooks, module_hooks
from fastgan.ops._checks import FLOATS
from fastgan.ops.conv_forms import FOLD
from fastgan.patch.layers import (
    AUTOCAST,
    CONVOLUTIONS,
    INSTANCE_NORMS,
    TRANSPOSED,
    Norm,
    has_kernel,
    norm,
    norm_op,
    without_bias,
)
from fastgan.patch.swap import Accelerated, original


class Act(NamedTuple):
    """An activation of `bias_act` with gain 1.

    inplace: the form of it that overwrites its argument, if torch has one.
    recorded: whether that gives the same gradients of any order: torch computes them from the result.
    """

    name: str
    alpha: float = 0.0
    inplace: Callable | None = None
    recorded: bool = False


RELU = Act("relu", 0.0, torch.relu_, True)
TANH = Act("tanh", 0.0, torch.tanh_, True)
SIGMOID = Act("sigmoid", 0.0, torch.sigmoid_, True)
SELU = Act("selu", 0.0, torch.selu_)
SILU = Act("swish", 0.0, functools.partial(F.silu, inplace=True))
ELU = Act("elu", 1.0, F.elu_)
SOFTPLUS = Act("softplus")


@functools.lru_cache(maxsize=64)
def _leaky(slope: float) -> Act | None:
    return Act("lrelu", slope, lambda y: F.leaky_relu_(y, slope), True) if slope >= 0 else None


def _leaky_function(x, negative_slope=0.01, inplace=False):
    return _leaky(negative_slope) if isinstance(negative_slope, int | float) else None


def _elu_function(x, alpha=1.0, inplace=False):
    return ELU if alpha == 1 else None


def _prelu(module: nn.PReLU) -> Act | None:
    """With one slope for all channels and without a gradient of it. On a GPU its number is not at hand."""
    slope = module.weight
    learnt = torch.is_grad_enabled() and slope.requires_grad
    if learnt or torch.compiler.is_compiling() or type(slope) is not nn.Parameter or not slope.is_cpu or len(slope) > 1:
        return None
    return _leaky(slope.item())


# What a function with these arguments is; without arguments there is nothing to ask.
FUNCTIONS = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_), lambda x, inplace=False: RELU),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _leaky_function),
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_), lambda x: TANH),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, torch.sigmoid_), lambda x: SIGMOID),
    **dict.fromkeys((F.elu, F.elu_), _elu_function),
    **dict.fromkeys((F.selu, F.selu_, torch.selu, torch.selu_), lambda x, inplace=False: SELU),
    F.silu: lambda x, inplace=False: SILU,
}
MODULES = {
    nn.ReLU: lambda m: RELU,
    nn.LeakyReLU: lambda m: _leaky(m.negative_slope),
    nn.PReLU: _prelu,
    nn.Tanh: lambda m: TANH,
    nn.Sigmoid: lambda m: SIGMOID,
    nn.ELU: lambda m: ELU if m.alpha == 1 else None,
    nn.SELU: lambda m: SELU,
    nn.SiLU: lambda m: SILU,
    nn.Softplus: lambda m: SOFTPLUS if m.beta == 1 and m.threshold == 20 else None,
}  # fmt: skip
IN_PLACE = {F.relu_, torch.relu_, F.leaky_relu_, torch.tanh_, torch.sigmoid_, F.elu_, F.selu_, torch.selu_}

KEPT = 256  # functions with their arguments that are remembered
ON_CPU = False  # whether bias and activation are one kernel there too: it takes 1.04 to 1.15 times as long as the two

# Layers whose result is new memory that their gradient does not read.
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)
RESIZES = (nn.PixelShuffle, nn.PixelUnshuffle, nn.Upsample)
FRESH = {kind: kind.forward for kind in (*CONVOLUTIONS, *TRANSPOSED, nn.Linear, *NORMS, *RESIZES)}


def activation(act: Callable, rest: tuple = (), options: dict | None = None) -> Act | None:
    """What `act(x, *rest, **options)` computes, for a module that nobody watches or a function of torch; else None."""
    if type(act) not in CALLABLE:
        known = MODULES.get(type(act)) or MODULES.get(original(act))
        return known(act) if known is not None and not rest and not options and not hooks(act) else None
    if module_hooks(None):
        return None
    key = (act, rest, *options.items()) if options else (act, rest)
    try:
        return _functions[key]
    except KeyError:
        if len(_functions) >= KEPT:
            _functions.clear()
        found = _functions[key] = _function(act, rest, options or {})
        return found
    except TypeError:  # an argument that is no number
        return None


@torch.no_grad()
def served(act: nn.Module) -> Act | None:
    """What a module computes where no gradients are taken."""
    return activation(act)


CALLABLE = {type(F.leaky_relu), type(torch.relu)}  # functions in Python, and built in
_functions: dict[tuple, Act | None] = {}


def _function(act: Callable, rest: tuple, options: dict) -> Act | None:
    known = FUNCTIONS.get(act)
    try:
        return None if known is None else known(None, *rest, **options)
    except TypeError:  # arguments that the function refuses as well, or `out`
        return None


def is_inplace(act: Callable, rest: tuple = (), options: dict | None = None) -> bool:
    """Whether it writes over its argument as it is."""
    if isinstance(act, nn.Module):
        return bool(getattr(act, "inplace", False))
    return act in IN_PLACE or bool((options or {}).get("inplace")) or (bool(rest) and rest[-1] is True)


class _Kinds(dict):
    """The kind of layer that a class is: one of `FRESH` or `Norm`; None for others."""

    def __missing__(self, cls: type) -> type | None:
        kind = Norm if issubclass(cls, Norm) else next((kind for kind in FRESH if issubclass(cls, kind)), None)
        if kind in FRESH:
            own = getattr(kind, "_conv_forward", None)
            same = cls.forward is FRESH[kind] or issubclass(cls, Accelerated)
            same = same and cls.__call__ is nn.Module.__call__
            kind = kind if same and getattr(cls, "_conv_forward", None) is own else None
        self[cls] = kind
        return kind


_kinds = _Kinds()


def fresh(layer: Callable) -> type | None:
    """The kind of layer, where its result is its own and nobody looks at it; the last of a nn.Sequential counts for it."""
    kind = _kinds[type(layer)]
    if kind is None and not isinstance(layer, nn.Sequential):
        return None
    own = layer.__dict__
    if own["_forward_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]:
        return None
    if "forward" in own or "_conv_forward" in own:
        return None
    if kind is None and layer._modules and runs_in_order(type(layer)):
        return fresh(next(reversed(layer._modules.values())))
    return kind


@functools.cache
def runs_in_order(cls: type) -> bool:
    """Whether calling a module of the class is calling its children in turn."""
    return issubclass(cls, nn.Sequential) and (
        cls.forward is nn.Sequential.forward or getattr(cls, "runs_in_order", False)
    )


def has_one_kernel(layer: nn.Module) -> bool:
    """Whether bias and activation run as one kernel where the layer is."""
    bias = layer._parameters.get("bias")
    return bias is not None and (ON_CPU or not bias.is_cpu)


def is_small(layer: nn.Module) -> bool:
    """Whether a convolution makes so few channels, an image's, that memory for them is no matter."""
    return getattr(layer, "out_channels", FOLD.channels + 1) <= FOLD.channels


def pair(act: Callable, layer: Callable, x, *rest, **options):
    """act(layer(x), *rest, **options)."""
    kind = fresh(layer)
    found = None if kind is None or torch.compiler.is_compiling() else activation(act, rest, options)
    if found is None:
        return act(layer(x), *rest, **options)
    if kind is Norm and isinstance(layer, Norm):
        way = None if layer._forward_pre_hooks else layer.way(x)
        if way is norm or (way is norm_op and found.name != "softplus"):
            return way(layer, x, found.name, found.alpha)
        y = layer(x) if way is None else way(layer, x)
    elif type(x) is torch.Tensor and (ON_CPU or not x.is_cpu):
        y = with_bias(found, layer, kind, x)
        return act(layer(x), *rest, **options) if y is None else y
    else:
        y = layer(x)
    if found.inplace is None or type(y) is not torch.Tensor:
        return act(y, *rest, **options)
    # torch's instance norm, and its linear layer in three dimensions, give autograd a view.
    if y.requires_grad and (not found.recorded or kind is Norm or (kind is nn.Linear and y.dim() != 2)):
        return act(y, *rest, **options)
    return found.inplace(y)


def run(modules: Sequence[nn.Module], x):
    """modules[-1](... modules[0](x))."""
    for module in modules:
        x = module(x)
    return x


def with_bias(act: Act, layer: nn.Module, kind: type, x: torch.Tensor) -> torch.Tensor | None:
    """Bias and activation of a layer in one kernel; None where they are not."""
    if original(layer) not in (*CONVOLUTIONS, *TRANSPOSED, nn.Linear) or layer.bias is None or hooks(layer):
        return None
    if x.dtype not in FLOATS or not has_kernel("bias_act", x.device) or not fuses(act, x.device):
        return None
    y = without_bias(layer, x)
    dim = y.dim() - 1 if kind is nn.Linear else y.dim() - 1 - len(layer.kernel_size)
    return ops.bias_act(y, layer.bias, dim, act.name, act.alpha, 1.0)


def fuses(act: Act, device: torch.device) -> bool:
    """Whether `bias_act` and `norm_act` stand in for the modules under what autocast is active: their results have the type of
    the input, as those of the modules have, but for softplus, which autocast computes in float32 on a GPU."""
    return not torch.is_autocast_enabled(device.type) or (device.type in AUTOCAST and act.name != "softplus")


def add(x, layer: Callable, value, first: bool):
    """x + layer(value), or layer(value) + x where the layer comes `first`."""
    if torch.compiler.is_compiling() or not isinstance(layer, nn.Module) or not ends_in_norm(layer):
        return layer(value) + x if first else x + layer(value)
    if isinstance(layer, nn.Sequential):
        *before, layer = layer._modules.values()
        value = run(before, value)
        return add(x, layer, value, first)
    y = layer.plus(value, x) if isinstance(layer, Norm) else None
    if y is None:
        y = layer(value) + x if first else x + layer(value)
    return y


def scaled(function: Callable, x, first, second, *rest, **options):
    """function(x, first * second, ...) of an equalised layer: the factor goes to the smaller of image and weight, in 16 bits to
    the weight as written."""
    if function in SCALED and not torch.compiler.is_compiling():
        weight, scale = (second, first) if isinstance(second, torch.Tensor) else (first, second)
        plain = type(weight) is nn.Parameter and type(scale) is float and type(x) is torch.Tensor
        if plain and x.numel() < weight.numel() and x.dtype in (torch.float32, torch.float64):
            return function(x * scale, weight, *rest, **options)
    return function(x, operator.mul(first, second), *rest, **options)


SCALED = {F.conv1d, F.conv2d, F.conv_transpose2d, F.linear}


def ends_in_norm(layer: nn.Module) -> bool:
    """Whether the last layer of `layer`, which nobody watches, is an instance norm."""
    if isinstance(layer, nn.Sequential) and layer._modules and runs_in_order(type(layer)):
        return not hooks(layer) and ends_in_norm(next(reversed(layer._modules.values())))
    return isinstance(layer, (Norm, *INSTANCE_NORMS)) and not hooks(layer)
