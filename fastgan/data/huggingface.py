"""Pictures in data sets of Hugging Face's package datasets: from a folder that ``save_to_disk`` wrote, from any that
``load_dataset`` reads (imagefolder, parquet, ...), or the objects themselves. Nothing is downloaded, and no script is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastgan.data.dataset import Absent, shown

_PREFIX = "hf:"
_SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk leaves in its folder


def package() -> Any:
    """The package datasets. ImportError with the remedy where it is missing."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError('reading data sets of Hugging Face needs datasets: pip install "fastgan[streams]"') from error
    return datasets


def is_object(dataset: Any) -> bool:
    """Whether `dataset` is one of the package's, map-style or iterable."""
    return type(dataset).__module__.partition(".")[0] == "datasets" and hasattr(dataset, "features")


def folder_of(name: str) -> Path | None:
    """The folder that ``hf:FOLDER`` stands for, or one that save_to_disk wrote; None for any other name. Raises
    FileNotFoundError for a folder that is not there."""
    path = Path(name.removeprefix(_PREFIX)).expanduser()
    if not name.startswith(_PREFIX):
        return path if path.is_dir() and any((path / file).is_file() for file in _SAVED) else None
    if not path.is_dir():
        raise FileNotFoundError(
            f"{name}: {path} is no folder. Nothing is downloaded here: datasets.load_dataset(...).save_to_disk(FOLDER) does that"
        )
    return path


def open_folder(path: Path, split: str | None) -> Any:
    """The map-style data set in `path`, or its part `split`: train, where there are several. Raises ValueError."""
    datasets = package()
    saved = any((path / file).is_file() for file in _SAVED)
    try:
        found = datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    except Exception as error:  # of a dozen packages
        raise ValueError(f"{path}: datasets cannot read it: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        if split is not None:
            raise Absent(f"{path}: split={split!r} is not there; the folder holds one set without parts")
        return found
    name = split or ("train" if "train" in found else next(iter(found)) if len(found) == 1 else None)
    if name is None:
        raise ValueError(f"{path} has several parts, {shown(found)}: choose one, such as split={next(iter(found))!r}")
    if name not in found:
        raise Absent(f"{path}: split={split!r} is not there; there are {shown(found)}")
    return found[name]


def fingerprint(path: Path) -> str:
    """The files below `path`, their sizes and times: what changes when any of them is written anew."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return str([(file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def encoded(dataset: Any, name: str) -> tuple[Any, list[str], str]:
    """`dataset` as items ``{"image": {"bytes", "path"}, "label"}`` that are not decoded yet, the names of the classes, and what
    it is in a few words. Raises ValueError where it has no column of pictures."""
    datasets = package()
    features = dataset.features or next(iter(dataset.take(1)), {})
    images = [
        column for column, kind in features.items() if isinstance(kind, datasets.Image) or hasattr(kind, "getexif")
    ]
    if not images:
        raise ValueError(f"{name}: no column of pictures (datasets.Image); its columns are {shown(map(str, features))}")
    classes = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    label = next((column for column in (*classes, "label", "cls") if column in features and column != images[0]), None)
    columns = {images[0]: "image"} | ({label: "label"} if label else {})
    dataset = dataset.select_columns(list(columns))
    dataset = dataset.rename_columns({old: new for old, new in columns.items() if old != new})
    dataset = dataset.with_format(None).cast_column("image", datasets.Image(decode=False))
    names = list(features[classes[0]].names) if classes else []
    if isinstance(dataset, datasets.Dataset):
        about = f"{len(dataset)} images"
        if names and (count := _without_class(dataset)):
            return dataset.select_columns(["image"]), [], f"{about}, {count} of them without a class"
        return dataset, names, about
    return Streamed(dataset), names, f"a stream in {dataset.num_shards} parts"


def _without_class(dataset: Any) -> int:
    """How many items have no label, or -1, as the package marks those of test sets: found here, not in the middle of a run."""
    column = dataset.select_columns(["label"]).with_format("arrow")[:]["label"]
    return int((np.asarray(column.fill_null(-1)) < 0).sum())


class Streamed:
    """A datasets.IterableDataset; its order in an epoch depends on the seed too, as far as it can be shuffled by its parts."""

    resume = "a Hugging Face stream: resume is exact, but for what a shuffle() of its own held"

    def __init__(self, dataset: Any, seed: int | None = None):
        self._dataset, self._seed = dataset, seed

    def part(self, rank: int, world_size: int, seed: int) -> Streamed:
        from datasets.distributed import split_dataset_by_node

        return Streamed(split_dataset_by_node(self._dataset, rank, world_size), seed)

    def set_epoch(self, epoch: int) -> None:
        if self._seed is not None:
            epoch = int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0])
        self._dataset.set_epoch(epoch)

    def state_dict(self) -> Any:
        return self._dataset.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._dataset.load_state_dict(state)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._dataset)
