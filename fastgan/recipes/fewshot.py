"""FastGAN (Liu et al., 2021, section 3), for tens to thousands of images: hinge loss, and for the discriminator the
distance of what two decoders make of a real image's features from the image and from a quarter of it. It is L1 here; the
paper's is perceptual and needs a pretrained network. Both sides are augmented differentiably (Zhao et al., 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from fastgan.losses import adversarial
from fastgan.models import fewshot
from fastgan.options import Batch, Count, NonNegative
from fastgan.recipes import RecipeConfig
from fastgan.recipes.augmented import Augmented
from fastgan.training.augment import Augment, Policy
from fastgan.training.recipe import Preset


@dataclass
class FewShotConfig(RecipeConfig):
    """FastGAN: light networks for few images, any power-of-two size from 32, and rectangles."""

    steps: Count = 5_000
    """Length of the run, in generator updates."""
    batch_size: Batch = 8
    """Images per update and process."""
    ema_halflife: NonNegative = 5_000.0
    """Half-life of the generator's moving average, which samples are drawn from, in images. 0: no average."""
    reconstruction: NonNegative = 1.0
    """Weight of the decoders' L1 losses."""
    augment: Policy = "diffaugment"
    """Augmentation of what the discriminator sees; ada adapts its strength to overfitting."""
    width: Count = 32
    """Channels at 64x64; they double with every halving and halve with every doubling. The paper's networks have 128."""
    max_width: Count = 256
    """Upper bound of the channels."""
    latent: Count = 128
    """Dimensions of the latent."""
    lr: NonNegative = 2e-4
    """Learning rate of both Adam optimisers."""


class FewShot(Augmented):
    name = "fastgan"
    Config = FewShotConfig
    presets: ClassVar = {
        "paper256": Preset(
            "256x256, the networks of Liu et al. (2021)",
            {
                "resolution": 256,
                "width": 128,  # section 3.1
                "max_width": 1024,
                "latent": 256,
                "batch_size": 8,  # section 4
                "lr": 2e-4,
                "augment": "diffaugment",
            },
        )
    }

    def __init__(self, config: FewShotConfig, data: dict):
        super().__init__(config, data)
        sizes = fewshot.Config(data["resolution"], data["channels"], config.latent, config.width, config.max_width)
        self.augment = Augment(config.augment)
        self.adversaries(fewshot.Generator(sizes), fewshot.Discriminator(sizes), lr=config.lr, betas=(0.5, 0.999))

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        fake = self.augment(self.generator(batch.randn(*self.latent_shape)), batch)
        real = self.augment(batch.real, batch)
        which = (batch.rand() * 4).long()
        # Two passes, as batch statistics of real and generated images are kept apart.
        real_logits, *decoded = self.discriminator.reconstruct(real, which)
        fake_logits = self.discriminator(fake)
        self.augment.observe(real_logits, batch)
        whole, part = (F.l1_loss(*pair) for pair in zip(decoded, self.discriminator.targets(real, which), strict=True))
        hinge = adversarial.hinge.d_loss(real_logits, fake_logits).mean()
        logs = {"real": real_logits.mean(), "fake": fake_logits.mean(), "whole": whole, "part": part}
        return {"loss": hinge + self.config.reconstruction * (whole + part), **logs, **self.augment.logs()}

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        fake = self.augment(self.generator(batch.randn(*self.latent_shape)), batch)
        return {"loss": adversarial.hinge.g_loss(None, self.discriminator(fake)).mean()}
