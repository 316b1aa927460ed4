"""Residual generator and critic of WGAN-GP (Gulrajani et al., 2017, appendix C) and SNGAN (Miyato et al., 2018,
appendix B.4).

Up to 32x32, the CIFAR-10 layout: one width; the generator doubles from 4x4, the critic halves down to 8x8 and ends with
two plain blocks. Above, the layout of 64x64 images: the width doubles with every halving, up to eightfold, and the
critic halves down to 4x4 and ends with one plain block. A mean over pixels makes the logit.

The critic has no normalisation, since a gradient penalty is taken per image; with `spectral` its weights are divided by
their largest singular value instead.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.models.network import Network
from fastgan.ops import bias_act, conv2d
from fastgan.ops._autocast import without_autocast
from fastgan.sizes import Resolution, at_level, check_levels, nominal


@dataclass(frozen=True)
class Config:
    """Sizes of both networks: `width` channels at full resolution (128 in the papers' networks for CIFAR-10, 64 for
    larger images). `spectral`: the critic is spectrally normalised. A rectangle has the layout of the largest power of two
    within its shorter side."""

    resolution: Resolution = 32
    channels: int = 3
    latent: int = 128
    width: int = 128
    spectral: bool = False

    def __post_init__(self):
        object.__setattr__(self, "resolution", check_levels("resnet", self.resolution, 8))
        if min(self.channels, self.latent, self.width) < 1:
            raise ValueError("resnet: channels, latent and width must be positive")

    @property
    def widths(self) -> list[int]:
        """Channels at 4x4, 8x8, ... up to the resolution."""
        full = nominal(self.resolution)
        levels = range(full.bit_length() - 3, -1, -1)
        return [self.width * (1 if full <= 32 else min(1 << level, 8)) for level in levels]


def spectral_weight(weight: torch.Tensor, u: torch.Tensor, update: bool) -> torch.Tensor:
    """weight / sigma, sigma = u' W v its largest singular value as one step of the power method finds it, with W the
    weight as a matrix [outputs, rest] (Miyato et al., 2018, algorithm 1). `update`: keep the step in u [outputs]."""
    with without_autocast(weight):
        matrix = weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(matrix.t() @ u, dim=0)
            left = F.normalize(matrix @ v, dim=0)
            if update:
                u.copy_(left)
        return weight / (left @ (matrix @ v))


class Conv(nn.Module):
    """Convolution with bias, weights N(0, gain/fan_in), "same" padding; `spectral`: of a weight of spectral norm 1."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float = 1.0, spectral: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) * (gain / (inputs * kernel**2)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0) if spectral else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight if self.u is None else spectral_weight(self.weight, self.u, self.training)
        return bias_act(conv2d(x, weight, padding=weight.shape[2] // 2), self.bias)


def double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 2)


class UpBlock(nn.Module):
    """shortcut(double(x)) + conv(relu(bn(conv(double(relu(bn(x)))))))."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1, self.conv2 = Conv(inputs, outputs, 3), Conv(outputs, outputs, 3)
        self.shortcut = Conv(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(double(bias_act(self.norm1(x), act="relu")))
        return double(self.shortcut(x)) + self.conv2(bias_act(self.norm2(y), act="relu"))


class DownBlock(nn.Module):
    """shortcut(x) + conv(relu(conv(relu(x)))), halved at the end if `down`; `first` leaves the images' ReLU out.

    The ReLU has gain sqrt(2), which keeps the variance, and gain 1 between spectrally normalised layers: 1-Lipschitz.
    """

    def __init__(self, inputs: int, outputs: int, down: bool, first: bool = False, spectral: bool = False):
        super().__init__()
        self.down, self.first = down, first
        self.gain = 1.0 if spectral else None
        self.conv1 = Conv(inputs, outputs, 3, spectral=spectral)
        self.conv2 = Conv(outputs, outputs, 3, spectral=spectral)
        self.shortcut = Conv(inputs, outputs, 1, spectral=spectral) if down else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(x if self.first else bias_act(x, act="relu", gain=self.gain))
        y = self.conv2(bias_act(y, act="relu", gain=self.gain))
        if not self.down:
            return x + y
        # A 1x1 convolution and a mean commute: halving first costs a quarter.
        return self.shortcut(halve(x)) + halve(y)


class Generator(Network):
    """latents [N, latent] -> images [N, C, H, W] in (-1, 1). Batch normalisation in training."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        widths, base = config.widths, at_level(config.resolution, 4)
        self.weight = nn.Parameter(torch.randn(config.latent, widths[0], *base) * config.latent**-0.5)
        self.bias = nn.Parameter(torch.zeros(widths[0]))
        self.blocks = nn.Sequential(*[UpBlock(a, b) for a, b in pairwise(widths)])
        self.norm = nn.BatchNorm2d(config.width)
        self.rgb = Conv(config.width, config.channels, 3)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = (latents @ self.weight.flatten(1)).view(latents.shape[0], *self.weight.shape[1:])
        x = self.blocks(bias_act(x, self.bias))
        return torch.tanh(self.rgb(bias_act(self.norm(x), act="relu")))


class Discriminator(Network):
    """images [N, C, H, W] -> logits [N]; no normalisation, each logit depends on its image alone."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        full = nominal(config.resolution)
        downs, plains = (max(full.bit_length() - 4, 1), 2) if full <= 32 else (len(config.widths) - 1, 1)
        widths = config.widths[:0:-1][:downs]  # at full resolution and after each halving but the last
        last = widths[-1]
        pairs = enumerate(pairwise([config.channels, *widths]))
        blocks = [DownBlock(a, b, True, i == 0, config.spectral) for i, (a, b) in pairs]
        blocks += [DownBlock(last, last, False, spectral=config.spectral) for _ in range(plains)]
        self.blocks = nn.Sequential(*blocks)
        self.weight = nn.Parameter(torch.randn(last) * last**-0.5)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        spectral = self.config.spectral
        features = bias_act(self.blocks(images), act="relu", gain=1.0 if spectral else None).mean((2, 3))
        weight = F.normalize(self.weight, dim=0) if spectral else self.weight  # a row's singular value is its norm
        return (features * weight).sum(1) + self.bias
