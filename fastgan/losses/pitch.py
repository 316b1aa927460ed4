"""The pitch of speech, and the loss of a network that says it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["pitch_loss", "track_pitch"]

PITCHES = 60.0, 500.0  # of speech, in Hz
SECONDS = 0.032  # that are compared with what comes a period later
VOICED = 0.6  # correlation of a frame that has a pitch
# Share of the best correlation at which a shorter period is taken: twice a period fits as well as the period.
SHORTER = 0.9
FLOOR = 1e-3  # amplitude of what counts as silence


@torch.no_grad()
def track_pitch(x: torch.Tensor, rate: int, hop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Signals [N, T] -> (pitch in Hz, strength from 0 to 1), [N, T // hop] each: of the normalized correlations of 32 ms around
    each frame's middle with what comes one period later, the first peak that is near the highest, to a fraction of a sample by a
    parabola. As Talkin (1995, section 2) without his dynamic programming.

    Raises ValueError for other shapes, or signals of less than a frame.

    Examples:
        >>> x = torch.sin(2 * torch.pi * 200 / 16000 * torch.arange(16000))
        >>> pitch, strength = fastgan.losses.pitch.track_pitch(x[None], 16000, 256)
        >>> round(pitch[0, 30].item()), round(strength[0, 30].item(), 2)
        (200, 1.0)
    """
    if x.dim() != 2 or x.shape[1] < hop:
        raise ValueError(f"track_pitch: signals have shape {tuple(x.shape)}, expected [N, T], T at least {hop}")
    frames, size = x.shape[1] // hop, round(SECONDS * rate)
    shortest, longest = (round(rate / pitch) for pitch in reversed(PITCHES))
    reach = size + longest + 2  # of a frame; the correlations on both sides of the periods tell peaks
    x = x.float()[:, : frames * hop]
    left = max(0, (reach - hop) // 2)
    parts = F.pad(x, (left, reach)).unfold(1, reach, hop)[:, :frames]
    points = 1 << reach.bit_length()
    spectrum = torch.fft.rfft(parts, points) * torch.fft.rfft(parts[..., :size], points).conj()
    products = torch.fft.irfft(spectrum, points)[..., shortest - 1 : longest + 2]
    energy = F.pad(parts.square().cumsum(-1), (1, 0))
    later = energy[..., size + shortest - 1 : size + longest + 2] - energy[..., shortest - 1 : longest + 2]
    silence = size * FLOOR**2
    found = products / ((energy[..., size, None] + silence) * (later + silence)).sqrt()
    before, now, after = found[..., :-2], found[..., 1:-1], found[..., 2:]
    peaks = torch.where((now >= before) & (now >= after), now, 0.0)
    first = (peaks >= SHORTER * peaks.amax(-1, keepdim=True)).float().argmax(-1, keepdim=True)
    a, b, c = (side.gather(-1, first) for side in (before, now, after))
    between = ((a - c) / (2 * (a - 2 * b + c)).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    return (rate / (shortest + first + between)).squeeze(-1), b.squeeze(-1).clamp(0, 1)


def pitch_loss(
    logits: torch.Tensor, voiced: torch.Tensor, grid: torch.Tensor, pitch: torch.Tensor, strength: torch.Tensor
) -> torch.Tensor:
    """Cross entropies of a pitch on a grid, where there is one (Kim et al., 2018: a Gaussian of a bin's width around the
    true one), and of whether there is. A scalar.

    logits: [N, bins, frames]; voiced: [N, frames], the logit of a pitch; grid: [bins], evenly spaced logarithms of Hz; pitch,
    strength: as `track_pitch` gives them.
    """
    there = (strength > VOICED).to(logits.dtype)
    away = (pitch.log()[:, None] - grid[:, None]) / (grid[1] - grid[0])
    target = (-away.square() / 2).softmax(1)
    at = -(target * logits.log_softmax(1)).sum(1)
    return (there * at).mean() + F.binary_cross_entropy_with_logits(voiced, there)
