"""R3GAN: residual networks without normalisation, for a regularised relativistic loss (Huang et al., 2024, section 4).

Generator: a 4x4 basis scaled by the latent, then stages of residual blocks, each twice the size of the one before, then
a 1x1 convolution to colours. The discriminator is its mirror image and ends with a depthwise 4x4 convolution. A block
widens with a 1x1 convolution, mixes pixels with a grouped one, and narrows again.

Names of modules and parameters are those of the published networks, so that their state dicts load as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.fields import check
from fastgan.models.network import Network
from fastgan.ops import bias_act, conv2d, downsample2d, setup_filter, upsample2d
from fastgan.sizes import Resolution, at_level, check_levels, nominal


@dataclass(frozen=True)
class Config:
    """Sizes of both networks.

    `widths` (channels of the residual stream), `groups` (of a block's middle convolution) and `blocks` are one number
    for every stage, or a tuple with one per stage, 4x4 first. `expansion` is a block's inner width over its outer one.
    `num_classes` > 0 makes both networks conditional, by `embedding` numbers per class. `taps` make the resampling
    filter, which is taps * [1, 1] along each axis. The `bf16_stages` stages of the highest resolution run in bfloat16,
    with float32 weights. Of a rectangle the basis is what as many halvings leave: 6x10 of 96x160.
    """

    resolution: Resolution = 32
    channels: int = 3
    latent: int = 64
    widths: int | tuple[int, ...] = 128
    groups: int | tuple[int, ...] = 8
    blocks: int | tuple[int, ...] = 1
    expansion: int = 2
    kernel: int = 3
    num_classes: int = 0
    embedding: int = 64
    taps: tuple[float, ...] = (1, 2, 1)
    bf16_stages: int = 0

    def __post_init__(self):
        check("r3gan", self)
        object.__setattr__(self, "resolution", check_levels("r3gan", self.resolution, 4, 1 << 13))
        stages = nominal(self.resolution).bit_length() - 2
        for name in ("channels", "latent", "expansion", "kernel"):
            if not 1 <= getattr(self, name) <= 1 << 14:
                raise ValueError(f"r3gan: {name} is {getattr(self, name)}, expected 1 to {1 << 14}")
        for name in ("num_classes", "embedding"):
            if not 0 <= getattr(self, name) <= 1 << 20:
                raise ValueError(f"r3gan: {name} is {getattr(self, name)}, expected 0 to {1 << 20}")
        if not 1 <= len(self.taps) <= 64:
            raise ValueError(f"r3gan: taps has {len(self.taps)} numbers, expected 1 to 64")
        for name in ("widths", "groups", "blocks"):
            value = getattr(self, name)
            each = (value,) * stages if isinstance(value, int) else tuple(value)
            if len(each) != stages or min(each) < 1:
                raise ValueError(f"r3gan: {name} is {value!r}, expected a positive number or {stages} of them")
            object.__setattr__(self, name, each)
        for width, groups in zip(self.widths, self.groups, strict=True):
            if width * self.expansion % groups:
                raise ValueError(f"r3gan: {groups} groups do not divide {width} x {self.expansion} channels")
        if self.kernel % 2 == 0:
            raise ValueError(f"r3gan: kernel is {self.kernel}, expected an odd number")
        if not 0 <= self.bf16_stages <= stages:
            raise ValueError(f"r3gan: bf16_stages is {self.bf16_stages}, expected 0 to {stages}")


def _reference_config(
    WidthPerStage: Sequence[int],
    CardinalityPerStage: Sequence[int],
    BlocksPerStage: Sequence[int],
    ExpansionFactor: int,
    ConditionDimension: int | None = None,
    ConditionEmbeddingDimension: int = 0,
    KernelSize: int = 3,
    ResamplingFilter: Sequence[int] = (1, 2, 1),
    NoiseDimension: int = 64,
    FP16Stages: Sequence[int] = (),
    image_first: bool = False,
) -> Config:
    """The published constructors' arguments as a Config; the discriminator's lists begin at the image.

    FP16Stages: numbers of the stages that run in bfloat16, negative ones from the end: those of the highest resolutions.
    """
    order = -1 if image_first else 1
    stages = len(WidthPerStage)
    half = {stage % stages for stage in FP16Stages if -stages <= stage < stages}
    highest = range(len(half)) if image_first else range(stages - len(half), stages)
    if len(half) != len(FP16Stages) or half != set(highest):
        raise ValueError(f"r3gan: FP16Stages is {list(FP16Stages)}, expected the stages of the highest resolutions")
    return Config(
        resolution=4 << (len(WidthPerStage) - 1),
        latent=NoiseDimension,
        widths=tuple(WidthPerStage[::order]),
        groups=tuple(CardinalityPerStage[::order]),
        blocks=tuple(BlocksPerStage[::order]),
        expansion=ExpansionFactor,
        kernel=KernelSize,
        num_classes=ConditionDimension or 0,
        embedding=ConditionEmbeddingDimension,
        taps=tuple(ResamplingFilter),
        bf16_stages=len(half),
    )


def _scale(weight: torch.Tensor, gain: float) -> None:
    """weight <- N(0, gain^2 / fan_in)"""
    nn.init.normal_(weight, std=gain * weight[0].numel() ** -0.5)


def _linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    _scale(layer.weight, gain)
    return layer


def _embed(layer: nn.Linear, labels: torch.Tensor | None) -> torch.Tensor:
    """Rows of the embedding for classes int64 [N], or their mixture for weights [N, classes]."""
    if labels is None:
        raise ValueError("r3gan: this network is class-conditional, and no labels were given")
    return layer(labels) if labels.is_floating_point() else F.embedding(labels, layer.weight.t())


class Convolution(nn.Module):
    """Convolution without bias, "same" padding, weights N(0, gain^2 / fan_in), in the type of its input."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, gain: float = 1.0):
        super().__init__()
        self.Layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        _scale(self.Layer.weight, gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.Layer
        return conv2d(x, layer.weight.to(x.dtype), padding=layer.padding, groups=layer.groups)


class BiasedActivation(nn.Module):
    """leaky_relu(x + bias), slope 0.2."""

    def __init__(self, channels: int):
        super().__init__()
        self.Bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bias_act(x, self.Bias.to(x.dtype), act="lrelu", gain=1)


class ResidualBlock(nn.Module):
    """x + L3 act(L2 act(L1 x)); L3 starts at zero, so that the block starts as the identity (section 4.2)."""

    def __init__(self, width: int, groups: int, expansion: int, kernel: int, blocks: int):
        super().__init__()
        inner = width * expansion
        # Unit variance through the leaky ReLU, and fixup's L^(-1/(2m-2)) for m = 3 layers (Zhang et al., 2019).
        gain = (2 / (1 + 0.2**2)) ** 0.5 * blocks**-0.25
        self.LinearLayer1 = Convolution(width, inner, gain=gain)
        self.LinearLayer2 = Convolution(inner, inner, kernel, groups, gain=gain)
        self.LinearLayer3 = Convolution(inner, width, gain=0)
        self.NonLinearity1 = BiasedActivation(inner)
        self.NonLinearity2 = BiasedActivation(inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.LinearLayer2(self.NonLinearity1(self.LinearLayer1(x)))
        return x + self.LinearLayer3(self.NonLinearity2(y))


class Resampler(nn.Module):
    """Doubles or halves an image with the filter taps * [1, 1], along each axis, of sum 1."""

    def __init__(self, taps: Sequence[int], up: bool):
        super().__init__()
        wide = [a + b for a, b in zip([*taps, 0], [0, *taps], strict=True)]
        self.register_buffer("Kernel", setup_filter(wide, separable=False))
        self.up = up

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return upsample2d(x, self.Kernel) if self.up else downsample2d(x, self.Kernel)


class Transition(nn.Module):
    """Up: to the next width, then twice the size. Down: half the size, then to the next width. So the 1x1 convolution
    always runs at the smaller size."""

    def __init__(self, inputs: int, outputs: int, taps: Sequence[int], up: bool):
        super().__init__()
        self.Resampler = Resampler(taps, up)
        self.LinearLayer = Convolution(inputs, outputs) if inputs != outputs else None
        self.up = up

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.LinearLayer is None:
            return self.Resampler(x)
        return self.Resampler(self.LinearLayer(x)) if self.up else self.LinearLayer(self.Resampler(x))


class GenerativeBasis(nn.Module):
    """latents [N, inputs] -> [N, C, *size]: channel c is Basis[c] times a linear function of the latent."""

    def __init__(self, inputs: int, channels: int, size: tuple[int, int] = (4, 4)):
        super().__init__()
        self.Basis = nn.Parameter(torch.randn(channels, *size))
        self.LinearLayer = _linear(inputs, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.LinearLayer.weight.to(x.dtype))[:, :, None, None] * self.Basis.to(x.dtype)


class DiscriminativeBasis(nn.Module):
    """[N, C, *size] -> [N, outputs]: a depthwise convolution as large as its input, then a linear map."""

    def __init__(self, channels: int, outputs: int, size: tuple[int, int] = (4, 4)):
        super().__init__()
        self.Basis = nn.Conv2d(channels, channels, size, groups=channels, bias=False)
        _scale(self.Basis.weight, 1.0)
        self.LinearLayer = _linear(channels, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:] != self.Basis.kernel_size:
            found, expected = ("x".join(map(str, size)) for size in (x.shape[2:], self.Basis.kernel_size))
            raise ValueError(f"r3gan: the images shrink to {found}, expected {expected}: another resolution")
        features = (x * self.Basis.weight[:, 0].to(x.dtype)).sum((2, 3))
        return F.linear(features, self.LinearLayer.weight.to(x.dtype))


class Stage(nn.Module):
    """Layers in turn, in bfloat16 where `bf16` and otherwise in `dtype`."""

    def __init__(self, layers: list[nn.Module], bf16: bool):
        super().__init__()
        self.Layers = nn.ModuleList(layers)
        self.bf16 = bf16

    def forward(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        x = x.to(torch.bfloat16 if self.bf16 else dtype)
        for layer in self.Layers:
            x = layer(x)
        return x


def _blocks(config: Config, stage: int) -> list[nn.Module]:
    shape = (config.widths[stage], config.groups[stage], config.expansion, config.kernel, sum(config.blocks))
    return [ResidualBlock(*shape) for _ in range(config.blocks[stage])]


class Generator(Network):
    """latents [N, latent] (and labels int64 [N], or class weights [N, num_classes]) -> images [N, C, H, W], linear
    output around [-1, 1]."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        conditional = config.num_classes > 0
        inputs, base = config.latent + config.embedding * conditional, at_level(config.resolution, 4)
        transitions = [GenerativeBasis(inputs, config.widths[0], base)]
        transitions += [Transition(a, b, config.taps, up=True) for a, b in pairwise(config.widths)]
        first_bf16 = len(transitions) - config.bf16_stages
        self.MainLayers = nn.ModuleList(
            [Stage([layer, *_blocks(config, s)], s >= first_bf16) for s, layer in enumerate(transitions)]
        )
        self.AggregationLayer = Convolution(config.widths[-1], config.channels)
        self.EmbeddingLayer = _linear(config.num_classes, config.embedding) if conditional else None

    @classmethod
    def from_reference(cls, **kwargs) -> "Generator":
        """From the keyword arguments of the published constructor: NoiseDimension, WidthPerStage (4x4 first),
        CardinalityPerStage, BlocksPerStage, ExpansionFactor, and optionally ConditionDimension,
        ConditionEmbeddingDimension, KernelSize, ResamplingFilter, FP16Stages."""
        return cls(_reference_config(**kwargs))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        dtype = x.dtype
        if self.EmbeddingLayer is not None:
            x = torch.cat([x, _embed(self.EmbeddingLayer, y)], dim=1)
        for stage in self.MainLayers:
            x = stage(x, dtype)
        return self.AggregationLayer(x.to(dtype))


class Discriminator(Network):
    """images [N, C, H, W] (and labels int64 [N], or class weights [N, num_classes]) -> logits [N]; each image's logit
    depends on that image alone. With classes it is <embedding(label), features>."""

    Config = Config

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        conditional = config.num_classes > 0
        widths = config.widths
        outputs, base = config.embedding if conditional else 1, at_level(config.resolution, 4)
        transitions = [DiscriminativeBasis(widths[0], outputs, base)]
        transitions += [Transition(b, a, config.taps, up=False) for a, b in pairwise(widths)]
        first_bf16 = len(transitions) - config.bf16_stages
        stages = [Stage([*_blocks(config, s), layer], s >= first_bf16) for s, layer in enumerate(transitions)]
        self.ExtractionLayer = Convolution(config.channels, widths[-1])
        self.MainLayers = nn.ModuleList(stages[::-1])
        # The gain keeps the sum over `embedding` products at unit variance.
        gain = config.embedding**-0.5 if conditional else 0.0
        self.EmbeddingLayer = _linear(config.num_classes, config.embedding, gain) if conditional else None

    @classmethod
    def from_reference(cls, **kwargs) -> "Discriminator":
        """From the keyword arguments of the published constructor: those of the generator without NoiseDimension, with
        the lists beginning at the image."""
        return cls(_reference_config(**kwargs, image_first=True))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        dtype = x.dtype
        x = self.ExtractionLayer(x)
        for stage in self.MainLayers:
            x = stage(x, dtype)
        x = x.to(dtype)
        if self.EmbeddingLayer is not None:
            x = x * _embed(self.EmbeddingLayer, y)
        return x.sum(1)
