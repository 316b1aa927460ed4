"""The alias-free activation as a module."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from fastgan.ops.filtered_lrelu import filtered_lrelu


class FilteredLReLU(nn.Module):
    """`fastgan.ops.filtered_lrelu` with its filters as buffers and, with `channels`, a bias that starts at zero.

    Args: channels: size of the bias, None for none; up_filter, down_filter: of `setup_filter`, or None; the others as in
    `fastgan.ops.filtered_lrelu`. State: bias [channels], up_filter, down_filter (each absent where None).
    """

    def __init__(
        self,
        channels: int | None = None,
        up_filter: torch.Tensor | None = None,
        down_filter: torch.Tensor | None = None,
        up: int = 1,
        down: int = 1,
        padding: int | Sequence[int] = 0,
        gain: float = math.sqrt(2),
        slope: float = 0.2,
        clamp: float | None = None,
        flip_filter: bool = False,
    ) -> None:
        super().__init__()
        self.register_parameter("bias", None if channels is None else nn.Parameter(torch.zeros(channels)))
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)
        self.up, self.down, self.padding = up, down, padding
        self.gain, self.slope, self.clamp, self.flip_filter = gain, slope, clamp, flip_filter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, H, W] -> [N, C, H_out, W_out]"""
        options = (self.up, self.down, self.padding, self.gain, self.slope, self.clamp, self.flip_filter)
        return filtered_lrelu(x, self.up_filter, self.down_filter, self.bias, *options)

    def extra_repr(self) -> str:
        names = ("up", "down", "padding", "gain", "slope", "clamp")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)
