"""The founding article's GAN (Goodfellow et al., 2014), in two phases.

Preparation: weights are drawn, and the data's mean and deviation per pixel become the discriminator's input scaling
and the point from which the generator starts. Iteration: discriminator and generator are updated in turn.

The batch loss keeps gradients alive when the discriminator is sure of itself: the generator matches the mean and the
deviation of the discriminator's features over the whole minibatch (Salimans et al., 2016, section 3.1), a target that
does not saturate; and the discriminator sees the minibatch's standard deviation, which a collapsed generator cannot
fake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from fastgan.data.source import images_once
from fastgan.losses import LOSSES
from fastgan.losses.batch import feature_matching
from fastgan.models import mlp
from fastgan.options import Batch, Count, Decay, Names, Natural, NonNegative
from fastgan.recipes import Recipe, RecipeConfig, Update
from fastgan.training.recipe import Preset, compared, compares_with_means


@dataclass
class GANConfig(RecipeConfig):
    """The founding article's GAN: fully connected networks, minimax or non-saturating loss, batch loss."""

    steps: Count = 5_000
    """Length of the run, in generator updates."""
    batch_size: Batch = 128
    """Images per update and process."""
    ema_halflife: NonNegative = 20_000.0
    """Half-life of the generator's moving average, which samples are drawn from, in images. 0: no average."""
    loss: Annotated[str, Names(LOSSES, ("non-saturating", "minimax"))] = "non-saturating"
    """Adversarial loss: non-saturating, minimax (equation 1 of the article, as it stands), or one that you registered."""
    batch_loss: NonNegative = 1.0
    """Weight of the batch loss (feature matching over the minibatch). 0: adversarial loss alone."""
    stddev_group: Natural = 4
    """Group size of the minibatch standard deviation shown to the discriminator. 0: not shown."""
    units: tuple[Count, Count] = (512, 256)
    """Widths of the two fully connected layers; the two mirrored ones repeat them in reverse."""
    latent: Count = 64
    """Dimensions of the latent."""
    lr: NonNegative = 2e-4
    """Learning rate of both Adam optimisers."""
    beta1: Decay = 0.5
    """Adam's decay rate of the mean gradient."""


class GAN(Recipe):
    name = "gan"
    Config = GANConfig
    presets: ClassVar = {
        "paper": Preset(
            "the article's game alone, without the batch loss",
            {
                "loss": "non-saturating",  # section 3: log D(G(z)) is maximised
                "batch_loss": 0.0,
                "stddev_group": 0,
                "ema_halflife": 0.0,
            },
        )
    }

    def __init__(self, config: GANConfig, data: dict):
        super().__init__(config, data)
        sizes = mlp.Config(
            data["resolution"], data["channels"], config.latent, tuple(config.units), config.stddev_group
        )
        self.adversaries(mlp.Generator(sizes), mlp.Discriminator(sizes), lr=config.lr, betas=(config.beta1, 0.999))
        self.loss = LOSSES.resolve(config.loss)

    @property
    def whole_batch(self) -> str:
        return compares_with_means(self.loss, self.config.loss)

    def prepare(self, dataset) -> None:
        # Integers have few values: their sums stay exact in float64, and no float copy of the data set is made.
        count, total, squares = 0, 0.0, 0.0
        for images in images_once(dataset):
            x = images.double()
            count, total, squares = count + len(x), total + x.sum(0), squares + (x * x).sum(0)
        mean = total / count
        deviation = (squares / count - mean * mean).clamp(min=0).sqrt()
        if not images.is_floating_point():
            half = torch.iinfo(images.dtype).max / 2
            mean, deviation = mean / half - 1, deviation / half
        for network in self.networks.values():
            network.prepare(mean.float(), deviation.float())

    def updates(self, step: int) -> list[Update]:
        matched = self.config.batch_loss != 0
        return [Update("discriminator", self.d_step), Update("generator", self.g_step, fresh=False, whole=matched)]

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        fake = self.generator(batch.randn(*self.latent_shape))
        real_logits, fake_logits = self.discriminator(batch.real), self.discriminator(fake)
        loss = self.loss.d_loss(*compared(self.loss, batch, real_logits, fake_logits)).mean()
        return {"loss": loss, "real": real_logits.mean(), "fake": fake_logits.mean()}

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        fake_logits, fake = self.discriminator(self.generator(batch.randn(*self.latent_shape)), features=True)
        real_logits, real = self.discriminator(batch.real, features=True)
        loss = self.loss.g_loss(*compared(self.loss, batch, real_logits, fake_logits)).mean()
        if not self.config.batch_loss:
            return {"loss": loss}
        matching = feature_matching(batch.gather(real), batch.gather(fake))
        return {"loss": loss + self.config.batch_loss * matching, "adversarial": loss, "batch": matching}
