"""HiFi-GAN (Kong et al., 2020): speech from mel spectrograms, by transposed convolutions, each followed by the mean of residual
blocks of several kernels and dilations (section 2.2 and figure 1).

Names in the state_dict are those of the published checkpoints. `V1`, `V2` and `V3` are the paper's three generators (appendix A).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.models.vocoder import Vocoder
from fastgan.nn.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d

SLOPE = 0.1  # of the leaky ReLUs
LAST_SLOPE = 0.01  # of the one before the last convolution, torch's default in the published code


@dataclass(frozen=True)
class GeneratorConfig:
    """The defaults are V1."""

    bands: int = 80
    """Mel bands of the input."""
    rates: tuple[int, ...] = (8, 8, 2, 2)
    """Factors of the upsamplings; their product is the number of samples of a frame."""
    up_kernels: tuple[int, ...] = (16, 16, 4, 4)
    width: int = 512
    """Channels before the first upsampling; each halves them."""
    block: int = 1
    """Kind of residual block, 1 or 2: with two convolutions per dilation, or one."""
    kernels: tuple[int, ...] = (3, 7, 11)
    """Of the residual blocks that are averaged."""
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    """Of each of these blocks."""

    def __post_init__(self):
        name = type(self).__module__.rpartition(".")[2]
        if self.block not in (1, 2):
            raise ValueError(f"{name}: block is {self.block!r}, expected 1 or 2")
        for one, other in (("up_kernels", "rates"), ("dilations", "kernels")):
            a, b = getattr(self, one), getattr(self, other)
            if not b or len(a) != len(b):
                raise ValueError(f"{name}: {one} is {a}, expected as many as {other}, {b}")
        if any(kernel < rate or rate < 1 for kernel, rate in zip(self.up_kernels, self.rates, strict=True)):
            raise ValueError(f"{name}: up_kernels is {self.up_kernels}, expected at least rates, {self.rates}")
        if any(not some or min(some) < 1 for some in self.dilations):
            raise ValueError(f"{name}: dilations is {self.dilations}, expected positive numbers, at least one a block")
        if any(kernel % 2 == 0 for kernel in self.kernels) or min(self.kernels) < 1:
            raise ValueError(f"{name}: kernels is {self.kernels}, expected odd numbers")
        if self.bands < 1 or self.width < 1 or self.width % 2 ** len(self.rates):
            raise ValueError(
                f"{name}: width is {self.width} and bands {self.bands}; expected positive ones, width a multiple of "
                f"{2 ** len(self.rates)}"
            )

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        product = 1
        for rate in self.rates:
            product *= rate
        return product


V1 = GeneratorConfig()
V2 = GeneratorConfig(width=128)
V3 = GeneratorConfig(
    rates=(8, 8, 4),
    up_kernels=(16, 16, 8),
    width=256,
    block=2,
    kernels=(3, 5, 7),
    dilations=((1, 2), (2, 6), (3, 12)),
)


def reference_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of `GeneratorConfig`, from what a published config.json says; all but `num_mels`."""
    block = 1 if config["resblock"] == "1" else 2  # as the published code asks
    dilations = tuple(map(tuple, config["resblock_dilation_sizes"]))
    return {
        "rates": tuple(config["upsample_rates"]),
        "up_kernels": tuple(config["upsample_kernel_sizes"]),
        "width": config["upsample_initial_channel"],
        "block": block,
        "kernels": tuple(config["resblock_kernel_sizes"]),
        "dilations": dilations,
    }


def conv(inputs: int, outputs: int, kernel: int, dilation: int = 1, bias: bool = True) -> WeightNormConv1d:
    """A convolution that keeps the length; initial weights N(0, 0.01), as all but the first convolution's."""
    made = WeightNormConv1d(inputs, outputs, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2, bias=bias)
    return small(made)


