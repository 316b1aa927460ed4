"""SNGAN (Miyato et al., 2018): hinge loss (eq. 16, 17), a discriminator whose weights have spectral norm 1, and n
discriminator steps for each generator step. With classes, the networks are those of `fastgan.models.biggan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from fastgan.losses import adversarial
from fastgan.models import biggan, resnet
from fastgan.options import Count, NonNegative
from fastgan.recipes import Recipe, RecipeConfig, Update
from fastgan.sizes import nominal
from fastgan.training.recipe import Preset


@dataclass
class SNGANConfig(RecipeConfig):
    """SNGAN with the paper's residual networks, for any power-of-two size, and rectangles. The paper's width is 128 at 32x32."""

    d_steps: Count = 5
    """Discriminator updates for each generator update."""
    conditional: bool = False
    """Generate by class: class-conditional batch normalisation, projection discriminator, self-attention."""
    width: Count = 64
    """Channels at full resolution: of every block up to 32x32, and doubling with every halving above."""
    latent: Count = 128
    """Dimensions of the latent."""
    lr: NonNegative = 2e-4
    """Learning rate of both Adam optimisers."""


class SNGAN(Recipe):
    name = "sngan"
    Config = SNGANConfig
    presets: ClassVar = {
        "cifar10": Preset(
            "32x32, the discriminator of Miyato et al. (2018); their generator is twice as wide",
            {
                "resolution": 32,
                "width": 128,  # table 4: the discriminator's; 256 in the generator
                "latent": 128,  # table 4
                "lr": 2e-4,  # section 4, as for the residual networks on all data sets, with Adam's 0 and 0.9
                "d_steps": 5,
                "batch_size": 64,
                "ema_halflife": 0.0,
            },
        )
    }
    sample_options = (*Recipe.sample_options, "class_label")

    def __init__(self, config: SNGANConfig, data: dict):
        super().__init__(config, data)
        sizes = {name: data[name] for name in ("resolution", "channels")}
        sizes |= {"latent": config.latent, "width": config.width, "spectral": True}
        family = resnet
        if config.conditional:
            family = biggan
            sizes |= {"num_classes": data["num_classes"], "attention": 16 if nominal(data["resolution"]) >= 16 else 0}
        built = family.Config(**sizes)
        self.adversaries(family.Generator(built), family.Discriminator(built), lr=config.lr, betas=(0.0, 0.9))

    def updates(self, step: int) -> list[Update]:
        return [*[Update("discriminator", self.d_step)] * self.config.d_steps, Update("generator", self.g_step, False)]

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        labels = [batch.labels] if self.config.conditional else []
        fake = self.generator(batch.randn(*self.latent_shape), *labels)
        logits = self.discriminator(torch.cat([batch.real, fake]), *[x.repeat(2) for x in labels])
        real_logits, fake_logits = logits.chunk(2)
        loss = adversarial.hinge.d_loss(real_logits, fake_logits).mean()
        return {"loss": loss, "real": real_logits.mean(), "fake": fake_logits.mean()}

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        labels = [batch.labels] if self.config.conditional else []
        fake = self.generator(batch.randn(*self.latent_shape), *labels)
        return {"loss": adversarial.hinge.g_loss(None, self.discriminator(fake, *labels)).mean()}
