"""FastGAN, light networks for few images (Liu et al., 2021, "Towards Faster and Stabilized GAN Training for High-fidelity
Few-shot Image Synthesis").

Generator: one or two convolutions per resolution, gated linear units, and skip-layer excitation (section 3.1): the
channels of a large feature map are weighted by a small one, 16 times smaller. Discriminator (section 3.2): it halves the
image to 8x8, and two small decoders must restore the image, and a quarter of it, from its features: so it cannot ignore
most of a real image.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.models.network import Network
from fastgan.ops import bias_act
from fastgan.sizes import Resolution, at_level, check_levels, nominal


@dataclass(frozen=True)
class Config:
    """Sizes of both networks: `width` channels at 64x64; they double with every halving up to `max_width`, and halve
    with every doubling. Of a rectangle the levels are called as those of the largest power of two within its shorter
    side: 4 is where 96x160 has 6x10 pixels."""

    resolution: Resolution = 32
    channels: int = 3
    latent: int = 128
    width: int = 64
    max_width: int = 512

    def __post_init__(self):
        object.__setattr__(self, "resolution", check_levels("fastgan", self.resolution, 32))
        if min(self.channels, self.latent, self.width, self.max_width) < 1:
            raise ValueError("fastgan: channels, latent, width and max_width must be positive")

    def channels_at(self, level: int) -> int:
        return max(min(self.width * 64 // level, self.max_width), 8)

    @property
    def excited(self) -> dict[int, int]:
        """Level whose channels are weighted -> level that weighs them."""
        full = nominal(self.resolution)
        ratio = min(16, full // 4)
        return {small * ratio: small for small in (4, 8, 16, 32, 64) if small * ratio <= full}


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    padding = (kernel - 1) // 2 if kernel % 2 or stride > 1 else 0
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)


class LeakyReLU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bias_act(x, act="lrelu", gain=1)


class Noise(nn.Module):
    """x + weight * n, n ~ N(0, 1) per pixel; nothing in eval mode, where an image depends on its latent alone."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight * torch.randn_like(x[:, :1]) if self.training else x


def gated(inputs: int, outputs: int, noise: bool) -> list[nn.Module]:
    """3x3 convolution, batch normalisation, a * sigmoid(b) of the two halves of its channels."""
    layers = [conv(inputs, 2 * outputs, 3), nn.BatchNorm2d(2 * outputs), nn.GLU(1)]
    return [layers[0], Noise(), *layers[1:]] if noise else layers


def up_block(inputs: int, outputs: int, deep: bool) -> nn.Sequential:
    """Twice the size (nearest), one gated convolution; `deep`: two of them, with noise."""
    layers = [nn.Upsample(scale_factor=2), *gated(inputs, outputs, deep)]
    return nn.Sequential(*layers, *(gated(outputs, outputs, True) if deep else []))


class Excitation(nn.Module):
    """Weights [N, channels, 1, 1] in (0, 1) from a small feature map: pooled to 4x4, 4x4 convolution, SiLU, 1x1."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), conv(inputs, channels, 4), nn.SiLU(), conv(channels, channels, 1), nn.Sigmoid()
        )

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        return self.layers(small)


class Generator(Network):
    """latents [N, latent] -> images [N, C, H, W] in (-1, 1). Batch normalisation and noise in training."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.levels = [4 << i for i in range(nominal(config.resolution).bit_length() - 2)]
        widths = [config.channels_at(level) for level in self.levels]
        base = nn.ConvTranspose2d(config.latent, 2 * widths[0], at_level(config.resolution, 4), bias=False)
        self.first = nn.Sequential(base, nn.BatchNorm2d(2 * widths[0]), nn.GLU(1))
        self.blocks = nn.ModuleList([up_block(a, b, i % 2 == 0) for i, (a, b) in enumerate(pairwise(widths))])
        self.excitations = nn.ModuleDict(
            {
                str(large): Excitation(config.channels_at(small), config.channels_at(large))
                for large, small in config.excited.items()
            }
        )
        self.rgb = conv(widths[-1], config.channels, 3)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = self.first(latents[:, :, None, None])
        seen = {4: x}
        for level, block in zip(self.levels[1:], self.blocks, strict=True):
            x = block(x)
            if str(level) in self.excitations:
                x = x * self.excitations[str(level)](seen[self.config.excited[level]])
            seen[level] = x
        return torch.tanh(self.rgb(x))


class DownBlock(nn.Module):
    """Half the size: the mean of a two-convolution path and of a pooled 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.main = nn.Sequential(
            *[conv(inputs, outputs, 4, 2), nn.BatchNorm2d(outputs), LeakyReLU()],
            *[conv(outputs, outputs, 3), nn.BatchNorm2d(outputs), LeakyReLU()],
        )
        self.direct = nn.Sequential(nn.AvgPool2d(2), conv(inputs, outputs, 1), nn.BatchNorm2d(outputs), LeakyReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.main(x) + self.direct(x)) / 2


def quarter(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Quadrant which[n] in 0..3 (row by row) of x[n], [N, C, H, W] -> [N, C, H/2, W/2]."""
    n, c, h, w = x.shape
    quadrants = x.view(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return quadrants[torch.arange(n, device=x.device), which]


class Discriminator(Network):
    """images [N, C, H, W] -> logits [N, 5, 5], one per patch (9x17 of 96x160); batch normalisation in training.

    `reconstruct(images, which)` -> (logits, whole, part): the image and its quadrant `which` int64 [N] as the decoders
    see them, [N, C, *`decoded`], half the resolution and at most level 128. `targets` are what they should be.
    """

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        full = nominal(config.resolution)
        self.top = min(full // 2, 128)  # level of the decoders' images
        self.decoded = at_level(config.resolution, self.top)
        levels = [full >> i for i in range(1, full.bit_length() - 3)]  # half, ..., 16, 8
        widths = [config.channels_at(level) for level in levels]
        self.first = nn.Sequential(conv(config.channels, widths[0], 4, 2), LeakyReLU())
        *middle, last = [DownBlock(a, b) for a, b in pairwise(widths)]
        self.to16, self.to8 = nn.Sequential(*middle), last
        top = widths[-1]
        self.head = nn.Sequential(conv(top, top, 1), nn.BatchNorm2d(top), LeakyReLU(), conv(top, 1, 4))
        self.whole, self.part = self._decoder(widths[-1]), self._decoder(widths[-2])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def _decoder(self, inputs: int) -> nn.Sequential:
        """Features of level 8 -> image of size `decoded`."""
        levels = [8 << i for i in range((self.top // 8).bit_length())]
        widths = [inputs, *[self.config.channels_at(2 * level) for level in levels[1:]]]
        layers = [up_block(a, b, deep=False) for a, b in pairwise(widths)]
        return nn.Sequential(*layers, conv(widths[-1], self.config.channels, 3), nn.Tanh())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.to8(self.to16(self.first(images)))).squeeze(1)

    def reconstruct(self, images: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        at16 = self.to16(self.first(images))
        at8 = self.to8(at16)
        return self.head(at8).squeeze(1), self.whole(at8), self.part(quarter(at16, which))

    def targets(self, images: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(F.adaptive_avg_pool2d(x, self.decoded) for x in (images, quarter(images, which)))
