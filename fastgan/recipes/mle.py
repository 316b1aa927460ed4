"""Maximum likelihood: the baseline of every text GAN. Sampled at lower temperatures it trades diversity for quality, a
curve that few GANs beat (Caccia et al., 2020), so `fastgan eval` prints it for several temperatures."""

from __future__ import annotations

from dataclasses import dataclass

from fastgan.options import Count, Positive
from fastgan.recipes import Update
from fastgan.recipes.text import TextConfig, TextRecipe


@dataclass
class MLEConfig(TextConfig):
    """Maximum likelihood training of a text generator; evaluation sweeps the sampling temperature."""

    steps: Count = 350
    """Length of the run, in updates. On the Tang quatrains held-out likelihood is best here; larger corpora bear more."""
    sweep: tuple[Positive, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
    """Sampling temperatures that `fastgan eval` compares."""


class MLE(TextRecipe):
    name = "mle"
    Config = MLEConfig
    # A measurement takes as long as some 20 steps for each temperature of the sweep.
    run_defaults = TextRecipe.run_defaults | {"metrics_every": 200}

    def updates(self, step: int) -> list[Update]:
        return [Update("pretrain", self.mle_step)]

    def temperatures(self) -> tuple[float, ...]:
        return tuple(self.config.sweep)
