"""GFP-GAN (Wang et al., 2021): faces restored by a U-Net whose features steer the decoder of a StyleGAN2, which has learnt what
faces look like. The network takes and gives aligned faces of one size, in [-1, 1].

Names in the state_dicts are those of the published files ("params_ema" in them). `Clean` is the network of the published
versions 1.2 to 1.4, plain convolutions throughout; `fastgan.models.gfpgan_original` is that of the paper.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.models.network import Network
from fastgan.nn import EqualLinear
from fastgan.ops import bias_act, conv2d, modulated_conv2d, pixel_norm, setup_filter, upsample2d

SLOPE = 0.2
SQRT2 = math.sqrt(2)
TAPS = (1, 3, 3, 1)


@dataclass(frozen=True)
class Config:
    """Both networks; the published files of 512 pixels hold `Clean` with these defaults.

    Args:
        resolution: side of the images, a power of 2 from 8 to 1024.
        style: size of a style vector.
        multiplier: of the channels from 64 pixels on.
        mapping: layers of the decoder's mapping network, which is in the files and unused where `latent_input`.
        latent_input: the U-Net gives styles, not latents of the mapping network.
        per_layer: it gives each layer of the decoder its own.
        narrow: of all channels; those of the U-Net are half as many.
        half: features steer the second half of the decoder's channels only.
    """

    resolution: int = 512
    style: int = 512
    multiplier: float = 2
    mapping: int = 8
    latent_input: bool = True
    per_layer: bool = True
    narrow: float = 1.0
    half: bool = True

    def __post_init__(self):
        if self.resolution not in (8, 16, 32, 64, 128, 256, 512, 1024):
            raise ValueError(f"gfpgan: resolution is {self.resolution}, expected a power of 2 from 8 to 1024")
        if min(self.style, self.mapping) < 1 or min(self.multiplier, self.narrow) <= 0:
            raise ValueError("gfpgan: style, mapping, multiplier and narrow must be positive")
        if self.per_layer and not self.latent_input:
            raise ValueError("gfpgan: a style for each layer does not pass the mapping network: latent_input=True")

    @property
    def levels(self) -> int:
        """Doublings from 4 pixels to the image."""
        return self.resolution.bit_length() - 3

    def channels(self, resolution: int, narrow: float) -> int:
        if resolution <= 32:
            return int(512 * narrow)
        return int(16384 // resolution * self.multiplier * narrow)


def lrelu(x: torch.Tensor, bias: torch.Tensor | None = None, gain: float = 1) -> torch.Tensor:
    return bias_act(x, bias, act="lrelu", alpha=SLOPE, gain=gain)


def resize(x: torch.Tensor, factor: float) -> torch.Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class Condition(nn.Sequential):
    """Two convolutions with a leaky ReLU at index 1."""

    def __init__(self, conv: type[nn.Module], channels: int, outputs: int, gain: float):
        super().__init__(conv(channels, channels, 3), nn.Identity(), conv(channels, outputs, 3))
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[2](lrelu(self[0](x), gain=self.gain))


class ModulatedConv(nn.Module):
    """The style's affine map and the weight; `scaled` weights are multiplied by 1/sqrt(fan in) when used."""

    def __init__(self, inputs: int, outputs: int, kernel: int, style: int, scaled: bool, demodulate: bool = True):
        super().__init__()
        factor = (inputs * kernel**2) ** -0.5
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel) * (1 if scaled else factor))
        self.modulation = EqualLinear(style, inputs, bias_init=1) if scaled else nn.Linear(style, inputs)
        self.demodulate, self.scale = demodulate, factor if scaled else 1
        if not scaled:
            nn.init.ones_(self.modulation.bias)

    def forward(self, x, style, noise=None, up: int = 1, taps=None) -> torch.Tensor:
        styles = self.modulation(style)
        padding, weight = self.weight.shape[-1] // 2, self.weight[0] if self.scale == 1 else self.weight[0] * self.scale
        return modulated_conv2d(
            x, weight, styles, noise, up, 1, padding, taps, demodulate=self.demodulate, flip_weight=up == 1
        )


