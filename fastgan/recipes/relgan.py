"""RelGAN (Nie et al., 2019): a relational memory writes Gumbel-softmax sentences, so that the discriminator's gradient
reaches it directly; the discriminator judges many representations of a sentence, under the relativistic loss RSGAN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from fastgan.losses import LOSSES, penalty
from fastgan.models import build
from fastgan.models.text_discriminator import RELGAN_FILTERS
from fastgan.options import Count, Names, Natural, NonNegative, Positive
from fastgan.recipes import Update
from fastgan.recipes.text import TextConfig, TextRecipe
from fastgan.training.recipe import Preset, compared

# Inverse temperature at share t of the adversarial phase, from 1 (constant: from its maximum) to the maximum b.
SCHEDULES = {
    "exponential": lambda b, t: b**t,
    "linear": lambda b, t: 1 + (b - 1) * t,
    "quadratic": lambda b, t: 1 + (b - 1) * t**2,
    "sqrt": lambda b, t: 1 + (b - 1) * t**0.5,
    "sigmoid": lambda b, t: 1 + (b - 1) / (1 + math.exp(10 * (0.5 - t))),
    "constant": lambda b, t: b,
}


@dataclass
class RelGANConfig(TextConfig):
    """RelGAN: relational memory, Gumbel-softmax and a relativistic loss, after maximum likelihood pretraining."""

    steps: Count = 2_000
    """Length of the run: pretraining, then adversarial steps."""
    pretrain: Natural = 1_500
    """Steps of maximum likelihood."""
    generator: Literal["lstm", "relational", "transformer"] = "relational"
    """Generator network; the paper's is relational, with a hidden width of 512 or 1024."""
    pretrain_lr: NonNegative = 1e-3
    """Adam's learning rate for maximum likelihood."""
    discriminator_steps: Count = 3
    """Discriminator updates for each update of the generator; the paper's is 5."""
    schedule: Literal["exponential", "linear", "quadratic", "sqrt", "sigmoid", "constant"] = "exponential"
    """How the inverse temperature grows over the adversarial phase."""
    inverse_temperature: Positive = 100.0
    """Its maximum; the paper uses 100 for quality and 1000 for diversity."""
    loss: Annotated[str, Names(LOSSES, ("rpgan", "ragan", "non-saturating", "hinge"))] = "rpgan"
    """Adversarial loss: rpgan (the paper's RSGAN), ragan, non-saturating, hinge, or one that you registered."""
    discriminator: Literal["cnn", "lstm"] = "cnn"
    """The paper's multi-representation CNN, or one LSTM with derivatives of every order."""
    representations: Count = 64
    """Embedded representations that the CNN judges separately."""
    filters: Positive = 0.25
    """Numbers of the CNN's filters, as a share of the paper's 1,200."""
    penalty: NonNegative = 0.0
    """Weight of a zero-centred gradient penalty on embedded sentences between real and generated ones. 0: none."""
    lr: NonNegative = 1e-4
    """Adam's learning rate for the generator's adversarial updates."""
    discriminator_lr: NonNegative = 1e-4
    """Adam's learning rate for the discriminator."""


class RelGAN(TextRecipe):
    name = "relgan"
    Config = RelGANConfig
    presets: ClassVar = {
        "paper": Preset(
            "the oracle's sentences of 20 tokens, as Nie et al. (2019)",
            {
                "data": "oracle",  # section 4 and appendix, training details, as all below
                "generator": "relational",
                "hidden": 512,  # two heads of 256
                "embedding": 32,
                "batch_size": 64,
                "pretrain_lr": 1e-2,
                "lr": 1e-4,
                "discriminator_lr": 1e-4,
                "discriminator_steps": 5,
                "discriminator": "cnn",
                "representations": 64,
                "filters": 1.0,
                "loss": "rpgan",
                "schedule": "exponential",
                "inverse_temperature": 100.0,
                "ema_halflife": 0.0,
            },
        )
    }
    whole_batch = "as its sentences are drawn together"

    def __init__(self, config: RelGANConfig, data: dict):
        super().__init__(config, data)
        sizes = {"vocabulary": data["vocabulary_size"], "length": data["length"]}
        if config.discriminator == "cnn":
            filters = tuple((width, max(1, round(n * config.filters))) for width, n in RELGAN_FILTERS)
            sizes |= {"filters": filters, "representations": config.representations}
            # One number per representation, as in the paper (64 of an embedding of 64).
            sizes["embedding"] = config.representations
        name = "relgan" if config.discriminator == "cnn" else "recurrent"
        self.discriminator = build(f"text.{name}_discriminator", **sizes)
        self.networks["discriminator"] = self.discriminator
        self.optimizers |= {
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), lr=config.discriminator_lr),
            "generator": torch.optim.Adam(self.generator.parameters(), lr=config.lr),
        }
        self.loss = LOSSES.resolve(config.loss)
        self.inverse_temperature = 1.0

    def updates(self, step: int) -> list[Update]:
        config = self.config
        if step < config.pretrain:
            return [Update("pretrain", self.mle_step)]
        done = (step - config.pretrain) / max(config.steps - config.pretrain - 1, 1)
        self.inverse_temperature = SCHEDULES[config.schedule](config.inverse_temperature, done)
        discriminator = Update("discriminator", self.d_step)
        return [Update("generator", self.g_step), *[discriminator] * config.discriminator_steps]

    def d_step(self, batch) -> dict[str, Tensor]:
        fake, _ = self.generator.sample_soft(batch.size, 1 / self.inverse_temperature)
        real_logits, fake_logits = self.discriminator(batch.real), self.discriminator(fake)
        loss = self.loss.d_loss(*compared(self.loss, batch, real_logits, fake_logits)).mean()
        logs = {"loss": loss, "real": real_logits.mean(), "fake": fake_logits.mean()}
        if self.config.penalty:
            with torch.no_grad():
                real, fake = self.discriminator.embed(batch.real), self.discriminator.embed(fake)
            slope = penalty.zero_centered(self.discriminator.judge, real, fake, self.config.penalty).mean()
            logs |= {"loss": loss + slope, "penalty": slope}
        return logs

    def g_step(self, batch) -> dict[str, Tensor]:
        fake, _ = self.generator.sample_soft(batch.size, 1 / self.inverse_temperature)
        real_logits = self.discriminator(batch.real) if self.loss.relativistic else None
        loss = self.loss.g_loss(*compared(self.loss, batch, real_logits, self.discriminator(fake))).mean()
        return {"loss": loss, "inverse_temperature": loss.new_tensor(self.inverse_temperature)}
