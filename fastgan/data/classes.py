"""Which class each image of a folder or zip belongs to: what a dataset.json says, or else the sub-folders."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from fastgan.data.dataset import shown

MANIFEST = "dataset.json"
_LEAST_LIMIT = 1 << 16  # classes that any set may have; one of more images may have as many as images
_PART = r"(train(ing)?|eval(uation)?|val(id(ation)?)?|test(ing|s)?|dev(el(opment)?)?|(hold|held)[-_ ]?out)"
_IN_NAME, _WHOLE_NAME = (
    re.compile(pattern, re.IGNORECASE)
    for pattern in (_PART, _PART + r"([-_ ]?(set|data|im(age|g)s?|pictures|photos|split|\d+|[ab]))*")
)
_CHUNK, _CHUNKED = re.compile(r"\d{5}"), re.compile(r"(?:img)?(\d{5,8})")


class Classes(NamedTuple):
    """``labels`` int64 [N] of N images, ``names`` of the classes (empty: none), ``source``: what told them."""

    labels: np.ndarray
    names: list[str]
    source: str


def _folders(keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The folder of each key as it is written, and its parts: few, however many images there are."""
    written = {key.rpartition("/")[0] for key in keys}
    return {folder: tuple(part for part in folder.split("/") if part not in ("", "..", ".")) for folder in written}


