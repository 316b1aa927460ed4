"""StyleGAN2 (Karras et al., 2020): the generator in its three architectures; the discriminator is re-exported.

w modulates the weights of every convolution; noise, bias and activation follow. "skip" sums RGB images of all resolutions,
"resnet" has residual blocks, "orig" neither. Parameter and buffer names are those of the public implementation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fastgan.models.stylegan2_discriminator import Discriminator, DiscriminatorConfig
from fastgan.models.stylegan_layers import (
    RESAMPLE_FILTER,
    Conv2d,
    StyleGenerator,
    activation,
    check_sizes,
    check_styles,
    layout,
    renamed,
)
from fastgan.nn import EqualLinear
from fastgan.ops import bias_act, modulated_conv2d, setup_filter, upsample2d
from fastgan.ops._autocast import autocast
from fastgan.sizes import Resolution, at_level, nominal

__all__ = ["Config", "Discriminator", "DiscriminatorConfig", "Generator"]

NoiseMode = Literal["random", "const", "none"] | Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Config:
    """Generator. A feature map of resolution r has min(channel_base / r, channel_max) channels. Of a rectangle the levels are
    called as those of the largest power of two within its shorter side: 4 is where 96x160 has 6x10 pixels.

    `num_classes`: length of the class vector c, 0 for none. The `num_fp16_res` highest resolutions run in `precision`:
    float16 on CUDA alone, as published, or bfloat16 on every device; `channels_last` is their memory format.
    `conv_clamp` bounds activations, which keeps them within float16.
    """

    resolution: Resolution = 256
    channels: int = 3
    num_classes: int = 0
    z_dim: int = 512
    w_dim: int = 512
    architecture: Literal["orig", "skip", "resnet"] = "skip"
    channel_base: int = 32768
    channel_max: int = 512
    mapping_layers: int = 8
    mapping_features: int | None = None
    embed_features: int | None = None
    mapping_activation: str = "lrelu"
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float | None = 0.998
    num_fp16_res: int = 4
    precision: Literal["float16", "bfloat16"] = "float16"
    channels_last: bool = False
    conv_clamp: float | None = 256
    use_noise: bool = True
    kernel_size: int = 3
    activation: str = "lrelu"
    resample_filter: tuple[float, ...] | tuple[tuple[float, ...], ...] = RESAMPLE_FILTER

    def __post_init__(self):
        check_sizes("stylegan2", self)

    def width(self, level: int) -> int:
        """Channels at a level."""
        return min(self.channel_base // level, self.channel_max)


class SynthesisLayer(nn.Module):
    """x [N, in, H, W], w [N, w_dim] -> [N, out, *size]: modulated convolution, noise, bias, activation."""

    def __init__(self, config: Config, inputs: int, outputs: int, size: tuple[int, int], up: int = 1):
        super().__init__()
        self.config, self.size, self.up = config, size, up
        k = config.kernel_size
        self.affine = EqualLinear(config.w_dim, inputs, bias_init=1)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, k, k))
        # As the original: only a layer that resamples is told the filter.
        taps = config.resample_filter if up > 1 else RESAMPLE_FILTER
        self.register_buffer("resample_filter", setup_filter(taps))
        if config.use_noise:
            self.register_buffer("noise_const", torch.randn(*size))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def _noise(self, x: torch.Tensor, mode: NoiseMode) -> torch.Tensor | None:
        if mode == "none" or not self.config.use_noise:
            return None
        if mode == "const":
            return self.noise_const * self.noise_strength
        shape = (x.shape[0], 1, *self.size)
        if mode == "random":
            return torch.randn(shape, device=x.device, dtype=self.noise_const.dtype) * self.noise_strength
        return mode(*shape) * self.noise_strength

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise_mode: NoiseMode, gain: float = 1.0) -> torch.Tensor:
        config = self.config
        resampling = dict(up=self.up, padding=config.kernel_size // 2, resample_filter=self.resample_filter)
        noise = self._noise(x, noise_mode)
        after = dict(bias=self.bias, **activation(config.activation, gain, config.conv_clamp))
        x, flip = autocast(x), self.up == 1
        return modulated_conv2d(x, self.weight, self.affine(w), noise, flip_weight=flip, **resampling, **after)


class ToRGB(nn.Module):
    """x [N, in, H, W], w [N, w_dim] -> [N, channels, H, W]: 1x1 convolution, modulated and not demodulated."""

    def __init__(self, config: Config, inputs: int):
        super().__init__()
        self.conv_clamp = config.conv_clamp
        self.affine = EqualLinear(config.w_dim, inputs, bias_init=1)
        self.weight = nn.Parameter(torch.randn(config.channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.channels))
        self.weight_gain = inputs**-0.5

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = modulated_conv2d(autocast(x), self.weight, self.affine(w) * self.weight_gain, demodulate=False)
        return bias_act(x, self.bias.to(x.dtype), clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One level: doubles x (the first starts from `const`), and adds to or makes the image where it has a `torgb`."""

    def __init__(self, config: Config, inputs: int, level: int, half: bool):
        super().__init__()
        self.config, self.half = config, half
        outputs, size = config.width(level), at_level(config.resolution, level)
        self.register_buffer("resample_filter", setup_filter(config.resample_filter))
        self.num_conv, self.num_torgb = 1, 0
        if not inputs:
            self.const = nn.Parameter(torch.randn(outputs, *size))
        else:
            self.conv0 = SynthesisLayer(config, inputs, outputs, size, up=2)
            self.num_conv = 2
        self.conv1 = SynthesisLayer(config, outputs, outputs, size)
        if config.architecture == "skip" or level == nominal(config.resolution):
            self.torgb = ToRGB(config, outputs)
            self.num_torgb = 1
        if inputs and config.architecture == "resnet":
            self.skip = Conv2d(inputs, outputs, 1, bias=False, up=2, taps=config.resample_filter)

    def forward(
        self,
        x: torch.Tensor | None,
        image: torch.Tensor | None,
        ws: torch.Tensor,
        noise_mode: NoiseMode,
        force_fp32: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        w = iter(ws.unbind(1))
        options = layout(self.config, ws, self.half and not force_fp32)
        if x is None:
            x = self.const[None].repeat(ws.shape[0], 1, 1, 1).to(**options)
            x = self.conv1(x, next(w), noise_mode)
        else:
            x = x.to(**options)
            residual = self.config.architecture == "resnet"
            branch = self.conv0(x, next(w), noise_mode)
            branch = self.conv1(branch, next(w), noise_mode, gain=math.sqrt(0.5) if residual else 1.0)
            x = self.skip(x, gain=math.sqrt(0.5)) + branch if residual else branch
        if image is not None:
            image = upsample2d(image, self.resample_filter)
        if self.num_torgb:
            y = self.torgb(x, next(w)).to(ws.dtype)
            image = y if image is None else image + y
        return x, image


class Synthesis(nn.Module):
    """w [N, num_ws, w_dim] -> images [N, channels, H, W]; blocks b4, b8, ... by level."""

    def __init__(self, config: Config):
        super().__init__()
        self.w_dim = config.w_dim
        full = nominal(config.resolution)
        self.levels = [2**i for i in range(2, full.bit_length())]
        half_from = max(2 ** (full.bit_length() - config.num_fp16_res), 8)
        inputs = 0
        for level in self.levels:
            setattr(self, f"b{level}", SynthesisBlock(config, inputs, level, half=level >= half_from))
            inputs = config.width(level)
        self.num_ws = 2 * len(self.levels)

    def forward(self, ws: torch.Tensor, noise_mode: NoiseMode = "random", force_fp32: bool = False) -> torch.Tensor:
        check_styles("stylegan2", ws, self.num_ws, self.w_dim)
        if not callable(noise_mode) and noise_mode not in ("random", "const", "none"):
            raise ValueError(f"stylegan2: noise_mode is {noise_mode!r}; expected 'random', 'const' or 'none'")
        x = image = None
        first = 0
        for level in self.levels:
            block = getattr(self, f"b{level}")
            # A ToRGB shares its w with the next block's first convolution.
            own = ws[:, first : first + block.num_conv + block.num_torgb]
            x, image = block(x, image, own, noise_mode, force_fp32)
            first += block.num_conv
        return image


class Generator(StyleGenerator):
    """Latents z [N, z_dim] (and class vectors c [N, num_classes]) -> images [N, channels, H, W], linear, around [-1, 1]."""

    Config, Synthesis = Config, Synthesis

    @classmethod
    def from_reference(cls, *args, fused_modconv_default=None, **options) -> "Generator":
        """As of the base. `fused_modconv_default` has no effect: the form of a modulated convolution is chosen inside it."""
        return super().from_reference(*args, **renamed(options, {"fp16_channels_last": "channels_last"}))

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
        noise_mode: NoiseMode = "random",
        force_fp32: bool = False,
    ) -> torch.Tensor:
        """Truncation and `update_emas` as in `Mapping`. noise_mode: "random" is fresh per image, "const" one fixed pattern
        per layer, "none" no noise; a function draws it, (N, 1, h, w) -> normal numbers of that shape. `force_fp32` runs every
        layer in the parameters' own type."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, noise_mode, force_fp32)
