"""``load``: one entrance for every image data set, by name or by path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastgan import user_code
from fastgan._surroundings import on_cpu
from fastgan.data import huggingface
from fastgan.data.archive import check_target, load_npy, load_npz, save_npz
from fastgan.data.dataset import Absent, ImageDataset
from fastgan.data.decode import check_whole, crop_box, natural_resolution, resize_array
from fastgan.data.emoji import STYLES, load_emoji
from fastgan.data.files import Progress, open_source, read_images
from fastgan.data.idx import is_idx_folder, load_fashion_mnist, load_idx
from fastgan.data.pictures import Options, PictureItems, PictureStream, in_memory, pictures
from fastgan.data.pixels import with_bits, with_channels
from fastgan.data.registered import DATA, load_registered, refuse
from fastgan.data.shards import Shards, fingerprint, shard_paths
from fastgan.names import did_you_mean
from fastgan.sizes import Resolution, resolution_of, sides

CROPS = ("center", "stretch", "none")
DATA.own({"emoji": "fastgan.data.emoji:load_emoji", "fashion-mnist": "fastgan.data.idx:load_fashion_mnist"})


def names() -> list[str]:
    """The data sets that `load` knows by name, users' own among them; each of ours may be followed by ``:CLASS``."""
    ours = ["emoji", *(f"emoji:{style}{base}" for style in STYLES for base in ("", ":base")), "fashion-mnist"]
    return ours + DATA.added()


