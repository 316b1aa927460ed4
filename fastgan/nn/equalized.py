"""Layers with run-time scaled weights: stored at unit variance and multiplied by 1/sqrt(fan_in) when used, so that Adam moves
every layer at the same relative speed (Karras et al. 2018, "Progressive Growing of GANs", section 4.1)."""

from collections.abc import Sequence

import torch
from torch import nn

from fastgan.ops import bias_act, conv2d_resample, setup_filter
from fastgan.ops._autocast import autocast
from fastgan.ops.bias_act import ACTIVATIONS


class EqualLinear(nn.Module):
    """y = act(c weight x + lr_multiplier bias), c = lr_multiplier / sqrt(in_features); `act` with its default gain.

    Args:
        in_features, out_features: sizes of the last dimension of x [..., in_features] and y.
        bias: False for none.
        act: an activation of `fastgan.ops.bias_act`.
        lr_multiplier: makes the layer learn slower; the stored weight starts at N(0, 1) / lr_multiplier.
        bias_init: what the stored bias starts at.

    state_dict: `weight` [out_features, in_features], `bias` [out_features] (absent without a bias).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        act: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.act, self.lr_multiplier = act, lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.register_parameter("bias", nn.Parameter(torch.full((out_features,), float(bias_init))) if bias else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Scaling the result instead of the weight is a pass over N rows instead of in_features.
        x = nn.functional.linear(x, self.weight) * (self.lr_multiplier * self.weight.shape[1] ** -0.5)
        bias = self.bias if self.bias is None or self.lr_multiplier == 1 else self.bias * self.lr_multiplier
        return bias_act(x, bias, x.dim() - 1, self.act)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}, act={self.act!r}, lr_multiplier={self.lr_multiplier}"


class EqualConv2d(nn.Module):
    """Convolution of weight / sqrt(in_channels k^2), with up- or downsampling, bias, activation and clamp.

    Args:
        in_channels, out_channels, kernel_size: k, square; the padding is floor(k / 2).
        bias: False for none.
        act: an activation of `fastgan.ops.bias_act`, with its default gain.
        up, down: factors of `fastgan.ops.conv2d_resample`; an upsampling layer uses its kernel as a true convolution.
        taps: resampling filter as `setup_filter` takes it.
        clamp: of `fastgan.ops.bias_act`.

    state_dict: `weight` [out_channels, in_channels, k, k], `bias` [out_channels] (absent without a bias),
    `resample_filter` (absent without resampling).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        act: str = "linear",
        up: int = 1,
        down: int = 1,
        taps: torch.Tensor | Sequence = (1, 3, 3, 1),
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.act, self.up, self.down, self.clamp = act, up, down, clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_channels)) if bias else None)
        self.register_buffer("resample_filter", setup_filter(taps) if up > 1 or down > 1 else None)

    def forward(self, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H up / down, W up / down]; `gain` multiplies output and clamp."""
        weight = self.weight * self.weight[0].numel() ** -0.5
        resampling = dict(up=self.up, down=self.down, padding=self.weight.shape[-1] // 2, flip_weight=self.up == 1)
        x = autocast(x)
        x = conv2d_resample(x, weight.to(x.dtype), self.resample_filter, **resampling)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        clamp = None if self.clamp is None else self.clamp * gain
        return bias_act(x, bias, act=self.act, gain=ACTIVATIONS[self.act].gain * gain, clamp=clamp)

    def extra_repr(self) -> str:
        out, channels, k, _ = self.weight.shape
        return f"{channels}, {out}, {k}, act={self.act!r}, up={self.up}, down={self.down}, clamp={self.clamp}"