class CleanLayer(nn.Module):
    """lrelu(sqrt(2) conv + strength noise + bias); twice as large ones enlarge bilinearly before they convolve."""

    def __init__(self, inputs: int, outputs: int, style: int, up: bool):
        super().__init__()
        self.modulated_conv = ModulatedConv(inputs, outputs, 3, style, scaled=False)
        self.weight = nn.Parameter(torch.zeros(1))  # the noise's strength
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.up = up

    def forward(self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        x = self.modulated_conv(resize(x, 2) if self.up else x, style, noise * (self.weight / SQRT2))
        return lrelu(x, self.bias.flatten() / SQRT2, SQRT2)  # a leaky ReLU commutes with the factor


class ToRGB(nn.Module):
    """A 1x1 convolution onto the picture of the level below, twice as large."""

    def __init__(self, inputs: int, style: int, scaled: bool):
        super().__init__()
        self.modulated_conv = ModulatedConv(inputs, 3, 1, style, scaled, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.register_buffer("taps", setup_filter(TAPS) if scaled else None, persistent=False)

    def forward(self, x: torch.Tensor, style: torch.Tensor, below: torch.Tensor | None = None) -> torch.Tensor:
        x = self.modulated_conv(x, style) + self.bias
        if below is None:
            return x
        return x + (resize(below, 2) if self.taps is None else upsample2d(below, self.taps))


class Mapping(nn.Sequential):
    """Latents [N, style] of unit mean square, then layers with a leaky ReLU after each, at the indices of the files."""

    def __init__(self, config: Config, scaled: bool):
        layers: list[nn.Module] = [nn.Identity()]
        for _ in range(config.mapping):
            if scaled:
                layers.append(EqualLinear(config.style, config.style, act="lrelu", lr_multiplier=0.01))
            else:
                layers += [nn.Linear(config.style, config.style), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(pixel_norm(z))


class Decoder(nn.Module):
    """StyleGAN2's generator; `conditions` scale and shift the features between the two layers of each level (SFT)."""

    def __init__(self, config: Config, layer: type[nn.Module], scaled: bool):
        super().__init__()
        width, style = config.channels(4, config.narrow), config.style
        self.half = config.half
        self.style_mlp = Mapping(config, scaled)
        self.constant_input = nn.Module()
        self.constant_input.weight = nn.Parameter(torch.randn(1, width, 4, 4))
        self.style_conv1, self.to_rgb1 = layer(width, width, style, False), ToRGB(width, style, scaled)
        self.style_convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        self.noises.register_buffer("noise0", torch.randn(1, 1, 4, 4))
        for level in range(config.levels):
            size = 8 << level
            inputs, width = width, config.channels(size, config.narrow)
            self.style_convs.extend([layer(inputs, width, style, True), layer(width, width, style, False)])
            self.to_rgbs.append(ToRGB(width, style, scaled))
            for i in (1, 2):
                self.noises.register_buffer(f"noise{2 * level + i}", torch.randn(1, 1, size, size))

    def forward(
        self, styles: Sequence[torch.Tensor], conditions: Sequence[tuple[torch.Tensor, torch.Tensor]], random: bool
    ) -> torch.Tensor:
        """styles: [N, style] for each layer; conditions: (scale, shift) [N, C, H, W] for each level."""
        count = len(styles[0])
        noises = [n.new_empty(count, *n.shape[1:]).normal_() if random else n for n in self.noises.buffers()]
        x = self.style_conv1(self.constant_input.weight.expand(count, -1, -1, -1), styles[0], noises[0])
        image = self.to_rgb1(x, styles[1])
        for level, (scale, shift) in enumerate(conditions):
            i = 2 * level
            x = self._steer(self.style_convs[i](x, styles[i + 1], noises[i + 1]), scale, shift)
            x = self.style_convs[i + 1](x, styles[i + 2], noises[i + 2])
            image = self.to_rgbs[level](x, styles[i + 3], image)
        return image

    def _steer(self, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        if not self.half:
            return torch.addcmul(shift, x, scale)
        kept, steered = x.chunk(2, 1)
        return torch.cat([kept, torch.addcmul(shift, steered, scale)], 1)


class CleanBlock(nn.Module):
    """A residual block that halves (factor 0.5) or doubles the sides."""

    def __init__(self, inputs: int, outputs: int, factor: float):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, inputs, 3, padding=1), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = resize(_act(self.conv1, x), self.factor)
        # A 1x1 convolution and a mean of neighbours commute: the smaller of the two sizes has the less work.
        skip = self.skip(resize(x, self.factor)) if self.factor < 1 else resize(self.skip(x), self.factor)
        return _act(self.conv2, y) + skip


def _act(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return lrelu(conv2d(x, conv.weight, padding=conv.padding[0]), conv.bias)


class Clean(Network):
    """images [N, 3, resolution, resolution] in [-1, 1] -> restored ones."""

    Config = Config
    scaled = False

    def __init__(self, config: Config | None = None):
        super().__init__()
        self.config = config = config or Config()
        width = [config.channels(config.resolution >> i, config.narrow / 2) for i in range(config.levels + 1)]
        self.conv_body_first = self.act_conv(3, width[0], 1)
        self.conv_body_down = nn.ModuleList([self.block(a, b, 0.5) for a, b in itertools.pairwise(width)])
        self.final_conv = self.act_conv(width[-1], width[-1], 3)
        up = list(itertools.pairwise([width[-1], *reversed(width[:-1])]))
        self.conv_body_up = nn.ModuleList([self.block(a, b, 2) for a, b in up])
        self.toRGB = nn.ModuleList([self.conv(b, 3, 1) for _, b in up])
        count = 2 * (config.levels + 1) if config.per_layer else 1
        self.final_linear = (EqualLinear if self.scaled else nn.Linear)(width[-1] * 16, count * config.style)
        self.stylegan_decoder = Decoder(config, self.layer, self.scaled)
        gain = SQRT2 if self.scaled else 1
        self.condition_scale, self.condition_shift = (
            nn.ModuleList([Condition(self.conv, b, b if config.half else 2 * b, gain) for _, b in up]) for _ in range(2)
        )
        if not self.scaled:
            for pair in self.condition_scale:
                nn.init.ones_(pair[2].bias)  # untrained, the features pass as they are

    @staticmethod
    def conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)

    act_conv = conv
    block, layer = CleanBlock, CleanLayer

    def first(self, x: torch.Tensor) -> torch.Tensor:
        return _act(self.conv_body_first, x)

    def last(self, x: torch.Tensor) -> torch.Tensor:
        return _act(self.final_conv, x)

    @classmethod
    def from_reference(
        cls,
        out_size: int,
        num_style_feat: int = 512,
        channel_multiplier: float = 1,
        decoder_load_path: None = None,
        fix_decoder: bool = True,
        num_mlp: int = 8,
        input_is_latent: bool = False,
        different_w: bool = False,
        narrow: float = 1,
        sft_half: bool = False,
    ) -> Clean:
        """The network of these arguments of GFPGANv1Clean or GFPGANv1. `fix_decoder`: the decoder's parameters require no
        gradients. ValueError for a `decoder_load_path`: weights are loaded by whoever calls."""
        if decoder_load_path is not None:
            raise ValueError("gfpgan: decoder_load_path: load the decoder's weights into .stylegan_decoder yourself")
        config = Config(
            out_size, num_style_feat, channel_multiplier, num_mlp, input_is_latent, different_w, narrow, sft_half
        )
        made = cls(config)
        made.stylegan_decoder.requires_grad_(not fix_decoder)
        return made

    def forward(self, images: torch.Tensor, noise_mode: str = "random", return_rgb: bool = False):
        """noise_mode: "random", or "const" for the noise that the file holds. return_rgb: (image, [images of the U-Net,
        8 pixels first]), of which the paper's training compares each with the truth.

        Raises ValueError for images of another size.
        """
        side, config = self.config.resolution, self.config
        if images.dim() != 4 or images.shape[1:] != (3, side, side):
            raise ValueError(f"gfpgan: images have shape {tuple(images.shape)}; expected [N, 3, {side}, {side}]")
        if noise_mode not in ("random", "const"):
            raise ValueError(f"gfpgan: noise_mode is {noise_mode!r}, expected 'random' or 'const'")
        x, skips = self.first(images), []
        for block in self.conv_body_down:
            skips.append(x := block(x))
        x = self.last(x)
        styles = self.final_linear(x.flatten(1)).unflatten(1, (-1, config.style)).unbind(1)
        if not config.latent_input:
            styles = [self.stylegan_decoder.style_mlp(styles[0])]
        if not config.per_layer:
            styles = [styles[0]] * (2 * (config.levels + 1))
        conditions, rgbs = [], []
        for i, block in enumerate(self.conv_body_up):
            x = block(x + skips.pop())
            conditions.append((self.condition_scale[i](x), self.condition_shift[i](x)))
            if return_rgb:
                rgbs.append(self.toRGB[i](x))
        image = self.stylegan_decoder(styles, conditions, noise_mode == "random")
        return (image, rgbs) if return_rgb else image