@on_cpu
def load(
    name_or_path: str | Path,
    *,
    resolution: Resolution | None = None,
    flip: bool = False,
    crop: str = "center",
    strict: bool = False,
    labels: bool = True,
    channels: int | None = None,
    bits: int | None = None,
    split: str | None = None,
    classes: int | None = None,
    store: str | Path | None = None,
    progress: Progress | None = None,
    code: bool = False,
) -> ImageDataset | PictureItems | PictureStream:
    """Load a data set of images by name, or from a folder, a zip, an npz or an npy file, or shards.

    Names, with parts after colons that narrow them down:

    - ``emoji[:google|:twitter][:base][:CLASS]``: embedded, 32x32 RGB, 3,781 images in 9 classes. The style is google
      unless said; ``base`` leaves the skin-tone variants out (1,906 images).
    - ``fashion-mnist[:CLASS]``: 28x28 grey, 10 classes, read from Debian's package ``dataset-fashion-mnist``.

    ``CLASS`` is the beginning of a class name in lower case with hyphens (``emoji:food``, ``fashion-mnist:ankle``);
    the result then has no classes. A name wins over a folder of that name: write ``./emoji`` for the folder.

    - Names that you or a package registered (:mod:`fastgan.data.registered`), whose loaders may return any data set that a
      `fastgan.data.Loader` reads.

    Paths: a folder of images; a ``.zip`` of them, which is read in memory and never extracted; an ``.npz``
    (`fastgan.data.archive.load_npz`) or ``.npy``; a folder of IDX files. What the classes are of images in a folder or zip:

    - With a ``dataset.json`` as StyleGAN's tools write it, ``{"labels": [[file, label], ...]}`` with integers or one-hot
      vectors, these; none for ``null``. An image without an entry, or a vector that is not one-hot, is a ValueError.
    - Else the sub-folders, where every image lies in one. Sub-folders 00000, 00001, ... of 1,000 numbered images each
      are no classes, nor are ``train``, ``val``, ``test`` and the like: a warning says so, and ``split`` chooses one.

    Paths and objects whose pictures are decoded one by one when a batch needs them, so that none of these needs to fit into
    memory; the result is no ImageDataset but has its facts (`fastgan.data.pictures.Pictures`), for training and metrics:

    - Shards, with the extra ``streams``: a ``.tar`` in the convention of webdataset (``000.png`` or jpg, webp, ...; ``000.cls``),
      a pattern such as ``shards/{000000..000009}.tar``, a folder of nothing but them.
    - Data sets of Hugging Face, with the extra ``streams``: a folder that ``save_to_disk`` wrote, or ``hf:FOLDER``, which
      ``datasets.load_dataset`` reads; or an object of that package.
    - Any torch data set, map-style or iterable, of pairs of picture and label, dicts, or pictures.

    ``about`` of the result says what was taken. JPEG files and IDX files carry no checksum: damage that leaves them
    readable cannot be told; that of PNG, zip, gzip and npz files is.

    Files are taken in sorted order and decoded once, over all cores. To start at once with large sets, or to share
    one copy between processes, write them with `fastgan.data.prepare` first.

    Args:
        resolution: side of square images in pixels, or (height, width); Lanczos where it changes the size. None keeps the
            size; the images of a folder must then share one.
        flip: `fastgan.data.Loader` mirrors each image with probability 1/2.
        crop: ``center`` takes the largest centred part of the resolution's aspect ratio, without one a square (of an npz with
            ``axes``, as `prepare` writes it, all); ``stretch`` the whole image, squeezed; ``none`` the whole image,
            which must have the resolution's aspect ratio, or where none is given keeps its size.
        strict: raise ValueError at the first unreadable file instead of skipping it with a warning.
        labels: False drops the classes.
        channels: 1 (luma), 2 (luma, alpha), 3 (RGB) or 4 (RGBA); of an npz or npy also the number that it has. None keeps what
            the set has; files are RGB. Transparency is composited on white where alpha is not asked for.
        bits: 8 (uint8) or 16 (uint16). None keeps what the set has; files are read in 8, and with 16 grey files keep theirs.
        split: ``train`` or ``test`` of emoji (all unless given; about 10% of the base emoji are the test set,
            `fastgan.data.emoji.is_test`, with all their variants), of fashion-mnist and IDX (train unless given).
            Of a folder or zip: the sub-folder of that name (train, val, ...).
        classes: of shards and other sets whose labels are numbers: how many classes there are. None: those that the set names.
        store: folder on a disk for an unnamed file with the decoded pixels, for sets larger than memory; it vanishes
            with the process. None keeps them in memory.
        progress: called as ``progress(done, total)`` while files are decoded.
        code: ``name_or_path`` may also be ``module:function`` or ``path/file.py:function``, which is imported and called. Only
            for your own word, never for a name that was read from a file.

    Raises ValueError for bad arguments, unknown parts and unreadable data, FileNotFoundError for unknown names and
    missing files, ImportError where Pillow is needed and missing.

    Examples:
        >>> fastgan.data.load("emoji", resolution=16).images.shape
        torch.Size([3781, 3, 16, 16])
    """
    resolution = check_options(resolution, crop, channels, bits)
    head, *parts = str(name_or_path).split(":")
    given = {"resolution": resolution, "channels": channels, "bits": bits, "crop": crop, "flip": flip, "labels": labels}
    rest = {"split": split, "classes": classes, "strict": strict, "store": store, "progress": progress}
    if (found := load_registered(name_or_path, given | rest, load, code)) is not None:
        data, left = found
        images = isinstance(data, ImageDataset)  # the options in `given` are then applied here
        asked = {"split", "classes", "strict"} | (set() if images else given.keys())
        refuse(name_or_path, {option: value for option, value in left.items() if option in asked})
        if not images:
            return data
    elif (found := _one_by_one(name_or_path, split, strict)) is not None:
        source, about, names_of = found
        about["classes"] = 0 if not labels else names_of if classes is None else classes
        return pictures(source, Options(resolution, crop, channels, bits, flip, strict), **about)
    elif classes is not None:
        raise ValueError(f"classes is {classes}, but {name_or_path} says itself which classes it has: leave it out")
    elif head == "emoji":
        style = parts.pop(0) if parts and parts[0] in STYLES else STYLES[0]
        base_only = bool(parts) and parts[0] == "base"
        data = _one_class(load_emoji(style, base_only=base_only, split=split), parts[base_only:])
    elif head == "fashion-mnist":
        data = _one_class(load_fashion_mnist(split), parts)
    else:
        path = Path(name_or_path).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"{name_or_path}: {_unknown(str(name_or_path))}")
        options = {"channels": channels, "bits": bits, "strict": strict, "store": store, "progress": progress}
        data, resolution = _load_path(path, split, resolution, crop, labels, options)
    if not labels:
        data = data.replace(labels=None, class_names=(), class_source="")
    return conform(data, resolution, channels, crop, bits).replace(flip=flip)


