"""Speech of recordings and of mel spectrograms by a vocoder, in bounded memory."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from fastgan.data.files import folder_source, one_file, zip_source
from fastgan.data.speech import readable
from fastgan.data.wav import OTHERS, WAV, scaled
from fastgan.files import complete, named
from fastgan.models.vocoder import Vocoder, stream
from fastgan.nn import MelSpectrogram
from fastgan.sampling import target_names

FRAMES = 512  # at a time


@torch.no_grad()
def speak(generator: Vocoder, mels: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The signal, float32 [T] on the CPU in pieces, of a log mel spectrogram [bands, frames] in pieces."""
    device = next(generator.parameters()).device
    for piece in stream(generator, (mel[None].to(device) for mel in mels)):
        yield piece[0, 0].float().cpu()


@torch.no_grad()
def resynthesise(generator: Vocoder, mel: MelSpectrogram, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """A signal float32 [T] from its own mel spectrogram, in pieces of the same length in all. What is shorter than a window, or
    ends within a frame, is followed by silence for the transform."""
    whole = max(mel.length, -(-len(x) // mel.hop) * mel.hop)
    padded = torch.nn.functional.pad(x, (0, whole - len(x)))
    left = len(x)
    for piece in speak(generator, (part[0] for part in mel.pieces(padded[None].to(mel.window.device), FRAMES))):
        yield piece[:left]
        left -= min(left, len(piece))


def save(pieces: Iterable[torch.Tensor], path: Path, rate: int) -> Path:
    """Write a signal that comes in pieces [T] as WAV of 16 bits; the file appears under its name only when it is complete. Raises
    ValueError for samples that are NaN or Inf."""
    path = named(path, (".wav",))
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        for piece in pieces:
            if not piece.isfinite().all():
                raise ValueError(f"{path}: the network makes samples that are NaN or Inf")
            file.writeframes(scaled(piece.numpy()).tobytes())
    return path


def speak_folder(recipe, networks: dict, source: str, out: Path) -> int:
    """Resynthesises every recording of a folder, a zip, or one file, at the run's rate, as WAV files of the same names in `out`;
    returns how many.

    Raises ValueError that names what is no recording, FileExistsError rather than replace a file; what was finished before stays.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected recordings ({', '.join((*WAV, *OTHERS))})")
    if path.is_file() and path.suffix.lower() in (*WAV, *OTHERS):
        found = one_file(path)
    else:
        found = (folder_source if path.is_dir() else zip_source)(path, (*WAV, *OTHERS))
    if not found.keys:
        raise ValueError(f"{path}: no recordings found (looked for {', '.join((*WAV, *OTHERS))})")
    keys = sorted(found.keys)
    names = target_names(keys, ".wav")
    if there := [name for name in names if (out / name).exists()]:
        raise FileExistsError(
            f"{out} already holds {there[0]}, one of {len(there)} files to write: choose another --out"
        )
    rate = recipe.data["rate"]
    recordings = readable(found, keys, rate, strict=True, skipped=[])
    for (_, samples, _), name in zip(recordings, names, strict=True):
        x = torch.from_numpy(samples.mean(0))
        save(resynthesise(networks["generator"], recipe.heard(networks), x), out / name, rate)
    return len(keys)


def speak_mel(recipe, networks: dict, source: Path, out: Path) -> Path:
    """Writes the speech of a mel spectrogram in an .npy, floating [bands, frames] or [1, bands, frames], as the run hears it:
    natural logarithms (`fastgan.nn.MelSpectrogram`).

    Raises ValueError for another shape or type, or numbers that are not finite.
    """
    try:
        mel = np.load(source, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{source}: no readable .npy ({error})") from error
    if not isinstance(mel, np.ndarray):
        raise ValueError(f"{source}: a zip of arrays, expected one array, as numpy.save writes it")
    mel = mel[0] if mel.ndim == 3 and len(mel) == 1 else mel
    generator = networks["generator"]
    bands = generator.config.bands
    if mel.dtype.kind != "f" or mel.ndim != 2 or mel.shape[0] != bands or not mel.shape[1]:
        raise ValueError(f"{source}: it holds {mel.dtype} {list(mel.shape)}, expected floating [{bands}, frames]")
    if not (np.abs(mel) <= np.finfo(np.float32).max).all():
        raise ValueError(f"{source}: it holds numbers that are not finite in float32")
    parts = (mel[:, i : i + FRAMES] for i in range(0, mel.shape[1], FRAMES))
    pieces = (torch.from_numpy(np.array(part, np.float32)) for part in parts)
    return save(speak(generator, pieces), out, recipe.data["rate"])
