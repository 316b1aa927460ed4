"""How near speech is to the recording that it was made of, and to recordings as a set. Signals are float [T] in [-1, 1], lists of
them of any lengths, in the same order; each is compared with its own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from fastgan.metrics import fid
from fastgan.nn import MelSpectrogram
from fastgan.ops._autocast import outside_autocast

Signals = Sequence[torch.Tensor]
RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))  # length, hop and window of a transform, in samples
PITCHES = 60.0, 400.0  # of speech, in Hz
VOICED = 0.5  # periodicity of a frame that counts as voiced, and of its level against the loudest
FRAME = 0.0256  # seconds of a frame of STOI
QUIET = 40.0  # decibels below the loudest frame: silence, which has no pitch


def _pairs(
    made: Signals, recorded: Signals, device: torch.device | str = "cpu"
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    if len(made) != len(recorded) or not made:
        raise ValueError(f"{len(made)} signals against {len(recorded)} recordings, expected as many, at least one")
    for a, b in zip(made, recorded, strict=True):
        if a.dim() != 1 or a.shape != b.shape or not a.numel():
            raise ValueError(f"signals have shapes {tuple(a.shape)} and {tuple(b.shape)}, expected the same [T]")
        if not (a.isfinite().all() and b.isfinite().all()):
            raise ValueError("signals hold NaN or Inf")
    return [tuple(x.detach().to(device).float() for x in pair) for pair in zip(made, recorded, strict=True)]


def mel_l1(made: Signals, recorded: Signals, mel: MelSpectrogram) -> float:
    """Mean absolute difference of log mel spectrograms, in nepers (1 is 8.7 dB): the mean over signals."""
    differences = [(mel(a[None]) - mel(b[None])).abs().mean() for a, b in _pairs(made, recorded, mel.window.device)]
    return float(torch.stack(differences).mean())


def stft_distance(made: Signals, recorded: Signals) -> float:
    """Spectral convergence |S - S'| / |S| plus mean |ln S - ln S'| of magnitudes, averaged over three resolutions and signals
    (Parallel WaveGAN: Yamamoto et al., 2020, eq. 4 to 6). Raises ValueError for a recording of silence, where |S| is 0."""
    found = []
    for number, (a, b) in enumerate(_pairs(made, recorded)):
        if not b.any():
            raise ValueError(f"recording {number} is silent: nothing converges to its spectrum")
        for length, hop, window in RESOLUTIONS:
            weights = torch.hann_window(window, dtype=b.dtype, device=b.device)
            made_, true = (
                torch.stft(x, length, hop, window, weights, pad_mode="constant", return_complex=True)
                .abs()
                .clamp(min=1e-5)
                for x in (a, b)
            )
            found.append((true - made_).norm() / true.norm() + (true.log() - made_.log()).abs().mean())
    return float(torch.stack(found).mean())


def periodicity(x: torch.Tensor, rate: int) -> torch.Tensor:
    """How periodic each hundredth of a second is, [frames] from 0 to 1: the greatest correlation of 32 ms with what comes one
    period later, over the periods of speech, 60 to 400 Hz. Frames 40 dB below the loudest are 0."""
    size, hop = round(0.032 * rate), round(0.01 * rate)
    shortest, longest = (round(rate / pitch) for pitch in reversed(PITCHES))
    x = F.pad(x.double(), (0, size + longest))
    frames = x.unfold(0, size + longest, hop)  # [frames, size + longest]
    head = frames[:, :size]
    points = 1 << (size + longest).bit_length()
    spectrum = torch.fft.rfft(frames, points) * torch.fft.rfft(head, points).conj()
    products = torch.fft.irfft(spectrum, points)[:, shortest : longest + 1]
    energy = F.pad(frames.square().cumsum(1), (1, 0))
    later = energy[:, size + shortest : size + longest + 1] - energy[:, shortest : longest + 1]
    now = energy[:, size, None]
    strength = (products / (now * later).sqrt().clamp(min=1e-12)).amax(1).clamp(0, 1)
    return torch.where(now[:, 0] > now.max() * 10 ** (-QUIET / 10), strength, 0.0)


def voicing(made: Signals, recorded: Signals, rate: int) -> tuple[float, float]:
    """(root mean square difference of `periodicity`, share of frames that are voiced in one and not in the other), over all
    frames of all signals. As in CARGAN (Morrison et al., 2022, section 4), whose periodicity is a network's: numbers differ."""
    both = [(periodicity(a, rate), periodicity(b, rate)) for a, b in _pairs(made, recorded)]
    a, b = (torch.cat([pair[side] for pair in both]) for side in (0, 1))
    return float((a - b).square().mean().sqrt()), float(((a > VOICED) != (b > VOICED)).double().mean())


