"""Bias, activation, gain and clamp as modules over `fastgan.ops.bias_act`."""

import torch
from torch import nn

from fastgan.ops import bias_act


class BiasAct(nn.Module):
    """y = clip(gain act(x + bias), -clamp, clamp), the bias along `dim`.

    Args:
        channels: length of the bias, which starts at 0.
        act, alpha, gain, clamp, dim: as of `fastgan.ops.bias_act`.
        bias: False for an activation without one.

    state_dict: `bias` [channels] (absent without a bias).
    """

    def __init__(
        self,
        channels: int,
        act: str = "linear",
        alpha: float | None = None,
        gain: float | None = None,
        clamp: float | None = None,
        dim: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        self.act, self.alpha, self.gain, self.clamp, self.dim = act, alpha, gain, clamp, dim
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if bias else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bias_act(x, self.bias, self.dim, self.act, self.alpha, self.gain, self.clamp)

    def extra_repr(self) -> str:
        options = {"act": self.act, "alpha": self.alpha, "gain": self.gain, "clamp": self.clamp, "dim": self.dim}
        return ", ".join(f"{name}={value!r}" for name, value in options.items() if value is not None)


class FusedLeakyReLU(nn.Module):
    """scale * leaky_relu(x + bias): x [N, channel, ...] -> the same shape.

    state_dict: `bias` [channel], as in the networks of "stylegan2-pytorch", which this stands in for.
    """

    def __init__(self, channel: int, bias: bool = True, negative_slope: float = 0.2, scale: float = 2**0.5):
        super().__init__()
        self.negative_slope, self.scale = negative_slope, scale
        self.register_parameter("bias", nn.Parameter(torch.zeros(channel)) if bias else None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return bias_act(input, self.bias, act="lrelu", alpha=self.negative_slope, gain=self.scale)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}, scale={self.scale}"
