"""Two image sets at once, for translation between them: unpaired, or paired by file name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from fastgan.data.catalog import check_options, load
from fastgan.data.dataset import Absent, ImageDataset, about_pixels, take
from fastgan.data.files import Source, open_source, read_images
from fastgan.data.pictures import in_memory
from fastgan.data.registered import load_registered, refuse
from fastgan.sizes import Resolution, resolution_of, sides


class PairDataset(torch.utils.data.Dataset):
    """Images of two sets A and B of one size; a batch from `fastgan.data.Loader` is ``(a, b)``, both [N, C, H, W].

    Unpaired: each side is drawn from its own permutation, every image once per epoch of its side, and mirrored on its
    own; ``len`` is the longer side's, and ``dataset[i]`` wraps the shorter one round. Paired: ``a.images[i]`` belongs
    to ``b.images[i]``, and both are mirrored together.

    ``crop``: side of the random part that training cuts from each image, or its (height, width); ``resolution`` is then this.

    Attributes: ``a``, ``b`` (ImageDataset), ``paired``, ``name``, ``resolution``, ``channels``, ``bits``, ``flip``, ``skipped``.
    """

    def __init__(
        self, a: ImageDataset, b: ImageDataset, *, paired: bool, flip: bool = False, crop: Resolution | None = None
    ) -> None:
        if (a.images.shape[1:], a.bits) != (b.images.shape[1:], b.bits):
            one, other = (f"{list(side.images.shape[1:])} of {side.bits} bits" for side in (a, b))
            raise ValueError(
                f"{a.name} has images {one} and {b.name} {other}: give resolution= and channels=, or bits="
            )
        if paired and len(a) != len(b):
            raise ValueError(f"paired sets must match: {a.name} has {len(a)} images and {b.name} {len(b)}")
        self.a, self.b, self.paired, self.flip = a, b, paired, flip
        self.name = a.name if a.name == b.name else f"{a.name} | {b.name}"
        if crop is not None and not all(
            1 <= part <= whole for part, whole in zip(sides(crop), sides(a.resolution), strict=True)
        ):
            raise ValueError(f"crop is {crop}, expected 1..{a.resolution}, the images' sides")
        self.resolution = a.resolution if crop is None else resolution_of(*sides(crop))
        self.channels, self.bits = a.channels, a.bits
        self.skipped = list(dict.fromkeys([*a.skipped, *b.skipped]))

    def __repr__(self) -> str:
        return f"PairDataset({len(self)} pairs of {self.a!r} and {self.b!r})"

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} pairs")
        index %= len(self)
        return self.a.images[index % len(self.a)], self.b.images[index % len(self.b)]

    @property
    def about(self) -> str:
        """What a run says of its data."""
        images = f"{len(self.a)} pairs of images" if self.paired else f"{len(self.a)} and {len(self.b)} images"
        return images + about_pixels(self.resolution, self.channels, self.bits)

    @property
    def streams(self) -> tuple[int, ...]:
        return (len(self.a),) if self.paired else (len(self.a), len(self.b))

    def gather(self, indices: Sequence[np.ndarray], flips: Sequence[np.ndarray | None]) -> tuple[torch.Tensor, ...]:
        """One (paired) or two (unpaired) index and flip arrays [B] -> a, b [B, C, H, W]."""
        return take(self.a.images, indices[0], flips[0]), take(self.b.images, indices[-1], flips[-1])


def load_pair(
    a: str | Path,
    b: str | Path | None = None,
    *,
    paired: bool | None = None,
    resolution: Resolution | None = None,
    flip: bool = False,
    crop: str = "center",
    strict: bool = False,
    channels: int | None = None,
    bits: int | None = None,
    split: str | None = None,
) -> PairDataset:
    """Load two sets for image-to-image work; arguments not described here as in `fastgan.data.load`.

    - ``load_pair(a, b)``: any two sets, unpaired unless ``paired=True``, which matches files by their path without
      extension (emoji by code points); images without counterpart are listed in ``skipped``.
    - ``load_pair(folder)`` with sub-folders ``trainA`` and ``trainB`` (or ``testA``, ``testB`` by ``split``), or ``A``
      and ``B``: the same for these two.
    - ``load_pair(folder_or_zip)`` of side-by-side images: the left half is A, the right half B; paired unless
      ``paired=False``.

    - ``load_pair(name)`` of a registered loader that returns a PairDataset (:mod:`fastgan.data.registered`).

    Raises ValueError where sizes differ, or where nothing matches in paired sets.
    """
    resolution = check_options(resolution, crop, channels, bits)
    options = {"resolution": resolution, "crop": crop, "strict": strict, "channels": channels, "bits": bits}
    path = Path(a).expanduser()
    whole = {**options, "flip": flip, "split": split}
    if b is None and (found := load_registered(a, whole, load_pair)) is not None:
        pair, left = found
        refuse(a, {o: value for o, value in left.items() if (o, value) != ("split", "train")})
        return pair
    if b is None:
        sides = _side_folders(path, split)
        if sides is None:
            return _side_by_side(path, split, options, paired is not False, flip)
        (a, b), split = sides, None
    first, second = (
        in_memory(load(side, labels=False, split=split, **options), "pairs of sets need every picture by its number")
        for side in (a, b)
    )
    if paired:
        first, second = _match(first, second)
    return PairDataset(first, second, paired=bool(paired), flip=flip)


def _side_folders(path: Path, split: str | None) -> tuple[Path, Path] | None:
    prefixes = (split or "train", "") if split in (None, "train") else (split,)
    for prefix in prefixes:
        sides = path / f"{prefix}A", path / f"{prefix}B"
        if all(side.is_dir() for side in sides):
            return sides
    return None


def _side_by_side(path: Path, split: str | None, options: dict, paired: bool, flip: bool) -> PairDataset:
    if not (path.is_dir() or (path.suffix.lower() == ".zip" and path.is_file())):
        raise ValueError(f"{path}: expected two sets, or a folder or zip of side-by-side images")
    source = open_source(path, split)
    options = {**options, "labels": False}
    left = read_images(source, part="left", **options)
    # Only what the left half has read, so that a broken file is named once.
    right = read_images(Source(source.name, left.files, source.read), part="right", **options)
    return PairDataset(left, right, paired=paired, flip=flip)


def _match(a: ImageDataset, b: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    places = []
    for side in (a, b):
        if not side.files:
            raise Absent(f"{side.name}: paired=True needs file names to match, and this set has none")
        keys = [str(PurePosixPath(file).with_suffix("")) for file in side.files]
        if len(set(keys)) != len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise Absent(f"{side.name}: paired=True, but {twice!r} occurs with more than one extension")
        places.append({key: i for i, key in enumerate(keys)})
    common = [key for key in places[0] if key in places[1]]
    if not common:
        raise Absent(f"no image of {a.name} has a counterpart of the same name in {b.name}")
    matched, shared = [], set(common)
    for side, place in zip((a, b), places, strict=True):
        alone = [(f"{side.name}/{side.files[i]}", "no counterpart") for key, i in place.items() if key not in shared]
        chosen = side if list(place) == common else side.subset(torch.tensor([place[key] for key in common]))
        matched.append(chosen.replace(skipped=[*side.skipped, *alone]))
    return matched[0], matched[1]
