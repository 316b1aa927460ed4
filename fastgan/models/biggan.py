"""Class-conditional residual networks in the manner of BigGAN (Brock et al., 2019, appendix B).

Generator: the class and a part of the latent decide the gains and biases of every batch normalisation. Discriminator:
the class is compared with the image's features (projection; Miyato & Koyama, 2018, eq. 3). Both have one layer of
self-attention (Zhang et al., 2019, section 3) and spectrally normalised weights. Widths are those of `resnet`.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.models import resnet
from fastgan.models.network import Network
from fastgan.models.resnet import Conv, double, spectral_weight
from fastgan.ops import bias_act
from fastgan.sizes import at_level, nominal


@dataclass(frozen=True)
class Config(resnet.Config):
    """Sizes of both networks, on top of those of `resnet`: `num_classes`; `embedding` numbers per class in the
    generator, shared by its layers; `attention`, the resolution that self-attention sees (0: none), of a rectangle the level
    where a square would have it."""

    num_classes: int = 10
    embedding: int = 128
    attention: int = 16
    spectral: bool = True

    def __post_init__(self):
        super().__post_init__()
        if min(self.num_classes, self.embedding) < 1:
            raise ValueError("biggan: num_classes and embedding must be positive")
        levels = [4 << i for i in range(1, len(self.widths))]
        if self.attention and self.attention not in levels:
            raise ValueError(f"biggan: attention is {self.attention}, expected 0 or one of {levels}")
        if self.latent < len(self.widths):
            raise ValueError(f"biggan: latent is {self.latent}, expected at least one per block, {len(self.widths)}")


class Linear(nn.Module):
    """x W' + b, weights N(0, 1/fan_in), of spectral norm 1 where `spectral`."""

    def __init__(self, inputs: int, outputs: int, spectral: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0) if spectral else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight if self.u is None else spectral_weight(self.weight, self.u, self.training)
        return F.linear(x, weight, self.bias)


class ConditionalNorm(nn.Module):
    """(1 + gain(c)) batch_norm(x) + bias(c), per channel; gain and bias are linear in the condition c [N, inputs]."""

    def __init__(self, channels: int, inputs: int, spectral: bool):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = Linear(inputs, channels, spectral), Linear(inputs, channels, spectral)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.bias(c)[:, :, None, None], self.norm(x), 1 + self.gain(c)[:, :, None, None])


class UpBlock(nn.Module):
    """shortcut(double(x)) + conv(relu(norm(conv(double(relu(norm(x))))))), both norms conditional."""

    def __init__(self, inputs: int, outputs: int, condition: int, spectral: bool):
        super().__init__()
        self.norm1, self.norm2 = (ConditionalNorm(n, condition, spectral) for n in (inputs, outputs))
        self.conv1 = Conv(inputs, outputs, 3, spectral=spectral)
        self.conv2 = Conv(outputs, outputs, 3, spectral=spectral)
        self.shortcut = Conv(inputs, outputs, 1, spectral=spectral)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        y = self.conv1(double(bias_act(self.norm1(x, c), act="relu", gain=1)))
        return double(self.shortcut(x)) + self.conv2(bias_act(self.norm2(y, c), act="relu", gain=1))


class SelfAttention(nn.Module):
    """x + scale * out(values weighted by softmax(query' key)), keys and values at half the size; scale starts at 0.

    Plain matrix products, since fused attention has no second derivative.
    """

    def __init__(self, channels: int, spectral: bool):
        super().__init__()
        inner = max(channels // 8, 1)
        self.query, self.key = (Conv(channels, inner, 1, spectral=spectral) for _ in range(2))
        self.value = Conv(channels, max(channels // 2, 1), 1, spectral=spectral)
        self.out = Conv(max(channels // 2, 1), channels, 1, spectral=spectral)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query = self.query(x).flatten(2)
        key, value = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.key, self.value))
        attention = (query.transpose(1, 2) @ key).softmax(2)
        seen = (value @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.scale * self.out(seen)


class Generator(Network):
    """latents [N, latent] and labels int64 [N] -> images [N, C, H, W] in (-1, 1). Batch normalisation in training."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        widths, spectral = config.widths, config.spectral
        part = config.latent // len(widths)
        self.parts = [config.latent - part * (len(widths) - 1), *[part] * (len(widths) - 1)]
        self.embedding = nn.Embedding(config.num_classes, config.embedding)
        self.base = at_level(config.resolution, 4)
        self.first = Linear(self.parts[0], widths[0] * math.prod(self.base), spectral)
        condition = part + config.embedding
        self.blocks = nn.ModuleList([UpBlock(a, b, condition, spectral) for a, b in pairwise(widths)])
        self.attention_after = (config.attention // 4).bit_length() - 2  # index of the block that reaches its size
        self.attention = SelfAttention(widths[self.attention_after + 1], spectral) if config.attention else None
        self.norm = nn.BatchNorm2d(widths[-1])
        self.rgb = Conv(widths[-1], config.channels, 3, spectral=spectral)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        first, *rest = latents.split(self.parts, dim=1)
        shared = self.embedding(labels)
        x = self.first(first).unflatten(1, (-1, *self.base))
        for i, (block, part) in enumerate(zip(self.blocks, rest, strict=True)):
            x = block(x, torch.cat([part, shared], dim=1))
            if self.attention is not None and i == self.attention_after:
                x = self.attention(x)
        return torch.tanh(self.rgb(bias_act(self.norm(x), act="relu", gain=1)))


class Discriminator(Network):
    """images [N, C, H, W] and labels int64 [N] -> logits [N] = w . features + <embedding(label), features> + b; each
    logit depends on its image alone."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        body = resnet.Discriminator(config)
        self.blocks = body.blocks
        features = config.widths[0]
        # Index of the block that halves to the attended size; -1 at full resolution, where there is no attention.
        full = nominal(config.resolution)
        self.attention_after = (full // config.attention).bit_length() - 2 if config.attention else -1
        width = self.blocks[self.attention_after].conv2.weight.shape[0]
        self.attention = SelfAttention(width, config.spectral) if self.attention_after >= 0 else None
        self.linear = Linear(features, 1, config.spectral)
        self.embedding = Linear(config.num_classes, features, config.spectral)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = images
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attention is not None and i == self.attention_after:
                x = self.attention(x)
        features = bias_act(x, act="relu", gain=1).mean((2, 3))
        classes = F.one_hot(labels, self.config.num_classes).to(features.dtype)
        return self.linear(features).squeeze(1) + (self.embedding(classes) * features).sum(1)
