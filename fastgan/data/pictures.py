"""Pictures that are decoded when a batch needs them, for sets larger than memory: of any data set of encoded pictures, by number
or as a stream (`fastgan.data.source`)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fastgan.data.dataset import ImageDataset, shown
from fastgan.data.decode import check_channels, decode, natural_resolution, natural_size
from fastgan.data.files import EXTENSIONS, LARGEST_FILE, read_file, reason
from fastgan.data.source import is_stream
from fastgan.sizes import Resolution

_TRIED = 100  # pictures in which a readable one must be
_NAMES = ("image", "img", *(extension[1:] for extension in EXTENSIONS))


class Options(NamedTuple):
    """What becomes of each picture; see `fastgan.data.load`."""

    resolution: Resolution | None = None
    crop: str = "center"
    channels: int | None = None
    bits: int | None = None
    flip: bool = False
    strict: bool = False


class Pictures:
    """What both kinds share.

    Args:
        source: a map-style or iterable data set. Its items are dicts of a picture by one of the names image, img, png, jpg,
            webp, ... and a number by the name label or cls, or pairs of these, or pictures. A picture is an encoded one in bytes,
            ``{"bytes": ..., "path": ...}`` of which one may be None, or a PIL image.
        classes: names of the classes, or how many there are; 0 leaves labels unread.
        about: what the set is, in a few words.
        fingerprint: what changes with the pictures' content. None: nothing is known that does.

    Attributes: ``name``, ``resolution``, ``channels``, ``bits``, ``num_classes``, ``class_names``, ``flip`` as an ImageDataset
    has them; ``skipped``: list of (item, reason); ``fingerprint``, of the options too.

    Raises ValueError where none of the first pictures is readable, or a label is none of 0 .. classes - 1.
    """

    def __init__(
        self,
        source: Any,
        options: Options,
        *,
        name: str,
        classes: Sequence[str] | int = 0,
        about: str = "",
        fingerprint: str | None = None,
    ) -> None:
        self.source, self.name, self.flip, self.strict = source, name, options.flip, options.strict
        self.class_names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
        self.num_classes = len(self.class_names)
        self.fingerprint = fingerprint and f"{fingerprint} {options._replace(flip=False, strict=False)}"
        self._skipped: dict[str, str] = {}
        self._crop, self.bits, self.channels = options.crop, options.bits or 8, options.channels or 3
        check_channels(self.channels)
        self._size, self.resolution = None, options.resolution
        labelled = self._look()
        self.about = f"{about}, {self.num_classes or 'no'} classes" + (
            " (labels are there: --classes N, or classes=N, says how many)" if labelled and not self.num_classes else ""
        )

    @property
    def skipped(self) -> list[tuple[str, str]]:
        return list(self._skipped.items())

    def _look(self) -> bool:
        """Find the resolution and that pictures can be read, from the first of them; whether it has a label."""
        for number, item in enumerate(islice(iter(self.source), _TRIED)):
            where, picture, label = _parts(item, number)
            try:
                size = natural_size(_encoded(picture), self._crop, "whole")
            except Exception as error:  # Pillow raises a dozen unrelated types for broken files
                self._skip(where, error)
                continue
            if self.resolution is None:
                self._size = size
                self.resolution = natural_resolution(self.name, *size, self._crop)
            if self.decode(item, number) is not None:
                return label is not None
        if not self._skipped:
            raise ValueError(f"{self.name}: no pictures")
        first = "{}: {}".format(*self.skipped[0])
        raise ValueError(f"{self.name}: none of the first {len(self._skipped)} pictures is readable; {first}")

    def decode(self, item: Any, number: int | None = None) -> tuple[torch.Tensor, int] | None:
        """(image uint8 or uint16 [C, H, W], label) of an item of the source, whose `number` is for messages; None where it is
        unreadable, which is counted."""
        where, picture, label = _parts(item, number)
        try:
            data = _encoded(picture)
            size = self._size and natural_size(data, self._crop, "whole")
            pixels = decode(data, self.resolution, self._crop, self.channels, bits=self.bits)
        except MemoryError:
            raise
        except Exception as error:
            self._skip(where, error)
            return None
        if size != self._size:
            first = f"the first {self._size[0]}x{self._size[1]}"
            raise ValueError(
                f"{self.name}: {where or 'an item'} has {size[0]}x{size[1]} pixels, {first}: give resolution="
            )
        return torch.tensor(pixels), self._class(where, label)

    def _class(self, where: str, label: Any) -> int:
        if not self.num_classes:
            return 0
        try:
            number = int(label)
        except (TypeError, ValueError):
            number = -1
        if not 0 <= number < self.num_classes:
            raise ValueError(
                f"{self.name}: {where or 'an item'} has label {label!r}, expected 0..{self.num_classes - 1}"
            )
        return number

    def _skip(self, where: str, error: Exception) -> None:
        if self.strict:
            raise ValueError(f"{self.name}: {where or 'an item'}: {reason(error)}") from error
        count = len(self._skipped) + 1
        where = where or f"{count} of those without a name"
        if where not in self._skipped:  # each epoch comes upon it again
            self._skipped[where] = reason(error)
            if count <= 3 or str(count).strip("0") == "1":
                last = f"{shown([where])} ({self._skipped[where]})"
                warnings.warn(f"{self.name}: skipped {count} unreadable so far: {last}", stacklevel=2)


class PictureItems(Pictures, torch.utils.data.Dataset):
    """Pictures by number; ``dataset[i]`` is (image uint8 [C, H, W], label). An unreadable one gives way to the next."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        for i in range(len(self)):
            number = (index + i) % len(self)
            if (found := self.decode(self.source[number], number)) is not None:
                return found
        raise ValueError(f"{self.name}: no picture is readable any more")

    @property
    def labels(self) -> torch.Tensor:
        """int64 [N], where the source has them as numbers in a column of their own, as Hugging Face's have: no picture is
        read. AttributeError of any other."""
        if not self.num_classes or not hasattr(self.source, "select_columns"):
            raise AttributeError("labels")
        return torch.tensor([int(label) for label in self.source.select_columns(["label"])[:]["label"]])

    @property
    def streams(self) -> tuple[int, ...]:
        return (len(self),)

    def gather(self, indices: Sequence[np.ndarray], flips: Sequence[np.ndarray | None]) -> tuple[torch.Tensor, ...]:
        """As an ImageDataset's."""
        images, labels = zip(*(self[i] for i in indices[0].tolist()), strict=True)
        mirrored = np.zeros(len(images), bool) if flips[0] is None else flips[0]
        images = [image.flip(-1) if flip else image for image, flip in zip(images, mirrored.tolist(), strict=True)]
        return torch.stack(images), torch.tensor(labels)


