"""Discriminators of signals [N, 1, T]: of periods and of scales (HiFi-GAN: Kong et al., 2020, section 2.3), of spectra of several
resolutions (UnivNet: Jang et al., 2021, as BigVGAN has it), of bands of them (DAC: Kumar et al., 2023), and of complex spectra
(EnCodec: Defossez et al., 2022, section 3.4).

Each maps a signal to (logits, maps): lists with an entry per discriminator, of which `maps` are lists of what feature matching
compares. Names in the state_dicts are those of the published checkpoints.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

from fastgan.fields import at_least
from fastgan.models.network import Network
from fastgan.nn.weight_norm import WeightNormConv1d, WeightNormConv2d
from fastgan.ops._checks import accumulation_dtype

SLOPE = 0.1  # of the leaky ReLUs; EnCodec's 0.2
Judgement = tuple[list[torch.Tensor], list[list[torch.Tensor]]]


def judge(discriminators: Iterable[nn.Module], signals: Iterable[torch.Tensor]) -> Judgement:
    found = [one(x) for one, x in zip(discriminators, signals, strict=True)]
    return [logits for logits, _ in found], [maps for _, maps in found]


def activations(convs: Iterable[nn.Module], x: torch.Tensor, slope: float = SLOPE) -> list[torch.Tensor]:
    """Those after each convolution in turn."""
    maps = []
    for conv in convs:
        x = F.leaky_relu(conv(x), slope)
        maps.append(x)
    return maps


def _conv(spectral: bool, two: bool = True):
    """What makes a convolution under spectral or weight normalisation."""
    if spectral:
        plain = nn.Conv2d if two else nn.Conv1d
        return lambda *args, **options: spectral_norm(plain(*args, **options))
    return WeightNormConv2d if two else WeightNormConv1d


@dataclass(frozen=True)
class PeriodsConfig:
    """HiFi-GAN's defaults."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    width: int = 32
    """Channels of the first layer; the next ones have 4, 16 and 32 times as many."""
    spectral: bool = False
    """Spectral instead of weight normalisation."""

    def __post_init__(self):
        if not self.periods or min(self.periods) < 1 or self.width < 1:
            raise ValueError(f"vocoder: periods is {self.periods} and width {self.width}, expected positive ones")


