"""Four fully connected layers a side: the network of the founding article (Goodfellow et al., 2014, section 5: fully
connected generator and discriminator), as two layers that narrow and two mirrored ("inverse") ones that widen again.

generator:       latent -> u1 -> u2 | u2 -> u1 -> pixels      tanh after every layer, the last included
discriminator:   pixels -> u1 -> u2 | u2 -> u1 -> logit       tanh after every layer but the last
"""

from dataclasses import dataclass

import torch
from torch import nn

from fastgan.fields import at_least
from fastgan.models.network import Network
from fastgan.nn import MinibatchStdDev
from fastgan.ops import bias_act
from fastgan.sizes import Resolution, sides


@dataclass(frozen=True)
class Config:
    """Sizes of both networks, for images of any size.

    `units` are the widths (u1, u2) of the two layers; the mirrored layers repeat them in reverse. `stddev_group` is the
    group size of the minibatch standard deviation that the discriminator sees, 0 for none.
    """

    resolution: Resolution = 28
    channels: int = 1
    latent: int = 64
    units: tuple[int, int] = (512, 256)
    stddev_group: int = 4

    def __post_init__(self):
        if len(self.units) != 2 or min(self.units) < 1:
            raise ValueError(f"mlp: units is {self.units}, expected two positive widths")
        if min(*sides(self.resolution), self.channels, self.latent) < 1:
            raise ValueError("mlp: resolution, channels and latent must be positive")
        at_least("mlp", self, stddev_group=0)

    @property
    def pixels(self) -> int:
        height, width = sides(self.resolution)
        return self.channels * height * width


class Layer(nn.Module):
    """act(x W^T + b), W ~ N(0, 1/fan_in)."""

    def __init__(self, inputs: int, outputs: int, act: str = "tanh"):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bias_act(x @ self.weight.t(), self.bias, act=self.act)


class Generator(Network):
    """latents [N, latent] -> images [N, C, H, W] in (-1, 1)."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        u1, u2 = config.units
        self.config = config
        self.down = nn.Sequential(Layer(config.latent, u1), Layer(u1, u2))
        self.inverse = nn.Sequential(Layer(u2, u1), Layer(u1, config.pixels))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        size = sides(self.config.resolution)
        return self.inverse(self.down(latents)).view(-1, self.config.channels, *size)

    def prepare(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Start from the data's statistics [C, H, W]: around the mean image, spread as far as the data are.

        For tanh(b + w h) to have mean m and deviation s to first order: b = atanh(m), and row scale s / (1 - m^2).
        """
        last = self.inverse[-1]
        m, s = (v.flatten().to(last.weight.device) for v in (mean.clamp(-0.98, 0.98), deviation))
        with torch.no_grad():
            last.bias.copy_(m.atanh())
            last.weight.mul_((s / (1 - m * m)).clamp(max=1)[:, None])


class Discriminator(Network):
    """images [N, C, H, W] -> logits [N]; `forward(images, features=True)` -> (logits [N], features [N, u1])."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        u1, u2 = config.units
        self.config = config
        self.register_buffer("mean", torch.zeros(config.pixels))
        self.register_buffer("scale", torch.ones(config.pixels))
        self.down = nn.Sequential(Layer(config.pixels, u1), Layer(u1, u2))
        self.inverse = nn.Sequential(Layer(u2, u1), Layer(u1 + (config.stddev_group > 0), 1, act="linear"))
        self.stddev = MinibatchStdDev(config.stddev_group) if config.stddev_group else None

    def forward(self, images: torch.Tensor, features: bool = False):
        x = (images.flatten(1) - self.mean) * self.scale
        hidden = self.inverse[0](self.down(x))
        last = hidden
        if self.stddev is not None:
            last = self.stddev(hidden[:, :, None, None])[:, :, 0, 0]
        logits = self.inverse[1](last).squeeze(1)
        return (logits, hidden) if features else logits

    def prepare(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Centre every pixel and bring it to deviation 1. Pixels that hardly move (a border) are not blown up: the
        deviation counts as at least 0.1 of the range's half width."""
        self.mean.copy_(mean.flatten())
        self.scale.copy_(1 / deviation.flatten().clamp(min=0.1))
