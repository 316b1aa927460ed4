"""Snake activations and the filters around them, as vocoders and codecs define them, computed by `fastgan.ops`.

The classes stay: their `forward` is exchanged, so that networks built before are served too, under whatever name a class was
imported. A class is taken where a probe agrees: random float64 parameters and inputs, of which one is a single sample, give what
the formula gives. So is each object when it is first called, since it may hold other parts; one that is something else, or that
a hook looks into, runs as it did.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from fastgan import ops
from fastgan._torch_private import hooks
from fastgan.nn import Activation1d as OwnActivation1d
from fastgan.nn import SnakeBeta
from fastgan.patch.imports import Inert

SAMPLES = (1, 13)  # lengths of the probe: the shortest, and one longer than a filter


def snake(x, alpha):
    return ops.snake(x, alpha)


class Activation1d(OwnActivation1d):
    """`fastgan.nn.Activation1d`, also with the argument of the variant that chose a kernel."""

    def __init__(self, activation, up_ratio=2, down_ratio=2, up_kernel_size=12, down_kernel_size=12, fused=True):
        super().__init__(activation, up_ratio, down_ratio, up_kernel_size, down_kernel_size)


ALIAS_FREE = {
    "cuda.activation1d": {"Activation1d": Activation1d},
    "torch.act": {"Activation1d": Activation1d},
}
ALIAS_FREE_TORCH = {"act": {"Activation1d": Activation1d}}
CODEC = {"": {"snake": snake}}
PROVIDED = {
    "cuda.activation1d": {
        "FusedAntiAliasActivation": Inert("alias_free_activation", "its kernel is not built").named(
            "FusedAntiAliasActivation"
        )
    }
}


def forward_of(cls: type) -> Callable | str:
    """The forward of a Snake, or of filters around one, in the place of the class's own; or why it keeps its own."""
    original = vars(cls).get("forward")
    if _is_ours(original):
        return "already fastgan's"
    if _is_snake(cls):
        example, read = _example(cls, 3), _read_snake
    elif _is_activation(cls):
        example, read = _example(cls, SnakeBeta(3)), _read_activation
    else:
        return "a class whose forward calls no function that is replaced"
    if isinstance(example, str):
        return example
    if read(example, original) is None:
        return "on random numbers it does not compute what its name says"
    plans: WeakKeyDictionary[nn.Module, _Snake | _Filtered | None] = WeakKeyDictionary()  # none holds its module

    def forward(self, x):
        if self not in plans:
            plans[self] = read(self, original)
        plan = plans[self]
        return original(self, x) if plan is None or not plan.holds(self, x) else plan.compute(self, x)

    return forward


def is_known(cls: object) -> bool:
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        return False
    return _is_snake(cls) or _is_activation(cls) or _is_ours(vars(cls).get("forward"))


def _is_ours(forward: object) -> bool:
    return getattr(forward, "__module__", None) == __name__


def _code_names(cls: type) -> tuple[str, ...]:
    return getattr(getattr(vars(cls).get("forward"), "__code__", None), "co_names", ())


def _is_snake(cls: type) -> bool:
    return {"alpha", "sin"} <= set(_code_names(cls))


def _is_activation(cls: type) -> bool:
    """Three parts and the ratios of two of them."""
    return len(_code_names(cls)) == 3 and sum("ratio" in name for name in inspect.signature(cls).parameters) == 2


def _example(cls: type, argument: object) -> nn.Module | str:
    try:
        return cls(argument)
    except Exception as error:
        return f"it cannot be built to be looked at: {error!r}"


class _Snake(NamedTuple):
    logscale: bool

    def holds(self, act: nn.Module, x: torch.Tensor) -> bool:
        dtype = act.alpha.dtype
        return x.dim() > 1 and x.is_floating_point() and (dtype == x.dtype or torch.is_autocast_enabled(x.device.type))

    def compute(self, act: nn.Module, x: torch.Tensor) -> torch.Tensor:
        parameters = act._parameters
        return ops.snake(x, _flat(parameters["alpha"]), _flat(parameters.get("beta")), self.logscale)


def _flat(p: torch.Tensor | None) -> torch.Tensor | None:
    return None if p is None else p.flatten()