class PeriodDiscriminator(nn.Module):
    """Two-dimensional convolutions along columns of `period` samples (Kong et al., 2020, figure 2b).

    dac: as descript-audio-codec has it: a signal whose length the period divides is padded by a whole one, each convolution's
    name ends in .0, and the logits keep their shape.
    """

    def __init__(self, period: int, width: int = 32, spectral: bool = False, dac: bool = False):
        super().__init__()
        self.period, self.dac = period, dac
        make, widths = _conv(spectral), [1, width, 4 * width, 16 * width, 32 * width, 32 * width]
        convs = [
            make(a, b, (5, 1), (3 if i < 4 else 1, 1), padding=(2, 0))
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        ]
        self.convs = nn.ModuleList(nn.Sequential(conv) if dac else conv for conv in convs)
        self.conv_post = make(widths[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        short = self.period - x.shape[2] % self.period
        x = F.pad(x, (0, short if self.dac else short % self.period), "reflect")
        maps = activations(self.convs, x.unflatten(2, (-1, self.period)))
        maps.append(self.conv_post(maps[-1]))
        return maps[-1] if self.dac else maps[-1].flatten(1), maps


class Periods(Network):
    """MultiPeriodDiscriminator of HiFi-GAN and BigVGAN."""

    Config = PeriodsConfig

    def __init__(self, config: PeriodsConfig):
        super().__init__()
        self.config = config
        self.discriminators = nn.ModuleList(
            PeriodDiscriminator(period, config.width, config.spectral) for period in config.periods
        )

    @classmethod
    def from_reference(
        cls,
        mpd_reshapes: Sequence[int] = (2, 3, 5, 7, 11),
        discriminator_channel_mult: float = 1,
        use_spectral_norm: bool = False,
        **_,
    ) -> Periods:
        """The network of a published config.json (BigVGAN's; HiFi-GAN's says nothing of it and has the defaults)."""
        return cls(PeriodsConfig(tuple(mpd_reshapes), int(32 * discriminator_channel_mult), use_spectral_norm))

    def forward(self, x: torch.Tensor) -> Judgement:
        return judge(self.discriminators, [x] * len(self.discriminators))


@dataclass(frozen=True)
class ScalesConfig:
    """HiFi-GAN's defaults."""

    width: int = 128
    """Channels of the first layer, a multiple of 16; the widest have 8 times as many."""
    scales: int = 3
    """How often the signal is looked at, each time halved; the first one is under spectral normalisation."""

    def __post_init__(self):
        if self.width < 16 or self.width % 16 or self.scales < 1:
            raise ValueError(
                f"vocoder: width is {self.width} and scales {self.scales}; expected 16, 32, ... and 1, 2, ..."
            )


class ScaleDiscriminator(nn.Module):
    """Grouped convolutions over time (MelGAN: Kumar et al., 2019; Kong et al., 2020, figure 2a)."""

    def __init__(self, width: int = 128, spectral: bool = False):
        super().__init__()
        make = _conv(spectral, two=False)
        rows = (
            (1, 15, 1, 1),
            (1, 41, 2, 4),
            (2, 41, 2, 16),
            (4, 41, 4, 16),
            (8, 41, 4, 16),
            (8, 41, 1, 16),
            (8, 5, 1, 1),
        )
        channels = [1, *(times * width for times, *_ in rows)]
        self.convs = nn.ModuleList(
            make(a, b, kernel, stride, padding=kernel // 2, groups=groups)
            for a, b, (_, kernel, stride, groups) in zip(channels, channels[1:], rows, strict=False)
        )
        self.conv_post = make(channels[-1], 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        maps = activations(self.convs, x)
        maps.append(self.conv_post(maps[-1]))
        return maps[-1].flatten(1), maps


class Scales(Network):
    """MultiScaleDiscriminator of HiFi-GAN."""

    Config = ScalesConfig

    def __init__(self, config: ScalesConfig):
        super().__init__()
        self.config = config
        self.discriminators = nn.ModuleList(ScaleDiscriminator(config.width, i == 0) for i in range(config.scales))

    @classmethod
    def from_reference(cls, **_) -> Scales:
        """The network of HiFi-GAN, whatever its config.json says."""
        return cls(ScalesConfig())

    def forward(self, x: torch.Tensor) -> Judgement:
        signals = [x]
        for _ in self.discriminators[1:]:
            signals.append(F.avg_pool1d(signals[-1], 4, 2, padding=2))
        return judge(self.discriminators, signals)


@dataclass(frozen=True)
class ResolutionsConfig:
    """BigVGAN's defaults."""

    resolutions: tuple[tuple[int, int, int], ...] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
    """Length, hop and window of each transform, in samples."""
    width: int = 32
    spectral: bool = False

    def __post_init__(self):
        if not self.resolutions or self.width < 1:
            raise ValueError("vocoder: resolutions and width must not be empty or 0")
        for one in self.resolutions:
            if len(one) != 3 or not 0 < one[1] <= one[0] or not 0 < one[2] <= one[0]:
                raise ValueError(f"vocoder: resolution is {one}, expected (length, hop, window), none above the length")


def spectral_convs(make, inputs: int, width: int, strides: int = 3) -> nn.ModuleList:
    """Convolutions [N, C, frames, frequencies] of 3x9, halving the frequencies `strides` times, and one of 3x3."""
    convs = [make(inputs, width, (3, 9), padding=(1, 4))]
    convs += [make(width, width, (3, 9), (1, 2), padding=(1, 4)) for _ in range(strides)]
    return nn.ModuleList([*convs, make(width, width, (3, 3), padding=(1, 1))])


class ResolutionDiscriminator(nn.Module):
    """Convolutions over the magnitudes of a transform with a rectangular window."""

    def __init__(self, resolution: tuple[int, int, int], width: int = 32, spectral: bool = False):
        super().__init__()
        self.resolution, make = resolution, _conv(spectral)
        self.convs = spectral_convs(make, 1, width)
        self.conv_post = make(width, 1, (3, 3), padding=(1, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        length, hop, window = self.resolution
        pad = (length - hop) // 2
        wide = x.to(accumulation_dtype(x.dtype))  # there are no transforms of 16 bits
        spectrum = torch.stft(
            F.pad(wide, (pad, pad), "reflect").squeeze(1),
            length,
            hop,
            window,
            window=torch.ones(window, dtype=wide.dtype, device=x.device),
            center=False,
            return_complex=True,
        )
        maps = activations(self.convs, spectrum.abs()[:, None].to(x.dtype))
        maps.append(self.conv_post(maps[-1]))
        return maps[-1].flatten(1), maps


class Resolutions(Network):
    """MultiResolutionDiscriminator of BigVGAN."""

    Config = ResolutionsConfig

    def __init__(self, config: ResolutionsConfig):
        super().__init__()
        self.config = config
        self.discriminators = nn.ModuleList(
            ResolutionDiscriminator(one, config.width, config.spectral) for one in config.resolutions
        )

    @classmethod
    def from_reference(
        cls,
        resolutions: Sequence[Sequence[int]],
        discriminator_channel_mult: float = 1,
        use_spectral_norm: bool = False,
        mrd_channel_mult: float | None = None,
        mrd_use_spectral_norm: bool | None = None,
        **_,
    ) -> Resolutions:
        """The network of a published config.json; those of mrd_... win over the general ones."""
        times = discriminator_channel_mult if mrd_channel_mult is None else mrd_channel_mult
        spectral = use_spectral_norm if mrd_use_spectral_norm is None else mrd_use_spectral_norm
        return cls(ResolutionsConfig(tuple(map(tuple, resolutions)), int(32 * times), spectral))

    def forward(self, x: torch.Tensor) -> Judgement:
        return judge(self.discriminators, [x] * len(self.discriminators))


class Spectrum(nn.Module):
    """Complex transform of windows of `length` samples, periodic Hann: [N, C, T] -> [N, 2 C, frames, frequencies], real parts
    first. The window is a buffer, as in published checkpoints."""

    def __init__(
        self, length: int, hop: int, window: int | None = None, centred: bool = True, normalized: bool = False
    ):
        super().__init__()
        self.length, self.hop, self.centred, self.normalized = length, hop, centred, normalized
        self.register_buffer("window", torch.hann_window(window or length))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c = x.shape[:2]
        wide = x.to(accumulation_dtype(x.dtype))  # there are no transforms of 16 bits
        window = self.window.to(wide.dtype)
        spectrum = torch.stft(
            wide.flatten(0, 1),
            self.length,
            self.hop,
            len(window),
            window=window,
            center=self.centred,
            return_complex=True,
        )
        if self.normalized:
            spectrum = spectrum / window.square().sum().sqrt()
        parts = torch.cat([spectrum.real.unflatten(0, (n, c)), spectrum.imag.unflatten(0, (n, c))], 1)
        return parts.transpose(2, 3).to(x.dtype)


@dataclass(frozen=True)
class BandsConfig:
    """The defaults of DAC and BigVGAN."""

    lengths: tuple[int, ...] = (2048, 1024, 512)
    """Of the transforms, in samples."""
    edges: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    """Of the bands, as shares of half the rate."""
    width: int = 32

    def __post_init__(self):
        at_least("vocoder", self, width=1)
        if not self.lengths or len(self.edges) < 2:
            raise ValueError(
                f"vocoder: lengths is {self.lengths} and edges {self.edges}; expected one and two at least"
            )


class BandDiscriminator(nn.Module):
    """Convolutions over bands of a complex transform, each with weights of its own."""

    def __init__(self, length: int, edges: tuple[float, ...], width: int):
        super().__init__()
        self.spec_fn = Spectrum(length, length // 4)
        self.ends = [int(edge * (length // 2 + 1)) for edge in edges]
        self.band_convs = nn.ModuleList(spectral_convs(WeightNormConv2d, 2, width) for _ in edges[1:])
        self.conv_post = WeightNormConv2d(width, 1, (3, 3), padding=(1, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = x - x.mean(-1, keepdim=True)
        x = self.spec_fn(0.8 * x / (x.abs().amax(-1, keepdim=True) + 1e-9))
        maps, last = [], []
        for convs, a, b in zip(self.band_convs, self.ends, self.ends[1:], strict=False):
            found = activations(convs, x[..., a:b])
            maps += found[1:]
            last.append(found[-1])
        maps.append(self.conv_post(torch.cat(last, -1)))
        return maps[-1], maps


class Bands(Network):
    """MultiBandDiscriminator of BigVGAN, the spectral one of DAC."""

    Config = BandsConfig

    def __init__(self, config: BandsConfig):
        super().__init__()
        self.config = config
        self.discriminators = nn.ModuleList(
            BandDiscriminator(length, config.edges, config.width) for length in config.lengths
        )

    @classmethod
    def from_reference(cls, mbd_fft_sizes: Sequence[int] = (2048, 1024, 512), **_) -> Bands:
        """The network of a published config.json."""
        return cls(BandsConfig(tuple(mbd_fft_sizes)))

    def forward(self, x: torch.Tensor) -> Judgement:
        return judge(self.discriminators, [x] * len(self.discriminators))


@dataclass(frozen=True)
class SpectraConfig:
    """EnCodec's defaults."""

    width: int = 32
    channels: int = 1
    outputs: int = 1
    lengths: tuple[int, ...] = (1024, 2048, 512)
    hops: tuple[int, ...] = (256, 512, 128)
    windows: tuple[int, ...] = (1024, 2048, 512)
    dilations: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self):
        at_least("vocoder", self, width=1, channels=1, outputs=1)
        if not len(self.lengths) == len(self.hops) == len(self.windows):
            raise ValueError("vocoder: lengths, hops and windows must be as many")


class _Named(nn.Module):
    """A convolution under the name `conv`, as EnCodec has it."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class SpectrumDiscriminator(nn.Module):
    """Convolutions over a complex transform that is neither centred nor padded, dilated in time."""

    def __init__(self, config: SpectraConfig, length: int, hop: int, window: int):
        super().__init__()
        width = config.width
        self.spec_transform = Spectrum(length, hop, window, centred=False, normalized=True)
        convs = [nn.Conv2d(2 * config.channels, width, (3, 9), padding=(1, 4))]
        convs += [
            WeightNormConv2d(width, width, (3, 9), (1, 2), dilation=(d, 1), padding=(d, 4)) for d in config.dilations
        ]
        convs.append(WeightNormConv2d(width, width, (3, 3), padding=(1, 1)))
        self.convs = nn.ModuleList(map(_Named, convs))
        self.conv_post = _Named(WeightNormConv2d(width, config.outputs, (3, 3), padding=(1, 1)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        maps = activations(self.convs, self.spec_transform(x), 0.2)
        return self.conv_post(maps[-1]), maps


class Spectra(Network):
    """MultiScaleSTFTDiscriminator of EnCodec."""

    Config = SpectraConfig

    def __init__(self, config: SpectraConfig):
        super().__init__()
        self.config = config
        self.discriminators = nn.ModuleList(
            SpectrumDiscriminator(config, *one) for one in zip(config.lengths, config.hops, config.windows, strict=True)
        )

    @classmethod
    def from_reference(
        cls,
        filters: int,
        in_channels: int = 1,
        out_channels: int = 1,
        n_ffts: Sequence[int] = (1024, 2048, 512),
        hop_lengths: Sequence[int] = (256, 512, 128),
        win_lengths: Sequence[int] = (1024, 2048, 512),
        dilations: Sequence[int] = (1, 2, 4),
    ) -> Spectra:
        """The network of these arguments of MultiScaleSTFTDiscriminator."""
        lengths = (tuple(some) for some in (n_ffts, hop_lengths, win_lengths, dilations))
        return cls(SpectraConfig(filters, in_channels, out_channels, *lengths))

    def forward(self, x: torch.Tensor) -> Judgement:
        return judge(self.discriminators, [x] * len(self.discriminators))
