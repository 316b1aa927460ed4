"""The image data set: one uint8 tensor that every reader shares, and the conversion to network range and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 pixels, any shape -> float32 in [-1, 1]: ``x / 127.5 - 1``; a new tensor, exact at 0 and 255."""
    if images.dtype != torch.uint8:
        raise TypeError(f"to_float: images has dtype {images.dtype}, expected torch.uint8")
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Floating images in [-1, 1], any shape -> uint8: rounded and clipped; NaN becomes mid-grey.

    Inverts :func:`to_float` exactly: ``to_uint8(to_float(x)) == x`` for all 256 values.
    """
    if not images.is_floating_point():
        raise TypeError(f"to_uint8: images has dtype {images.dtype}, expected a floating type")
    # Casting NaN to an integer type is undefined in C and differs between machines.
    return (
        images.detach().to(torch.float32).nan_to_num(0.0).add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    )


def shown(names: Iterable[str], most: int = 5) -> str:
    """The first ``most`` of ``names`` and how many more there are, on one line: for messages about foreign names."""
    names = list(names)
    cut = (name if len(name) <= 200 else f"{name[:150]}...{name[-40:]}" for name in islice(names, most))
    listed = ", ".join(name if name.isprintable() else ascii(name) for name in cut)
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


class ImageDataset(torch.utils.data.Dataset):
    """Square images of one size in one uint8 tensor, with integer labels.

    ``dataset[i]`` is ``(image, label)``: ``image`` uint8 [C, H, W] is a view of the shared store (never a copy: do not
    write to it), ``label`` an int, 0 for all where there are no classes.

    Attributes: ``images`` uint8 [N, C, H, W], in memory or memory-mapped; ``labels`` int64 [N]; ``name``;
    ``resolution``; ``channels`` (1 or 3); ``num_classes`` (0 where there are none); ``class_names``; ``files``: one
    key per image (relative path, or code points for emoji), empty where the source has none; ``skipped``: list of
    ``(file, reason)``; ``flip``: whether :class:`~fastgan.data.Loader` mirrors images at random; ``class_source``: what
    was taken for classes, or why there are none.

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
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"{name}: images is {images.dtype} {list(images.shape)}, expected uint8 [N, 1 or 3, H, W]")
        if images.shape[2] != images.shape[3] or images.shape[2] == 0 or images.shape[0] == 0:
            raise ValueError(f"{name}: images has shape {list(images.shape)}, expected at least one square image")
        if labels is None:
            labels = torch.zeros(len(images), dtype=torch.int64)
        if labels.shape != (len(images),):
            raise ValueError(f"{name}: {list(labels.shape)} labels for {len(images)} images, expected one per image")
        if class_names and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
            raise ValueError(
                f"{name}: labels {int(labels.min())}..{int(labels.max())}, expected 0..{len(class_names) - 1}"
            )
        self.images = images
        self.labels = labels.to(torch.int64)
        self.name = name
        self.channels, self.resolution = images.shape[1], images.shape[2]
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
        size = f"{len(self)} images {self.channels}x{self.resolution}x{self.resolution}"
        return f"ImageDataset({self.name!r}: {size}, {self.num_classes} classes, {len(self.skipped)} skipped)"

    @property
    def about(self) -> str:
        """What a run says of its data: how many images, which classes, and where the classes come from."""
        source = f" ({self.class_source})" if self.class_source else ""
        if not self.num_classes:
            return f"{len(self)} images, no classes{source}"
        return f"{len(self)} images, {self.num_classes} classes{source}: {shown(self.class_names, 10)}"

    @property
    def streams(self) -> tuple[int, ...]:
        """Lengths of the index streams that one batch draws from; see :class:`~fastgan.data.Loader`."""
        return (len(self),)

    def gather(self, indices: Sequence[np.ndarray], flips: Sequence[np.ndarray | None]) -> tuple[torch.Tensor, ...]:
        """``indices[0]`` int64 [B], ``flips[0]`` bool [B] or None -> images uint8 [B, C, H, W], labels int64 [B]."""
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
    out = torch.empty((len(index), *images.shape[1:]), dtype=torch.uint8)
    # numpy writes a mirrored view in one pass, where torch.flip would copy again (2.5x slower for 64 of 3x64x64), and
    # stays in its thread, where index_select starts an OpenMP team per worker thread beside the training's.
    source, target = images.numpy(), out.numpy()
    for row, i in enumerate(index.tolist()):
        target[row] = source[i, :, :, ::-1] if flips is not None and flips[row] else source[i]
    return out
