"""Shards: tar files of samples in the convention of webdataset, read from end to end.

Files of one sample follow each other and share a name up to its first dot: ``a/000.png`` the picture, ``a/000.cls`` its class in
digits. Nothing else of a sample is read. Headers are read alone where samples are passed over, so a resumed run finds its place
without decoding, and without reading pictures.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from fastgan.data.dataset import Absent, shown
from fastgan.data.files import EXTENSIONS, LARGEST_FILE
from fastgan.data.source import generator

_MOST = 1_000_000  # shards
_LONGEST = 20  # characters of a class


def fingerprint(paths: list[Path]) -> str:
    """Names, sizes and times of the shards: what changes when one is written anew."""
    return str([(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths])


def package() -> Any:
    """The package webdataset. ImportError with the remedy where it is missing."""
    try:
        import webdataset
    except ImportError as error:
        raise ImportError('reading shards (.tar) needs webdataset: pip install "fastgan[streams]"') from error
    return webdataset


def shard_paths(name: str, split: str | None) -> list[Path] | None:
    """The shards that `name` stands for: a .tar, a pattern of them with braces, or a folder that holds .tar files and neither
    pictures nor folders (with `split`: its sub-folder of that name). None where it is no name of shards.

    Raises FileNotFoundError that names the first that is missing, ValueError for a split of single files.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        folder = path / split if split and (path / split).is_dir() else path
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        found = [entry for entry in entries if entry.suffix == ".tar" and entry.is_file()]
        others = any(entry.suffix.lower() in EXTENSIONS or entry.is_dir() for entry in entries)
        if not found or others:
            return None
        if split and folder == path:
            raise Absent(f"{name}: split={split!r} needs a sub-folder of that name; there are shards only")
        return found
    if not name.endswith(".tar"):
        return None
    if split:
        raise Absent(f"{name}: split={split!r} is not offered for single shards")
    if "{" in name and not path.exists():
        package()  # which brings braceexpand
        import braceexpand

        # A range is a list before the first name comes.
        spans = [abs(int(b) - int(a)) for a, b in re.findall(r"\{(-?\d{1,18})\.\.(-?\d{1,18})", name)]
        try:
            names = [] if max(spans, default=0) > _MOST else braceexpand.braceexpand(name)
            names = list(itertools.islice(names, _MOST + 1))
        except braceexpand.UnbalancedBracesError as error:
            raise ValueError(f"{name}: {error}") from error
        if not 0 < len(names) <= _MOST:
            raise ValueError(f"{shown([name])}: more than {_MOST} shards")
        paths = [Path(one).expanduser() for one in names]
    else:
        paths = [path]
    for one in paths:
        if not one.is_file():
            raise FileNotFoundError(f"{one}: no such shard" + ("" if name == str(one) else f"; {name} names it"))
    return paths


@dataclass
class Shards:
    """Samples of the shards `paths`: ``{"__name__", "image", "cls"}``, encoded, in the order in which they are stored.

    The part of a process: the shards are in an order of their own in each epoch, and process r takes number r, r + world_size,
    ... of them; where there are fewer than processes, all read all shards, and r takes samples r, r + world_size, ... of each.

    What of a shard cannot be read is left out with a warning; with `strict` it is a ValueError.
    """

    resume: ClassVar[str] = "shards: resume is exact"

    paths: list[Path]
    strict: bool = False
    rank: int = 0
    world_size: int = 1
    seed: int | None = None
    _epoch: int = field(default=0, init=False)
    _start: tuple[int, int] = field(default=(0, 0), init=False)
    _place: tuple[int, int] = field(default=(0, 0), init=False)

    def __post_init__(self) -> None:
        package()

    def part(self, rank: int, world_size: int, seed: int) -> Shards:
        return dataclasses.replace(self, rank=rank, world_size=world_size, seed=seed)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        shard, sample = self._place
        return {"shard": shard, "sample": sample, "shards": len(self.paths)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["shards"] != len(self.paths):
            raise ValueError(f"there are {len(self.paths)} shards, and the run was trained with {state['shards']}")
        self._start = state["shard"], state["sample"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        (first, passed), self._start = self._start, (0, 0)
        order = (
            range(len(self.paths))
            if self.seed is None
            else generator(self.seed, self._epoch).permutation(len(self.paths))
        )
        enough = len(self.paths) >= self.world_size
        for number, shard in enumerate(order[self.rank :: self.world_size] if enough else order):
            if number >= first:
                begin = passed if number == first else 0
                for sample, found in self._read(self.paths[shard], begin, None if enough else self.rank):
                    self._place = number, sample + 1
                    yield found

    def _read(self, path: Path, begin: int, turn: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, sample) from number `begin` on, all or those whose `turn` it is."""
        try:
            with open(path, "rb") as file:
                grouped = package().tariterators.group_by_keys(_members(path, file))
                for number, sample in enumerate(grouped):
                    if number >= begin and (turn is None or number % self.world_size == turn):
                        yield number, _content(file, sample)
        except (OSError, ValueError, tarfile.TarError) as error:
            why = f"{path}: {error.args[0] if isinstance(error, ValueError) and error.args else error}"
            if self.strict:
                raise ValueError(why) from error
            warnings.warn(f"{why}: what follows in this shard is left out", stacklevel=2)


def _members(path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    with tarfile.open(fileobj=file, mode="r:") as archive:  # uncompressed, as only then places can be found
        while (info := archive.next()) is not None:
            archive.members.clear()  # which tarfile would keep
            if info.isfile() and info.sparse is None:
                yield {"fname": info.name, "data": info, "__url__": str(path)}
        # tarfile ends in silence at a header that it cannot read, as at the empty one that is the end.
        file.seek(archive.offset)
        if (end := file.read(tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
            raise ValueError("broken header" if end else "the end is missing")


def _content(file: BinaryIO, sample: dict[str, Any]) -> dict[str, Any]:
    name = f"{sample['__url__']}/{sample['__key__']}"
    picture = next((sample[ending[1:]] for ending in EXTENSIONS if ending[1:] in sample), None)
    label = sample.get("cls")
    if picture is not None:
        picture = _bytes(file, picture, LARGEST_FILE)
    if label is not None:
        label = _bytes(file, label, _LONGEST).decode("ascii", "replace").strip()
    return {"__name__": name, "image": picture} | ({} if label is None else {"cls": label})


def _bytes(file: BinaryIO, info: tarfile.TarInfo, limit: int) -> bytes:
    file.seek(info.offset_data)
    return file.read(min(info.size, limit))