def small(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        module.weight_v.normal_(0, 0.01)
        module.weight_g.copy_(torch.norm_except_dim(module.weight_v, 2, 0))
    return module


class Block(nn.Module):
    """y <- y + conv(act(conv(act(y)))) of kind 1, y <- y + conv(act(y)) of kind 2, per dilation. `activation` makes that of
    some channels."""

    def __init__(
        self, kind: int, width: int, kernel: int, dilations: tuple[int, ...], activation: Callable[[int], nn.Module]
    ):
        super().__init__()
        dilated = nn.ModuleList(conv(width, width, kernel, dilation) for dilation in dilations)
        if kind == 1:
            self.convs1 = dilated
            self.convs2 = nn.ModuleList(conv(width, width, kernel) for _ in dilations)
        else:
            self.convs = dilated
        self.activations = nn.ModuleList(activation(width) for _ in range(len(dilations) * (2 if kind == 1 else 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "convs"):
            for one, act in zip(self.convs, self.activations, strict=True):
                x = x + one(act(x))
            return x
        for i, (one, two) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            x = x + two(self.activations[2 * i + 1](one(self.activations[2 * i](x))))
        return x


def blocks(config: GeneratorConfig, activation: Callable[[int], nn.Module]) -> nn.ModuleList:
    """All residual blocks of a generator: those of the first upsampling come first."""
    return nn.ModuleList(
        Block(config.block, config.width >> i + 1, kernel, dilations, activation)
        for i in range(len(config.rates))
        for kernel, dilations in zip(config.kernels, config.dilations, strict=True)
    )


def upsampling(config: GeneratorConfig, i: int) -> nn.Module:
    """The i-th transposed convolution."""
    width, rate, kernel = config.width >> i, config.rates[i], config.up_kernels[i]
    return small(WeightNormConvTranspose1d(width, width // 2, kernel, rate, padding=(kernel - rate) // 2))


def mean_of_blocks(some: Iterable[nn.Module], x: torch.Tensor) -> torch.Tensor:
    outputs = [block(x) for block in some]
    return sum(outputs[1:], outputs[0]) / len(outputs)


def context(config: GeneratorConfig, activation: int = 0) -> int:
    """How many frames to each side of one its samples depend on at most. `activation`: samples to each side that an activation
    reaches."""
    convs = 2 if config.block == 1 else 1
    reach = [
        sum((kernel - 1) // 2 * (d + convs - 1) + convs * activation for d in dilations)
        for kernel, dilations in zip(config.kernels, config.dilations, strict=True)
    ]
    samples = 3 + activation  # the last convolution
    for rate, kernel in zip(reversed(config.rates), reversed(config.up_kernels), strict=True):
        samples += max(reach)
        padding = (kernel - rate) // 2
        samples = -(-(samples + max(padding, kernel - 1 - padding)) // rate)
    return samples + 3


def exact(config: GeneratorConfig) -> bool:
    """Whether a signal has hop samples for each frame."""
    return all((kernel - rate) % 2 == 0 for kernel, rate in zip(config.up_kernels, config.rates, strict=True))


class Generator(Vocoder):
    """Log mel spectrograms [N, bands, frames] -> signals [N, 1, hop frames] in [-1, 1] (one sample more for each upsampling whose
    kernel minus rate is odd).

    Examples:
        >>> generator = fastgan.models.build("hifigan", width=32)
        >>> generator(torch.randn(1, 80, 10)).shape
        torch.Size([1, 1, 2560])
    """

    Config = GeneratorConfig

    def __init__(self, config: GeneratorConfig = V1):
        super().__init__()
        self.config, self.context = config, context(config)
        self.conv_pre = WeightNormConv1d(config.bands, config.width, 7, padding=3)
        self.ups = nn.ModuleList(upsampling(config, i) for i in range(len(config.rates)))
        self.resblocks = blocks(config, lambda width: nn.LeakyReLU(SLOPE))
        self.conv_post = conv(config.width >> len(config.rates), 1, 7)

    @classmethod
    def from_reference(cls, **config: Any) -> Generator:
        """The network of a published config.json. Its input has 80 bands whatever that says; kind 2 takes two dilations."""
        fields = reference_fields(config)
        if fields["block"] == 2:
            fields["dilations"] = tuple(some[:2] for some in fields["dilations"])
        return cls(GeneratorConfig(bands=80, **fields))

    @property
    def exact(self) -> bool:
        return exact(self.config)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Raises ValueError for another shape."""
        self.check(mel)
        x, each = self.conv_pre(mel), len(self.config.kernels)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            x = mean_of_blocks(self.resblocks[i * each : (i + 1) * each], x)
        return self.conv_post(F.leaky_relu(x, LAST_SLOPE)).tanh()
