"""Images: float [N, C, H, W] in [-1, 1]; in a data set uint8 or uint16."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch

from fastgan.files import PICTURES, complete, named
from fastgan.media.medium import Medium, figure, first
from fastgan.options import Count, Side
from fastgan.sizes import Resolution, resolution_of

_LAYOUT = "fastgan:columns"  # key of a PNG's text


class Image(Medium):
    """Pictures of one size, with any number of channels."""

    name, unit, expected = "image", "images", "a tensor [N, C, H, W] in [-1, 1]"

    @dataclass
    class Options:
        """Options of a run on images."""

        split: str | None = None
        """The part of the data set to train on: train or test of a named set, or a sub-folder's name (train, val, ...)."""
        resolution: Side | tuple[Side, Side] | None = None
        """Resize images to this many pixels a side, or to a height and a width: 96 160. Default: as they are."""
        channels: Count | None = None
        """1: images in grey, 2: in grey with alpha, 3: in colour, 4: in colour with alpha. Default: as they are; files are read
        in colour. Arrays (npz, npy) may have any other number."""
        bits: Literal[8, 16] | None = None
        """Bits of each value. Default: as they are; files are read in 8."""
        crop: Literal["center", "stretch", "none"] = "center"
        """What to do with images of another aspect ratio than the resolution's, or than a square's where none is given: cut out
        the middle, squeeze them, or take all as they are (none)."""
        flip: bool = False
        """Mirror half of the images, drawn anew each epoch."""
        strict: bool = False
        """Stop at an unreadable image instead of skipping and counting it."""
        classes: Count | None = None
        """Shards and other streams whose labels are numbers: how many classes there are."""

    class Facts(TypedDict):
        """What a recipe needs to know of a set of images."""

        name: str
        resolution: Resolution
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
        item shows: classes are then those in its attribute `classes`, as torchvision's data sets have them. `bits` is there
        where pixels have 16.

        Raises ValueError where the first item is no image [C, H, W].
        """
        if all(hasattr(dataset, fact) for fact in cls.Facts.__annotations__):
            return super().describe(dataset) | ({"bits": 16} if getattr(dataset, "bits", 8) == 16 else {})
        name, image = getattr(dataset, "name", type(dataset).__name__), first(dataset)
        if image is None or image.dim() != 4:
            found = "no tensor" if image is None else f"{image.dtype} {list(image.shape[1:])}"
            raise ValueError(f"{name}: its first item begins with {found}, expected an image, a tensor [C, H, W]")
        classes = [str(name) for name in getattr(dataset, "classes", ())]
        facts = {"name": name, "resolution": resolution_of(*image.shape[2:]), "channels": image.shape[1]}
        deep = {"bits": 16} if image.dtype == torch.uint16 else {}
        return facts | {"num_classes": len(classes), "class_names": classes} | deep

    @classmethod
    def to_device(cls, item: torch.Tensor, device: torch.device, layout: torch.memory_format) -> torch.Tensor:
        """uint8 and uint16 become float32 in [-1, 1], on the device; images take the networks' memory format."""
        from fastgan.data import to_float

        item = item.to(device, non_blocking=True)
        item = to_float(item) if item.dtype in (torch.uint8, torch.uint16) else item
        return item.contiguous(memory_format=layout) if item.dim() == 4 else item

    @classmethod
    def check(cls, samples, facts: Mapping[str, Any]) -> bool:
        return isinstance(samples, torch.Tensor) and samples.dim() == 4

    @classmethod
    def save(cls, samples: torch.Tensor, path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        """A grid; the suffix decides the format (`save_grid`). Where a sample is a strip of several images,
        `sample_columns` in the facts names them."""
        return save_grid(samples, path, labels=(facts or {}).get("sample_columns", ()))

    @classmethod
    def save_one(cls, sample: torch.Tensor, path: Path, facts: Mapping[str, Any] | None = None) -> Path:
        """The picture [C, H, W] as it is, neither enlarged nor framed, with its alpha where the format has one; in 16 bits if
        the `facts` say so and it is grey. What no picture holds, more than four channels or colour in 16 bits, is written
        whole beside it, as an .npy of the same stem."""
        from fastgan.data import to_uint8, to_uint16

        deep = (facts or {}).get("bits") == 16
        pixels = to_uint16(sample) if deep else to_uint8(sample)
        channels = len(pixels)
        path = save_grid(pixels[None], path, scale=1, pad=0)
        if channels > 4 or (deep and channels > 1):
            save_array(pixels, path.with_suffix(".npy"))
        return path

    @classmethod
    def html(cls, path: Path) -> str:
        """The picture, under the names of its columns where the PNG says them."""
        return figure(_headed(path) or embedded(path), path)


def _headed(path: Path) -> str:
    """The picture under a row of headings, as `save_grid` has kept them; empty where it has none. Widths are shares, so the
    headings stay above their columns at any size."""
    import PIL.Image

    with PIL.Image.open(path) as picture:
        layout = picture.info.get(_LAYOUT)
    try:
        kept = json.loads(layout or "{}")
        across, cell, pad, labels = (kept[name] for name in ("across", "cell", "pad", "labels"))
        strip = f"{pad:d}fr repeat({len(labels)}, minmax(0, {cell / len(labels):g}fr)) "
        heads = [
            f'<b style="grid-column:{2 + i + n * (len(labels) + 1)}" title="{html.escape(name)}">{html.escape(name)}</b>'
            for n in range(across)
            for i, name in enumerate(labels)
        ]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):  # another program's PNG
        return ""
    columns = f"--columns:{across * len(labels)};display:inline-grid;grid-template-columns:{strip * across}{pad:d}fr"
    picture = embedded(path).replace("<img", '<img style="grid-column:1/-1;width:100%"', 1)
    return f'<div class="strips" style="{columns}">{"".join(heads)}{picture}</div>'


