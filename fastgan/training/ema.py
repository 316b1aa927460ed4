"""Exponential moving average of networks, measured in images so that batch size and process count do not change it."""

from __future__ import annotations

import copy

import torch
from torch import nn

from fastgan._torch_private import copy_, lerp_
from fastgan.training.shard import local


class EMA:
    """Averaged copies, in eval mode, of some networks.

    After n more images every parameter p moves as p_ema <- p + (p_ema - p) * 0.5^(n / halflife). Early in a run the
    half-life is at most a twentieth of the images seen, so that the average forgets the initial weights (Karras et al.,
    2020, appendix B), unless these are worth keeping: `fresh` is False. Buffers are copied.

    Attributes: `networks`, the averaged copies by name.
    """

    RAMP = 0.05

    def __init__(self, networks: dict[str, nn.Module], halflife: float, fresh: bool = True):
        self.halflife, self.fresh = halflife, fresh
        self._source = networks
        self.networks = {
            name: copy.deepcopy(network).eval().requires_grad_(False) for name, network in networks.items()
        }

    def __repr__(self) -> str:
        return f"EMA of {', '.join(self.networks)}, half-life {self.halflife:g} images"

    @torch.no_grad()
    def restart(self) -> None:
        """Forget all but the networks as they are now."""
        for name, averaged in self.networks.items():
            source = self._source[name]
            olds, news = ([*network.parameters(), *network.buffers()] for network in (averaged, source))
            for old, new in zip(olds, news, strict=True):
                old.copy_(new)

    @torch.no_grad()
    def update(self, images: int, seen: int) -> None:
        """`images` more were used, `seen` in all."""
        halflife = min(self.halflife, seen * self.RAMP) if self.fresh else self.halflife
        keep = 0.5 ** (images / halflife) if halflife > 0 else 0.0
        for name, averaged in self.networks.items():
            source = self._source[name]
            old, new = ([local(p) for p in network.parameters()] for network in (averaged, source))
            if old:
                lerp_(old, new, 1 - keep)
            if buffers := list(averaged.buffers()):
                copy_(buffers, list(source.buffers()))
