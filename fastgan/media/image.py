"""Images: float [N, C, H, W] in [-1, 1]; in a data set uint8."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch

from fastgan.files import PICTURES, complete, named
from fastgan.media.medium import Medium, figure
from fastgan.options import Side
from fastgan.sizes import resolution_of


class Image(Medium):
    """Square pictures of one size."""

    name, unit, expected = "image", "images", "a tensor [N, C, H, W] in [-1, 1]"

    @dataclass
    class Options:
        """Options of a run on images."""

        split: str | None = None
        """The part of the data set to train on: train or test of a named set, or a sub-folder's name (train, val, ...)."""
        resolution: Side | None = None
        """Resize images to this many pixels a side. Default: as they are."""
        channels: Literal[1, 3] | None = None
        """1: images in grey, 3: in colour. Default: as they are; files are read in colour."""
        crop: Literal["center", "stretch"] = "center"
        """What to do with images that are not square: cut out the middle, or squeeze them."""
        flip: bool = False
        """Mirror half of the images, drawn anew each epoch."""
        strict: bool = False
        """Stop at an unreadable image instead of skipping and counting it."""

    class Facts(TypedDict):
        """What a recipe needs to know of a set of images."""

        name: str
        resolution: int
        channels: int
        num_classes: int
        class_names: list[str]

    @classmethod
    def load(cls, name: str, **options):
        """See `fastgan.data.load`."""
        from fastgan.data import load

        return load(name, **options)

    @classmethod
    def describe(cls, dataset) -> dict[str, Any]:
        """What a data set says of itself; of one that says nothing, such as a torch data set of (image, label), what its first
        item shows: classes are then those in its attribute `classes`, as torchvision's data sets have them.

        Raises ValueError where the first item is no image [C, H, W].
        """
        if all(hasattr(dataset, fact) for fact in cls.Facts.__annotations__):
            return super().describe(dataset)
        from fastgan.data.source import once

        name = getattr(dataset, "name", type(dataset).__name__)
        image = next(iter(next(once(dataset, size=1), ())), None)
        if not isinstance(image, torch.Tensor) or image.dim() != 4:
            found = (
                f"{image.dtype} {list(image.shape[1:])}" if isinstance(image, torch.Tensor) else type(image).__name__
            )
            raise ValueError(f"{name}: its first item begins with {found}, expected an image, a tensor [C, H, W]")
        classes = [str(name) for name in getattr(dataset, "classes", ())]
        facts = {"name": name, "resolution": resolution_of(*image.shape[2:]), "channels": image.shape[1]}
        return facts | {"num_classes": len(classes), "class_names": classes}

    @classmethod
    def to_device(cls, item: torch.Tensor, device: torch.device, layout: torch.memory_format) -> torch.Tensor:
        """uint8 becomes float32 in [-1, 1], on the device; images take the networks' memory format."""
        from fastgan.data import to_float

        item = item.to(device, non_blocking=True)
        item = to_float(item) if item.dtype == torch.uint8 else item
        return item.contiguous(memory_format=layout) if item.dim() == 4 else item

    @classmethod
    def check(cls, samples) -> bool:
        return isinstance(samples, torch.Tensor) and samples.dim() == 4

    @classmethod
    def save(cls, samples: torch.Tensor, path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        """A grid; the suffix decides the format (`save_grid`)."""
        return save_grid(samples, path)

    @classmethod
    def save_one(cls, sample: torch.Tensor, path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        """The picture [C, H, W] as it is, neither enlarged nor framed."""
        return save_grid(sample[None], path, scale=1, pad=0)

    @classmethod
    def html(cls, path: Path) -> str:
        return figure(embedded(path), path)


def embedded(path: Path) -> str:
    """<img> that holds a PNG."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(path.stem)}">'


def save_grid(
    images: torch.Tensor, path: Path, columns: int | None = None, scale: int | None = None, pad: int = 2
) -> Path:
    """Write images in [-1, 1], float [N, C, H, W] (C 1 or 3), or uint8 ones, as one picture, `columns` wide.

    By default the grid is about square, with `pad` white pixels around each image, and small images are enlarged by a whole
    factor to at least 64 pixels; with scale=1, pad=0 one image is written as it is. The suffix
    decides the format, of those in `PICTURES`; a path without one gets .png. The file appears under its name only when it
    is complete. Returns the path.
    """
    import PIL.Image

    from fastgan.data import to_uint8

    path = named(path, PICTURES)
    pixels = (images if images.dtype == torch.uint8 else to_uint8(images)).cpu()
    count, channels, height, width = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = scale or max(1, -(-64 // height))
    sheet = torch.full((rows * (height + pad) + pad, columns * (width + pad) + pad, channels), 255, dtype=torch.uint8)
    for i, image in enumerate(pixels):
        y, x = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        sheet[y : y + height, x : x + width] = image.permute(1, 2, 0)
    picture = PIL.Image.fromarray(sheet.squeeze(2).numpy())
    picture = picture.resize((picture.width * scale, picture.height * scale), PIL.Image.Resampling.NEAREST)
    form, options = PICTURES[path.suffix.lower()]
    with complete(path) as temporary:
        picture.save(temporary, format=form, **options)
    return path
