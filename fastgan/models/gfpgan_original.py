"""GFP-GAN as in the paper (Wang et al., 2021): the graph of `fastgan.models.gfpgan`, of layers with run-time scaled weights."""

from __future__ import annotations

import torch
from torch import nn

from fastgan.models.gfpgan import SQRT2, TAPS, Clean, ModulatedConv, lrelu, resize
from fastgan.nn import EqualConv2d
from fastgan.ops import conv2d, setup_filter


class OriginalLayer(nn.Module):
    """sqrt(2) lrelu(conv + strength noise + bias)."""

    def __init__(self, inputs: int, outputs: int, style: int, up: bool):
        super().__init__()
        self.modulated_conv = ModulatedConv(inputs, outputs, 3, style, scaled=True)
        self.weight = nn.Parameter(torch.zeros(1))
        self.activate = nn.Module()
        self.activate.bias = nn.Parameter(torch.zeros(outputs))
        self.up = up
        self.register_buffer("taps", setup_filter(TAPS), persistent=False)

    def forward(self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        up, taps = (2, self.taps) if self.up else (1, None)
        return lrelu(self.modulated_conv(x, style, noise * self.weight, up, taps), self.activate.bias, SQRT2)


class _ActConv(nn.Sequential):
    """An equalised convolution, halving by the FIR filter or not, then bias and leaky ReLU (gain sqrt(2)), at the indices of
    the files: [filter,] convolution, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, act: bool = True):
        conv = EqualConv2d(inputs, outputs, kernel, bias=False, down=2 if down else 1, taps=TAPS)
        conv._non_persistent_buffers_set.add("resample_filter")
        activation = nn.Module()
        activation.bias = nn.Parameter(torch.zeros(outputs))
        super().__init__(*([nn.Identity()] if down else []), conv, *([activation] if act else []))
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.act:
            return self[-1](x)
        return lrelu(self[-2](x), self[-1].bias, SQRT2)


class _UpConv(nn.Module):
    """Bilinearly twice as large, an equalised convolution, then bias and leaky ReLU or nothing."""

    def __init__(self, inputs: int, outputs: int, kernel: int, act: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        if act:
            self.activation = nn.Module()
            self.activation.bias = nn.Parameter(torch.zeros(outputs))
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight * self.weight[0].numel() ** -0.5
        x = conv2d(resize(x, 2), weight, padding=weight.shape[-1] // 2)
        return lrelu(x, self.activation.bias, SQRT2) if self.act else x


class OriginalBlock(nn.Module):
    """A residual block that halves (factor 0.5) or doubles the sides, divided by sqrt(2)."""

    def __init__(self, inputs: int, outputs: int, factor: float):
        super().__init__()
        self.conv1 = _ActConv(inputs, inputs, 3)
        if factor < 1:
            self.conv2 = _ActConv(inputs, outputs, 3, down=True)
            self.skip = _ActConv(inputs, outputs, 1, down=True, act=False)
        else:
            self.conv2, self.skip = _UpConv(inputs, outputs, 3), _UpConv(inputs, outputs, 1, act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / SQRT2


class Original(Clean):
    """The paper's network; the same images."""

    scaled = True
    act_conv = _ActConv
    block, layer = OriginalBlock, OriginalLayer

    @staticmethod
    def conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
        return EqualConv2d(inputs, outputs, kernel)

    def first(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_body_first(x)

    def last(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_conv(x)
