"""StyleGAN3's generator (Karras et al., 2021), translation (T) and rotation (R) equivariant: a signal of sinusoids, then
modulated convolutions whose nonlinearities are filtered at twice the rate so that nothing aliases.

The published configurations: T is the default; R is `Config(..., **stylegan3.R)`. The discriminator is StyleGAN2's.
Parameter and buffer names are those of the public implementation.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fastgan.models.stylegan_layers import MAX_RESOLUTION, StyleGenerator, check_sizes, check_styles, layout
from fastgan.nn import EqualLinear
from fastgan.ops import filtered_lrelu, modulated_conv2d
from fastgan.ops._autocast import autocast, outside_autocast
from fastgan.sizes import Resolution

SQUARE = "its filters and their margins are designed for one sampling rate per layer, the same along both sides"
R = dict(conv_kernel=1, use_radial_filters=True, channel_base=65536, channel_max=1024)


@dataclass(frozen=True)
class Config:
    """Generator of `num_layers` layers and ToRGB, of which `num_critical` are sampled critically.

    Layer i has min(channel_base / 2 / cutoff_i, channel_max) channels (cutoffs in cycles per image) and carries
    `margin_size` pixels around the canvas. `filter_size` taps per pixel of the lower rate; `lrelu_upsampling` is the
    nonlinearity's oversampling. `magnitude_ema_beta` is the decay of the inputs' mean squares. Layers whose rate times
    2^num_fp16_res exceeds the resolution run in `precision`, as in StyleGAN2.
    """

    resolution: Resolution = 256
    channels: int = 3
    num_classes: int = 0
    z_dim: int = 512
    w_dim: int = 512
    channel_base: int = 32768
    channel_max: int = 512
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin_size: int = 10
    output_scale: float = 0.25
    conv_kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    use_radial_filters: bool = False
    conv_clamp: float | None = 256
    magnitude_ema_beta: float = 0.999
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float | None = 0.998
    num_fp16_res: int = 4
    precision: Literal["float16", "bfloat16"] = "float16"
    channels_last: bool = False

    def __post_init__(self):
        check_sizes("stylegan3", self, SQUARE)
        if not 0 < self.num_critical < self.num_layers:
            raise ValueError(f"stylegan3: num_critical is {self.num_critical}, expected 1 to {self.num_layers - 1}")
        if not 0 < self.first_cutoff <= self.resolution / 2:
            raise ValueError(
                f"stylegan3: first_cutoff is {self.first_cutoff}, expected above 0 and at most {self.resolution / 2}"
            )
        for name in ("first_stopband", "last_stopband_rel"):
            if not 0 < getattr(self, name) <= MAX_RESOLUTION:
                raise ValueError(
                    f"stylegan3: {name} is {getattr(self, name)}, expected above 0 and at most {MAX_RESOLUTION}"
                )
        if not 0 <= self.margin_size <= MAX_RESOLUTION:
            raise ValueError(f"stylegan3: margin_size is {self.margin_size}, expected 0 to {MAX_RESOLUTION}")

    def schedule(self) -> list["Grid"]:
        """The grids after layers 0, 1, ... and ToRGB."""
        n, nyquist = self.num_layers, self.resolution / 2
        grids = []
        for i in range(n + 1):
            e = min(i / (n - self.num_critical), 1.0)
            cutoff = self.first_cutoff * (nyquist / self.first_cutoff) ** e
            stopband = self.first_stopband * (nyquist * self.last_stopband_rel / self.first_stopband) ** e
            rate = 2.0 ** math.ceil(math.log2(min(2 * stopband, self.resolution)))
            size = self.resolution if i >= n - 1 else int(rate) + 2 * self.margin_size
            channels = self.channels if i == n else round(min(self.channel_base / 2 / cutoff, self.channel_max))
            grids.append(Grid(channels, size, rate, cutoff, max(stopband, rate / 2) - cutoff))
        return grids


@dataclass(frozen=True)
class Grid:
    """A signal: its channels, samples per side, sampling rate, cutoff and transition half-width (per image side)."""

    channels: int
    size: int
    rate: float
    cutoff: float
    half_width: float


def lowpass_filter(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> torch.Tensor | None:
    """Kaiser-windowed low-pass filter of unit sum, float32 [taps], or [taps, taps] if radial; None for one tap.

    cutoff, transition width and sampling rate share one unit. The ideal responses: sin(2 pi fc t) / (pi t) along a line,
    J1(2 pi fc r) / (pi r) in the plane (Karras et al. 2021, eq. 3 and appendix C). The window's parameter follows
    Kaiser's formulas from the attenuation 2.285 (taps - 1) pi width + 7.95, width relative to the Nyquist rate.
    """
    if taps == 1:
        return None
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    beta = 0.0
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    t = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    if radial:
        r = torch.hypot(t[:, None], t[None, :])
        f = torch.special.bessel_j1(2 * math.pi * cutoff * r) / (math.pi * r) * torch.outer(window, window)
    else:
        f = torch.sinc(2 * cutoff * t) * window
    return (f / f.sum()).float()


class SynthesisInput(nn.Module):
    """w [N, w_dim] -> features [N, C, size, size]: sinusoids below the bandwidth, moved and turned as w says.

    Buffer `transform` [3, 3] is the user's: where in the image each output pixel is taken from (the inverse of the
    transformation that is seen).
    """

    def __init__(self, w_dim: int, channels: int, size: tuple[int, int], rate: float, bandwidth: float):
        super().__init__()
        self.size, self.rate, self.bandwidth = size, rate, bandwidth
        n = torch.randn(channels, 2)
        squares = n.square().sum(1, keepdim=True)
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = EqualLinear(w_dim, 4)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", bandwidth * n * squares.rsqrt() * torch.exp(-squares / 4))
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    @outside_autocast
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        w = w.to(self.freqs.dtype)
        t = self.affine(w)
        rc, rs, tx, ty = (t * t[:, :2].square().sum(1, keepdim=True).rsqrt()).unbind(1)
        zero, one = torch.zeros_like(rc), torch.ones_like(rc)
        turn = torch.stack([rc, -rs, zero, rs, rc, zero, zero, zero, one], 1).reshape(-1, 3, 3)
        move = torch.stack([one, zero, -tx, zero, one, -ty, zero, zero, one], 1).reshape(-1, 3, 3)
        m = turn @ move @ self.transform
        phases = self.phases[:, None] + self.freqs @ m[:, :2, 2:]  # [N, C, 1]
        freqs = self.freqs @ m[:, :2, :2]  # [N, C, 2]
        norms = freqs.square().sum(2, keepdim=True).sqrt()
        amplitudes = (1 - (norms - self.bandwidth) / (self.rate / 2 - self.bandwidth)).clamp(0, 1)
        x, y = ((torch.arange(n, device=w.device, dtype=w.dtype) + 0.5 - n / 2) / self.rate for n in self.size)
        # sin(a + b) = sin a cos b + cos a sin b: sines of rows and columns instead of every pixel's.
        a = 2 * math.pi * (freqs[:, :, :1] * x + phases)
        b = 2 * math.pi * freqs[:, :, 1:] * y
        by_row = torch.stack([b.cos(), b.sin()], 3)
        by_column = torch.stack([a.sin(), a.cos()], 2) * amplitudes[..., None]
        features = (by_row @ by_column).flatten(2)
        mixed = (self.weight * self.weight.shape[1] ** -0.5) @ features
        return mixed.unflatten(2, self.size[::-1])


class SynthesisLayer(nn.Module):
    """x [N, C_in, in, in], w [N, w_dim] -> [N, C_out, out, out]: modulated convolution, filtered leaky ReLU."""

    def __init__(self, config: Config, before: Grid, after: Grid, torgb: bool, critical: bool):
        super().__init__()
        self.config, self.torgb = config, torgb
        self.magnitude_ema_beta = config.magnitude_ema_beta
        self.half = after.rate * 2**config.num_fp16_res > config.resolution
        self.kernel = 1 if torgb else config.conv_kernel
        self.in_channels = before.channels
        rate = max(before.rate, after.rate) * (1 if torgb else config.lrelu_upsampling)
        self.up, self.down = round(rate / before.rate), round(rate / after.rate)
        taps_up = 1 if self.up == 1 or torgb else config.filter_size * self.up
        taps_down = 1 if self.down == 1 or torgb else config.filter_size * self.down
        total = (after.size - 1) * self.down + 1 - (before.size + self.kernel - 1) * self.up + taps_up + taps_down - 2
        first = (total + self.up) // 2
        self.padding = [first, total - first] * 2

        self.affine = EqualLinear(config.w_dim, before.channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        up_filter = lowpass_filter(taps_up, before.cutoff, 2 * before.half_width, rate)
        radial = config.use_radial_filters and not critical
        self.register_buffer("up_filter", up_filter)
        down_filter = lowpass_filter(taps_down, after.cutoff, 2 * after.half_width, rate, radial)
        self.register_buffer("down_filter", down_filter)

    def forward(self, x: torch.Tensor, w: torch.Tensor, update_emas: bool, force_fp32: bool) -> torch.Tensor:
        config = self.config
        if update_emas:
            square = x.detach().to(self.magnitude_ema.dtype).square().mean()
            self.magnitude_ema.copy_(torch.lerp(square, self.magnitude_ema, self.magnitude_ema_beta))
        styles = self.affine(w)
        if self.torgb:
            styles = styles * (self.in_channels * self.kernel**2) ** -0.5
        x = x.to(**layout(config, w, self.half and not force_fp32))
        x = modulated_conv2d(
            autocast(x),
            self.weight,
            styles,
            padding=self.kernel - 1,
            demodulate=not self.torgb,
            prenormalize=True,
            input_gain=self.magnitude_ema.rsqrt(),
        )
        gain, slope = (1.0, 1.0) if self.torgb else (math.sqrt(2), 0.2)
        factors = (self.up, self.down, self.padding, gain, slope, config.conv_clamp)
        return filtered_lrelu(x, self.up_filter, self.down_filter, self.bias.to(x.dtype), *factors)


class Synthesis(nn.Module):
    """w [N, num_ws, w_dim] -> images [N, channels, R, R]."""

    def __init__(self, config: Config):
        super().__init__()
        self.w_dim, self.output_scale, self.num_ws = config.w_dim, config.output_scale, config.num_layers + 2
        grids = config.schedule()
        first = grids[0]
        self.input = SynthesisInput(config.w_dim, first.channels, (first.size, first.size), first.rate, first.cutoff)
        self.layer_names = []
        for i, after in enumerate(grids):
            critical = i >= config.num_layers - config.num_critical
            name = f"L{i}_{after.size}_{after.channels}"
            before = grids[max(i - 1, 0)]
            setattr(self, name, SynthesisLayer(config, before, after, i == config.num_layers, critical))
            self.layer_names.append(name)

    def forward(self, ws: torch.Tensor, update_emas: bool = False, force_fp32: bool = False) -> torch.Tensor:
        check_styles("stylegan3", ws, self.num_ws, self.w_dim)
        first, *rest = ws.unbind(1)
        x = self.input(first)
        for name, w in zip(self.layer_names, rest, strict=True):
            x = getattr(self, name)(x, w, update_emas, force_fp32)
        return x.to(ws.dtype) * self.output_scale


class Generator(StyleGenerator):
    """Latents z [N, z_dim] (and class vectors c [N, num_classes]) -> images [N, channels, R, R], linear, around [-1, 1]."""

    Config, Synthesis = Config, Synthesis

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
        noise_mode: str = "none",
        force_fp32: bool = False,
    ) -> torch.Tensor:
        """Truncation as in `Mapping`. `update_emas` moves the mean of w and the layers' input magnitudes by this batch.
        `noise_mode` is part of StyleGAN2's interface and has no effect: this network has no noise."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, update_emas, force_fp32)
