"""A recipe on signals, its data and a metric, as a user writes them in one file: chirps, from noise.

fastgan train ./signal_recipe.py:Chirps
"""

from dataclasses import dataclass

import torch
from torch import nn

import fastgan.data
import fastgan.metrics
from fastgan.losses import adversarial
from fastgan.media import Signal
from fastgan.recipes import Recipe, RecipeConfig


@dataclass
class ChirpConfig(RecipeConfig):
    """Convolutions over time, hinge loss."""

    width: int = 16
    """Channels of the networks."""
    lr: float = 2e-3
    """Adam's learning rate."""


@fastgan.data.register("chirps")
def chirps(length=None, rate=None):
    """64 tones that rise, each from a frequency of its own."""
    length, rate = length or 256, rate or 8000
    start, time = torch.linspace(200, 900, 64)[:, None], torch.arange(length) / rate
    phase = 2 * torch.pi * (start * time + 0.5 * 20_000 * time**2)
    return fastgan.data.SignalDataset(0.8 * phase.sin()[:, None], rate, name="chirps")


@fastgan.metrics.register("loudness", needs=("samples", "data"))
def loudness(samples, data):
    """Root mean square of the samples against that of the data: 1 is as loud."""
    return samples.square().mean().sqrt() / data.signals.square().mean().sqrt()


class Chirps(Recipe):
    """Learns chirps, or recordings: --data FOLDER --length 256."""

    Config, medium, metrics = ChirpConfig, Signal, ("loudness",)
    run_defaults = {"data": "chirps", "samples": 4}  # noqa: RUF012 - as a user writes it

    def __init__(self, config: ChirpConfig, data: dict):
        super().__init__(config, data)
        width, channels, steps = config.width, data["channels"], data["length"] // 16
        generator = nn.Sequential(
            nn.Linear(16, width * steps),
            nn.Unflatten(1, (width, steps)),
            nn.ConvTranspose1d(width, width, 8, 4, 2),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose1d(width, channels, 8, 4, 2),
            nn.Tanh(),
        )
        discriminator = nn.Sequential(
            nn.Conv1d(channels, width, 8, 4, 2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width, width, 8, 4, 2),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(width * steps, 1),
        )
        self.adversaries(generator, discriminator, lr=config.lr, betas=(0.5, 0.99))
        self.latent_shape = (16,)

    def d_step(self, batch):
        fake = self.generator(batch.randn(*self.latent_shape))
        return {"loss": adversarial.hinge.d_loss(self.discriminator(batch.real), self.discriminator(fake)).mean()}

    def g_step(self, batch):
        fake = self.generator(batch.randn(*self.latent_shape))
        return {"loss": adversarial.hinge.g_loss(None, self.discriminator(fake)).mean()}
