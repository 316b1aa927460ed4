"""A `nn.Sequential` that runs neighbours in pairs."""

from collections.abc import Sequence

import torch
from torch import nn

from fastgan._torch_private import hooks
from fastgan.patch import pairs
from fastgan.patch.layers import INSTANCE_NORMS, Norm, keeping_layout
from fastgan.patch.swap import LAID_OUT, PLAN, Accelerated, Plan, original


class Steps(Plan):
    """A chain's plan: its modules, and with which activation each runs as a pair (None: alone)."""

    def of(self, modules: list[nn.Module]) -> Sequence[tuple[nn.Module | None, nn.Module]]:
        """What it does, looked at anew where the modules have changed."""
        known, steps = self.get("steps", ((), ()))
        if known != modules:
            steps, i = [], 0
            while i < len(modules):
                paired = i + 1 < len(modules) and gains(modules[i], modules[i + 1])
                steps.append((modules[i + 1] if paired else None, modules[i]))
                i += 1 + paired
            self["steps"] = modules, steps  # both at once: other threads, and replicas on other devices, run it too
        return steps


def gains(layer: nn.Module, act: nn.Module) -> bool:
    """Whether the two run faster as a pair."""
    kind, found = pairs.fresh(layer), pairs.served(act)
    if kind is None or found is None:
        return False
    if issubclass(kind, Norm):
        return isinstance(layer, Norm) or not pairs.is_inplace(act)
    return pairs.has_one_kernel(layer) or (
        found.inplace is not None and not pairs.is_inplace(act) and not pairs.is_small(layer)
    )


class Chain(Accelerated):
    """Its children stay what they are for anybody who calls them one by one, and are looked at anew when they change."""

    runs_in_order = True

    @classmethod
    def plan(cls):
        return Steps()

    def forward(self, input):
        own = self.__dict__
        steps = own[PLAN].of([*self._modules.values()])
        if not own.get(LAID_OUT) or not isinstance(input, torch.Tensor):
            return _run(steps, input)
        # Weights that are laid out pass their layout on; whoever looks at the result finds it in that of the original's.
        with keeping_layout():
            x = _run(steps, input)
        last = not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)
        norms = any(isinstance(m, tuple(INSTANCE_NORMS)) for m in self.modules())  # torch's give contiguous images
        return x if last and not norms else x.contiguous()


def _run(steps, x):
    for act, layer in steps:
        x = layer(x) if act is None else pairs.pair(act, layer, x)
    return x


def why_not(layer: nn.Module, act: nn.Module) -> str | None:
    """Why the two run one by one, where both are what could be a pair."""
    kind = next((kind for kind in (*pairs.FRESH, Norm) if isinstance(layer, kind)), None)
    if kind is None or original(act) not in pairs.MODULES:
        return None
    what = f"{original(layer).__name__} + {original(act).__name__}"
    if pairs.fresh(layer) is None:
        return f"{what}: {hooks(layer) or 'a forward of its own'} between them"
    if hooks(act):
        return f"{what}: {hooks(act)} after them"
    found = pairs.served(act)
    if found is None and original(act) is nn.PReLU:
        many = act.num_parameters > 1
        return (
            f"{what} in place: nothing to gain" if many else f"{what}: its slope is below 0, on a GPU or no parameter"
        )
    if found is None:
        return f"{what}: {act!r} is none of those that are known"
    if found.inplace is None:
        return f"{what}, which torch cannot compute in place"
    if pairs.is_small(layer):
        return f"{what}: {layer.out_channels} channels in place, nothing to gain"
    return f"{what} in place: nothing to gain"


def what(layer: nn.Module, act: nn.Module) -> str:
    """What a pair that gains does, in words."""
    names = f"{original(layer).__name__} + {pairs.served(act).name}"
    return f"{names} -> norm_act" if isinstance(layer, Norm) else f"{names} in place"
