"""pix2pix (Isola et al., 2017, eq. 4): translation learnt from pairs,

min_G max_D  E log D(x, y) + E log(1 - D(x, G(x))) + lambda |y - G(x)|_1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import nn

from fastgan.losses import LOSSES, adversarial, cycle
from fastgan.models import cyclegan, pix2pix
from fastgan.options import Count, Names, NonNegative
from fastgan.recipes import Update
from fastgan.recipes.examples import of_seeds
from fastgan.recipes.translation import Translation, TranslationConfig
from fastgan.sizes import sides
from fastgan.training.recipe import Preset, compared


@dataclass
class Pix2PixConfig(TranslationConfig):
    """pix2pix from pairs of images, for example --data emoji:google emoji:twitter. The defaults are the paper's."""

    steps: Count = 80_000
    """Length of the run, in generator updates."""
    norm: Literal["instance", "batch", "none"] = "batch"
    """Normalisation of generator and discriminator."""
    loss: Annotated[str, Names(LOSSES, ("non-saturating", "least-squares", "hinge"))] = "non-saturating"
    """Adversarial loss: non-saturating, least-squares, hinge, or one that you registered."""
    weight: NonNegative = 100.0
    """Weight of the L1 distance to the true counterpart."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Which side is translated into which."""


class Pix2Pix(Translation):
    name = "pix2pix"
    Config = Pix2PixConfig
    presets: ClassVar = {
        "paper256": Preset(
            "256x256, as Isola et al. (2017)",
            {
                "resolution": 256,
                "width": 64,  # appendix 6.1, as the next two
                "layers": 3,  # 70x70 patches
                "norm": "batch",
                "jitter": True,  # appendix 6.2, as the next one
                "flip": True,
                "loss": "non-saturating",  # section 3.3, as the next two
                "lr": 2e-4,
                "beta1": 0.5,
                "weight": 100.0,  # section 4
            },
        )
    }
    averaged = ("generator", "examples")
    least, step = 32, 32
    paired = True

    def __init__(self, config: Pix2PixConfig, data: dict):
        super().__init__(config, data)
        channels, common = data["channels"], math.gcd(*sides(data["resolution"]))
        downs = min(8, (common & -common).bit_length() - 1)
        self.generator = pix2pix.Generator(
            pix2pix.GeneratorConfig(channels, channels, config.width, downs, config.norm)
        )
        judge = cyclegan.DiscriminatorConfig(2 * channels, config.width, config.layers, config.norm)
        self.discriminator = cyclegan.Discriminator(judge)
        self.networks |= {"generator": self.generator, "discriminator": self.discriminator}
        self.optimizers = {"generator": self.adam(self.generator), "discriminator": self.adam(self.discriminator)}
        self.loss = self.adversarial()
        # Mao et al.'s factor 1/2 is not in the papers' equations.
        self.scale = 2 if self.loss is adversarial.least_squares else 1
        self.generators = {config.direction: "generator"}
        source, target = config.direction.split("to")
        self.sample_columns = f"input {source}", f"{source}→{target}", f"true {target}"

    def updates(self, step: int) -> list[Update]:
        super().updates(step)
        # The generator goes first: its one pass then serves both.
        return [Update("generator", self.g_step), Update("discriminator", self.d_step, fresh=False)]

    def _pair(self, batch) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = self.cut(batch)
        return (a, b) if self.config.direction == "AtoB" else (b, a)

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        x, y = self._pair(batch)
        fake = self.generator(x)
        batch.keep(x=x, y=y, fake=fake)
        fake_logits = self.discriminator(torch.cat([x, fake], 1))
        gan = self.loss.g_loss(*compared(self.loss, batch, None, fake_logits)).mean() * self.scale
        l1 = cycle.identity(y, fake, self.config.weight).mean()
        return {"loss": gan + l1, "gan": gan, "l1": l1}

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        x, y, fake = map(batch.kept, ("x", "y", "fake"))
        real_logits = self.discriminator(torch.cat([x, y], 1))
        fake_logits = self.discriminator(torch.cat([x, fake], 1))
        loss = self.loss.d_loss(*compared(self.loss, batch, real_logits, fake_logits)).mean() * (self.scale / 2)
        return {"loss": loss, "real": real_logits.mean(), "fake": fake_logits.mean()}

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor:
        """[N, C, H, 3 W], a strip per example: the input, its translation, the truth. Seed i shows example i."""
        kept = networks["examples"]
        index = of_seeds(seeds, kept.a)
        x, y = (kept.a, kept.b) if self.config.direction == "AtoB" else (kept.b, kept.a)
        return torch.cat([x[index], networks["generator"](x[index]), y[index]], 3)
