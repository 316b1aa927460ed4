"""CycleGAN (Zhu et al., 2017): translation between two sets of images without pairs. `fastgan.models.cycle` holds the losses.

The generators' pass makes everything once; the discriminators then learn from the same translations, through the pool.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import nn

from fastgan.losses import LOSSES
from fastgan.models import cyclegan
from fastgan.models.cycle import CycleGAN, Pool
from fastgan.options import Count, Depth, Names, Natural, NonNegative
from fastgan.recipes import Update
from fastgan.recipes.examples import of_seeds
from fastgan.recipes.translation import Translation, TranslationConfig
from fastgan.sizes import sides
from fastgan.training.recipe import Preset, compared


@dataclass
class CycleGANConfig(TranslationConfig):
    """CycleGAN between two sets of images, for example --data emoji:google emoji:twitter. The defaults are the paper's."""

    steps: Count = 200_000
    """Length of the run, in generator updates."""
    blocks: Depth | None = None
    """Residual blocks of the generators. Default: 9 where both sides have 256 pixels, else 6."""
    norm: Literal["instance", "batch", "none"] = "instance"
    """Normalisation of generators and discriminators."""
    loss: Annotated[str, Names(LOSSES, ("least-squares", "non-saturating", "hinge"))] = "least-squares"
    """Adversarial loss: least-squares, non-saturating, hinge, or one that you registered."""
    lambda_a: NonNegative = 10.0
    """Weight of the cycle A to B to A."""
    lambda_b: NonNegative = 10.0
    """Weight of the cycle B to A to B."""
    identity: NonNegative = 0.5
    """Weight of the identity terms, as a share of lambda. 0: none, and a third less work."""
    gamma: NonNegative = 0.0
    """Weight of R1 on the discriminators: smoother translations, and nearer to the true ones on emoji. 0 in the paper."""
    pool: Natural = 50
    """Older translations that the discriminators see again."""


class CycleGANRecipe(Translation):
    name = "cyclegan"
    Config = CycleGANConfig
    presets: ClassVar = {
        "paper256": Preset(
            "256x256, as Zhu et al. (2017)",
            {
                "resolution": 256,
                "width": 64,  # appendix 7.2, as the next three
                "blocks": 9,
                "layers": 3,  # 70x70 patches
                "norm": "instance",
                "loss": "least-squares",  # section 4, as all below
                "pool": 50,
                "lambda_a": 10.0,
                "lambda_b": 10.0,
                "lr": 2e-4,
                "lr_decay": 0.5,  # the second 100 of 200 epochs
                "batch_size": 1,
                "identity": 0.0,  # section 5.2: 0.5 where colours must stay, as from paintings to photos
            },
        )
    }
    averaged = ("generator_ab", "generator_ba", "examples")
    least, step = 16, 4
    paired = False
    sample_columns = ("A", "A→B", "A→B→A", "A→A", "B", "B→A", "B→A→B", "B→B")
    generators = {"AtoB": "generator_ab", "BtoA": "generator_ba"}  # noqa: RUF012 - read only

    def __init__(self, config: CycleGANConfig, data: dict):
        super().__init__(config, data)
        channels = data["channels"]
        if config.gamma and config.norm == "batch":
            raise ValueError(
                "cyclegan: --gamma penalises each image's own gradient, and --norm batch mixes images; take instance or none"
            )
        size = sides(data["resolution"])
        blocks = config.blocks or (9 if min(size) >= 256 else 6)
        sizes = cyclegan.GeneratorConfig(channels, channels, config.width, blocks, config.norm)
        judge = cyclegan.DiscriminatorConfig(channels, config.width, config.layers, config.norm)
        ab, ba = cyclegan.Generator(sizes), cyclegan.Generator(sizes)
        a, b = cyclegan.Discriminator(judge), cyclegan.Discriminator(judge)
        self.networks |= {"generator_ab": ab, "generator_ba": ba, "discriminator_a": a, "discriminator_b": b}
        self.pools = Pool(config.pool, (channels, *size)), Pool(config.pool, (channels, *size))
        self.networks |= {"pool_a": self.pools[0], "pool_b": self.pools[1]}
        self.optimizers = {"generator": self.adam(ab, ba), "discriminator": self.adam(a, b)}
        self.cycle = CycleGAN(
            ab,
            ba,
            a,
            b,
            loss=self.adversarial(),
            lambda_a=config.lambda_a,
            lambda_b=config.lambda_b,
            identity=config.identity,
            gamma=config.gamma,
            joint=config.norm != "batch",
        )

    @property
    def dynamic(self) -> str:
        return (
            "its pools of earlier images are asked image by image on the host; use --pool 0" if self.config.pool else ""
        )

    def updates(self, step: int) -> list[Update]:
        super().updates(step)
        return [Update("generator", self.g_step), Update("discriminator", self.d_step, fresh=False)]

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        a, b = self.cut(batch)
        out = self.cycle(a, b)
        batch.keep(a=a, b=b, fake_a=out.fake_a, fake_b=out.fake_b, draw_a=batch.rand(2), draw_b=batch.rand(2))
        return self.cycle.generator_loss(a, b, out, functools.partial(compared, self.cycle.loss, batch))

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        # A pool answers image by image: each piece asks it about all images in their order, and takes its own.
        pooled = (
            batch.own(pool(batch.kept(f"fake_{side}", whole=True), batch.kept(f"draw_{side}", whole=True)))
            for side, pool in zip("ab", self.pools, strict=True)
        )
        together = functools.partial(compared, self.cycle.loss, batch)
        return self.cycle.discriminator_loss(batch.kept("a"), batch.kept("b"), *pooled, together)

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor:
        """[N, C, H, 8 W], a strip per example: a, G(a), F(G(a)), F(a), b, F(b), G(F(b)), G(b). Seed i shows example i."""
        kept = networks["examples"]
        index = of_seeds(seeds, kept.a)
        a, b = kept.a[index], kept.b[index]
        ab, ba = networks["generator_ab"], networks["generator_ba"]
        fake_b, fake_a = ab(a), ba(b)
        return torch.cat([a, fake_b, ba(fake_b), ba(a), b, fake_a, ab(fake_a), ab(b)], 3)
