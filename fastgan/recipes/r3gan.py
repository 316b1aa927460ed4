"""R3GAN (Huang et al., 2024): relativistic pairing loss with R1 and R2 (eq. 4) on residual networks without
normalisation, and rates that move along half a cosine during the first `burn_in` images (appendix, training settings):

    v(t) = end + (start - end) (1 + cos(pi min(t / burn_in, 1))) / 2,    t = images seen

Real and fake images go through the discriminator in one pass; its logits serve the loss and both penalties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from fastgan.losses import adversarial, penalty
from fastgan.models import r3gan
from fastgan.options import Batch, Count, Decay, Depth, NonNegative, Share
from fastgan.recipes import Recipe, RecipeConfig, Update
from fastgan.recipes.augmented import Augmented
from fastgan.sizes import nominal
from fastgan.training.augment import Augment, Policy
from fastgan.training.recipe import Preset


@dataclass
class R3GANConfig(RecipeConfig):
    """R3GAN for any power-of-two size, and rectangles. Pairs are the values at the start and from `burn_in` images on."""

    steps: Count = 2_500
    """Length of the run, in generator updates."""
    batch_size: Batch = 32
    """Images per update and process."""
    ema_halflife: NonNegative = 5_000.0
    """Half-life of the generator's moving average after the burn-in, in images; it begins at 0. 0: no average."""
    burn_in: Count = 40_000
    """Images during which the rates move from their first value to their last."""
    lr: tuple[NonNegative, NonNegative] = (5e-4, 1.5e-4)
    """Learning rate of both Adam optimisers."""
    beta2: tuple[Decay, Decay] = (0.9, 0.99)
    """Adam's decay rate of the mean squared gradient; that of the mean gradient is 0."""
    gamma: tuple[NonNegative, NonNegative] = (1.0, 0.1)
    """Weight of the penalties R1 (on real images) and R2 (on generated ones)."""
    augment: Policy = "none"
    """Augmentation of what the discriminator sees, for small data sets."""
    augment_p: Share = 0.3
    """Probability of each of ada's augmentations after the burn-in; it begins at 0 and is not adapted."""
    conditional: bool = False
    """Generate by class: give both networks the data set's labels."""
    width: Count = 64
    """Channels at full resolution; they double with every halving."""
    max_width: Count = 256
    """Upper bound of the channels."""
    group_width: Count = 16
    """Channels per group of a block's middle convolution."""
    blocks: Depth = 1
    """Residual blocks per resolution; the paper has 2."""
    latent: Count = 64
    """Dimensions of the latent."""


class R3GAN(Augmented):
    name = "r3gan"
    Config = R3GANConfig
    presets: ClassVar = {
        "paper256": Preset(
            "256x256, as Huang et al. (2024) trained on FFHQ; its batch is that of all processes together",
            {
                "resolution": 256,
                "blocks": 2,  # section 4, config E, as the group width
                "group_width": 16,
                "latent": 64,  # appendix, table of hyperparameters for FFHQ-256, as all below
                "width": 96,
                "max_width": 768,
                "batch_size": 256,
                "lr": (2e-4, 5e-5),
                "beta2": (0.9, 0.99),
                "gamma": (150.0, 15.0),
                "ema_halflife": 500_000.0,
                "burn_in": 20_000_000,
                "augment": "ada",
                "augment_p": 0.3,
            },
        )
    }
    sample_options = (*Recipe.sample_options, "class_label")

    def __init__(self, config: R3GANConfig, data: dict):
        super().__init__(config, data)
        if config.burn_in < 1:
            raise ValueError(f"r3gan: burn_in is {config.burn_in}, expected at least 1")
        levels = range(nominal(data["resolution"]).bit_length() - 3, -1, -1)
        widths = tuple(min(config.width << level, config.max_width) for level in levels)
        sizes = r3gan.Config(
            resolution=data["resolution"],
            channels=data["channels"],
            latent=config.latent,
            widths=widths,
            groups=tuple(max(2 * width // config.group_width, 1) for width in widths),
            blocks=config.blocks,
            num_classes=data["num_classes"] if config.conditional else 0,
        )
        self.augment = Augment(config.augment)
        self.adversaries(r3gan.Generator(sizes), r3gan.Discriminator(sizes), betas=(0.0, config.beta2[0]))
        self.gamma = config.gamma[0]

    @property
    def dynamic(self) -> str:
        moving = [n for n in ("gamma", "beta2") if len(set(getattr(self.config, n))) > 1]
        return f"{' and '.join(moving)} change with every step of the burn-in; give one value twice" if moving else ""

    def scheduled(self, start: float, end: float, images: int) -> float:
        """Between `start` and `end`, once `images` have been seen."""
        return end + (start - end) * (1 + math.cos(math.pi * min(images / self.config.burn_in, 1.0))) / 2

    def ema_halflife(self, images: int) -> float:
        return self.scheduled(0.0, self.config.ema_halflife, images)

    def updates(self, step: int) -> list[Update]:
        config = self.config
        seen = self.seen(step)
        self.gamma = self.scheduled(*config.gamma, seen)
        self.augment.p.fill_(self.scheduled(0.0, config.augment_p, seen))
        for optimizer in self.optimizers.values():
            group = optimizer.param_groups[0]
            group["lr"] = self.scheduled(*config.lr, seen)
            group["betas"] = (0.0, self.scheduled(*config.beta2, seen))
        return [Update("discriminator", self.d_step), Update("generator", self.g_step)]

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        labels = batch.labels if self.config.conditional else None
        fake = self.generator(batch.randn(*self.latent_shape), labels)
        images = torch.cat([batch.real, fake]).requires_grad_(True)
        logits = self.discriminator(self.augment(images, batch), None if labels is None else labels.repeat(2))
        real, fake = logits.chunk(2)
        # R1 and R2 are one formula on two halves of the batch, and no logit depends on another image: one call.
        r1, r2 = penalty.r1(logits, images, gamma=self.gamma).chunk(2)
        loss = adversarial.rpgan.d_loss(real, fake) + r1 + r2
        logs = {"loss": loss.mean(), "real": real.mean(), "fake": fake.mean(), "r1": r1.mean(), "r2": r2.mean()}
        return logs | ({"augment_p": self.augment.p.clone()} if self.augment.adaptive else {})

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        labels = batch.labels if self.config.conditional else None
        fake = self.generator(batch.randn(*self.latent_shape), labels)
        real_logits, fake_logits = (self.discriminator(self.augment(x, batch), labels) for x in (batch.real, fake))
        return {"loss": adversarial.rpgan.g_loss(real_logits, fake_logits).mean()}
