"""What the StyleGAN recipes share: non-saturating logistic loss, lazy R1, adaptive augmentation, sampling by style.

    L_D = softplus(D(G(z))) + softplus(-D(x)),    L_G = softplus(-D(G(z)))

and every `r1_interval` steps an update of its own of interval times R1 = gamma/2 |grad_x D(x)|^2 (Karras et al., 2020,
section 4.1 and appendix B), with the correction of Adam that goes with it (`lazy_adam`). A regulariser comes before the main
update of its network, so that what a step logs as "loss" and "gradient" is the main update's.

Real and generated images go through the discriminator separately: its minibatch standard deviation is of either kind alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.losses import penalty
from fastgan.losses.adversarial import logistic
from fastgan.models import stylegan2
from fastgan.ops import no_weight_gradients
from fastgan.options import Batch, Count, Decay, Depth, Natural, NonNegative
from fastgan.recipes import Recipe, RecipeConfig, Update
from fastgan.recipes.augmented import Augmented
from fastgan.sizes import nominal, sides
from fastgan.training.augment import Augment, Policy
from fastgan.training.recipe import lazy_adam


@dataclass
class StyleGANConfig(RecipeConfig):
    """What StyleGAN2 and StyleGAN3 have in common. The defaults suit small images on two CPU cores."""

    steps: Count = 2_500
    """Length of the run, in generator updates."""
    batch_size: Batch = 32
    """Images per update and process: a multiple of 4, the group whose standard deviation the discriminator sees."""
    gamma: NonNegative | None = None
    """Weight of R1, gamma / 2 |grad D|^2. Default: 0.0002 pixels / batch, the batch of all processes."""
    r1_interval: Count = 16
    """Steps from one update of R1 to the next."""
    augment: Policy = "ada"
    """Augmentation of what the discriminator sees, for small data sets; ada adapts its strength to overfitting."""
    conditional: bool = False
    """Generate by class: give both networks the data set's labels."""
    width: Count = 32
    """Channels at full resolution; they double with every halving. The papers' networks have 32768 / resolution."""
    max_width: Count = 256
    """Upper bound of the channels; the papers' is 512."""
    latent: Count = 64
    """Dimensions of z and w; the papers have 512."""
    mapping_layers: Depth = 2
    """Layers from z to w."""
    lr: NonNegative = 2.5e-3
    """Learning rate of both Adam optimisers."""
    beta2: Decay = 0.99
    """Adam's decay rate of the mean squared gradient; that of the mean gradient is 0."""
    num_fp16_res: Natural = 0
    """How many of the highest resolutions are computed in `half`; the papers have 4."""
    half: Literal["bfloat16", "float16"] = "bfloat16"
    """Type of those; float16 is used on CUDA alone."""


class Memory(nn.Module):
    """State that is neither weight nor optimiser, a scalar each: the mean path length, and the last value of R1."""

    def __init__(self):
        super().__init__()
        self.register_buffer("path_length", torch.zeros(()))
        self.register_buffer("r1", torch.zeros(()))