def _one_by_one(dataset: Any, split: str | None, strict: bool) -> tuple[Any, dict[str, Any], Any] | None:
    """What is decoded one by one: its encoded items, what is known of them, and names of classes; None where `dataset` names
    something else. Raises ValueError for what is no data set."""
    if not isinstance(dataset, (str, Path)):
        if huggingface.is_object(dataset):
            name = type(dataset).__name__
            source, classes, about = huggingface.encoded(dataset, name)
            return source, {"name": name, "about": about}, classes
        if isinstance(dataset, torch.utils.data.Dataset):
            about = f"{len(dataset)} images" if hasattr(dataset, "__len__") else "a stream"
            return dataset, {"name": type(dataset).__name__, "about": about}, getattr(dataset, "classes", 0)
        raise ValueError(
            f"{dataset!r}: expected one data set, a name or a path; two of them are for translation (cyclegan, pix2pix; "
            "fastgan.data.load_pair)"
        )
    name = str(dataset)
    if (folder := huggingface.folder_of(name)) is not None:
        source, classes, about = huggingface.encoded(huggingface.open_folder(folder, split), name)
        return source, {"name": name, "about": about, "fingerprint": huggingface.fingerprint(folder)}, classes
    if (paths := shard_paths(name, split)) is not None:
        about = {"name": name, "about": f"{len(paths)} shards", "fingerprint": fingerprint(paths)}
        return Shards(paths, strict), about, 0
    return None


def prepare(source: str | Path, path: str | Path, **options: Any) -> ImageDataset:
    """Decode, crop and resize ``source`` once, write it as an .npz, and return it loaded from there, memory-mapped.

    ``options`` are those of `load`. What it returns keeps the list of skipped files. Decoded pixels pass through
    an unnamed file beside ``path``: the disk needs twice the size of the result, memory almost nothing.
    """
    path = Path(path)
    check_target(path)
    data = in_memory(load(source, **{"store": path.parent} | options), "an npz is written from a set of known length")
    save_npz(data, path)
    return load(path).replace(skipped=data.skipped, flip=data.flip, class_source=data.class_source)


def conform(
    data: ImageDataset,
    resolution: Resolution | None,
    channels: int | None,
    crop: str = "stretch",
    bits: int | None = None,
) -> ImageDataset:
    """``data`` at ``resolution``, cut as ``crop`` says, with ``channels`` and ``bits``; None leaves them. Grey to RGB is a view.

    Raises ValueError for channels that there is no conversion to, and where ``crop="none"`` does not bring ``resolution``.
    """
    try:
        images = _conformed(data.images, resolution, channels, crop, bits)
    except ValueError as error:
        raise ValueError(f"{data.name}: {error}") from error
    return data if images is data.images else data.replace(images=images)


def _conformed(
    images: torch.Tensor, resolution: Resolution | None, channels: int | None, crop: str, bits: int | None
) -> torch.Tensor:
    height, width = images.shape[2:]
    if channels is not None and (channels < images.shape[1] or (images.shape[1] == 2 and channels == 3)):
        # Fewer to resize; and alpha that goes is composited before, as of files.
        images = with_channels(images, channels)
    if resolution not in (None, resolution_of(height, width)):
        if crop == "none":
            check_whole(width, height, resolution)
        left, top, right, bottom = crop_box(width, height, crop, resolution=resolution)
        images = images[:, :, top:bottom, left:right]
        if images.shape[2:] != sides(resolution):
            images = torch.from_numpy(resize_array(images.numpy(), resolution))
    if channels is not None:
        images = with_channels(images, channels)
    return images if bits is None else with_bits(images, bits)


