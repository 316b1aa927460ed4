"""Recordings of any length, for vocoders: the embedded speech, and folders of files. Those that are held out are loaded with the
others, as they are heard and measured while the others are trained on."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from fastgan._surroundings import on_cpu
from fastgan.data.dataset import shown
from fastgan.data.files import (
    LARGEST_FILE,
    Source,
    folder_source,
    full_name,
    one_file,
    reason,
    warn_skipped,
    zip_source,
)
from fastgan.data.wav import OTHERS, WAV, decode, resample

ASSETS = Path(__file__).parent / "assets"
NAME, RATE = "speech", 16000  # of the embedded set
_EXTENSIONS = (*WAV, *OTHERS)
_HELD_OUT = 10  # one recording in so many, where no part is called test


class Recordings(torch.utils.data.Dataset):
    """Recordings of one channel, and windows of them to train on.

    ``dataset[i]`` is a window, float32 [1, 2 length], of which a random part of `length` samples is to be taken: windows begin
    every `length` samples, so that each place of a recording can be in such a part. A recording shorter than a window is
    followed by silence.

    Attributes: ``recordings`` and ``held_out``, lists of float32 [T] in [-1, 1]; ``files`` and ``held_out_files``, their names;
    ``rate``, samples a second; ``length``; ``channels`` (1), ``num_classes`` (0), ``class_names``; ``skipped``: list of
    ``(file, reason)``; ``name``.

    Raises ValueError without recordings, for other types, or samples beyond [-1, 1].
    """

    channels, num_classes = 1, 0

    def __init__(
        self,
        recordings: Sequence[torch.Tensor],
        rate: int,
        length: int,
        *,
        name: str,
        held_out: Sequence[torch.Tensor] = (),
        files: Sequence[str] = (),
        held_out_files: Sequence[str] = (),
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        if not recordings:
            raise ValueError(f"{name}: no recordings")
        for one in itertools.chain(recordings, held_out):
            if one.dtype != torch.float32 or one.dim() != 1 or not one.numel() or not one.abs().max() <= 1:
                raise ValueError(
                    f"{name}: a recording is {one.dtype} {list(one.shape)}, expected float32 [T] in -1 to 1"
                )
        if not isinstance(rate, Integral) or rate < 1 or length < 1:
            raise ValueError(f"{name}: rate is {rate!r} and length {length!r}, expected positive whole numbers")
        self.recordings, self.held_out = list(recordings), list(held_out)
        self.rate, self.length, self.name = int(rate), int(length), name
        self.files, self.held_out_files, self.skipped = list(files), list(held_out_files), list(skipped)
        self.class_names: list[str] = []
        self._windows = [
            (n, start) for n, one in enumerate(recordings) for start in range(0, max(1, len(one) - length), length)
        ]

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor]:
        number, start = self._windows[index]
        recording = self.recordings[number]
        start = max(0, min(start, len(recording) - 2 * self.length))
        window = recording[start : start + 2 * self.length]
        return (torch.nn.functional.pad(window, (0, 2 * self.length - len(window)))[None],)

    def __repr__(self) -> str:
        return f"Recordings({self.name!r}: {self.about})"

    @property
    def about(self) -> str:
        """What a run says of its data."""

        def size(some: list[torch.Tensor]) -> str:
            return f"{len(some)} recordings of {sum(map(len, some)) / self.rate:.4g} s"

        return f"{size(self.recordings)} at {self.rate} Hz, {size(self.held_out)} held out"


@on_cpu
def load_recordings(
    name_or_path: str | Path,
    *,
    rate: int | None = None,
    length: int = 8192,
    split: str | None = None,
    strict: bool = False,
) -> Recordings:
    """Load recordings from a folder or zip of WAV, FLAC, Ogg, MP3 or AIFF files, or the embedded set "speech": 75 sentences,
    202 s, one speaker, 16 kHz. Several channels are mixed.

    Args:
        rate: samples a second; recordings of another rate are resampled (SciPy's ``resample_poly``). None: as they are, which
            must be the same of all.
        length: samples of what is trained on at a time.
        split: the part to train on, a sub-folder's name. None: train, where there is such a part, else all; what is called test
            is held out, or every tenth recording where nothing is.
        strict: raise ValueError at the first unreadable file instead of skipping it with a warning.

    Raises ValueError for bad arguments and unreadable data, FileNotFoundError for a missing path, ImportError that names the
    package where one is missing.

    Examples:
        >>> fastgan.data.load_recordings("speech")
        Recordings('speech': 68 recordings of 180.6 s at 16000 Hz, 7 recordings of 21.51 s held out)
    """
    for option, value in (("rate", rate), ("length", length)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{option} is {value!r}, expected a positive integer")
    if name_or_path == NAME:
        rate = rate or RATE
        found = {
            part: [(name, resample(x[None], RATE, rate)[0]) for name, x in some]
            for part, some in embedded(split).items()
        }
        return _made(NAME, found, rate, length, [])
    path = Path(name_or_path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"{name_or_path}: no such file or folder; expected {NAME}, or a folder or zip of {', '.join(_EXTENSIONS)}"
        )
    if path.is_file() and path.suffix.lower() in _EXTENSIONS:
        source = one_file(path)
    else:
        source = (folder_source if path.is_dir() else zip_source)(path, _EXTENSIONS)
    return _from_files(source, rate, length, split, strict)


Found = dict[str, list[tuple[str, np.ndarray]]]


def embedded(split: str | None = None) -> Found:
    """(name, float32 [T] at `RATE`) of the embedded speech, by parts: what to train on, and what is held out.

    Raises ValueError for another split than train and test, ImportError without soundfile, which reads FLAC.
    """
    if split not in (None, "train", "test"):
        raise ValueError(f"{NAME}: split is {split!r}, expected one of 'train', 'test'")
    samples, _ = decode((ASSETS / "speech16k.flac").read_bytes(), ".flac")
    found: Found = {"train": [], "test": []}
    for row in json.loads((ASSETS / "speech16k.json").read_text(encoding="utf-8"))["clips"]:
        found[row["split"]].append((row["name"], samples[0, row["start"] : row["start"] + row["samples"]]))
    return found if split in (None, "train") else {"train": found["test"], "test": found["test"]}


def readable(
    source: Source, keys: Sequence[str], rate: int | None, strict: bool, skipped: list[tuple[str, str]]
) -> Iterator[tuple[str, np.ndarray, int]]:
    """(key, float32 [C, T], samples per second) of each readable recording, at `rate` where that is given. The others join
    `skipped`, with the reason; `strict` raises ValueError instead."""
    for key in keys:
        try:
            samples, own = decode(source.read(key, LARGEST_FILE), PurePosixPath(key).suffix.lower())
            samples = samples if rate is None else resample(samples, own, rate)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # soundfile raises its own
            if strict:
                raise ValueError(f"{full_name(source, key)}: {reason(error)}") from error
            skipped.append((full_name(source, key), reason(error)))
        else:
            yield key, samples, rate or own


def _from_files(source: Source, rate: int | None, length: int, split: str | None, strict: bool) -> Recordings:
    if strict and source.skipped:
        raise ValueError("{}: {}".format(*source.skipped[0]))
    parts = _parts(source, split)
    found: Found = {"train": [], "test": []}
    skipped, first = list(source.skipped), None
    for part, keys in parts.items():
        for key, samples, own in readable(source, keys, rate, strict, skipped):
            first = first or (key, own)
            if own != first[1]:
                raise ValueError(
                    f"{source.name}: recordings differ in rate ({shown([first[0]])}: {first[1]}, {shown([key])}: {own}): give "
                    "rate="
                )
            found[part].append((key, samples.mean(0)))
    if not found["train"]:
        why = "; {}: {}".format(*skipped[0]) if skipped else ""
        raise ValueError(f"{source.name}: no readable recordings to train on ({', '.join(_EXTENSIONS)}){why}")
    warn_skipped(source.name, skipped, sum(map(len, parts.values())))
    return _made(source.name, found, first[1], length, skipped)


def _parts(source: Source, split: str | None) -> dict[str, list[str]]:
    """Names of files to train on, and of those held out."""
    keys = sorted(source.keys)

    def within(name: str) -> list[str]:
        return [key for key in keys if name in PurePosixPath(key).parts[:-1]]

    test = within("test")
    if split is not None:
        train = within(split)
        if not train:
            raise ValueError(f"{source.name}: split is {split!r}, and no sub-folder of that name holds recordings")
    elif test:
        train = within("train") or _without(keys, test)
    elif len(keys) > 1:
        test = keys[_HELD_OUT - 1 :: _HELD_OUT] or keys[-1:]
        train = _without(keys, test)
    else:
        train = keys
        warnings.warn(f"{source.name}: one recording alone, so none is held out", stacklevel=3)
    return {"train": train, "test": test}


def _without(keys: list[str], others: list[str]) -> list[str]:
    left_out = set(others)
    return [key for key in keys if key not in left_out]


def _made(name: str, found: Found, rate: int, length: int, skipped: list[tuple[str, str]]) -> Recordings:
    train, test = (
        ([file for file, _ in some], [torch.from_numpy(np.ascontiguousarray(x)) for _, x in some])
        for some in (found["train"], found["test"])
    )
    return Recordings(
        train[1],
        rate,
        length,
        name=name,
        held_out=test[1],
        files=train[0],
        held_out_files=test[0],
        skipped=skipped,
    )
