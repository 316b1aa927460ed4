"""The discriminator of constant-Q transforms: BigVGAN-v2's, by Gu et al. (2024: multi-scale sub-band constant-Q transform
discriminator), of the transform of Brown (1991) and Schörkhuber & Klapuri (2010).

Bins are a fixed share of an octave wide, so that harmonics of any pitch are equally far apart. The names in the state_dict are
those of the published checkpoints, and so are the filters among them; those of a new network are of the same formulas, the
low-pass filters within 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.fields import at_least
from fastgan.models.network import Network
from fastgan.models.vocoder_discriminator import Judgement, activations, judge
from fastgan.nn.weight_norm import WeightNormConv2d

LOWEST = 32.7  # Hz, of the lowest bin: C1
TAPS = 256  # of the low-pass filters
# Zero crossings of the resampling filter to each side, and its cutoff as a share of half the rate.
REACH, ROLLOFF = 6, 0.99


@dataclass(frozen=True)
class ConstantQConfig:
    """The transforms are those of BigVGAN-v2, whose width is 128."""

    rate: int = 44100
    """Of the signals, in samples a second; they are looked at at twice that."""
    width: int = 32
    hops: tuple[int, ...] = (512, 256, 256)
    octaves: tuple[int, ...] = (9, 9, 9)
    bins: tuple[int, ...] = (24, 36, 48)
    """Of an octave."""
    dilations: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self):
        at_least("vocoder", self, width=1)
        if not len(self.hops) == len(self.octaves) == len(self.bins) > 0:
            raise ValueError("vocoder: hops, octaves and bins must be as many, at least one")
        for hop, octaves in zip(self.hops, self.octaves, strict=True):
            if LOWEST * 2**octaves > self.rate:
                raise ValueError(
                    f"vocoder: {octaves} octaves from {LOWEST} Hz reach {LOWEST * 2**octaves:.0f} Hz, beyond the rate of "
                    f"{self.rate}: give a higher rate or fewer octaves"
                )
            if hop < 1 or hop % 2 ** (octaves - 1):
                raise ValueError(
                    f"vocoder: hop is {hop}, expected a multiple of {2 ** (octaves - 1)}, for {octaves} octaves"
                )


def _low_pass(cutoff: float) -> torch.Tensor:
    """[1, 1, TAPS]: a sinc under a Hamming window; cutoff in cycles a sample."""
    t = torch.arange(TAPS, dtype=torch.float64) - (TAPS - 1) / 2
    window = torch.hamming_window(TAPS, periodic=False, dtype=torch.float64)
    return (2 * cutoff * torch.sinc(2 * cutoff * t) * window).float()[None, None]


class ConstantQ(nn.Module):
    """Signals [N, 1, T] -> [N, 2, T // hop + 1, octaves bins]: real and imaginary parts, the lowest bin first.

    The top octave's windows see all of the signal; each octave below sees it at half the rate, through the same windows.
    """

    def __init__(self, rate: int, hop: int, octaves: int, bins: int):
        super().__init__()
        self.octaves = octaves
        highest = LOWEST * 2 ** (octaves - 1 / bins)
        # How often the signal is halved before the first octave: as often as the hop allows, and an octave of reserve
        twos = (hop & -hop).bit_length() - octaves
        halved = max(0, min(twos, math.floor(math.log2(rate / 2 / highest)) - 1))
        self.first, self.hop = 2**halved, hop >> halved
        q = 1 / (2 ** (1 / bins) - 1)
        pitches = [LOWEST * 2 ** (i / bins) for i in range(octaves * bins)]
        lengths = [math.ceil(q * rate / self.first / pitch) for pitch in pitches]
        top = list(zip(pitches, lengths, strict=True))[-bins:]
        size = 1 << (top[0][1] - 1).bit_length()
        windows = [self._window(length, pitch / rate * self.first, size) for pitch, length in top]
        kernels = torch.stack(windows)[:, None]
        self.register_buffer("lowpass_filter", _low_pass(0.25))
        if self.first > 1:
            self.register_buffer("early_downsample_filter", _low_pass(0.5 / self.first))
        self.register_buffer("lenghts", torch.tensor(lengths, dtype=torch.float32))  # as checkpoints spell it
        self.register_buffer("cqt_kernels_real", kernels.real.float())
        self.register_buffer("cqt_kernels_imag", kernels.imag.float())

    @staticmethod
    def _window(length: int, cycles: float, size: int) -> torch.Tensor:
        """A Hann window of a wave of so many cycles a sample, of absolute sum 1, in the middle of `size` samples."""
        begin = math.ceil((size - length) / 2) - length % 2
        t = torch.arange(length, dtype=torch.float64) - (length + 1) // 2
        hann = torch.hann_window(length, dtype=torch.float64)
        wave = torch.polar(hann / hann.sum(), 2 * math.pi * cycles * t)
        return F.pad(wave, (begin, size - length - begin))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernels = torch.cat([self.cqt_kernels_real, -self.cqt_kernels_imag])
        middle = kernels.shape[2] // 2
        if self.first > 1:
            x = F.conv1d(x, self.early_downsample_filter, stride=self.first, padding=TAPS // 2 - 1)
        found, hop = [], self.hop
        for octave in range(self.octaves):
            if octave:
                x, hop = F.conv1d(x, self.lowpass_filter, stride=2, padding=TAPS // 2 - 1), hop // 2
            found.append(F.conv1d(x, kernels, stride=hop, padding=middle).unflatten(1, (2, -1)))
        y = torch.cat(found[::-1], 2) * (self.first * self.lenghts.sqrt())[:, None]
        return y.transpose(2, 3)


class Doubled(nn.Module):
    """Signals [N, 1, T] at twice the rate, [N, 1, 2 T], by a sinc under a squared cosine."""

    def __init__(self):
        super().__init__()
        self.reach = math.ceil(REACH / ROLLOFF)
        phases = torch.tensor([[0.0], [-0.5]], dtype=torch.float64)
        t = ((phases + torch.arange(-self.reach, self.reach + 1)) * ROLLOFF).clamp(-REACH, REACH)
        kernel = torch.sinc(t) * (t * math.pi / REACH / 2).cos().square() * ROLLOFF
        self.register_buffer("kernel", kernel.float()[:, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv1d(x, self.kernel, padding=self.reach).transpose(1, 2).flatten(1)[:, None]


class ConstantQDiscriminator(nn.Module):
    """Convolutions over a transform, each octave first through one of its own, dilated in time."""

    def __init__(self, config: ConstantQConfig, hop: int, octaves: int, bins: int):
        super().__init__()
        width, self.bins = config.width, bins
        self.resample = Doubled()
        self.cqt_transform = ConstantQ(2 * config.rate, hop, octaves, bins)
        self.conv_pres = nn.ModuleList(nn.Conv2d(2, 2, (3, 9), padding=(1, 4)) for _ in range(octaves))
        convs: list[nn.Module] = [nn.Conv2d(2, width, (3, 9), padding=(1, 4))]
        for d in config.dilations:
            convs.append(WeightNormConv2d(width, width, (3, 9), (1, 2), dilation=(d, 1), padding=(d, 4)))
        self.convs = nn.ModuleList([*convs, WeightNormConv2d(width, width, (3, 3), padding=(1, 1))])
        self.conv_post = WeightNormConv2d(width, 1, (3, 3), padding=(1, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        octaves = self.cqt_transform(self.resample(x)).split(self.bins, 3)
        own = [conv(octave) for conv, octave in zip(self.conv_pres, octaves, strict=True)]
        maps = activations(self.convs, torch.cat(own, 3))
        return self.conv_post(maps[-1]), maps


class ConstantQs(Network):
    """MultiScaleSubbandCQTDiscriminator of BigVGAN-v2."""

    Config = ConstantQConfig

    def __init__(self, config: ConstantQConfig):
        super().__init__()
        self.config = config
        self.discriminators = nn.ModuleList(
            ConstantQDiscriminator(config, *one) for one in zip(config.hops, config.octaves, config.bins, strict=True)
        )

    @classmethod
    def from_reference(
        cls,
        sampling_rate: int,
        cqtd_filters: int = 32,
        cqtd_dilations: Sequence[int] = (1, 2, 4),
        cqtd_hop_lengths: Sequence[int] = (512, 256, 256),
        cqtd_n_octaves: Sequence[int] = (9, 9, 9),
        cqtd_bins_per_octaves: Sequence[int] = (24, 36, 48),
        cqtd_filters_scale: int = 1,
        cqtd_normalize_volume: bool = False,
        **_,
    ) -> ConstantQs:
        """The network of a published config.json. Raises ValueError for what no published one has: a scale of filters, or
        normalized volume."""
        if cqtd_filters_scale != 1 or cqtd_normalize_volume:
            raise ValueError("vocoder: cqtd_filters_scale must be 1 and cqtd_normalize_volume false")
        lists = (tuple(some) for some in (cqtd_hop_lengths, cqtd_n_octaves, cqtd_bins_per_octaves, cqtd_dilations))
        return cls(ConstantQConfig(sampling_rate, cqtd_filters, *lists))

    def forward(self, x: torch.Tensor) -> Judgement:
        return judge(self.discriminators, [x] * len(self.discriminators))
