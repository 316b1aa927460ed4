"""The image data set: one tensor of pixels that every reader shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from fastgan.data.pixels import WHITE, bits_of
from fastgan.sizes import Resolution, resolution_of, sides


class Absent(ValueError):
    """A part of a data set, or counterparts in another, that were asked for and that it does not have: all else may be well."""


def shown(names: Iterable[str], most: int = 5) -> str:
    """The first ``most`` of ``names`` and how many more there are, on one line: for messages about foreign names."""
    names = list(names)
    cut = (name if len(name) <= 200 else f"{name[:150]}...{name[-40:]}" for name in islice(names, most))
    listed = ", ".join(name if name.isprintable() else ascii(name) for name in cut)
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def about_classes(names: Sequence[str], source: str) -> str:
    """What a run says of the classes of its data: which there are, and where they come from."""
    source = f" ({source})" if source else ""
    return f"{len(names)} classes{source}: {shown(names, 10)}" if names else f"no classes{source}"


def checked_labels(
    labels: torch.Tensor | None, class_names: Sequence[str], count: int, name: str, what: str
) -> torch.Tensor:
    """Labels int64 [count] of items each of which is a ``what``, zeros for None. ValueError where they do not fit."""
    if labels is None:
        return torch.zeros(count, dtype=torch.int64)
    if labels.shape != (count,):
        raise ValueError(f"{name}: {list(labels.shape)} labels for {count} {what}s, expected one per {what}")
    if class_names and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
        raise ValueError(f"{name}: labels {int(labels.min())}..{int(labels.max())}, expected 0..{len(class_names) - 1}")
    return labels.to(torch.int64)


def about_pixels(resolution: Resolution, channels: int, bits: int) -> str:
    """What is not said of square images, grey or RGB, in 8 bits; empty for these."""
    height, width = sides(resolution)
    size = f" of {height}x{width} pixels" if height != width else ""
    kind = {1: "", 2: "grey with alpha", 3: "", 4: "RGBA"}.get(channels, f"{channels} channels")
    return size + "".join(f", {what}" for what in (kind, "16 bits" if bits == 16 else "") if what)


class ImageDataset(torch.utils.data.Dataset):
    """Images of one size in one tensor, uint8 or uint16, with integer labels.

    ``dataset[i]`` is ``(image, label)``: ``image`` [C, H, W] is a view of the shared store (never a copy: do not
    write to it), ``label`` an int, 0 for all where there are no classes.

    Attributes: ``images`` uint8 or uint16 [N, C, H, W], in memory or memory-mapped; ``labels`` int64 [N]; ``name``;
    ``height``, ``width`` and ``resolution``: an int for squares, (height, width) otherwise; ``channels``: 1 grey, 2 grey and
    alpha, 3 RGB, 4 RGBA, or any other number of bands; ``bits``: 8 or 16; ``num_classes`` (0 where there are none);
    ``class_names``; ``files``: one key per image (relative path, or code points for emoji), empty where the source has
    none; ``skipped``: list of ``(file, reason)``; ``flip``: whether `fastgan.data.Loader` mirrors images at random;
    ``class_source``: what was taken for classes, or why there are none.

    Forked workers share ``images`` copy-on-write; a torch ``DataLoader`` that spawns sends it through shared memory.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor | None = None,
        *,
        name: str,
        class_names: Sequence[str] = (),
        files: Sequence[str] = (),
        skipped: Sequence[tuple[str, str]] = (),
        flip: bool = False,
        class_source: str = "",
    ) -> None:
        if images.dtype not in WHITE or images.ndim != 4:
            raise ValueError(
                f"{name}: images is {images.dtype} {list(images.shape)}, expected uint8 or uint16 [N, C, H, W]"
            )
        if 0 in images.shape:
            raise ValueError(f"{name}: images has shape {list(images.shape)}, expected at least one image")
        self.images = images
        self.labels = checked_labels(labels, class_names, len(images), name, "image")
        self.name = name
        self.channels, self.height, self.width = images.shape[1:]
        self.resolution, self.bits = resolution_of(self.height, self.width), bits_of(images)
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)
        self.files = list(files)
        self.skipped = list(skipped)
        self.flip = flip
        self.class_source = class_source

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], int(self.labels[index])

    def __repr__(self) -> str:
        size = f"{self.channels}x{self.height}x{self.width}{' of 16 bits' if self.bits == 16 else ''}"
        about = f"{len(self)} images {size}, {self.num_classes} classes, {len(self.skipped)} skipped"
        return f"ImageDataset({self.name!r}: {about})"

    @property
    def about(self) -> str:
        """What a run says of its data: how many images, which classes, and where the classes come from."""
        unusual = about_pixels(self.resolution, self.channels, self.bits)
        return f"{len(self)} images{unusual}, {about_classes(self.class_names, self.class_source)}"

    @property
    def streams(self) -> tuple[int, ...]:
        """Lengths of the index streams that one batch draws from; see `fastgan.data.Loader`."""
        return (len(self),)

    def gather(self, indices: Sequence[np.ndarray], flips: Sequence[np.ndarray | None]) -> tuple[torch.Tensor, ...]:
        """``indices[0]`` int64 [B], ``flips[0]`` bool [B] or None -> images [B, C, H, W], labels int64 [B]."""
        return take(self.images, indices[0], flips[0]), self.labels[torch.from_numpy(indices[0])]

    def replace(self, **changes: Any) -> ImageDataset:
        """The same data set with some constructor arguments changed; the pixels are shared, not copied."""
        kept = ("images", "labels", "name", "class_names", "files", "skipped", "flip", "class_source")
        return ImageDataset(**{key: getattr(self, key) for key in kept} | changes)

    def subset(self, index: torch.Tensor) -> ImageDataset:
        """The images at ``index`` (int64 [M]), copied, with the same classes."""
        files = [self.files[i] for i in index.tolist()] if self.files else ()
        return self.replace(images=self.images[index], labels=self.labels[index], files=files)


def take(images: torch.Tensor, index: np.ndarray, flips: np.ndarray | None) -> torch.Tensor:
    """``images[index]`` as a new tensor, mirrored left to right where ``flips``; every pixel is copied once."""
    out = torch.empty((len(index), *images.shape[1:]), dtype=images.dtype)
    # numpy writes a mirrored view in one pass, where torch.flip would copy again (2.5x slower for 64 of 3x64x64), and
    # stays in its thread, where index_select starts an OpenMP team per worker thread beside the training's.
    source, target = images.numpy(), out.numpy()
    mirrored = source, target
    if images.dtype == torch.uint8 and images.shape[-1] % 8 == 0 and images.stride(-1) == 1:
        # The same bytes eight at a time: a quarter of the time at 256 px.
        mirrored = source.view(">u8"), target.view("<u8")
    for row, i in enumerate(index.tolist()):
        if flips is not None and flips[row]:
            mirrored[1][row] = mirrored[0][i, :, :, ::-1]
        else:
            target[row] = source[i]
    return out