def _read_snake(act: nn.Module, forward: Callable | None = None) -> _Snake | None:
    """Whether its parameters are logarithms, by comparing; None where it computes something else."""
    if not {"alpha"} <= set(act._parameters) <= {"alpha", "beta"} or act._parameters["alpha"].device.type == "meta":
        return None
    probe = _random_copy(act)
    forward = forward or type(probe).forward
    for logscale in (False, True):
        plan = _Snake(logscale)
        if all(_agree(lambda x: forward(probe, x), lambda x, p=plan: p.compute(probe, x), x) for x in _inputs(probe)):
            return plan
    return None


class _Filtered(NamedTuple):
    act: nn.Module
    snake: _Snake
    up: tuple[nn.Module, str, int]  # the module that holds the filter, its name there, the factor
    down: tuple[nn.Module, str, int]
    parts: tuple[tuple[str, nn.Module], ...]
    watched: tuple[nn.Module, ...]

    def holds(self, module: nn.Module, x: torch.Tensor) -> bool:
        parts = module._modules
        return (
            x.dim() == 3
            and self.snake.holds(self.act, x)
            and all(parts.get(name) is part for name, part in self.parts)
            and not any(map(hooks, self.watched))
        )

    def compute(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        (up, fu, up_factor), (down, fd, down_factor) = self.up, self.down
        parameters = self.act._parameters
        alpha, beta = _flat(parameters["alpha"]), _flat(parameters.get("beta"))
        filters = up._buffers[fu], down._buffers[fd]
        return ops.filtered_snake(x, alpha, beta, *filters, up_factor, down_factor, self.snake.logscale)


def _read_activation(module: nn.Module, forward: Callable) -> _Filtered | None:
    """The roles of its three parts; None where they, or what forward makes of them, are others."""
    parts = tuple((name, module._modules.get(name)) for name in forward.__code__.co_names)
    acts = [m for _, m in parts if m is not None and "alpha" in m._parameters]
    filters = [m for _, m in parts if m is not None and "alpha" not in m._parameters]
    reading = _read_snake(acts[0]) if len(acts) == 1 and len(filters) == 2 else None
    held = [_only_buffer(m) for m in filters]
    if reading is None or None in held:
        return None
    ratios = [_ratio(m) for m in filters]
    order = sorted(range(2), key=lambda i: -ratios[i])
    if None in ratios or not ratios[order[0]] >= 1 >= ratios[order[1]]:
        return None
    up, down = ((*held[i], round(max(ratios[i], 1 / ratios[i]))) for i in order)
    plan = _Filtered(acts[0], reading, up, down, parts, tuple(m for _, part in parts for m in part.modules()))
    probe = _random_copy(module)
    names = {m: name for name, m in module.named_modules()}
    at = {name: m for name, m in probe.named_modules()}
    copied = plan._replace(
        act=at[names[acts[0]]],
        up=(at[names[up[0]]], *up[1:]),
        down=(at[names[down[0]]], *down[1:]),
    )
    inputs = _inputs(copied.act)
    return (
        plan
        if all(_agree(lambda x: forward(probe, x), lambda x: copied.compute(probe, x), x) for x in inputs)
        else None
    )


def _only_buffer(module: nn.Module) -> tuple[nn.Module, str] | None:
    found = [(m, name) for m in module.modules() for name, buffer in m._buffers.items() if buffer is not None]
    return found[0] if len(found) == 1 and not list(module.parameters()) else None


def _ratio(module: nn.Module) -> float | None:
    """By how much it makes a signal longer."""
    probe = _random_copy(module)
    try:
        with torch.no_grad():
            return probe(torch.zeros(1, 1, 16, dtype=torch.float64)).shape[-1] / 16
    except Exception:
        return None


def _random_copy(module: nn.Module) -> nn.Module:
    """A copy in float64 on the CPU, its parameters random and of such sizes that every term counts; buffers as they are."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        copied = copy.deepcopy(module).to("cpu", torch.float64).requires_grad_(False)
        for parameter in copied.parameters():
            parameter.copy_(0.4 + torch.rand(parameter.shape, generator=generator, dtype=torch.float64))
    return copied


def _inputs(act: nn.Module) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for samples in SAMPLES:
        yield torch.randn(2, act.alpha.numel(), samples, generator=generator, dtype=torch.float64)


def _agree(original: Callable, ours: Callable, x: torch.Tensor) -> bool:
    try:
        with torch.no_grad():
            expected, y = original(x), ours(x)
    except Exception:
        return False
    return expected.shape == y.shape and torch.allclose(expected, y, rtol=1e-9, atol=1e-9)
