"""StyleGAN2 (Karras et al., 2020) with adaptive augmentation (Karras et al., "Limited Data", 2020): the steps of
`fastgan.recipes.stylegan`, style mixing, and path length regularisation as a lazy update of its own,

    weight (|J_w^T y| - a)^2,    y ~ N(0, I / pixels), a the running mean of |J_w^T y|   (section 3.2, eq. 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from fastgan.losses import penalty
from fastgan.models import stylegan2
from fastgan.options import Count, NonNegative, Share
from fastgan.recipes import Update
from fastgan.recipes.stylegan import StyleGAN, StyleGANConfig
from fastgan.training.recipe import Preset, lazy_adam

# Karras et al. (2020), sections 3.2 and 4.1 and appendix B: z and w, style mixing, lazy regularisation, Adam. The weight of the
# path length, ln 2 / (r^2 (ln r - ln 2)) for r pixels a side, is 2 at any size in units of the recipe, which divides the squared
# lengths by r^2 and by the 2 log2 r - 2 layers that w enters.
REGULARISERS = {
    "latent": 512,
    "mixing": 0.9,
    "r1_interval": 16,
    "path_interval": 8,
    "path_weight": 2.0,
    "beta2": 0.99,
}


@dataclass
class StyleGAN2Config(StyleGANConfig):
    """StyleGAN2 for any power-of-two size, and rectangles. The defaults suit small images on two CPU cores."""

    mixing: Share = 0.9
    """Probability that an image takes its styles from a second latent, from a layer on that is drawn at random."""
    path_weight: NonNegative = 2.0
    """Weight of the path length regularisation. 0: none."""
    path_interval: Count = 4
    """Steps from one update of the path length regularisation to the next."""
    path_shrink: Count = 2
    """It sees the batch divided by this, and all of that at once whatever --grad-accum is."""


class StyleGAN2(StyleGAN):
    name = "stylegan2"
    Config = StyleGAN2Config
    presets: ClassVar = {
        "paper256": Preset(
            "256x256, the baseline of Karras et al. (2020, limited data), with ADA; its batch is that of all processes together",
            {
                "resolution": 256,
                # Appendix, table of hyperparameters ("our baseline"), as far as the next comment.
                "width": 64,  # half of 32768 / 256
                "max_width": 512,
                "batch_size": 64,
                "steps": 390_625,  # 25 million images
                "lr": 2.5e-3,
                "gamma": 1.0,
                "ema_halflife": 20_000.0,
                "mapping_layers": 8,
                "num_fp16_res": 4,  # from 32x32 on
                "half": "float16",
                "augment": "ada",
                **REGULARISERS,
            },
        ),
        "paper1024": Preset(
            "1024x1024, configuration F of Karras et al. (2020)",
            {
                "resolution": 1024,
                # The same table ("config F"), and appendix B of the StyleGAN2 paper.
                "width": 32,
                "max_width": 512,
                "batch_size": 32,
                "steps": 781_250,  # 25 million images
                "lr": 2e-3,
                "gamma": 10.0,
                "ema_halflife": 10_000.0,
                "mapping_layers": 8,
                "augment": "none",
                **REGULARISERS,
            },
        ),
    }

    @property
    def whole_generator(self) -> str:
        twice = "path length regularisation differentiates it twice: use --path-weight 0"
        return twice if self.config.path_weight else ""

    def build_generator(self, sizes: dict) -> nn.Module:
        return stylegan2.Generator(stylegan2.Config(**sizes))

    def generator_optimizer(self, **adam) -> torch.optim.Optimizer:
        if not self.config.path_weight:
            return super().generator_optimizer(**adam)
        return lazy_adam(self.generator.parameters(), interval=self.config.path_interval, **adam)

    def updates(self, step: int) -> list[Update]:
        *discriminator, generator = super().updates(step)
        path = self.config.path_weight and step % self.config.path_interval == 0
        # Its penalty compares with a mean that this batch has moved.
        lazy = [Update("generator", self.path_step, fresh=False, whole=True)] if path else []
        return [*discriminator, *lazy, generator]

    def styles(self, batch, update_emas: bool = False) -> torch.Tensor:
        ws = super().styles(batch, update_emas)
        if not self.config.mixing:
            return ws
        other = super().styles(batch)
        gate, place = batch.rand(2).unbind(1)
        layers = torch.arange(ws.shape[1], device=ws.device)
        # From a layer of 1, 2, ..., num_ws - 1 on, or none.
        first = torch.where(gate < self.config.mixing, 1 + (place * (len(layers) - 1)).long(), len(layers))
        return torch.where((layers < first[:, None])[..., None], ws, other)

    def synthesize(self, ws: torch.Tensor, batch, update_emas: bool = False) -> torch.Tensor:
        return self.generator.synthesis(ws, batch.noise)

    def path_step(self, batch) -> dict[str, torch.Tensor]:
        config = self.config
        ws = self.styles(batch)[: -(-batch.size // config.path_shrink)]
        images = self.synthesize(ws, batch)
        loss, mean = penalty.path_length(images, ws, self.memory.path_length, config.path_weight)
        self.memory.path_length.copy_(mean)
        return {"loss": config.path_interval * loss.mean()}

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        logs = super().g_step(batch)
        return logs | {"path_length": self.memory.path_length.clone()} if self.config.path_weight else logs
