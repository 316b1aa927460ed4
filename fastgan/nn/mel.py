"""Mel spectrograms as vocoders define them, differentiable, in torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.ops._autocast import without_autocast
from fastgan.ops._checks import check_floating

__all__ = ["MelSpectrogram", "mel_filterbank"]

LEAST = 1e-5  # of a band's value, before its logarithm


def mel_filterbank(rate: int, length: int, bands: int, low: float = 0.0, high: float | None = None) -> torch.Tensor:
    """Triangles of equal area (Slaney, 1998) over the frequencies of a transform: float64 [bands, length // 2 + 1].

    rate: samples a second; length: samples of the transform; low, high: Hz, `high` None is half the rate. The scale is linear
    below 1000 Hz and logarithmic above. Raises ValueError for edges out of order.

    Examples:
        >>> fastgan.nn.mel_filterbank(16000, 1024, 80).shape
        torch.Size([80, 513])
    """
    high = rate / 2 if high is None else high
    if bands < 1 or length < 2 or not 0 <= low < high <= rate / 2:
        raise ValueError(
            f"mel_filterbank: {bands} bands of {low} to {high} Hz, {length} samples at {rate} Hz; expected at least one band, "
            "0 <= low < high <= rate / 2"
        )
    ends = [3 * f / 200 if f < 1000 else 15 + 27 * math.log(f / 1000) / math.log(6.4) for f in (low, high)]
    points = torch.linspace(*ends, bands + 2, dtype=torch.float64)
    points = torch.where(points < 15, points * 200 / 3, 1000 * torch.exp((points - 15) * math.log(6.4) / 27))
    frequencies = torch.arange(length // 2 + 1, dtype=torch.float64) * rate / length
    left, middle, right = (points[i : bands + i, None] for i in range(3))
    rising, falling = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    return torch.minimum(rising, falling).clamp(min=0) * 2 / (right - left)


class MelSpectrogram(nn.Module):
    """Signals [N, T] or [N, 1, T] -> log mel spectrograms [N, bands, T // hop], as HiFi-GAN and BigVGAN train on them: reflected
    by (length - hop) / 2 samples at both ends (of an odd number the right one has more), periodic Hann windows,
    sqrt(|X|^2 + 1e-9), Slaney's bands, ln(max(., 1e-5)).

    Args:
        rate: samples a second.
        length, hop, window: of the transform, in samples; window None is `length`.
        bands, low, high: see `mel_filterbank`.

    Raises ValueError for a hop or window beyond the length; `forward` for a signal too short to be reflected, and
    TypeError for one that is not floating.

    Examples:
        >>> fastgan.nn.MelSpectrogram(16000)(torch.randn(1, 8192)).shape
        torch.Size([1, 80, 32])
    """

    def __init__(
        self,
        rate: int,
        length: int = 1024,
        hop: int = 256,
        window: int | None = None,
        bands: int = 80,
        low: float = 0.0,
        high: float | None = None,
    ):
        super().__init__()
        window = window or length
        if not 0 < hop <= length or not 0 < window <= length:
            raise ValueError(f"MelSpectrogram: hop {hop} and window {window}, expected 1 to the length, {length}")
        self.rate, self.length, self.hop, self.bands = rate, length, hop, bands
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("basis", mel_filterbank(rate, length, bands, low, high).float(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._logarithm(self._magnitude(self._reflected(x)))

    def pieces(self, x: torch.Tensor, frames: int) -> Iterator[torch.Tensor]:
        """The same in pieces of at most so many frames, each as large in memory as it is alone."""
        x = self._reflected(x)
        count = (x.shape[1] - self.length) // self.hop + 1
        for first in range(0, count, frames):
            last = min(count, first + frames) - 1
            yield self._logarithm(self._magnitude(x[:, first * self.hop : last * self.hop + self.length]))

    def _reflected(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T + length - hop], at least float32."""
        x = x.squeeze(1) if x.dim() == 3 else x
        left = (self.length - self.hop) // 2
        right = self.length - self.hop - left
        if x.dim() != 2 or x.shape[1] <= right:
            raise ValueError(f"MelSpectrogram: signals have shape {tuple(x.shape)}, expected [N, T], T above {right}")
        check_floating("MelSpectrogram", "signals", x)
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return F.pad(x[:, None], (left, right), "reflect")[:, 0]

    def _logarithm(self, magnitude: torch.Tensor) -> torch.Tensor:
        with without_autocast(magnitude):
            return (self.basis.to(magnitude.dtype) @ magnitude).clamp(min=LEAST).log()

    def _magnitude(self, x: torch.Tensor) -> torch.Tensor:
        """[N, length // 2 + 1, frames], of a signal that is reflected already."""
        spectrum = torch.stft(
            x,
            self.length,
            self.hop,
            len(self.window),
            window=self.window.to(x.dtype),
            center=False,
            return_complex=True,
        )
        return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()

    def extra_repr(self) -> str:
        return f"{self.bands} bands, windows of {len(self.window)} samples every {self.hop}, at {self.rate} Hz"
