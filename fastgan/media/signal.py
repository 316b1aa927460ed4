"""Signals: float32 [N, C, T] in [-1, 1] with a sampling rate; sound, or anything else that is measured at regular times."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from fastgan.files import complete, named
from fastgan.media.image import embedded
from fastgan.media.medium import COLOURS, Medium, figure, first
from fastgan.options import Count

CELL = 192, 64  # pixels of one sample in a picture, width and height
_MOST_CELLS = 1 << 14  # 200 million pixels
_RANGE = 80.0  # decibels from the strongest to black
_EMBEDDED = 4 << 20  # bytes of a WAV file that report.html holds; a larger one it links to
# Of the strength of a frequency, from none to the strongest: red, green and blue.
_MAP = np.array([(0, 0, 8), (74, 16, 110), (190, 52, 85), (250, 142, 40), (252, 252, 190)], float)


class Signal(Medium):
    """Signals of one length and rate, in any number of channels."""

    name, unit, expected = "signal", "signals", "a tensor [N, C, T] in [-1, 1]"

    @dataclass
    class Options:
        """Options of a run on signals."""

        split: str | None = None
        """The part of the data set to train on: a sub-folder's name (train, val, ...)."""
        rate: Count | None = None
        """Samples a second: recordings of another rate are resampled. Default: as they are; an .npy does not say it."""
        length: Count | None = None
        """Samples of an item: longer recordings are cut into several, shorter ones are followed by silence. Default: as they
        are."""
        channels: Count | None = None
        """1: mix the channels of a recording; more: repeat its only one. Default: as they are."""
        strict: bool = False
        """Stop at an unreadable recording instead of skipping and counting it."""

    class Facts(TypedDict):
        """What a recipe needs to know of a set of signals; `rate` in samples a second, `length` in samples."""

        name: str
        rate: int
        channels: int
        length: int
        num_classes: int
        class_names: list[str]

    @classmethod
    def load(cls, name: str, **options):
        """See `fastgan.data.load_signals`."""
        from fastgan.data import load_signals

        return load_signals(name, **options)

    @classmethod
    def describe(cls, dataset) -> dict[str, Any]:
        """What a data set says of itself; of one that says its `rate` alone, such as a torch data set of (signal, label), what
        its first item shows: classes are then those in its attribute `classes`.

        Raises ValueError without a rate, or where the first item is no signal [C, T].
        """
        if all(hasattr(dataset, fact) for fact in cls.Facts.__annotations__):
            return super().describe(dataset)
        name, signal = getattr(dataset, "name", type(dataset).__name__), first(dataset)
        if signal is None or signal.dim() != 3:
            found = "no tensor" if signal is None else f"{signal.dtype} {list(signal.shape[1:])}"
            raise ValueError(f"{name}: its first item begins with {found}, expected a signal, a tensor [C, T]")
        facts, classes = {"rate": getattr(dataset, "rate", None)}, [str(c) for c in getattr(dataset, "classes", ())]
        facts |= {"name": name, "rate": _rate(facts), "channels": signal.shape[1], "length": signal.shape[2]}
        return facts | {"num_classes": len(classes), "class_names": classes}

    @classmethod
    def to_device(cls, item: torch.Tensor, device: torch.device, layout: torch.memory_format) -> torch.Tensor:
        """int16 becomes float32 in [-1, 1), float64 float32, on the device."""
        item = item.to(device, non_blocking=True)
        if item.dtype == torch.int16:
            return item.float() / 32768
        return item.float() if item.is_floating_point() else item

    @classmethod
    def check(cls, samples, facts: Mapping[str, Any]) -> bool:
        return _rate(facts) > 0 and isinstance(samples, torch.Tensor) and samples.dim() == 3

    @classmethod
    def save(cls, samples: torch.Tensor, path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        """Three files: NAME.png, the waveforms, channels over each other in colours; NAME.spectrogram.png, in decibels up to half
        the rate; NAME.wav, one sample after the other with short gaps. A path without a suffix gets .png.

        facts: `rate`, in samples a second. Raises ValueError without it, or for more samples than a picture should hold.
        """
        path, rate = named(path, (".png", ".wav")), _rate(facts)
        if len(samples) > _MOST_CELLS:
            raise ValueError(f"{len(samples)} signals are too many for one picture, expected at most {_MOST_CELLS}")
        finite = _clipped(samples)
        # A program that waits for the picture finds the others beside it.
        gap = np.zeros((finite.shape[1], min(rate // 5, finite.shape[2])), np.float32)
        joined = np.concatenate([part for sample in finite for part in (sample, gap)][:-1], axis=1)
        sound, *pictures = cls.files(path)
        cls.save_one(torch.from_numpy(joined), sound, facts)
        for file, cells in zip(pictures, (_spectrograms(finite), map(_waveform, finite)), strict=True):
            with complete(file) as temporary:
                _sheet(cells, len(finite)).save(temporary, format="PNG")
        return path

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """What `save` writes for `path`, which has its suffix."""
        return [path.with_suffix(suffix) for suffix in (".wav", ".spectrogram.png", ".png")]

    @classmethod
    def save_one(cls, sample: torch.Tensor, path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        """A WAV file of 16 bits of the signal [C, T]."""
        from fastgan.data.wav import write_wav

        path, rate = named(path, (".wav",)), _rate(facts)
        with complete(path) as temporary:
            write_wav(temporary, _clipped(sample), rate)
        return path

    @classmethod
    def html(cls, path: Path) -> str:
        """The waveforms, the spectrogram and a player, as far as their files are there."""
        spectrogram, sound = path.with_suffix(".spectrogram.png"), path.with_suffix(".wav")
        parts = [embedded(picture) for picture in (path.with_suffix(".png"), spectrogram) if picture.is_file()]
        if sound.is_file():
            source = f"{path.parent.name}/{sound.name}"  # report.html lies above the folder of samples
            if sound.stat().st_size <= _EMBEDDED:
                source = f"data:audio/wav;base64,{base64.b64encode(sound.read_bytes()).decode()}"
            parts.append(f'<audio controls src="{source}"></audio>')
        return figure("<br>".join(parts), path)


def _rate(facts: Mapping[str, Any] | None) -> int:
    rate = (facts or {}).get("rate")
    if not isinstance(rate, Integral) or rate < 1:
        raise ValueError(
            f"the signals' sampling rate is {rate!r}: the data set's attribute `rate`, or the recipe's `describe`, must say it, "
            "as a whole number of samples a second"
        )
    return int(rate)


def _clipped(samples: torch.Tensor) -> np.ndarray:
    """float32 in [-1, 1]; what is no number becomes silence."""
    return samples.detach().cpu().float().nan_to_num(0.0, 1.0, -1.0).clamp(-1, 1).numpy()


def _sheet(cells: Iterator[np.ndarray], count: int):
    """Pictures uint8 [H, W, 3] of `CELL` size as one PIL image, about square, on grey."""
    import PIL.Image

    (width, height), pad = CELL, 2
    columns = math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, 3), 229, np.uint8)
    for i, cell in enumerate(cells):
        y, x = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        sheet[y : y + height, x : x + width] = cell
    return PIL.Image.fromarray(sheet)


def _waveform(signal: np.ndarray) -> np.ndarray:
    """float32 [C, T] -> uint8 [H, W, 3]."""
    import PIL.Image
    import PIL.ImageDraw

    width, height = CELL
    picture = PIL.Image.new("RGB", CELL, "white")
    draw = PIL.ImageDraw.Draw(picture)
    draw.line([(0, height // 2), (width, height // 2)], fill="#e4e4e7")
    length = signal.shape[1]
    if length > 2 * width:  # the highest and the lowest value of each column of pixels
        starts = np.arange(width) * length // width
        ends = np.maximum.reduceat(signal, starts, 1), np.minimum.reduceat(signal, starts, 1)
        signal, at = np.stack(ends, 2).reshape(len(signal), -1), np.arange(width).repeat(2)
    else:
        at = (np.arange(length) + 0.5) * width / length
    for channel, values in enumerate(signal):
        rows = (1 - values) / 2 * (height - 1)
        draw.line(list(zip(at.tolist(), rows.tolist(), strict=True)), fill=COLOURS[channel % len(COLOURS)])
    return np.asarray(picture)


def _spectrograms(signals: np.ndarray) -> Iterator[np.ndarray]:
    """float32 [N, C, T] -> N pictures uint8 [H, W, 3]: time from left to right, frequency upwards, the power of all channels
    against the greatest in any picture."""
    import PIL.Image

    length = signals.shape[2]
    size = 1 << max(1, min(9, int(math.log2(length / 4)) if length >= 4 else 1))
    window, hop = torch.hann_window(size, dtype=torch.float32, device="cpu"), max(1, length // CELL[0])

    def power(signal: np.ndarray) -> torch.Tensor:
        spectrum = torch.stft(
            torch.from_numpy(signal), size, hop, window=window, pad_mode="constant", return_complex=True
        )
        return spectrum.abs().square().mean(0)

    greatest = max(float(power(signal).max()) for signal in signals) or 1.0
    for signal in signals:
        decibels = 10 * (power(signal) / greatest + 10 ** (-_RANGE / 10)).log10().flip(0).numpy()
        level = (1 + decibels / _RANGE).clip(0, 1) * (len(_MAP) - 1)
        colours = [np.interp(level, np.arange(len(_MAP)), _MAP[:, i]) for i in range(3)]
        picture = PIL.Image.fromarray(np.stack(colours, -1).astype(np.uint8))
        yield np.asarray(picture.resize(CELL, PIL.Image.Resampling.BILINEAR))
