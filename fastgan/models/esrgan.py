"""Upscalers: RRDBNet (ESRGAN, Wang et al., 2018; with pixel-unshuffled input Real-ESRGAN's, Wang et al., 2021), the compact
network of Real-ESRGAN's small and video models, and Real-ESRGAN's discriminator, a U-Net of spectral norm 1.

Names in the state_dicts are those of the published files ("params" or "params_ema" in them). All take any height and width that
the docstring of the class allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.models.network import Network
from fastgan.ops import bias_act, conv2d
from fastgan.ops._autocast import without_autocast

SLOPE = 0.2  # of the leaky ReLUs of RRDBNet and of the discriminator


def lrelu(conv: nn.Conv2d, x: torch.Tensor, slope: float = SLOPE) -> torch.Tensor:
    """Leaky ReLU of a 3x3 convolution, at unit gain."""
    return bias_act(conv2d(x, conv.weight, padding=1), conv.bias, act="lrelu", alpha=slope, gain=1)


def double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


@dataclass(frozen=True)
class GeneratorConfig:
    """RRDBNet; the published x4 networks have the defaults, the anime one 6 blocks."""

    in_channels: int = 3
    out_channels: int = 3
    scale: int = 4
    width: int = 64
    blocks: int = 23
    growth: int = 32

    def __post_init__(self):
        if self.scale not in (1, 2, 4):
            raise ValueError(f"esrgan: scale is {self.scale}, expected 1, 2 or 4")
        if min(self.in_channels, self.out_channels, self.width, self.growth) < 1 or self.blocks < 0:
            raise ValueError("esrgan: channels, width and growth must be positive, blocks at least 0")


class DenseBlock(nn.Module):
    """x + 0.2 conv5 of x and four features, each made of all before it (section 3.1)."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        for i in range(1, 6):
            self.add_module(f"conv{i}", nn.Conv2d(width + (i - 1) * growth, growth if i < 5 else width, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            features.append(lrelu(conv, torch.cat(features, 1)))
        return torch.add(x, self.conv5(torch.cat(features, 1)), alpha=0.2)


class Block(nn.Module):
    """Residual in residual: x + 0.2 of three dense blocks."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=0.2)


class Generator(Network):
    """RRDBNet: images [N, C, H, W] -> [N, C', scale H, scale W]. The body upsamples four times; at scale 2 and 1 it sees the
    image pixel-unshuffled by 2 and 4, and H and W must be divisible by that."""

    Config = GeneratorConfig

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config, width = config, config.width
        self.unshuffle = 4 // config.scale
        self.conv_first = nn.Conv2d(config.in_channels * self.unshuffle**2, width, 3, padding=1)
        self.body = nn.Sequential(*(Block(width, config.growth) for _ in range(config.blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(width, width, 3, padding=1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(width, config.out_channels, 3, padding=1)

    @classmethod
    def from_reference(
        cls,
        num_in_ch: int,
        num_out_ch: int,
        scale: int = 4,
        num_feat: int = 64,
        num_block: int = 23,
        num_grow_ch: int = 32,
    ) -> Generator:
        """The network of these arguments of RRDBNet."""
        return cls(GeneratorConfig(num_in_ch, num_out_ch, scale, num_feat, num_block, num_grow_ch))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raises ValueError for a size that is not divisible where scale is 2 or 1."""
        if x.shape[-2] % self.unshuffle or x.shape[-1] % self.unshuffle:
            raise ValueError(
                f"esrgan: the image is {x.shape[-2]}x{x.shape[-1]}; scale {self.config.scale} needs sides divisible by "
                f"{self.unshuffle}"
            )
        x = self.conv_first(F.pixel_unshuffle(x, self.unshuffle) if self.unshuffle > 1 else x)
        x = x + self.conv_body(self.body(x))
        x = lrelu(self.conv_up2, double(lrelu(self.conv_up1, double(x))))
        return self.conv_last(lrelu(self.conv_hr, x))


@dataclass(frozen=True)
class CompactConfig:
    """SRVGGNetCompact; the published video network has the defaults, the general one 32 convolutions."""

    in_channels: int = 3
    out_channels: int = 3
    scale: int = 4
    width: int = 64
    convolutions: int = 16
    act: Literal["relu", "prelu", "leakyrelu"] = "prelu"

    def __post_init__(self):
        if self.act not in ("relu", "prelu", "leakyrelu"):
            raise ValueError(f"esrgan: act is {self.act!r}, expected relu, prelu or leakyrelu")
        if min(self.in_channels, self.scale, self.width) < 1 or self.convolutions < 0:
            raise ValueError("esrgan: channels, scale and width must be positive, convolutions at least 0")
        if self.in_channels != self.out_channels:
            raise ValueError(
                "esrgan: the compact network adds its input to its output: expected as many channels in as out"
            )


class Compact(Network):
    """SRVGGNetCompact: images [N, C, H, W] -> [N, C, scale H, scale W]; all convolutions at the small size, then a pixel shuffle
    onto the nearest-neighbour upsampled input."""

    Config = CompactConfig

    def __init__(self, config: CompactConfig):
        super().__init__()
        self.config, width = config, config.width
        acts = {"relu": nn.ReLU, "prelu": lambda: nn.PReLU(width), "leakyrelu": lambda: nn.LeakyReLU(0.1)}
        layers: list[nn.Module] = []
        for i in range(config.convolutions + 1):
            layers += [nn.Conv2d(width if i else config.in_channels, width, 3, padding=1), acts[config.act]()]
        layers.append(nn.Conv2d(width, config.out_channels * config.scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)

    @classmethod
    def from_reference(
        cls,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_conv: int = 16,
        upscale: int = 4,
        act_type: str = "prelu",
    ) -> Compact:
        """The network of these arguments of SRVGGNetCompact."""
        return cls(CompactConfig(num_in_ch, num_out_ch, upscale, num_feat, num_conv, act_type))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.config.scale
        return F.pixel_shuffle(self.body(x), scale) + F.interpolate(x, scale_factor=scale, mode="nearest")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Real-ESRGAN's U-Net."""

    channels: int = 3
    width: int = 64
    skip: bool = True

    def __post_init__(self):
        if min(self.channels, self.width) < 1:
            raise ValueError("esrgan: channels and width must be positive")


class SpectralConv(nn.Module):
    """Leaky ReLU of a convolution without bias, of the weight weight_orig / sigma, sigma = u' W v (Miyato et al., 2018,
    algorithm 1). A call in training mode first takes a step of the power method, v = W' u / |W' u|, u = W v / |W v|; in eval mode
    the stored vectors serve."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.weight_orig = nn.Parameter(nn.Conv2d(inputs, outputs, kernel).weight.detach())
        self.register_buffer("weight_u", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(inputs * kernel**2), dim=0))
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with without_autocast(x):
            matrix = self.weight_orig.flatten(1)
            if self.training:
                with torch.no_grad():
                    self.weight_v.copy_(F.normalize(matrix.t() @ self.weight_u, dim=0))
                    self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0))
            # Copies: a second call in the same step moves the vectors on, and the first one's gradient needs its own.
            sigma = self.weight_u.clone() @ (matrix @ self.weight_v.clone())
            weight = self.weight_orig / sigma
        return bias_act(conv2d(x, weight, stride=self.stride, padding=1), act="lrelu", alpha=SLOPE, gain=1)


class Discriminator(Network):
    """images [N, C, H, W], H and W divisible by 8 -> a logit per pixel [N, 1, H, W] (Wang et al., 2021, section 3.4)."""

    Config = DiscriminatorConfig

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config, width = config, config.width
        self.conv0 = nn.Conv2d(config.channels, width, 3, padding=1)
        for i, (a, b) in enumerate(((1, 2), (2, 4), (4, 8)), 1):
            self.add_module(f"conv{i}", SpectralConv(a * width, b * width, 4, stride=2))
        for i, (a, b) in enumerate(((8, 4), (4, 2), (2, 1), (1, 1), (1, 1)), 4):
            self.add_module(f"conv{i}", SpectralConv(a * width, b * width, 3))
        self.conv9 = nn.Conv2d(width, 1, 3, padding=1)

    @classmethod
    def from_reference(cls, num_in_ch: int, num_feat: int = 64, skip_connection: bool = True) -> Discriminator:
        """The network of these arguments of UNetDiscriminatorSN."""
        return cls(DiscriminatorConfig(num_in_ch, num_feat, skip_connection))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raises ValueError for sides that are not divisible by 8."""
        if x.shape[-2] % 8 or x.shape[-1] % 8:
            raise ValueError(
                f"esrgan: the image is {x.shape[-2]}x{x.shape[-1]}; the discriminator needs sides divisible by 8"
            )
        x = lrelu(self.conv0, x)
        down = [x]
        for conv in (self.conv1, self.conv2, self.conv3):
            down.append(conv(down[-1]))
        x = down.pop()
        for conv in (self.conv4, self.conv5, self.conv6):
            x = conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
            level = down.pop()
            x = x + level if self.config.skip else x
        return self.conv9(self.conv8(self.conv7(x)))