def pesq(made: Signals, recorded: Signals, rate: int) -> float:
    """PESQ (ITU-T P.862.2, wide band, of the package pesq), 1 to 4.6: the mean over signals, at 16 kHz. Of 8 kHz: P.862, narrow.

    Raises ImportError without the package, or without SciPy where the rate is another, ValueError for a recording of less than
    a quarter of a second or without speech, and for silence that was made of one.
    """
    package = _package("pesq")
    rates, mode = (8000, "nb") if rate == 8000 else (16000, "wb")
    found = []
    for number, (a, b) in enumerate(_pairs(made, recorded)):
        if not a.any() or not b.any():
            what = "what was made of it" if b.any() else "it"
            raise ValueError(f"{_which(number, b, rate)}: {what} is silent")
        try:
            found.append(package.pesq(rates, _at(b, rate, rates), _at(a, rate, rates), mode))
        except package.PesqError as error:  # its messages are bytes
            why = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
            raise ValueError(f"{_which(number, b, rate)}: {why}") from error
    return float(sum(found) / len(found))


def stoi(made: Signals, recorded: Signals, rate: int) -> float:
    """STOI (Taal et al., 2011, of the package pystoi): how understandable, about 0 to 1: the mean over signals.

    Raises ImportError without the package, ValueError for a recording with too little speech, 0.4 s, to be measured.
    """
    package, found = _package("pystoi"), []
    for number, (a, b) in enumerate(_pairs(made, recorded)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            # Of less than a frame it cannot cut out the silence; of silence alone nothing, and finds 0.
            few = len(b) < FRAME * rate or not b.any()
            found.append(0.0 if few else package.stoi(b.numpy(), a.numpy(), rate))
        if few or any("Not enough STFT frames" in str(one.message) for one in said):  # and 1e-5 stands for the figure
            raise ValueError(f"{_which(number, b, rate)} has less than 0.4 s of speech")
    return float(sum(found) / len(found))


def frechet_mel(made: Signals, recorded: Signals, mel: MelSpectrogram) -> float:
    """Fréchet distance of Gaussians fitted to the frames of log mel spectrograms, all frames of all signals: of statistics of mel
    bands alone, no perceptual feature, and no FAD."""
    sides = []
    for signals in zip(*_pairs(made, recorded, mel.window.device), strict=True):
        statistics = fid.Statistics(mel.bands)
        for x in signals:
            statistics.update(mel(x[None])[0].T)
        sides.append(statistics)
    return float(fid.frechet_distance(*sides))


def _which(number: int, recording: torch.Tensor, rate: int) -> str:
    return f"recording {number}, of {len(recording) / rate:.2g} s"


def _package(name: str):
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(f"it needs the package {name}: pip install 'fastgan[speech]'") from error


def _at(x: torch.Tensor, rate: int, wanted: int):
    from fastgan.data.wav import resample

    return resample(x[None].numpy(), rate, wanted)[0]


@outside_autocast
def griffin_lim(
    log_mel: torch.Tensor, mel: MelSpectrogram, iterations: int = 32, seed: int = 0, momentum: float = 0.0
) -> torch.Tensor:
    """A signal [N, hop frames] without a network from log mel spectrograms [N, bands, frames], what vocoders are compared with:
    magnitudes by the filter bank's pseudo-inverse, phases from noise by `iterations` of Griffin & Lim (1984, section III).

    momentum: of the fast form (Perraudin et al., 2013); 0.99 is usual there, 0 the original.
    """
    inverse = torch.linalg.pinv(mel.basis.double()).to(log_mel.dtype)
    magnitude = (inverse @ log_mel.exp()).clamp(min=1e-5)
    frames = magnitude.shape[2]
    size, hop, window = mel.length, mel.hop, F.pad(mel.window, _centred(mel)).to(log_mel.dtype)
    total = hop * (frames - 1) + size
    shares = _overlap(window.square()[None, :, None].expand(1, size, frames), total, hop).clamp(min=1e-8)
    source = torch.Generator("cpu").manual_seed(seed)
    noise = torch.rand(magnitude.shape, generator=source, dtype=magnitude.dtype, device="cpu").to(magnitude.device)
    phases, last = torch.polar(torch.ones_like(magnitude), 2 * torch.pi * noise), 0
    for step in range(iterations + 1):
        windows = torch.fft.irfft(magnitude * phases, size, dim=1) * window[:, None]
        y = _overlap(windows, total, hop) / shares
        if step < iterations:
            found = torch.stft(y, size, hop, size, window, center=False, return_complex=True)
            ahead = found + momentum * (found - last)
            phases, last = ahead / ahead.abs().clamp(min=1e-12), found
    start = (size - hop) // 2
    return y[:, start : start + hop * frames].clamp(-1, 1)


def _centred(mel: MelSpectrogram) -> tuple[int, int]:
    left = (mel.length - len(mel.window)) // 2
    return left, mel.length - len(mel.window) - left


def _overlap(parts: torch.Tensor, total: int, hop: int) -> torch.Tensor:
    """Sum of windows [N, size, frames], each a hop later than the one before -> [N, total]."""
    return F.fold(parts, (1, total), (1, parts.shape[1]), stride=(1, hop))[:, 0, 0]
