"""Minibatch standard deviation as a module over `fastgan.ops.minibatch_stddev`."""

import torch
from torch import nn

from fastgan.ops import minibatch_stddev


class MinibatchStdDev(nn.Module):
    """[N, C, H, W] -> [N, C + num_channels, H, W]. Arguments: those of `fastgan.ops.minibatch_stddev`. No state."""

    def __init__(self, group_size: int | None = 4, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size, self.num_channels = group_size, num_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return minibatch_stddev(x, self.group_size, self.num_channels)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}, num_channels={self.num_channels}"
