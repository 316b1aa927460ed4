"""A recipe on signals, its data and a metric, as a user writes them in one file: chirps, from noise.

fastgan train ./signal_recipe.py:Chirps
"""

from dataclasses import dataclass

import torch
from torch import nn

from fastgan.data import SignalDataset
from fastgan.losses import adversarial
from fastgan.media import Signal
from fastgan.metrics import register
from fastgan.recipes import Recipe, RecipeConfig


@dataclass
class ChirpConfig(RecipeConfig):
    """Convolutions over time, hinge loss."""

    width: int = 16
    """Channels of the networks."""
    lr: float = 2e-3
    """Adam's learning rate."""


@register("loudness", needs=("samples", "data"))
def loudness(samples, data):
    """Root mean square of the samples against that of the data: 1 is as loud."""
    return samples.square().mean().sqrt() / data.signals.square().mean().sqrt()


class Chirps(Recipe):
    """Learns what `load_data` makes, or recordings: --data FOLDER --length 256."""

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

    @classmethod
    def load_data(cls, name, config, **options):
        return chirps() if name == "chirps" else super().load_data(name, config, **options)

    def d_step(self, batch):
        fake = self.generator(batch.randn(*self.latent_shape))
        return {"loss": adversarial.hinge.d_loss(self.discriminator(batch.real), self.discriminator(fake)).mean()}

    def g_step(self, batch):
        fake = self.generator(batch.randn(*self.latent_shape))
        return {"loss": adversarial.hinge.g_loss(None, self.discriminator(fake)).mean()}


def chirps(count: int = 64, length: int = 256, rate: int = 8000) -> SignalDataset:
    """Tones that rise, each from a frequency of its own."""
    start = torch.linspace(200, 900, count)[:, None]
    time = torch.arange(length) / rate
    phase = 2 * torch.pi * (start * time + 0.5 * 20_000 * time**2)
    return SignalDataset(0.8 * phase.sin()[:, None], rate, name="chirps")