def save_array(pixels: torch.Tensor, path: Path) -> None:
    """Write a tensor as .npy; the file appears under its name only when it is complete."""
    import numpy as np

    with complete(path) as temporary, open(temporary, "wb") as file:
        np.save(file, pixels.numpy())


def embedded(path: Path) -> str:
    """<img> that holds a PNG."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(path.stem)}">'


def save_grid(
    images: torch.Tensor,
    path: Path,
    columns: int | None = None,
    scale: int | None = None,
    pad: int = 2,
    labels: Sequence[str] = (),
) -> Path:
    """Write images in [-1, 1], float [N, C, H, W], or uint8 or uint16 ones, as one picture, `columns` wide.

    By default the grid is about square, with `pad` white pixels around each image, and small images are enlarged by a whole
    factor until their longer side has at least 64 pixels. Shown are 8 bits of grey or RGB: alpha is composited on white, and of
    more than four channels the first, the middle and the last are seen. With pad=0 alpha is kept by the formats that have it
    (PNG, WebP, TIFF), and 16 bits of grey by PNG and TIFF; with scale=1, pad=0 one image is thus written as it is. The suffix
    decides the format, of those in `PICTURES`; a path without one gets .png. The file appears under its name only when it
    is complete. Returns the path.

    labels: of the parts, of equal width, that each image consists of. A PNG keeps them, and where they are, as text beside
    the pixels.
    """
    import PIL.Image
    import PIL.PngImagePlugin

    from fastgan.data import to_uint8
    from fastgan.data.pixels import viewable

    path = named(path, PICTURES)
    form, options = PICTURES[path.suffix.lower()]
    pixels = (to_uint8(images) if images.is_floating_point() else images).cpu()
    alpha = pixels.dtype == torch.uint8 and pixels.shape[1] in (2, 4) and form in ("PNG", "WEBP", "TIFF")
    deep = pixels.dtype == torch.uint16 and pixels.shape[1] == 1 and form in ("PNG", "TIFF")
    if pad or not (alpha or deep):
        pixels = viewable(pixels)
    count, channels, height, width = pixels.shape
    square = math.sqrt(count * height / width)
    # Strips are read line by line: rather one fewer in a line.
    columns = columns or max(1, min(count, round(square) if labels else math.ceil(square)))
    rows = math.ceil(count / columns)
    scale = scale or max(1, -(-64 // max(height, width)))
    shape = rows * (height + pad) + pad, columns * (width + pad) + pad, channels
    sheet = torch.full(shape, torch.iinfo(pixels.dtype).max, dtype=pixels.dtype, device="cpu")
    for i, image in enumerate(pixels):
        y, x = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        sheet[y : y + height, x : x + width] = image.permute(1, 2, 0)
    picture = PIL.Image.fromarray(sheet.squeeze(2).numpy())
    if scale != 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), PIL.Image.Resampling.NEAREST)
    if labels and form == "PNG":
        kept = PIL.PngImagePlugin.PngInfo()
        layout = {"across": columns, "cell": width, "pad": pad, "labels": list(labels)}
        kept.add_text(_LAYOUT, json.dumps(layout))
        options = options | {"pnginfo": kept}
    with complete(path) as temporary:
        picture.save(temporary, format=form, **options)
    return path
