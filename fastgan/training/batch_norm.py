"""Batch normalisation over the images of all processes.

torch's SyncBatchNorm runs on GPUs alone and has no second derivative; this one is made of torch operations and one
all-reduce per layer, on any device, with derivatives of any order.
"""

from __future__ import annotations

import torch
from torch import nn

from fastgan._torch_private import BatchNorm
from fastgan.training.distributed import World


class _Synchronised(BatchNorm):
    world: World

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        pixels = [d for d in range(x.dim()) if d != 1]
        mine = torch.stack(torch.var_mean(wide, pixels, correction=0))
        # Every process has as many pixels, so that the whole's variance is the mean variance plus that of the means.
        variances, means = self.world.gather(mine[None]).unbind(1)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        if self.running_mean is not None:
            self._track(mean.detach(), variance.detach(), x.numel() // x.shape[1] * self.world.size)
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        if self.weight is not None:
            scale, shift = scale * self.weight, torch.addcmul(self.bias, shift, self.weight)
        return torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        self.num_batches_tracked += 1
        momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)


_BASES = {
    base: type(base.__name__, (_Synchronised, base), {}) for base in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
}


def synchronise(network: nn.Module, world: World) -> None:
    """Make every batch normalisation in `network` take its statistics over all processes of `world`, in place.

    Parameters, buffers and their names stay. A class derived from one of torch's keeps its own `forward`, as long as
    that calls `super().forward`.
    """
    for module in network.modules():
        own = type(module)
        for base, synchronised in _BASES.items():
            if isinstance(module, base):
                module.world = world
                module.__class__ = synchronised if own is base else type(own.__name__, (own, synchronised), {})