class PictureStream(Pictures, torch.utils.data.IterableDataset):
    """Pictures as they come, shuffled 1,024 encoded ones at a time; an unreadable one is left out."""

    shuffle_buffer = 1024

    def __iter__(self) -> Iterator[Any]:
        return iter(self.source)

    def __getattr__(self, name: str) -> Any:
        if name in ("set_epoch", "state_dict", "load_state_dict", "part"):  # where the source has them
            return getattr(self.source, name)
        raise AttributeError(name)


def pictures(source: Any, options: Options, **about: Any) -> PictureItems | PictureStream:
    """`source`, whose items hold encoded pictures, as a data set of images; see `Pictures`."""
    return (PictureStream if is_stream(source) else PictureItems)(source, options, **about)


def in_memory(dataset: Any, why: str) -> ImageDataset:
    """`dataset`, if all its images lie in one tensor. Otherwise ValueError: `why` they must."""
    if not isinstance(dataset, ImageDataset):
        name = getattr(dataset, "name", type(dataset).__name__)
        raise ValueError(f"{name}: its pictures are decoded one by one, and {why}: a folder, zip or npz was expected")
    return dataset


def _parts(item: Any, number: int | None) -> tuple[str, Any, Any]:
    """(name for messages or nothing, picture, label or None)."""
    where = "" if number is None else f"item {number}"
    if isinstance(item, Mapping):
        picture = next((item[name] for name in _NAMES if item.get(name) is not None), None)
        label = item.get("label", item.get("cls"))
        if isinstance(picture, Mapping) and picture.get("path"):
            where = str(picture["path"])
        return str(item.get("__name__", where)), picture, label
    if isinstance(item, (tuple, list)):
        return where, item[0] if item else None, item[1] if len(item) > 1 else None
    return where, item, None


def _encoded(picture: Any) -> Any:
    """Bytes, or a PIL image. Raises ValueError for anything else."""
    if isinstance(picture, Mapping):
        path, picture = picture.get("path"), picture.get("bytes")
        if picture is None and path:
            picture = read_file(Path(path), LARGEST_FILE)
    if picture is None:
        raise ValueError("no picture")
    if isinstance(picture, bytes) or hasattr(picture, "getexif"):
        return picture
    raise ValueError(f"a {type(picture).__name__}, expected a picture in bytes or a PIL image")
