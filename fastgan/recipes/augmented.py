"""Recipes whose discriminator sees its images augmented."""

from __future__ import annotations

import torch
from torch import nn

from fastgan.recipes import Recipe, Update
from fastgan.training.augment import Augment


class Augmented(Recipe):
    """A recipe with an augmentation, which is saved with the networks, adapted before each step, and the same on every process.

    A subclass makes it, and shows its discriminator what comes out, in both steps and of real and generated images alike:

        self.augment = Augment(config.augment)                       # in __init__, before `adversaries`
        logits = self.discriminator(self.augment(images, batch))     # R1 is taken in `images`
        self.augment.observe(real_logits, batch)                     # in the discriminator's main step
        logs |= self.augment.logs()
    """

    augment: Augment

    def adversaries(self, generator: nn.Module, discriminator: nn.Module, **adam) -> None:
        """As of the base, with the augmentation among the networks."""
        super().adversaries(generator, discriminator, **adam)
        self.networks["augment"] = self.augment

    @property
    def running(self) -> list[torch.Tensor]:
        return self.augment.running

    def updates(self, step: int) -> list[Update]:
        self.augment.adjust(step)
        return super().updates(step)
