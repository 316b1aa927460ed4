"""Picture files as they are: every channel, 8 or 16 bits, one file at a time. Pillow reads and writes 8 bits; PNG of 16, which
it would round to 8, goes through imagecodecs (extra ``upscale``)."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastgan.data.decode import pillow
from fastgan.files import complete


def read_exact(data: bytes) -> torch.Tensor:
    """An encoded picture -> uint8 or uint16 [C, H, W], C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA), as the file has them;
    palettes become RGB or RGBA, EXIF orientation is applied, of an animation the first frame is taken.

    Raises what Pillow raises for a file that it cannot read, ValueError for more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``
    and for floating-point pictures, ImportError for a PNG of 16 bits without imagecodecs.
    """
    from PIL import ImageOps

    with pillow().open(io.BytesIO(data)) as opened:
        if (limit := pillow().MAX_IMAGE_PIXELS) and math.prod(opened.size) > limit:
            raise ValueError(f"{opened.width}x{opened.height} pixels, limit {limit} (PIL.Image.MAX_IMAGE_PIXELS)")
        if data[:8] == b"\x89PNG\r\n\x1a\n" and data[24] == 16:
            pixels = _upright(_codecs().png_decode(data), opened.getexif().get(0x0112, 1))
        else:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("F"):
                raise ValueError("a floating-point picture: its range is not known")
            if not image.mode.startswith("I"):
                clear = image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
                grey = image.mode in ("1", "L", "LA", "La")
                image = image.convert(("L" if grey else "RGB") + "A" * clear)
            pixels = np.asarray(image)
    if pixels.dtype not in (np.uint8, np.uint16):  # Pillow's 32-bit integers
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("a picture of 32-bit integers: its range is not known")
        pixels = pixels.astype(np.uint16)
    return torch.from_numpy(np.array(pixels if pixels.ndim == 3 else pixels[..., None])).permute(2, 0, 1)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] turned and mirrored as EXIF's orientation (1 to 8, TIFF 6.0 tag 274) says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def write_png(pixels: torch.Tensor, path: Path) -> None:
    """uint8 or uint16 [C, H, W], C from 1 to 4 as `read_exact` gives them, as a PNG; the file appears when it is whole."""
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    with complete(path) as temporary:
        if pixels.dtype == torch.uint16:
            temporary.write_bytes(_codecs().png_encode(array.squeeze(2) if array.shape[2] == 1 else array))
        else:
            pillow().fromarray(array.squeeze(2) if array.shape[2] == 1 else array).save(temporary, format="PNG")


def _codecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise ImportError("a PNG of 16 bits needs imagecodecs: pip install 'fastgan[upscale]'") from error
    return imagecodecs
