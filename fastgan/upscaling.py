"""Enlarging pictures of any size in bounded memory: tiles that meet without a seam, alpha and 16 bits kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastgan.data.exact import read_exact, write_png
from fastgan.data.files import LARGEST_FILE, full_name, open_source, reason
from fastgan.data.pixels import to_float, to_uint8, to_uint16
from fastgan.sampling import target_names

Upscale = Callable[[torch.Tensor], torch.Tensor]


class Part(NamedTuple):
    """One tile along one axis, in pixels of the small picture: what the network reads, and what of that is kept, in which
    it fades from 0 to 1 over the first `rise` pixels and back over the last `fall`."""

    read: slice
    kept: slice
    rise: int
    fall: int


def parts(length: int, tile: int, overlap: int, multiple: int = 1) -> list[Part]:
    """The tiles of `length` pixels, a multiple of `multiple`, of about equal size and at most `tile`; 0 is one for all.

    Each reads `overlap` pixels of its neighbours. Over the nearer half of these two tiles fade into each other, the farther
    half is context alone; so where the network sees no farther than `overlap / 2` pixels, tiles change nothing at all.
    """
    count = 1 if tile <= 0 or tile >= length else -(-length // tile)
    count = min(count, length // multiple)
    borders = [i * (length // multiple) // count * multiple for i in range(count + 1)]
    half, context, found = overlap // 2, -(-overlap // multiple) * multiple, []
    for start, stop in itertools.pairwise(borders):
        first, last = start == 0, stop == length
        read = slice(max(0, start - context), min(length, stop + context))
        rise, fall = 0 if first else half, 0 if last else half
        found.append(Part(read, slice(start - rise, stop + fall), 2 * rise, 2 * fall))
    return found


def _fade(part: Part, scale: int) -> torch.Tensor:
    """Weights of the kept pixels, enlarged; those of two neighbours sum to 1."""
    weights = torch.ones((part.kept.stop - part.kept.start) * scale)
    if rise := part.rise * scale:
        weights[:rise] = (torch.arange(rise) + 0.5) / rise
    if fall := part.fall * scale:
        weights[-fall:] = (torch.arange(fall).flip(0) + 0.5) / fall
    return weights


def tiled(
    upscale: Upscale, image: torch.Tensor, scale: int, tile: int = 256, overlap: int = 16, multiple: int = 1
) -> torch.Tensor:
    """image, uint8 or uint16 [C, H, W] -> [C, scale H, scale W] of the same type.

    Args:
        upscale: floats [1, C, h, w] in [-1, 1] -> [1, C, scale h, scale w], h and w multiples of `multiple`; the picture's last
            row and column are repeated up to such a size.
        tile, overlap: see `parts`. In memory are the picture, the result, and as floats one row of tiles.

    Raises ValueError for an overlap that is negative or more than half a tile.
    """
    if overlap < 0 or tile < 0 or (tile and 2 * overlap > tile):
        raise ValueError(f"tile is {tile} and overlap {overlap}: expected an overlap of 0 to half a tile")
    (channels, height, width), whole = image.shape, image
    if extra := (-width % multiple, -height % multiple) if multiple > 1 else None:
        whole = F.pad(image[None].to(torch.int32), (0, extra[0], 0, extra[1]), mode="replicate")[0].to(image.dtype)
    rows, columns = (parts(n, tile, overlap, multiple) for n in whole.shape[1:])
    integers = to_uint8 if image.dtype == torch.uint8 else to_uint16
    out = torch.empty(channels, scale * whole.shape[1], scale * whole.shape[2], dtype=image.dtype)
    carried = torch.zeros(channels, 0, out.shape[2])  # the last rows of the tiles above, which the next fade into
    for row in rows:
        strip = torch.zeros(channels, scale * (row.kept.stop - row.kept.start), out.shape[2])
        for column in columns:
            made = upscale(to_float(whole[None, :, row.read, column.read]))[0].float().cpu()
            made = made[:, _within(row, scale), _within(column, scale)] * _fade(row, scale)[:, None]
            strip[:, :, scale * column.kept.start : scale * column.kept.stop] += made * _fade(column, scale)
        strip[:, : carried.shape[1]] += carried
        done = strip.shape[1] - scale * row.fall
        out[:, scale * row.kept.start : scale * row.kept.start + done] = integers(strip[:, :done])
        carried = strip[:, done:].clone()
    return out[:, : scale * height, : scale * width]


def _within(part: Part, scale: int) -> slice:
    """What is kept, in the enlarged pixels of what was read."""
    return slice(scale * (part.kept.start - part.read.start), scale * (part.kept.stop - part.read.start))


def for_channels(upscale: Upscale, channels: int) -> Upscale:
    """`upscale` of images with 1 or 3 channels -> of images with 1 to 4: alpha is enlarged as a grey picture, and grey by a
    network for colour as the mean of the three. Images that have the network's channels go through as they are."""

    def plain(x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] == channels:
            return upscale(x)
        if channels == 1:
            return torch.cat([upscale(one) for one in x.split(1, 1)], 1)
        return upscale(x.expand(-1, 3, -1, -1)).mean(1, keepdim=True)

    def all_channels(x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] in (1, 3, channels):
            return plain(x)
        return torch.cat([plain(x[:, :-1]), plain(x[:, -1:])], 1)

    return all_channels


def upscale_picture(recipe, networks: dict, image: torch.Tensor, tile: int = 256, overlap: int = 16) -> torch.Tensor:
    """image, uint8 or uint16 [C, H, W] with 1 to 4 channels -> [C, scale H, scale W], by a recipe or converted network with
    `upscale` and `scale`. ValueError for a network of other channels than 1 or 3, and as `tiled` raises it."""
    channels = _check_channels(recipe)
    multiple = getattr(recipe, "multiple", None) or getattr(networks["generator"], "unshuffle", 1)
    enlarge = for_channels(lambda x: recipe.upscale(networks, x), channels)
    return tiled(enlarge, image, recipe.scale, tile, overlap, multiple)


def _check_channels(recipe) -> int:
    channels = recipe.data["channels"]
    if channels not in (1, 3):
        raise ValueError(f"the network was trained on {channels} channels, and pictures are enlarged by 1 or 3")
    return channels


def upscale_folder(recipe, networks: dict, source: str, out: Path, tile: int = 256, overlap: int = 16) -> int:
    """Enlarges every picture of folder or zip `source` by a recipe or converted network with `upscale` and `scale`, and writes
    PNGs in folder `out` by the same names (`target_names`); returns how many. Alpha and 16 bits stay.

    Raises ValueError for a folder without pictures and for a file that cannot be read, FileExistsError rather than replace
    a file; pictures that were finished before stay.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{source}: no such folder or zip of pictures")
    files = open_source(path, None)
    if not files.keys:
        raise ValueError(f"{source}: no pictures")
    names = target_names(files.keys)
    if there := [name for name in names if (out / name).exists()]:
        raise FileExistsError(
            f"{out} already holds {there[0]}, one of {len(there)} files to write: choose another --out"
        )
    _check_channels(recipe)
    for key, name in zip(files.keys, names, strict=True):
        try:
            image = read_exact(files.read(key, LARGEST_FILE))
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # Pillow and imagecodecs raise a dozen unrelated types for broken files
            raise ValueError(f"{full_name(files, key)}: {reason(error)}") from error
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(upscale_picture(recipe, networks, image, tile, overlap), out / name)
    return len(names)
