"""The all-convolutional pyramid (Radford, Metz & Chintala, 2016): 4x4 kernels, stride 2, for any power of two 32..256 and
the rectangles that halve as often.

Instead of batch normalisation, which makes an image depend on its batch and breaks gradient penalties per image,
weights start at N(0, 1/fan_in) with unit-gain activations, and the generator normalises each pixel's features (Karras
et al., 2018).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from fastgan.models.network import Network
from fastgan.ops import bias_act, conv2d, conv_transpose2d, pixel_norm
from fastgan.sizes import Resolution, at_level, check_levels, nominal


@dataclass(frozen=True)
class Config:
    """Sizes of both networks.

    `width` is the number of channels at half resolution; it doubles with every halving down to 4x4, up to `max_width`.
    Of a rectangle the base is what as many halvings leave: 6x10 of 96x160.
    `num_classes` > 0 makes both networks class-conditional.
    """

    resolution: Resolution = 32
    channels: int = 3
    latent: int = 64
    width: int = 32
    max_width: int = 256
    num_classes: int = 0

    def __post_init__(self):
        object.__setattr__(self, "resolution", check_levels("dcgan", self.resolution, 32, 256))
        if min(self.channels, self.latent, self.width, self.max_width) < 1 or self.num_classes < 0:
            raise ValueError("dcgan: channels, latent, width and max_width must be positive, num_classes at least 0")

    @property
    def widths(self) -> list[int]:
        """Channels at half resolution, a quarter, ... down to the base."""
        levels = nominal(self.resolution).bit_length() - 3
        return [min(self.width << i, self.max_width) for i in range(levels)]


class Down(nn.Module):
    """4x4 convolution of stride 2, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 4, 4) * (16 * inputs) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bias_act(conv2d(x, self.weight, stride=2, padding=1), self.bias, act="lrelu")


class Up(nn.Module):
    """4x4 transposed convolution of stride 2 (4 taps per output pixel), then leaky ReLU and pixel norm if `act`."""

    def __init__(self, inputs: int, outputs: int, act: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, 4, 4) * (4 * inputs) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = conv_transpose2d(x, self.weight, stride=2, padding=1)
        return pixel_norm(bias_act(x, self.bias, act="lrelu")) if self.act else bias_act(x, self.bias)


class Generator(Network):
    """latents [N, latent] (and labels int64 [N]) -> images [N, C, H, W], linear output around [-1, 1]."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        widths = config.widths[::-1]
        inputs = config.latent * (2 if config.num_classes else 1)
        self.embedding = nn.Embedding(config.num_classes, config.latent) if config.num_classes else None
        self.weight = nn.Parameter(torch.randn(inputs, widths[0], *at_level(config.resolution, 4)) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(widths[0]))
        self.up = nn.Sequential(*[Up(a, b) for a, b in pairwise(widths)])
        self.rgb = Up(widths[-1], config.channels, act=False)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        z = pixel_norm(latents)
        if self.embedding is not None:
            z = torch.cat([z, pixel_norm(self.embedding(labels))], dim=1)
        x = (z @ self.weight.flatten(1)).view(z.shape[0], *self.weight.shape[1:])
        return self.rgb(self.up(pixel_norm(bias_act(x, self.bias, act="lrelu"))))


class Discriminator(Network):
    """images [N, C, H, W] (and labels int64 [N]) -> logits [N]; each image's logit depends on that image alone.

    With classes, the logit gains <embedding(label), features> (projection; Miyato & Koyama, 2018, eq. 3).
    """

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        widths = [config.channels, *config.widths]
        self.down = nn.Sequential(*[Down(a, b) for a, b in pairwise(widths)])
        features = widths[-1] * math.prod(at_level(config.resolution, 4))
        self.weight = nn.Parameter(torch.randn(features) * features**-0.5)
        self.bias = nn.Parameter(torch.zeros(1))
        self.embedding = nn.Embedding(config.num_classes, features) if config.num_classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=features**-0.5)

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        x = self.down(images).flatten(1)
        weight = self.weight if self.embedding is None else self.weight + self.embedding(labels)
        return (x * weight).sum(1) + self.bias
