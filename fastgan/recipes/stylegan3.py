"""StyleGAN3 (Karras et al., 2021): the steps of `fastgan.recipes.stylegan` with the alias-free generator, without style mixing
and path length. What configuration R's discriminator sees is blurred at first, lest it looks at nothing but high frequencies
(appendix, "Training configurations"): taps 2^(-(x / sigma)^2), sigma fading linearly to 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from fastgan.models import stylegan3
from fastgan.ops import filter2d
from fastgan.options import Count, Depth, NonNegative
from fastgan.recipes import Update
from fastgan.recipes.stylegan import StyleGAN, StyleGANConfig
from fastgan.training.recipe import Preset

MAGNITUDE_IMAGES = 20_000  # half-life of the mean squares of the layers' inputs


@dataclass
class StyleGAN3Config(StyleGANConfig):
    """StyleGAN3 for squares of any power of two from 32. The defaults suit small images on two CPU cores."""

    variant: Literal["T", "R"] = "T"
    """T: equivariant to translation; R: to rotation too, with 1x1 convolutions, radial filters and twice the channels."""
    width: Count = 16
    """Channels at full resolution; they double with every halving. The paper's networks have 32768 / resolution."""
    max_width: Count = 128
    """Upper bound of the channels; the paper's is 512."""
    layers: Depth = 8
    """Layers of the generator before its output; the paper has 14 at every resolution."""
    blur: NonNegative | None = None
    """Standard blur of what the discriminator sees at first, sigma in pixels. Default: none for T; for R the paper's 10, or
    resolution / 25.6 below 256 pixels."""
    blur_images: Count = 20_000
    """Images over which the blur fades; the paper's 200,000 are of 25 million."""


class StyleGAN3(StyleGAN):
    name = "stylegan3"
    Config = StyleGAN3Config
    presets: ClassVar = {
        f"paper{resolution}": Preset(
            f"{resolution}x{resolution}, the networks of Karras et al. (2021); --gamma depends on the data set",
            {
                "resolution": resolution,
                "width": 2**15 // resolution,  # appendix, figure of the generator: C_base = 2^15, C_max = 2^9
                "max_width": 512,
                "layers": 14,  # section 3.2
                "latent": 512,
                "mapping_layers": 2,  # appendix, training configurations, as all below
                "batch_size": 32,
                "steps": 781_250,  # 25 million images
                "lr": 2.5e-3,  # the generator's; 2e-3 for the discriminator there
                "beta2": 0.99,
                "blur_images": 200_000,
            },
        )
        for resolution in (256, 1024)
    }
    metrics = (*StyleGAN.metrics, "eq")

    def __init__(self, config: StyleGAN3Config, data: dict):
        super().__init__(config, data)
        if config.blur_images < 1:
            raise ValueError(f"stylegan3: blur_images is {config.blur_images}, expected at least 1")
        self.blur = config.blur
        if self.blur is None:
            self.blur = min(10.0, data["resolution"] / 25.6) if config.variant == "R" else 0.0
        self.memory.register_buffer("blur_filter", torch.zeros(2 * math.floor(3 * self.blur) + 1), persistent=False)
        self.blurred = self.blur > 0

    def build_generator(self, sizes: dict) -> nn.Module:
        options = {}
        if self.config.variant == "R":
            options = stylegan3.R | {name: 2 * sizes[name] for name in ("channel_base", "channel_max")}
        return stylegan3.Generator(stylegan3.Config(**sizes | options | {"num_layers": self.config.layers}))

    def sigma(self, images: int) -> float:
        """Blur after `images` images, in pixels."""
        return self.blur * max(1 - images / self.config.blur_images, 0.0)

    def updates(self, step: int) -> list[Update]:
        images = self.config.batch_size * self.processes
        for module in self.generator.modules():
            if isinstance(module, stylegan3.SynthesisLayer):
                module.magnitude_ema_beta = 0.5 ** (images / MAGNITUDE_IMAGES)
        sigma = self.sigma(self.seen(step))
        self.blurred = sigma > 0
        if self.blurred:
            # All along as many taps as at first, zeros among them: a compiled step sees one shape.
            x = torch.arange(len(self.memory.blur_filter)) - len(self.memory.blur_filter) // 2
            taps = torch.where(x.abs() <= math.floor(3 * sigma), torch.exp2(-((x / sigma) ** 2)), 0.0)
            self.memory.blur_filter.copy_(taps / taps.sum())
        return super().updates(step)

    def synthesize(self, ws: torch.Tensor, batch, update_emas: bool = False) -> torch.Tensor:
        return self.generator.synthesis(ws, update_emas=update_emas)

    def constant_fakes(self, batch) -> torch.Tensor:
        # A layer's gain is the running mean that its input has just moved: with --grad-accum each piece makes all images.
        return batch.together(super().constant_fakes)

    def view(self, images: torch.Tensor, batch) -> torch.Tensor:
        images = super().view(images, batch)
        return filter2d(images, self.memory.blur_filter) if self.blurred else images
