"""Pictures that come from a browser, read within limits, and what a network makes of them."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from fastgan.data import to_float
from fastgan.data.decode import crop_of, decode, pillow
from fastgan.data.exact import read_exact
from fastgan.editing import Editor
from fastgan.upscaling import upscale_picture

MOST_BYTES = 16 << 20  # of an upload
MOST_PIXELS = 1 << 24  # of a picture that is cut to the generator's size
MOST_ENLARGED = 1 << 22  # of what an upscaler makes: half a minute to minutes on a CPU
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def check_picture(content: bytes, most: int = MOST_PIXELS) -> None:
    """ValueError for what is too large or no picture, by its header: no pixel is decoded."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"the file has {len(content) / 2**20:.0f} MB, expected at most {MOST_BYTES >> 20}")
    try:
        with pillow().open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except pillow().DecompressionBombError as error:  # of more than twice Pillow's own limit
        raise ValueError(f"the picture has too many pixels, expected at most {most:,}") from error
    except Exception as error:  # Pillow raises a dozen unrelated types for broken files
        raise ValueError(f"the file is no picture that is read here: expected {', '.join(FORMATS)}") from error
    if width * height > most:
        raise ValueError(f"the picture has {width}x{height} pixels, expected at most {most:,}")


def read_picture(content: bytes, resolution: Any, channels: int, crop: str = "center") -> torch.Tensor:
    """An encoded picture -> float [1, C, H, W] in [-1, 1], cut and resized. ValueError as of `check_picture`, and
    for one whose pixels are broken."""
    check_picture(content)
    try:
        return to_float(torch.tensor(decode(content, resolution, crop, channels))[None])
    except Exception as error:
        raise ValueError(f"the picture cannot be read: {error}") from error


def translated(recipe: Any, networks: dict[str, nn.Module], content: bytes, direction: str) -> torch.Tensor:
    """What a translator makes of an encoded picture: given and made side by side, float [C, H, 2 W]. ValueError as of
    `read_picture`, and for a direction that was not learnt."""
    given = read_picture(content, recipe.data["resolution"], recipe.data["channels"], crop_of(recipe.data))
    device = next(networks[next(iter(recipe.generators.values()))].parameters()).device
    with torch.no_grad():
        made = recipe.translate(networks, given.to(device), direction).float().cpu()
    return torch.cat([given, made], 3)[0]


def enlarged(recipe: Any, networks: dict[str, nn.Module], content: bytes) -> torch.Tensor:
    """What an upscaler makes of an encoded picture: uint8 or uint16 [C, scale H, scale W]. ValueError as of `check_picture`, and
    for one that would become too large."""
    check_picture(content, MOST_ENLARGED // recipe.scale**2)
    try:
        image = read_exact(content)
    except Exception as error:
        raise ValueError(f"the picture cannot be read: {error}") from error
    with torch.no_grad():
        return upscale_picture(recipe, networks, image)


def to_project(editor: Editor, content: bytes) -> torch.Tensor:
    """An encoded picture as `fastgan.editing.project` takes it."""
    return read_picture(content, editor.resolution, editor.channels, crop_of(editor.recipe.data))