def _unknown(name: str) -> str:
    from fastgan.data.text import TEXT_NAMES

    if name in TEXT_NAMES:
        return "a set of texts, for mle, seqgan and relgan; images were expected"
    near = did_you_mean(name, names()) or "."
    code = (
        " It is code, which is imported only where you name it yourself, with --data." if user_code.exists(name) else ""
    )
    return f"no such file or folder, and no data set of that name{near} Names: {', '.join(names())}, ours also with :CLASS.{code}"


def _load_path(
    path: Path, split: str | None, resolution: Resolution | None, crop: str, labels: bool, options: dict[str, Any]
) -> tuple[ImageDataset, Resolution | None]:
    """What lies at ``path``, and the resolution that it is to have; None leaves it."""
    suffix = "folder" if path.is_dir() else path.suffix.lower()
    if suffix not in ("folder", ".npz", ".npy", ".zip") or not (path.is_dir() or path.is_file()):
        raise ValueError(f"{path}: expected a folder, a .zip or an .npz, or an .npy, or shards (.tar)")
    idx = path.is_dir() and is_idx_folder(path)
    if suffix in ("folder", ".zip") and not idx:
        source = open_source(path, split)
        return read_images(source, resolution=resolution, crop=crop, labels=labels, **options), resolution
    if split is not None and not idx:
        raise Absent(f"{path}: split={split!r} is not offered for a file")
    known = False
    if idx:
        data = load_idx(path, split, name=str(path))
    elif suffix == ".npy":
        data = load_npy(path, channels=options["channels"])
    else:
        data, known = load_npz(path, labels=labels, channels=options["channels"])
    if resolution is None and not known:
        resolution = natural_resolution(str(path), data.width, data.height, crop)
    return data, resolution


def check_options(
    resolution: Resolution | None, crop: str, channels: int | None, bits: int | None
) -> Resolution | None:
    """The resolution, of which (n, n) is n. ValueError for an argument that makes no sense, whatever the data."""
    pair = resolution if isinstance(resolution, (tuple, list)) else (resolution, resolution)
    if resolution is not None and (len(pair) != 2 or not all(type(side) is int and side > 0 for side in pair)):
        raise ValueError(f"resolution is {resolution!r}, expected a positive integer, (height, width) or None")
    if channels is not None and (type(channels) is not int or channels < 1):
        raise ValueError(f"channels is {channels!r}, expected a positive integer or None")
    for name, value, known in (("crop", crop, CROPS), ("bits", bits, (None, 8, 16))):
        if value not in known:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, known))}")
    return None if resolution is None else resolution_of(*pair)


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def _one_class(data: ImageDataset, parts: Sequence[str]) -> ImageDataset:
    if not parts:
        return data
    slugs = [_slug(name) for name in data.class_names]
    matches = [i for i, slug in enumerate(slugs) if slug == parts[0]] or [
        i for i, slug in enumerate(slugs) if parts[0] and slug.startswith(parts[0])
    ]
    if len(parts) > 1 or len(matches) != 1:
        grammar = ":".join([data.name, *parts])
        options = f"{', '.join(STYLES)}, then base, then one of " if data.name.startswith("emoji") else ""
        near = did_you_mean(parts[0], slugs)
        raise ValueError(f"{grammar}: unknown part{near}; after the name may follow {options}{', '.join(slugs)}")
    index = torch.from_numpy(np.flatnonzero(data.labels.numpy() == matches[0]))
    chosen = data.subset(index)
    return chosen.replace(labels=None, class_names=(), name=f"{data.name}:{slugs[matches[0]]}")
