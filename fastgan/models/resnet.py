"""Residual generator and critic of WGAN-GP (Gulrajani et al., 2017, appendix C) and SNGAN (Miyato et al., 2018,
appendix B.4).

The generator doubles 4x4 up to the resolution in residual blocks; the critic halves twice and ends with plain residual
blocks and a mean over pixels, for 32x32, and halves once more for each doubling of the resolution. The critic has no
normalisation, since a gradient penalty is taken per image; with `spectral` its weights are divided by their largest
singular value instead.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.ops import bias_act


@dataclass(frozen=True)
class Config:
    """Sizes of both networks: `width` channels in every block (the paper's CIFAR-10 network has 128)."""

    resolution: int = 32
    channels: int = 3
    latent: int = 128
    width: int = 128

    def __post_init__(self):
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise ValueError(f"resnet: resolution is {self.resolution}, expected a power of two, at least 8")
        if min(self.channels, self.latent, self.width) < 1:
            raise ValueError("resnet: channels, latent and width must be positive")


class Conv(nn.Module):
    """Convolution with bias, weights N(0, gain/fan_in), "same" padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) * (gain / (inputs * kernel**2)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bias_act(F.conv2d(x, self.weight, padding=self.weight.shape[2] // 2), self.bias)


def double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 2)


class UpBlock(nn.Module):
    """shortcut(double(x)) + conv(relu(bn(conv(double(relu(bn(x)))))))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1, self.conv2 = Conv(width, width, 3), Conv(width, width, 3)
        self.shortcut = Conv(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(double(bias_act(self.norm1(x), act="relu")))
        return double(self.shortcut(x)) + self.conv2(bias_act(self.norm2(y), act="relu"))


class DownBlock(nn.Module):
    """shortcut(x) + conv(relu(conv(relu(x)))), halved at the end if `down`; `first` leaves the images' ReLU out."""

    def __init__(self, inputs: int, outputs: int, down: bool, first: bool = False):
        super().__init__()
        self.down, self.first = down, first
        self.conv1, self.conv2 = Conv(inputs, outputs, 3), Conv(outputs, outputs, 3)
        self.shortcut = Conv(inputs, outputs, 1) if down else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(bias_act(self.conv1(x if self.first else bias_act(x, act="relu")), act="relu"))
        if not self.down:
            return x + y
        # A 1x1 convolution and a mean commute: halving first costs a quarter.
        return self.shortcut(halve(x)) + halve(y)


class Generator(nn.Module):
    """latents [N, latent] -> images [N, C, H, W] in (-1, 1). Batch normalisation in training."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.randn(config.latent, config.width, 4, 4) * config.latent**-0.5)
        self.bias = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.Sequential(*[UpBlock(config.width) for _ in range(config.resolution.bit_length() - 3)])
        self.norm = nn.BatchNorm2d(config.width)
        self.rgb = Conv(config.width, config.channels, 3)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = (latents @ self.weight.flatten(1)).view(len(latents), *self.weight.shape[1:])
        x = self.blocks(bias_act(x, self.bias))
        return torch.tanh(self.rgb(bias_act(self.norm(x), act="relu")))


class Discriminator(nn.Module):
    """images [N, C, H, W] -> logits [N]; no normalisation, each logit depends on its image alone."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        halvings = max(config.resolution.bit_length() - 4, 1)
        downs = [DownBlock(config.width if i else config.channels, config.width, True, not i) for i in range(halvings)]
        self.blocks = nn.Sequential(*downs, *[DownBlock(config.width, config.width, False) for _ in range(2)])
        self.weight = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = bias_act(self.blocks(images), act="relu").mean((2, 3))
        return (features * self.weight).sum(1) + self.bias
