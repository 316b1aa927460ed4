"""BigVGAN (Lee et al., 2023): HiFi-GAN whose activations are Snake functions (eq. 1) between an upsampling and a downsampling by
two, so that they add no aliases (section 3.2).

Names in the state_dict are those of the published checkpoints, the filters' buffers among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from fastgan.models.hifigan import GeneratorConfig as Base
from fastgan.models.hifigan import blocks, context, conv, exact, mean_of_blocks, reference_fields, upsampling
from fastgan.models.vocoder import Vocoder
from fastgan.nn import Activation1d, Snake, SnakeBeta
from fastgan.nn.weight_norm import WeightNormConv1d

REACH = 5  # samples to each side that an anti-aliased activation depends on: 12 taps up and 12 down at twice the rate


@dataclass(frozen=True)
class GeneratorConfig(Base):
    """The defaults are BigVGAN-base of 80 bands."""

    activation: Literal["snake", "snakebeta"] = "snakebeta"
    logscale: bool = True
    """The activations' parameters are logarithms."""
    tanh: bool = True
    """The signal ends in tanh; otherwise it is clipped to [-1, 1]."""
    bias: bool = True
    """Of the last convolution."""

    def __post_init__(self):
        super().__post_init__()
        if self.activation not in ("snake", "snakebeta"):
            raise ValueError(f"bigvgan: activation is {self.activation!r}, expected snake or snakebeta")


class Generator(Vocoder):
    """Log mel spectrograms [N, bands, frames] -> signals [N, 1, hop frames] in [-1, 1] (one sample more for each upsampling whose
    kernel minus rate is odd)."""

    Config = GeneratorConfig

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config, self.context = config, context(config, REACH)
        kind = Snake if config.activation == "snake" else SnakeBeta

        def activation(width: int) -> nn.Module:
            return Activation1d(kind(width, alpha_logscale=config.logscale))

        last = config.width >> len(config.rates)
        self.conv_pre = WeightNormConv1d(config.bands, config.width, 7, padding=3)
        self.ups = nn.ModuleList(nn.ModuleList([upsampling(config, i)]) for i in range(len(config.rates)))
        self.resblocks = blocks(config, activation)
        self.activation_post = activation(last)
        self.conv_post = conv(last, 1, 7, bias=config.bias)

    @classmethod
    def from_reference(cls, **config: Any) -> Generator:
        """The network of a published config.json; keys that it lacks mean the published defaults."""
        return cls(
            GeneratorConfig(
                bands=config["num_mels"],
                activation=config["activation"],
                logscale=config["snake_logscale"],
                tanh=config.get("use_tanh_at_final", True),
                bias=config.get("use_bias_at_final", True),
                **reference_fields(config),
            )
        )

    @property
    def exact(self) -> bool:
        return exact(self.config)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Raises ValueError for another shape."""
        self.check(mel)
        x, each = self.conv_pre(mel), len(self.config.kernels)
        for i, (up,) in enumerate(self.ups):
            x = mean_of_blocks(self.resblocks[i * each : (i + 1) * each], up(x))
        x = self.conv_post(self.activation_post(x))
        return x.tanh() if self.config.tanh else x.clamp(-1, 1)
