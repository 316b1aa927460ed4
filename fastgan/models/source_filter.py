"""A vocoder of pulses and noise: speech is a pulse train at the pitch and white noise, each through a filter of every frame
(Liu et al., 2020: Neural Homomorphic Vocoder). The network hears the pitch and the filters in the mel spectrogram; what phases
have to be, which takes other vocoders most of their training, the pulses know.

The filters' network is Vocos' (Siuzdak, 2024), and its signal the inverse transform of the two sources' filtered spectra. From
the papers alone; the state_dict's names are our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.losses.pitch import PITCHES
from fastgan.models import vocos
from fastgan.nn.mel import mel_filterbank
from fastgan.ops._autocast import without_autocast

BINS = 96  # of the pitch: a third of a semitone each
PLACES = 1 << 16  # samples after which the noise comes again

State = tuple[torch.Tensor, torch.Tensor]
"""Of a frame's first sample, [N] each: the pulses' phase in cycles, float64, and its place in the noise, int64."""


@dataclass(frozen=True)
class GeneratorConfig(vocos.GeneratorConfig):
    rate: int = 16000
    """Samples a second."""
    high: float | None = None
    """The highest frequency of the mel spectrogram, in Hz. None: half the rate."""


class Pitch(nn.Module):
    """Log mel spectrograms [N, bands, frames] -> logits of the pitch [N, BINS, frames] on `grid`, logarithms of Hz, and the logit
    of there being one, [N, frames]."""

    context = 3

    def __init__(self, bands: int, width: int = 128):
        super().__init__()
        layers = []
        for inputs in (bands, width, width):
            layers += [nn.Conv1d(inputs, width, 3, padding=1), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv1d(width, BINS + 1, 1))
        self.register_buffer("grid", torch.linspace(*map(math.log, PITCHES), BINS), persistent=False)

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.layers(mel / 2 + 2)  # about of mean 0 and variance 1
        return found[:, :BINS], found[:, BINS]


class Generator(vocos.Generator):
    """Log mel spectrograms [N, bands, frames] -> signals [N, 1, hop frames].

    Examples:
        >>> fastgan.models.build("source_filter", width=64, blocks=2)(torch.randn(1, 80, 10)).shape
        torch.Size([1, 1, 2560])
    """

    Config = GeneratorConfig

    def __init__(self, config: GeneratorConfig):
        super().__init__(config)
        self.pitch = Pitch(config.bands)
        # A frame's neighbours in the sum of windows hear pulses of theirs, whose pitch goes to that of the next frame.
        overlap = self.context - 3 - 3 * config.blocks
        self.context = max(self.context, 2 * overlap + 1 + self.pitch.context)
        basis = mel_filterbank(config.rate, config.window, config.bands, high=config.high).float()
        noise = torch.randn(PLACES, generator=torch.Generator().manual_seed(0), device="cpu").to(basis.device)
        # What of the bands' level a bin has, and a band's level of a source of variance 1
        near = basis / basis.amax(1, keepdim=True).clamp(min=1e-9)
        shares = near.T / near.sum(0)[:, None].clamp(min=1e-3)
        level = (basis.sum(1) * math.sqrt(math.pi / 4 * 0.375 * config.window)).clamp(min=1e-9).log()
        for name, value in (("noise", noise), ("shares", shares), ("level", level[:, None])):
            self.register_buffer(name, value, persistent=False)

    @staticmethod
    def outputs(config: GeneratorConfig) -> int:
        """Of a frame: logarithms of two filters' magnitudes, beside the bands' own, and the phases of the pulses' one."""
        return 3 * (config.window // 2 + 1)

    def anywhere(self, share: torch.Tensor) -> State:
        """A state to begin with, of numbers [N] from 0 to 1."""
        return share.double(), (share * PLACES).long()

    def forward(self, mel: torch.Tensor, begin: State | None = None) -> torch.Tensor:
        """begin: of the first frame; None: phase and place 0. Raises ValueError for another shape."""
        return self.speak(mel, begin)[0]

    def part(self, mel, first, last, state=None):
        y, state = self.speak(mel, state, first, last)
        return y[..., first * self.hop : last * self.hop], state

    def speak(
        self, mel: torch.Tensor, state: State | None = None, first: int = 0, last: int = 0
    ) -> tuple[torch.Tensor, State]:
        """The signal of all frames, and the state of frame `last`, where `state` is that of frame `first`."""
        self.check(mel)
        x = self.frames(mel)
        with without_autocast(mel):
            dtype = torch.promote_types(mel.dtype, torch.float32)
            x, mel = x.to(dtype), mel.to(dtype)
            pulsed, noise, state = self.sources(mel, state, first, last)
            voice, phase, breath = x.chunk(3, 1)
            level = self.shares.to(mel.dtype) @ (mel - self.level)
            most = math.log(vocos.LOUDEST)
            filters = [(level + one).clamp(max=most).exp() for one in (voice, breath)]
            spectrum = torch.polar(filters[0], phase) * self.spectrum(pulsed) + filters[1] * self.spectrum(noise)
            return self.overlap(spectrum), state

    @torch.no_grad()
    def sources(
        self, mel: torch.Tensor, state: State | None, first: int, last: int
    ) -> tuple[torch.Tensor, torch.Tensor, State]:
        """Pulses and noise [N, hop frames] of variance 1, and the state of frame `last`."""
        hop, rate = self.hop, self.config.rate
        # In float64: phases add up what the pitch is rounded by, and speech in pieces is to be that of the whole.
        exact = {name: p.double() for name, p in self.pitch.state_dict().items()}
        logits, voiced = torch.func.functional_call(self.pitch, exact, mel.double())
        sure = (2 * logits).softmax(1)  # more than they are, so that little of other pitches comes in
        # Not the buffer: of a network in 16 bits that is rounded, by up to 1.6% of the pitch.
        grid = torch.linspace(*map(math.log, PITCHES), BINS, dtype=torch.float32, device=mel.device)
        hertz = (sure * grid.double()[:, None]).sum(1)
        hertz, voiced = (_between(one, hop) for one in (hertz, voiced.sigmoid()))
        per_sample = hertz.exp() / rate
        cycles = F.pad(per_sample.cumsum(1), (1, 0))
        if state is None:
            state = self.anywhere(mel.new_zeros(len(mel)))
        cycles = (cycles - cycles[:, first * hop, None] + state[0][:, None]) % 1
        places = state[1][:, None] + torch.arange(per_sample.shape[1], device=mel.device) - first * hop
        noise = self.noise.to(mel.dtype)[places % PLACES]
        voice = (pulses(cycles[:, :-1], per_sample) * voiced).to(mel.dtype)
        return voice, noise, (cycles[:, last * hop], state[1] + (last - first) * hop)

    def spectrum(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T] -> [N, window // 2 + 1, frames]."""
        size, hop = self.config.window, self.hop
        x = F.pad(x, ((size - hop) // 2,) * 2)
        return torch.stft(x, size, hop, size, self.hann.to(x.dtype), center=False, return_complex=True)


def _between(x: torch.Tensor, hop: int) -> torch.Tensor:
    """Values of frames' middles, [N, frames] -> of their samples, [N, hop frames], linearly; of each frame alike to the last bit,
    wherever it is in x."""
    away = (torch.arange(hop, dtype=x.dtype, device=x.device) + 0.5) / hop - 0.5
    steps = F.pad(x.diff(dim=1), (1, 1))[..., None]
    return (x[..., None] + away * torch.where(away < 0, steps[:, :-1], steps[:, 1:])).flatten(1)


def pulses(cycles: torch.Tensor, per_sample: torch.Tensor) -> torch.Tensor:
    """A pulse at each whole number of `cycles`, without aliases: all harmonics below half the rate, of equal amplitude, and
    together of variance 1. The highest fades in and out as `per_sample`, cycles a sample, changes. Of the shape of both."""
    count = 0.5 / per_sample - 1
    whole = count.floor()
    half = math.pi * (cycles - cycles.round())
    # cos 2h + ... + cos 2kh is sin(kh) cos((k + 1) h) / sin h
    ratio = torch.where(half == 0, whole, (whole * half).sin() / half.sin().masked_fill(half == 0, 1.0))
    total = ratio * ((whole + 1) * half).cos() + (count - whole) * (2 * (whole + 1) * half).cos()
    return total * 2 * per_sample.sqrt()
