"""Wasserstein GAN with gradient penalty (Gulrajani et al., 2017, algorithm 1): n critic steps for each generator step,
L_D = D(G(z)) - D(x) + weight (|grad D(x^)| - 1)^2 at x^ drawn uniformly between a real and a generated image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from fastgan.losses import adversarial, penalty
from fastgan.models import resnet
from fastgan.options import Count, NonNegative
from fastgan.recipes import Recipe, RecipeConfig, Update
from fastgan.training.recipe import Preset


@dataclass
class WGANGPConfig(RecipeConfig):
    """WGAN-GP with the paper's residual networks, for any power-of-two size, and rectangles. The paper's width is 128."""

    critic_steps: Count = 5
    """Critic updates for each generator update."""
    penalty: NonNegative = 10.0
    """Weight of the gradient penalty."""
    width: Count = 64
    """Channels at full resolution: of every block up to 32x32, and doubling with every halving above."""
    latent: Count = 128
    """Dimensions of the latent."""
    lr: NonNegative = 2e-4
    """Learning rate of both Adam optimisers."""


class WGANGP(Recipe):
    name = "wgan-gp"
    Config = WGANGPConfig
    presets: ClassVar = {
        "paper": Preset(
            "the defaults of Gulrajani et al. (2017)",
            {
                "critic_steps": 5,  # algorithm 1, as the next two
                "penalty": 10.0,
                "lr": 1e-4,
                "ema_halflife": 0.0,
            },
        ),
        "cifar10": Preset(
            "32x32, the paper's CIFAR-10 networks; their linear decay of the learning rate is not offered",
            {
                "resolution": 32,
                "width": 128,  # appendix, table of the CIFAR-10 ResNet, as all below
                "latent": 128,
                "batch_size": 64,
                "lr": 2e-4,
                "critic_steps": 5,
                "penalty": 10.0,
                "steps": 100_000,
                "ema_halflife": 0.0,
            },
        ),
    }

    def __init__(self, config: WGANGPConfig, data: dict):
        super().__init__(config, data)
        sizes = resnet.Config(data["resolution"], data["channels"], config.latent, config.width)
        self.adversaries(resnet.Generator(sizes), resnet.Discriminator(sizes), lr=config.lr, betas=(0.0, 0.9))

    def updates(self, step: int) -> list[Update]:
        critic = [Update("discriminator", self.d_step)] * self.config.critic_steps
        return [*critic, Update("generator", self.g_step, fresh=False)]

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        fake = self.generator(batch.randn(*self.latent_shape))
        real_logits, fake_logits = self.discriminator(batch.real), self.discriminator(fake)
        loss = adversarial.wasserstein.d_loss(real_logits, fake_logits).mean()
        slope = penalty.wgan_gp(
            self.discriminator, batch.real, fake, weight=self.config.penalty, mix=batch.rand()
        ).mean()
        distance = real_logits.mean() - fake_logits.mean()
        return {"loss": loss + slope, "distance": distance, "penalty": slope}

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        fake_logits = self.discriminator(self.generator(batch.randn(*self.latent_shape)))
        return {"loss": adversarial.wasserstein.g_loss(torch.zeros_like(fake_logits), fake_logits).mean()}
