"""StyleGAN2's discriminator (Karras et al., 2020), also of ADA and StyleGAN3: residual, skip or plain blocks, minibatch
standard deviation, projection on the class (Miyato & Koyama, 2018)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fastgan.models.network import Network
from fastgan.models.stylegan_layers import (
    MAPPING,
    RESAMPLE_FILTER,
    Conv2d,
    Mapping,
    check_sizes,
    layout,
    mapping_options,
    renamed,
)
from fastgan.nn import EqualLinear, MinibatchStdDev
from fastgan.ops import downsample2d, setup_filter
from fastgan.sizes import Resolution, at_level, nominal, sides


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Discriminator; fields shared with the generator's `Config` mean the same.

    `cmap_dim`: width of the projection on the class, default the channels at 4x4. `freeze_layers`: this many first layers
    are buffers (Mo et al., 2020, FreezeD). `mbstd_num_channels`: 0 for no minibatch standard deviation.
    """

    resolution: Resolution = 256
    channels: int = 3
    num_classes: int = 0
    architecture: Literal["orig", "skip", "resnet"] = "resnet"
    channel_base: int = 32768
    channel_max: int = 512
    cmap_dim: int | None = None
    mapping_layers: int = 8
    mapping_features: int | None = None
    embed_features: int | None = None
    mapping_activation: str = "lrelu"
    mapping_lr_multiplier: float = 0.01
    mbstd_group_size: int | None = 4
    mbstd_num_channels: int = 1
    freeze_layers: int = 0
    num_fp16_res: int = 4
    precision: Literal["float16", "bfloat16"] = "float16"
    channels_last: bool = False
    conv_clamp: float | None = 256
    activation: str = "lrelu"
    epilogue_activation: str = "lrelu"
    resample_filter: tuple[float, ...] | tuple[tuple[float, ...], ...] = RESAMPLE_FILTER

    def __post_init__(self):
        check_sizes("stylegan2", self)
        if nominal(self.resolution) == 4 and self.architecture != "skip":
            raise ValueError(
                f"stylegan2: architecture is {self.architecture!r}; at resolution {self.resolution} only 'skip' sees the image"
            )
        if self.mbstd_num_channels < 0 or (self.mbstd_group_size is not None and self.mbstd_group_size < 1):
            raise ValueError(
                "stylegan2: mbstd_num_channels must be at least 0 and mbstd_group_size at least 1, or None"
            )

    def width(self, level: int) -> int:
        """Channels at a level."""
        return min(self.channel_base // level, self.channel_max)


class DiscriminatorBlock(nn.Module):
    """One level: features (and, for "skip", the image) at half the size. The first block has no features yet."""

    def __init__(self, config: DiscriminatorConfig, level: int, first_layer: int, half: bool):
        super().__init__()
        self.config, self.half = config, half
        inputs, outputs = config.width(level), config.width(level // 2)
        self.register_buffer("resample_filter", setup_filter(config.resample_filter))
        self.num_layers = 0

        def layer(*args, **options):
            trainable = first_layer + self.num_layers >= config.freeze_layers
            self.num_layers += 1
            options = dict(act=config.activation, clamp=config.conv_clamp) | options
            return Conv2d(*args, taps=config.resample_filter, trainable=trainable, **options)

        if level == nominal(config.resolution) or config.architecture == "skip":
            self.fromrgb = layer(config.channels, inputs, 1)
        self.conv0 = layer(inputs, inputs, 3)
        self.conv1 = layer(inputs, outputs, 3, down=2)
        if config.architecture == "resnet":
            self.skip = layer(inputs, outputs, 1, bias=False, down=2, act="linear", clamp=None)

    def forward(
        self, x: torch.Tensor | None, image: torch.Tensor | None, force_fp32: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        options = layout(self.config, self.conv0.weight, self.half and not force_fp32)
        if x is not None:
            x = x.to(**options)
        if image is not None:
            image = image.to(**options)
            y = self.fromrgb(image)
            x = y if x is None else x + y
            image = downsample2d(image, self.resample_filter) if self.config.architecture == "skip" else None
        if self.config.architecture != "resnet":
            return self.conv1(self.conv0(x)), image
        skip = self.skip(x, gain=math.sqrt(0.5))
        return skip + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), image


class DiscriminatorEpilogue(nn.Module):
    """Features [N, C, 4, 4] (of rectangles 6x10, say) -> [N, cmap_dim], or [N, 1] without classes."""

    def __init__(self, config: DiscriminatorConfig, cmap_dim: int):
        super().__init__()
        self.config = config
        width, act = config.width(4), config.epilogue_activation
        if config.architecture == "skip":
            self.fromrgb = Conv2d(config.channels, width, 1, act=act)
        options = dict(act=act, clamp=config.conv_clamp)
        self.mbstd = (
            MinibatchStdDev(config.mbstd_group_size, config.mbstd_num_channels) if config.mbstd_num_channels else None
        )
        self.conv = Conv2d(width + config.mbstd_num_channels, width, 3, **options)
        self.fc = EqualLinear(width * math.prod(at_level(config.resolution, 4)), width, act=act)
        self.out = EqualLinear(width, cmap_dim or 1)

    def forward(self, x: torch.Tensor | None, image: torch.Tensor | None) -> torch.Tensor:
        dtype = self.conv.weight.dtype
        if x is not None:
            x = x.to(dtype, memory_format=torch.contiguous_format)
        if self.config.architecture == "skip":
            y = self.fromrgb(image.to(dtype, memory_format=torch.contiguous_format))
            x = y if x is None else x + y
        if self.mbstd is not None:
            x = self.mbstd(x)
        return self.out(self.fc(self.conv(x).flatten(1)))


class Discriminator(Network):
    """Images [N, channels, H, W] (and class vectors c [N, num_classes]) -> logits [N, 1].

    Minibatch standard deviation makes a logit depend on the others of its group: N must be a multiple of min(N, group).
    """

    Config = DiscriminatorConfig

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        self.c_dim, self.img_resolution, self.img_channels = config.num_classes, config.resolution, config.channels
        full = nominal(config.resolution)
        self.levels = [2**i for i in range(full.bit_length() - 1, 2, -1)]
        half_from = max(2 ** (full.bit_length() - config.num_fp16_res), 8)
        layers = 0
        for level in self.levels:
            block = DiscriminatorBlock(config, level, layers, half=level >= half_from)
            setattr(self, f"b{level}", block)
            layers += block.num_layers
        self.cmap_dim = (config.width(4) if config.cmap_dim is None else config.cmap_dim) if config.num_classes else 0
        if config.num_classes:
            options = mapping_options(config)
            self.mapping = Mapping(0, config.num_classes, self.cmap_dim, None, w_avg_beta=None, **options)
        self.b4 = DiscriminatorEpilogue(config, self.cmap_dim)

    @classmethod
    def from_reference(
        cls,
        c_dim,
        img_resolution,
        img_channels,
        block_kwargs=None,
        mapping_kwargs=None,
        epilogue_kwargs=None,
        **kwargs,
    ) -> "Discriminator":
        """The network of the public implementation's constructor arguments; TypeError for one it does not have."""
        kwargs |= renamed(block_kwargs, dict(fp16_channels_last="channels_last"))
        kwargs |= renamed(epilogue_kwargs, dict(activation="epilogue_activation")) | renamed(mapping_kwargs, MAPPING)
        return cls(DiscriminatorConfig(num_classes=c_dim, resolution=img_resolution, channels=img_channels, **kwargs))

    def forward(
        self, img: torch.Tensor, c: torch.Tensor | None = None, update_emas: bool = False, force_fp32: bool = False
    ) -> torch.Tensor:
        """`update_emas` is part of the interface and has no effect: nothing here is averaged. Raises ValueError for
        images of another size."""
        size = (self.img_channels, *sides(self.img_resolution))
        if img.dim() != 4 or img.shape[1:] != size:
            raise ValueError(f"stylegan2: img has shape {tuple(img.shape)}; expected (N, {', '.join(map(str, size))})")
        x = None
        for level in self.levels:
            x, img = getattr(self, f"b{level}")(x, img, force_fp32)
        x = self.b4(x, img)
        if not self.c_dim:
            return x
        return (x * self.mapping(None, c)).sum(1, keepdim=True) * self.cmap_dim**-0.5
