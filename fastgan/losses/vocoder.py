"""Losses of vocoders: those of several discriminators at once (Kong et al., 2020, eq. 1 to 4), and of spectra."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from fastgan.losses.adversarial import Adversarial, least_squares
from fastgan.nn.mel import LEAST, mel_filterbank
from fastgan.ops._autocast import without_autocast
from fastgan.ops._checks import accumulation_dtype

__all__ = ["MultiScaleMel", "map_matching", "sum_d", "sum_g"]

Maps = Sequence[Sequence[torch.Tensor]]


def _scale(loss: Adversarial) -> float:
    return 2.0 if loss is least_squares else 1.0  # Mao et al.'s factor 1/2 is not in the papers' equations


def sum_d(
    real: Sequence[torch.Tensor], fake: Sequence[torch.Tensor], loss: Adversarial = least_squares
) -> torch.Tensor:
    """The discriminators' loss, summed over them: of least squares mean (1 - D_i(y))^2 + mean D_i(y')^2 (eq. 1).

    real, fake: logits of each, of any shape.
    """
    return _scale(loss) * sum(loss.d_loss(r, f).mean() for r, f in zip(real, fake, strict=True))


def sum_g(fake: Sequence[torch.Tensor], loss: Adversarial = least_squares) -> torch.Tensor:
    """The generator's: of least squares the sum of mean (1 - D_i(y'))^2 (eq. 2)."""
    return _scale(loss) * sum(loss.g_loss(None, f).mean() for f in fake)


def map_matching(real: Maps, fake: Maps) -> torch.Tensor:
    """Twice the sum of mean |difference| over all maps of all discriminators (eq. 4 with its weight of 2). No gradient goes to
    `real`. A scalar, float32 (float64 for float64)."""
    pairs = [pair for maps in zip(real, fake, strict=True) for pair in zip(*maps, strict=True)]
    return 2 * sum((r.detach() - f).abs().mean(dtype=accumulation_dtype(f.dtype)) for r, f in pairs)


class MultiScaleMel(nn.Module):
    """Distance of signals [N, 1, T] by mel spectrograms of seven windows, 32 to 2048 samples of 5 to 320 bands, as DAC and
    BigVGAN-v2 have it: the sum of mean |log10 max(M, 1e-5) - log10 max(M', 1e-5)|. A scalar, float32 (float64 for float64).

    rate: samples a second. lengths: of the windows. Raises ValueError in `forward` for T of at most half the longest window.
    """

    def __init__(self, rate: int, lengths: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048)):
        super().__init__()
        self.lengths = tuple(lengths)
        for length in self.lengths:
            self.register_buffer(f"window{length}", torch.hann_window(length), persistent=False)
            basis = mel_filterbank(rate, length, 5 * length // 32).float()
            self.register_buffer(f"basis{length}", basis, persistent=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape != y.shape or x.dim() != 3 or x.shape[2] <= max(self.lengths) // 2:
            raise ValueError(
                f"MultiScaleMel: signals have shapes {tuple(x.shape)} and {tuple(y.shape)}, expected the same [N, 1, T], T above "
                f"{max(self.lengths) // 2}"
            )
        x, y = (signal.to(accumulation_dtype(signal.dtype)) for signal in (x, y))
        total = x.new_zeros(())
        with without_autocast(x):
            for length in self.lengths:
                a, b = (self._mel(signal, length) for signal in (x, y))
                total = total + (a - b).abs().mean()
        return total

    def _mel(self, x: torch.Tensor, length: int) -> torch.Tensor:
        window, basis = getattr(self, f"window{length}"), getattr(self, f"basis{length}")
        spectrum = torch.stft(x.flatten(0, 1), length, length // 4, window=window.to(x.dtype), return_complex=True)
        return (basis.to(x.dtype) @ spectrum.abs()).clamp(min=LEAST).log10()