class StyleGAN(Augmented):
    """Base of the two; a recipe says what its generator is, how latents become styles, and adds regularisers.

    Raises ValueError for a batch that cannot be divided into groups.
    """

    Config = StyleGANConfig
    metrics = (*Recipe.metrics, "ppl")
    sample_options = (*Recipe.sample_options, "class_label", "truncation", "mix")
    group_size = 4

    def __init__(self, config: StyleGANConfig, data: dict):
        super().__init__(config, data)
        if config.batch_size > self.group_size and config.batch_size % self.group_size:
            raise ValueError(
                f"{self.name}: batch_size is {config.batch_size}, expected a multiple of {self.group_size}, the group of"
                " the minibatch standard deviation"
            )
        sizes = dict(
            resolution=data["resolution"],
            channels=data["channels"],
            num_classes=data["num_classes"] if config.conditional else 0,
            channel_base=config.width * nominal(data["resolution"]),
            channel_max=config.max_width,
            num_fp16_res=config.num_fp16_res,
            precision=config.half,
        )
        styles = dict(z_dim=config.latent, w_dim=config.latent, mapping_layers=config.mapping_layers)
        self.generator = self.build_generator(sizes | styles)
        judge = stylegan2.DiscriminatorConfig(**sizes, mbstd_group_size=self.group_size)
        self.discriminator = stylegan2.Discriminator(judge)
        self.augment, self.memory = Augment(config.augment), Memory()
        self.networks = {name: getattr(self, name) for name in ("generator", "discriminator", "augment", "memory")}
        adam = dict(lr=config.lr, betas=(0.0, config.beta2))
        self.optimizers = {
            "generator": self.generator_optimizer(**adam),
            "discriminator": lazy_adam(self.discriminator.parameters(), interval=config.r1_interval, **adam)
            if self.gamma
            else torch.optim.Adam(self.discriminator.parameters(), **adam),
        }

    def build_generator(self, sizes: dict[str, Any]) -> nn.Module:
        """The generator; `sizes` are the fields of its config that both recipes set alike."""
        raise NotImplementedError

    def generator_optimizer(self, **adam) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.generator.parameters(), **adam)

    @property
    def running(self) -> list[torch.Tensor]:
        means = [b for name, b in self.generator.named_buffers() if name.endswith(("w_avg", "magnitude_ema"))]
        return [*means, self.memory.path_length, self.memory.r1, *super().running]

    @property
    def gamma(self) -> float:
        """Weight of R1 (Karras et al., "Training GANs with Limited Data", 2020, appendix C: the heuristic)."""
        if self.config.gamma is not None:
            return self.config.gamma
        return 0.0002 * math.prod(sides(self.data["resolution"])) / (self.config.batch_size * self.processes)

    def updates(self, step: int) -> list[Update]:
        discriminator, generator = super().updates(step)
        lazy = [Update("discriminator", self.r1_step)] if self.gamma and step % self.config.r1_interval == 0 else []
        return [*lazy, discriminator._replace(fresh=not lazy), generator]

    def classes(self, labels: torch.Tensor | None) -> torch.Tensor | None:
        """int64 [N] -> class vectors, float32 [N, classes]; None where the networks know no classes."""
        return F.one_hot(labels, self.generator.c_dim).float() if self.generator.c_dim else None

    def condition(self, batch) -> torch.Tensor | None:
        return self.classes(batch.labels) if self.generator.c_dim else None

    def styles(self, batch, update_emas: bool = False) -> torch.Tensor:
        """w [N, num_ws, latent] of a batch of new latents."""
        return self.generator.mapping(batch.randn(*self.latent_shape), self.condition(batch), update_emas=update_emas)

    def synthesize(self, ws: torch.Tensor, batch, update_emas: bool = False) -> torch.Tensor:
        """Images of styles, of the first `len(ws)` of the batch."""
        raise NotImplementedError

    def constant_fakes(self, batch) -> torch.Tensor:
        """Images for the discriminator's update, which move the generator's running means."""
        return self.synthesize(self.styles(batch, update_emas=True), batch, update_emas=True)

    def view(self, images: torch.Tensor, batch) -> torch.Tensor:
        """What the discriminator is shown of images."""
        return self.augment(images, batch)

    def judge(self, images: torch.Tensor, batch) -> torch.Tensor:
        """Logits [N, 1]."""
        return self.discriminator(self.view(images, batch), self.condition(batch))

    def r1_step(self, batch) -> dict[str, torch.Tensor]:
        real = batch.real.detach().requires_grad_(True)
        logits = self.judge(real, batch)
        with no_weight_gradients():
            r1 = penalty.r1(logits, real, gamma=self.gamma).mean()
        self.memory.r1.copy_(r1.detach())
        return {"loss": self.config.r1_interval * r1}

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        fake_logits = self.judge(self.constant_fakes(batch), batch)
        real_logits = self.judge(batch.real, batch)
        self.augment.observe(real_logits, batch)
        logs = {
            "real": real_logits.mean(),
            "fake": fake_logits.mean(),
            "r1": self.memory.r1.clone(),
            **self.augment.logs(),
        }
        return {"loss": logistic.d_loss(real_logits, fake_logits).mean(), **logs}

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        fake_logits = self.judge(self.synthesize(self.styles(batch), batch), batch)
        return {"loss": logistic.g_loss(None, fake_logits).mean()}