def common_folders(keys: Sequence[str]) -> tuple[str, ...]:
    """The folders that all of ``keys`` (at least one) share."""
    folders = _folders(keys).values()
    pairs = zip(min(folders), max(folders), strict=False)
    return tuple(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def first_folders(keys: Sequence[str]) -> list[str]:
    """Sorted names of the folders right below the one that all of ``keys`` share."""
    depth = len(common_folders(keys)) if keys else 0
    return sorted({folders[depth] for folders in _folders(keys).values() if len(folders) > depth})


def parts_of(keys: Sequence[str]) -> tuple[list[str], bool]:
    """Those of `first_folders` named like parts of one set (train and val, or faces_train and faces_test), and
    whether they surely are: nothing else lies beside them, or there are two of them."""
    folders = first_folders(keys)
    others = Counter(_IN_NAME.sub("*", name, count=1) for name in folders)
    parts = [
        name
        for name in folders
        if _WHOLE_NAME.fullmatch(name) or (_IN_NAME.search(name) and others[_IN_NAME.sub("*", name, count=1)] > 1)
    ]
    return parts, len(parts) > 1 or (len(parts) == 1 and folders == parts)


def labels_from_paths(keys: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Class index int64 [N] and sorted class names: the first folder below the one that all keys share.

    No classes (zeros, empty list) where an image lies outside any such folder.
    """
    folders, depth = _folders(keys), len(common_folders(keys))
    if any(len(parts) <= depth for parts in folders.values()):
        return np.zeros(len(keys), np.int64), []
    class_names = sorted({parts[depth] for parts in folders.values()})
    index = {name: i for i, name in enumerate(class_names)}
    labels = {folder: index[parts[depth]] for folder, parts in folders.items()}
    return np.array([labels[key.rpartition("/")[0]] for key in keys], np.int64), class_names


def find_classes(
    name: str, keys: Sequence[str], manifests: Sequence[str], read: Callable[[str, int], bytes]
) -> Classes:
    """The classes of the images ``keys`` of the set ``name``; ``read(key, limit)`` reads one of the dataset.json
    ``manifests``, which counts where it lies in a folder that holds all of ``keys``."""
    common = common_folders(keys)
    holders = {"/".join([*common[:depth], MANIFEST]): depth for depth in range(len(common) + 1)}
    found = [manifest for manifest in manifests if manifest in holders]
    if found:
        path = max(found, key=holders.__getitem__)
        try:
            content = read(path, (1 << 20) + (len(keys) << 12))  # a one-hot vector of 1,000 classes has 3,000 bytes
        except (OSError, ValueError) as error:
            raise ValueError(f"{name}/{path}: {error}") from error
        return _from_manifest(f"{name}/{path}", content, keys, holders[path])
    if manifests:
        raise ValueError(
            f"{name}: {shown(manifests)} would label only some of the images: load that folder alone, or choose a part of "
            "the set with split="
        )
    if parts_of(keys)[1]:  # train/cat/1.png and val/cat/2.png are both a cat
        at = len(common)
        shorter = {folder: "/".join([*p[:at], *p[at + 1 :]]) for folder, p in _folders(keys).items()}
        keys = [f"{shorter[folder]}/{file}" for folder, _, file in (key.rpartition("/") for key in keys)]
    labels, names = labels_from_paths(keys)
    if names and _are_chunks(keys, len(common_folders(keys))):
        return Classes(
            np.zeros(len(keys), np.int64), [], f"sub-folders {names[0]} to {names[-1]} are chunks, no classes"
        )
    return Classes(labels, names, "sub-folders" if names else "")


def numbered(labels: np.ndarray, where: str) -> list[str]:
    """Names "0", "1", ... for integer ``labels`` [N]. ValueError, which begins with ``where``, for labels out of range."""
    limit = max(_LEAST_LIMIT, len(labels))
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, -1)
    if low < 0 or high >= limit:
        raise ValueError(f"{where}: labels {low}..{high}, expected 0..{limit - 1} at most")
    return [str(i) for i in range(high + 1)]


def _are_chunks(keys: Sequence[str], depth: int) -> bool:
    """Whether each folder at ``depth`` is 00000, 00001, ... and holds images number 0 to 999, 1000 to 1999, ... of one row,
    as StyleGAN's data sets do; FFHQ names it by its first number, 00000, 01000, ..."""
    numbers = {folder: parts[depth] for folder, parts in _folders(keys).items()}
    if not all(map(_CHUNK.fullmatch, numbers.values())):
        return False
    for folder, _, file in (key.rpartition("/") for key in keys):
        number = _CHUNKED.fullmatch(file.partition(".")[0])
        thousand = int(number[1]) // 1000 if number else -1
        if int(numbers[folder]) not in (thousand, 1000 * thousand):
            return False
    return True


def _from_manifest(path: str, content: bytes, keys: Sequence[str], depth: int) -> Classes:
    """StyleGAN's dataset.json: {"labels": [[name, label], ...]} or {"labels": null}; a label is an integer or one-hot."""
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no readable JSON ({type(error).__name__}: {error})") from error
    if not isinstance(manifest, dict) or "labels" not in manifest:
        raise ValueError(f'{path}: expected an object with "labels": a list of [name, label], or null')
    entries = manifest["labels"]
    if entries is None:
        return Classes(np.zeros(len(keys), np.int64), [], f"labels in {MANIFEST} are null")
    if not isinstance(entries, list):
        raise ValueError(f"{path}: labels is {_brief(entries)}, expected a list of [name, label], or null")
    said: dict[str, Any] = {}
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise ValueError(f"{path}: labels holds {_brief(entry)}, expected [name, label]")
        file = entry[0].replace("\\", "/").removeprefix("./")
        if said.setdefault(file, entry[1]) != entry[1]:
            raise ValueError(f"{path}: labels has {shown([file])} twice: {_brief(said[file])} and {_brief(entry[1])}")
    images = ["/".join(PurePosixPath(key).parts[depth:]) for key in keys]
    missing = [image for image in images if image not in said]
    if missing:
        raise ValueError(f"{path}: labels has no entry for {len(missing)} of {len(keys)} images: {shown(missing)}")
    if len(said) > len(images):
        absent = sorted(said.keys() - set(images))
        warnings.warn(f"{path}: labels names {len(absent)} images that are not there: {shown(absent)}", stacklevel=2)
    labels = [said[image] for image in images]
    if all(isinstance(label, list) for label in labels):
        return _from_vectors(path, images, labels)
    for image, label in zip(images, labels, strict=True):
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < 1 << 62:
            raise ValueError(
                f"{path}: the label of {shown([image])} is {_brief(label)}, expected integers from 0 on, or a one-hot "
                "vector for each image"
            )
    numbers = np.array(labels, np.int64)
    return Classes(numbers, numbered(numbers, path), MANIFEST)


def _from_vectors(path: str, images: Sequence[str], labels: Sequence[list]) -> Classes:
    length = len(labels[0])
    for image, label in zip(images, labels, strict=True):
        if len(label) != length:
            raise ValueError(f"{path}: labels are vectors of {length} and ({shown([image])}) of {len(label)} numbers")
        if not all(isinstance(x, (int, float)) and x in (0, 1) for x in label) or sum(label) != 1:
            raise ValueError(
                f"{path}: the label of {shown([image])} is {_brief(label)}, which is no one-hot vector: networks are "
                'trained on classes only. Write integers or one-hot vectors, or "labels": null to train without'
            )
    return Classes(np.array([label.index(1) for label in labels]), [str(i) for i in range(length)], MANIFEST)


def _brief(value: Any) -> str:
    """JSON ``value`` for a message, by its beginning alone, so that size and depth of it do not matter."""
    if isinstance(value, list):
        inner = ", ".join("..." if isinstance(x, (list, dict)) else _brief(x) for x in value[:4])
        return f"[{inner}{', ...' if len(value) > 4 else ''}]"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 62:
        return "an integer of more than 62 bits"
    return shown([value]) if isinstance(value, str) else json.dumps(value)
