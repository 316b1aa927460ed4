"""Sets of signals: recordings cut into items of one length, and arrays of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from fastgan.data.archive import read_arrays, read_classes
from fastgan.data.classes import find_classes
from fastgan.data.dataset import about_classes, checked_labels, shown
from fastgan.data.files import Source, TooLarge, one_file, open_source, warn_skipped
from fastgan.data.registered import DATA, load_registered, refuse
from fastgan.data.speech import NAME, RATE, embedded, readable
from fastgan.data.wav import OTHERS, WAV, resample

EXTENSIONS = (*WAV, *OTHERS)
DATA.own({NAME: "fastgan.data.speech:embedded"})


class SignalDataset(torch.utils.data.Dataset):
    """Signals of one length in one float32 tensor, with integer labels.

    ``dataset[i]`` is ``(signal, label)``: ``signal`` float32 [C, T] is a view of the shared store, ``label`` an int, 0 for
    all where there are no classes.

    Attributes: ``signals`` float32 [N, C, T] in [-1, 1]; ``rate``, samples a second; ``channels`` and ``length``, C and T;
    ``labels`` int64 [N]; ``name``; ``num_classes`` (0 where there are none); ``class_names``; ``files``: for each signal the
    recording that it is a part of, empty where the source has none; ``skipped``: list of ``(file, reason)``;
    ``class_source``: what was taken for classes.

    Raises ValueError for tensors of other shapes or types, or samples that are beyond [-1, 1] or no numbers.
    """

    def __init__(
        self,
        signals: torch.Tensor,
        rate: int,
        labels: torch.Tensor | None = None,
        *,
        name: str,
        class_names: Sequence[str] = (),
        files: Sequence[str] = (),
        skipped: Sequence[tuple[str, str]] = (),
        class_source: str = "",
    ) -> None:
        if signals.dtype != torch.float32 or signals.ndim != 3 or 0 in signals.shape:
            raise ValueError(f"{name}: signals is {signals.dtype} {list(signals.shape)}, expected float32 [N, C, T]")
        if not isinstance(rate, Integral) or rate < 1:
            raise ValueError(f"{name}: rate is {rate!r}, expected a whole number of samples a second")
        largest = max(abs(float(end)) for end in signals.aminmax())
        if not largest <= 1:
            raise ValueError(f"{name}: signals reach {largest:.4g}, expected -1 to 1: divide them by their full scale")
        self.signals, self.rate, self.name = signals, int(rate), name
        self.labels = checked_labels(labels, class_names, len(signals), name, "signal")
        self.channels, self.length = signals.shape[1:]
        self.class_names, self.num_classes = list(class_names), len(class_names)
        self.files, self.skipped, self.class_source = list(files), list(skipped), class_source

    def __len__(self) -> int:
        return len(self.signals)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.signals[index], int(self.labels[index])

    def __repr__(self) -> str:
        return f"SignalDataset({self.name!r}: {self._size}, {self.num_classes} classes, {len(self.skipped)} skipped)"

    @property
    def _size(self) -> str:
        channels = f"{self.channels} channel{'s' * (self.channels > 1)}"
        seconds = self.length / self.rate
        return f"{len(self)} signals of {self.length} samples ({seconds:.3g} s at {self.rate} Hz), {channels}"

    @property
    def about(self) -> str:
        """What a run says of its data."""
        return f"{self._size}, {about_classes(self.class_names, self.class_source)}"

    @property
    def streams(self) -> tuple[int, ...]:
        """Lengths of the index streams that one batch draws from; see `fastgan.data.Loader`."""
        return (len(self),)

    def gather(self, indices: Sequence[np.ndarray], flips: Sequence[None]) -> tuple[torch.Tensor, ...]:
        """``indices[0]`` int64 [B] -> signals float32 [B, C, T], labels int64 [B]; a signal has no mirror image."""
        index = torch.from_numpy(indices[0])
        return self.signals[index], self.labels[index]


def load_signals(
    name_or_path: str | Path,
    *,
    rate: int | None = None,
    length: int | None = None,
    channels: int | None = None,
    split: str | None = None,
    strict: bool = False,
    code: bool = False,
) -> SignalDataset:
    """Load signals from a folder or zip of recordings, from one recording, or from an ``.npy`` or ``.npz`` file; the embedded
    "speech" (`fastgan.data.load_recordings`); or what is registered by that name (:mod:`fastgan.data.registered`).

    Recordings are WAV files (integers of 8 to 32 bits, floats), and FLAC, Ogg, MP3 and AIFF where the package soundfile is
    installed. Classes come from sub-folders or a ``dataset.json``, as for images (`fastgan.data.load`).

    Arrays are [N, C, T] or [N, T]: floating in [-1, 1], or int16, int32 or uint8 at full scale; of an ``.npz`` its only one,
    or ``signals``, with optional ``rate``, ``labels`` integer [N] and ``class_names``. They are read without pickle.

    Args:
        rate: samples a second. Recordings of another rate are resampled (SciPy's ``resample_poly``). None: as they are, which
            must be the same of all. An ``.npy`` says none: it is what you say.
        length: samples of an item. A longer recording is cut into items that follow one another, its rest is left out; a
            shorter one is followed by silence. None: as they are, which must be the same of all.
        channels: 1 mixes a recording's channels; more repeat its only one. None: as they are.
        split: the sub-folder of that name (train, val, ...), in a folder or zip.
        strict: raise ValueError at the first unreadable file instead of skipping it with a warning.
        code: as in `fastgan.data.load`.

    Raises ValueError for bad arguments and unreadable data, FileNotFoundError for a missing path, ImportError that names the
    package where one is missing, `fastgan.data.files.TooLarge` where memory does not suffice.
    """
    for option, value in (("rate", rate), ("length", length), ("channels", channels)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{option} is {value!r}, expected a positive integer or None")
    if not isinstance(name_or_path, (str, Path)):
        raise ValueError(f"{name_or_path!r}: expected one set of signals, the path of it")
    options = {"rate": rate, "length": length, "channels": channels, "split": split, "strict": strict}
    if (found := load_registered(name_or_path, options, load_signals, code)) is not None:
        refuse(name_or_path, found[1])
        return found[0]
    if name_or_path == NAME:
        return _from_speech(rate, length, channels, split)
    path = Path(name_or_path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"{name_or_path}: no such file or folder; expected {NAME}, a folder or zip of "
            f"{', '.join(EXTENSIONS)}, or an .npy or .npz"
        )
    suffix = "folder" if path.is_dir() else path.suffix.lower()
    if suffix not in ("folder", ".zip", ".npy", ".npz", *EXTENSIONS) or not (path.is_dir() or path.is_file()):
        raise ValueError(
            f"{path}: expected a folder, a .zip, an .npy or .npz, or a recording ({', '.join(EXTENSIONS)})"
        )
    if suffix in ("folder", ".zip"):
        return _from_recordings(open_source(path, split, EXTENSIONS), rate, length, channels, strict)
    if split is not None:
        raise ValueError(f"{path}: split={split!r} is not offered for a file")
    if suffix in EXTENSIONS:
        return _from_recordings(one_file(path), rate, length, channels, strict=True)
    return _from_arrays(path, suffix, rate, length, channels)


def _from_speech(rate: int | None, length: int | None, channels: int | None, split: str | None) -> SignalDataset:
    parts = embedded(split)
    clips = [clip for part in (("train", "test") if split is None else ("train",)) for clip in parts[part]]
    cut, files = _Items(NAME, rate, length, channels), []
    for name, samples in clips:
        files += [name] * cut.add(resample(samples[None], RATE, rate or RATE), rate or RATE, name)
    return SignalDataset(cut.signals(), cut.rate, name=NAME, files=files)


def _from_recordings(
    source: Source, rate: int | None, length: int | None, channels: int | None, strict: bool
) -> SignalDataset:
    if not source.keys:
        first = "; {}: {}".format(*source.skipped[0]) if source.skipped else ""
        raise ValueError(f"{source.name}: no recordings found (looked for {', '.join(EXTENSIONS)}){first}")
    if strict and source.skipped:
        raise ValueError("{}: {}".format(*source.skipped[0]))
    classes = find_classes(source.name, source.keys, source.manifests, source.read)
    cut, rows, skipped = _Items(source.name, rate, length, channels), [], list(source.skipped)
    row_of = {key: row for row, key in enumerate(source.keys)}
    for key, samples, found in readable(source, source.keys, rate, strict, skipped):
        rows += [row_of[key]] * cut.add(samples, found, key)
    if not rows:
        raise ValueError(
            f"{source.name}: none of {len(source.keys)} recordings is readable; first: {skipped[0][0]} ({skipped[0][1]})"
        )
    warn_skipped(source.name, skipped, len(source.keys))
    return SignalDataset(
        cut.signals(),
        cut.rate,
        torch.from_numpy(classes.labels[rows]),
        name=source.name,
        class_names=classes.names,
        class_source=classes.source,
        files=[source.keys[row] for row in rows],
        skipped=skipped,
    )


def _from_arrays(path: Path, suffix: str, rate: int | None, length: int | None, channels: int | None) -> SignalDataset:
    held = _load_npy(path) if suffix == ".npy" else read_arrays(path, ("signals", "rate", "labels", "class_names"))
    signals = _full_scale(path, held["signals"])
    found = rate
    if "rate" in held:
        if held["rate"].size != 1 or held["rate"].dtype.kind not in "iu" or int(held["rate"].item()) < 1:
            raise ValueError(
                f"{path}: rate is {held['rate'].dtype} {list(held['rate'].shape)}, expected one whole number"
            )
        found = int(held["rate"].item())
    if found is None:
        raise ValueError(f"{path}: says no sampling rate: give rate=, in samples a second")
    classes = read_classes(path, held, len(signals), "signal")
    cut, rows = _Items(str(path), rate, length, channels), []
    for row, one in enumerate(signals):
        rows += [row] * cut.add(resample(one, found, rate or found), rate or found, f"number {row}")
    return SignalDataset(
        cut.signals(),
        cut.rate,
        torch.from_numpy(classes.labels[rows]),
        name=str(path),
        class_names=classes.names,
        class_source=classes.source,
    )


def _load_npy(path: Path) -> dict[str, np.ndarray]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python source, with all that can be wrong with that
        raise ValueError(f"{path}: no readable .npy ({type(error).__name__}: {shown([str(error)])})") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: no .npy but another file of numpy's")
    return {"signals": array}


def _full_scale(path: Path, signals: np.ndarray) -> np.ndarray:
    """float32 [N, C, T], not yet checked to be in [-1, 1]."""
    scales = {"i2": (0, 1 << 15), "i4": (0, 1 << 31), "u1": (128, 128)}
    kind = f"{signals.dtype.kind}{signals.dtype.itemsize}"
    if signals.ndim not in (2, 3) or 0 in signals.shape or not (signals.dtype.kind == "f" or kind in scales):
        raise ValueError(
            f"{path}: signals is {signals.dtype} {list(signals.shape)}, expected [N, C, T] or [N, T] of floating samples in "
            "-1 to 1, or of int16, int32 or uint8"
        )
    zero, scale = scales.get(kind, (0, 1))
    _check_room(str(path), 8 * signals.size)
    made = signals.astype(np.float32)  # an int32 keeps 24 of its bits, as any float32 does
    if kind in scales:
        made = (made - zero) / np.float32(scale)
    return made if made.ndim == 3 else made[:, None]


class _Items:
    """Recordings cut into items of one length; with nothing asked for, all must be alike."""

    def __init__(self, name: str, rate: int | None, length: int | None, channels: int | None):
        self.name, self.rate, self.length, self.channels = name, rate, length, channels
        self._parts: list[np.ndarray] = []
        self._size = 0
        self._first = ""

    def add(self, samples: np.ndarray, rate: int, file: str) -> int:
        """Cut float32 [C, T]; returns how many items it gave. Raises ValueError where it is unlike the others."""
        channels = self.channels or samples.shape[0]
        if channels != samples.shape[0] and 1 not in (channels, samples.shape[0]):
            raise ValueError(
                f"{self.name}: {shown([file])} has {samples.shape[0]} channels, of which channels={channels} cannot be made;"
                " expected 1, or as many as there are"
            )
        length = self.length or samples.shape[1]
        kind = {"rate": rate, "channels": channels, "length": length}
        if not self._parts:
            self._first, self._kind, self.rate = file, kind, rate
        for option, value in kind.items():
            if value != self._kind[option]:
                raise ValueError(
                    f"{self.name}: signals differ in {option} ({shown([self._first])}: {self._kind[option]}, {shown([file])}: "
                    f"{value}): give {option}="
                )
        count = max(1, samples.shape[1] // length)
        self._size += 4 * channels * count * length
        _check_room(self.name, 2 * self._size)  # the parts, and then all in one
        kept = samples[:, : count * length]
        room = np.zeros((channels, count * length), np.float32)
        room[:, : kept.shape[1]] = kept.mean(0) if channels == 1 else kept
        self._parts.append(room.reshape(channels, count, length).swapaxes(0, 1))
        return count

    def signals(self) -> torch.Tensor:
        """All items, float32 [N, C, T]."""
        return torch.from_numpy(np.concatenate(self._parts))


def _check_room(name: str, need: int) -> None:
    if hasattr(os, "sysconf") and need > (limit := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2):
        raise TooLarge(
            f"{name}: signals need {need / 2**30:.1f} GiB, more than half of the memory ({limit / 2**30:.1f} GiB); a lower rate= "
            "or channels=1 takes less"
        )
