"""Convolutions under weight normalisation (Salimans & Kingma, 2016, eq. 2): w = g v / |v|, |v| over all axes but the first.

The state_dict has the names of `torch.nn.utils.weight_norm`, `weight_g` and `weight_v`, which published vocoders have. Those of
`torch.nn.utils.parametrizations.weight_norm`, and a plain `weight`, are taken as well.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from fastgan._torch_private import weight_norm

__all__ = [
    "WeightNormConv1d",
    "WeightNormConv2d",
    "WeightNormConvTranspose1d",
    "fold_weight_norm",
    "unfold_weight_norm",
]

M = TypeVar("M", bound=nn.Module)
NEWER = ("parametrizations.weight.original0", "parametrizations.weight.original1")


class _WeightNorm:
    """Before a convolution among the bases: `weight` is made of `weight_g` and `weight_v`, or stored where it is folded."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.unfold()

    @property
    def weight(self) -> torch.Tensor:
        if "weight_g" in self._parameters:
            return weight_norm(self.weight_v, self.weight_g)
        return self.__getattr__("weight")

    def fold(self) -> None:
        if "weight_g" in self._parameters:
            weight = nn.Parameter(self.weight.detach(), self.weight_v.requires_grad)
            del self.weight_g, self.weight_v
            self.register_parameter("weight", weight)

    def unfold(self) -> None:
        if "weight" in self._parameters:
            weight = self._parameters.pop("weight")
            g, v = factors(weight.detach())
            self.weight_g, self.weight_v = (nn.Parameter(t, weight.requires_grad) for t in (g, v))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        def rename(olds, make, news):
            if all(prefix + name in state_dict for name in olds):
                made = make(*(state_dict.pop(prefix + name) for name in olds))
                state_dict.update(zip((prefix + name for name in news), made, strict=True))

        normed = ("weight_g", "weight_v")
        rename(NEWER, lambda g, v: (g, v), normed)
        if "weight_g" in self._parameters:
            rename(("weight",), factors, normed)
        else:
            rename(normed, lambda g, v: (weight_norm(v, g),), ("weight",))
        super()._load_from_state_dict(state_dict, prefix, *args)


def factors(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """g = |w| and v = w, whose product is the weight; of what is all 0, v is 1, as 0 / |0| is no number."""
    g = torch.norm_except_dim(weight, 2, 0)
    return g, torch.where(g == 0, 1.0, weight)


class WeightNormConv1d(_WeightNorm, nn.Conv1d):
    """`torch.nn.Conv1d` under weight normalisation."""


class WeightNormConv2d(_WeightNorm, nn.Conv2d):
    """`torch.nn.Conv2d` under weight normalisation."""


class WeightNormConvTranspose1d(_WeightNorm, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` under weight normalisation; the norm is that of an input channel, which comes first."""


def fold_weight_norm(network: M) -> M:
    """Store the products g v / |v| instead of their factors in all convolutions of `network`, and return it: inference then
    computes no norms. The state_dict has `weight` for `weight_g` and `weight_v`."""
    for module in network.modules():
        if isinstance(module, _WeightNorm):
            module.fold()
    return network


def unfold_weight_norm(network: M) -> M:
    """The reverse of `fold_weight_norm`, with v = w and g = |w|: the same function to rounding, to be trained further."""
    for module in network.modules():
        if isinstance(module, _WeightNorm):
            module.unfold()
    return network
