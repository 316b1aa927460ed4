"""DCGAN's networks with a loss that converges: relativistic pairing with R1 and R2 (Jolicoeur-Martineau, 2018; Huang et
al., 2024, eq. 4): L_D = softplus(-(D(x) - D(G(z)))) + gamma/2 |grad D(x)|^2 + gamma/2 |grad D(G(z))|^2. The penalties, which cost
as much as the rest, are taken every `penalty_interval` steps, times that number (Karras et al., 2020, section 3.1).

Real and fake images go through the discriminator in one pass; its logits serve the loss and both penalties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from fastgan.losses import LOSSES, penalty
from fastgan.models import dcgan
from fastgan.options import Batch, Count, Decay, Names, NonNegative
from fastgan.recipes import Recipe, RecipeConfig
from fastgan.recipes.augmented import Augmented
from fastgan.training.augment import Augment, Policy
from fastgan.training.recipe import Preset, Update, compared, compares_with_means


@dataclass
class DCGANConfig(RecipeConfig):
    """DCGAN for any power-of-two size from 32 to 256, and rectangles. The defaults suit small images on two CPU cores."""

    before: ClassVar = {"penalty_interval": 1}

    steps: Count = 4_000
    """Length of the run, in generator updates."""
    batch_size: Batch = 16
    """Images per update and process."""
    ema_halflife: NonNegative = 5_000.0
    """Half-life of the generator's moving average, which samples are drawn from, in images. 0: no average."""
    loss: Annotated[str, Names(LOSSES, ("rpgan", "ragan", "non-saturating", "least-squares", "hinge"))] = "rpgan"
    """Adversarial loss: rpgan, ragan, non-saturating, least-squares, hinge, or one that you registered."""
    gamma: NonNegative = 0.5
    """Weight of the penalties R1 (on real images) and R2 (on generated ones). 0: none."""
    penalty_interval: Count = 4
    """Steps from one update of the discriminator with the penalties, which count this many times there, to the next."""
    augment: Policy = "none"
    """Augmentation of what the discriminator sees, for small data sets; ada adapts its strength to overfitting."""
    conditional: bool = False
    """Generate by class: give both networks the data set's labels."""
    width: Count = 32
    """Channels at half resolution; they double with every halving."""
    max_width: Count = 256
    """Upper bound of the channels."""
    latent: Count = 64
    """Dimensions of the latent."""
    lr: NonNegative = 1e-3
    """Learning rate of both Adam optimisers."""
    beta1: Decay = 0.0
    """Adam's decay rate of the mean gradient."""
    beta2: Decay = 0.99
    """Adam's decay rate of the mean squared gradient."""


class DCGAN(Augmented):
    name = "dcgan"
    Config = DCGANConfig
    presets: ClassVar = {
        "paper": Preset(
            "64x64, as Radford et al. (2016) trained on LSUN and faces, with the founding article's loss",
            {
                "resolution": 64,  # figure 1
                "latent": 100,  # figure 1
                "width": 128,  # figure 1: 128 channels at 32x32 ...
                "max_width": 1024,  # ... to 1024 at 4x4
                "batch_size": 128,  # section 4, as the next two
                "lr": 2e-4,
                "beta1": 0.5,
                "beta2": 0.999,  # not changed from Kingma and Ba (2015), algorithm 1
                "loss": "non-saturating",  # Goodfellow et al. (2014), section 3
                "gamma": 0.0,  # there were no penalties yet, and no averages of weights
                "ema_halflife": 0.0,
            },
        )
    }
    sample_options = (*Recipe.sample_options, "class_label")

    def __init__(self, config: DCGANConfig, data: dict):
        super().__init__(config, data)
        sizes = dcgan.Config(
            resolution=data["resolution"],
            channels=data["channels"],
            latent=config.latent,
            width=config.width,
            max_width=config.max_width,
            num_classes=data["num_classes"] if config.conditional else 0,
        )
        betas = (config.beta1, config.beta2)
        self.augment = Augment(config.augment)
        self.adversaries(dcgan.Generator(sizes), dcgan.Discriminator(sizes), lr=config.lr, betas=betas)
        self.loss = LOSSES.resolve(config.loss)

    @property
    def whole_batch(self) -> str:
        adapted = self.loss.relativistic and self.augment.adaptive
        of_augment = f"as --augment {self.config.augment} measures --loss {self.config.loss} by means of the batch"
        return compares_with_means(self.loss, self.config.loss) or of_augment * adapted

    def updates(self, step: int) -> list[Update]:
        discriminator, generator = super().updates(step)
        interval = self.config.penalty_interval
        overridden = type(self).d_step is not DCGAN.d_step  # a subclass's is of every step
        if overridden or interval == 1 or not self.config.gamma:
            return [discriminator, generator]
        # The last step of every interval, so that the rows of a log that are read, the 20th or 100th, hold the penalties.
        loss = self.plain_step if (step + 1) % interval else self.penalised_step
        return [discriminator._replace(loss=loss), generator]

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        return self._judge(batch, self.config.gamma)

    def penalised_step(self, batch) -> dict[str, torch.Tensor]:
        return self._judge(batch, self.config.gamma * self.config.penalty_interval)

    def plain_step(self, batch) -> dict[str, torch.Tensor]:
        return self._judge(batch, 0.0)

    def _judge(self, batch, gamma: float) -> dict[str, torch.Tensor]:
        labels = batch.labels if self.config.conditional else None
        fake = self.generator(batch.randn(*self.latent_shape), labels)
        images = torch.cat([batch.real, fake])
        if gamma:
            images.requires_grad_(True)
        logits = self.discriminator(self.augment(images, batch), None if labels is None else labels.repeat(2))
        real_logits, fake_logits = logits.chunk(2)
        self._observe(batch, real_logits, fake_logits)
        loss = self.loss.d_loss(*compared(self.loss, batch, real_logits, fake_logits)).mean()
        logs = {"loss": loss, "real": real_logits.mean(), "fake": fake_logits.mean(), **self.augment.logs()}
        if gamma:
            # R1 and R2 are one formula on two halves of the batch, and no logit depends on another image: one call.
            r1, r2 = penalty.r1(logits, images, gamma=gamma).chunk(2)
            logs |= {"loss": loss + r1.mean() + r2.mean(), "r1": r1.mean(), "r2": r2.mean()}
        return logs

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        labels = batch.labels if self.config.conditional else None
        fake = self.generator(batch.randn(*self.latent_shape), labels)
        logits = (self.discriminator(self.augment(x, batch), labels) for x in (batch.real, fake))
        return {"loss": self.loss.g_loss(*compared(self.loss, batch, *logits)).mean()}

    def _observe(self, batch, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> None:
        """Of a loss that knows differences alone no logit has a sign: what divides real from generated images is the middle
        between them, which wanders."""
        if self.loss.relativistic and self.augment.adaptive:
            middle = batch.mean((real_logits + fake_logits).detach().mean()) / 2
            real_logits = real_logits - middle
        self.augment.observe(real_logits, batch)
