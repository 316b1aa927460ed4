"""The folder that is shared: what is in it, how it is written, how it is checked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

import torch

import fastgan
from fastgan import convert, fields
from fastgan.files import check_writable
from fastgan.models import embedded
from fastgan.recipes import Recipe, find_run, read_run
from fastgan.recipes.packed import pack
from fastgan.sampling import grid, load_generator, pictures
from fastgan.sharing.card import card
from fastgan.training.checkpoint import load_checkpoint
from fastgan.training.packed import PACKED, read_packed
from fastgan.untrusted import BadFile, open_regular, read_json, read_tensors

CONFIG, CARD = "config.json", "README.md"
# name -> bytes that it may have at most; no other file is written, uploaded or fetched
FILES = {
    CONFIG: 64 << 20,
    PACKED: 8 << 30,
    CARD: 1 << 20,
    "samples.png": 64 << 20,
    "samples.spectrogram.png": 64 << 20,
    "samples.txt": 1 << 20,
    "samples.wav": 64 << 20,
}
_SEEDS = list(range(16))


class File(TypedDict):
    bytes: int
    sha256: str


class Config(TypedDict):
    """config.json. model: what the header of the model file says. files: those that must be as they were written; the card may be
    edited."""

    library_name: str
    version: str
    model: dict[str, Any]
    files: dict[str, dict[str, Any]]  # of File


def write(
    source: str | Path,
    out: str | Path,
    *,
    license: str | None = None,
    name: str | None = None,
    recipe: type[Recipe] | str | None = None,
) -> Path:
    """Write the folder `out`, new, of a run, a checkpoint in it, or a file of `fastgan convert`: the averaged networks,
    config.json, the card, 16 samples.

    license: an identifier such as apache-2.0 or cc-by-4.0. name: user/name, where it is known, for the card. recipe: as of
    `fastgan.recipes.load_run`.

    Raises ValueError, before anything is written, for a folder that is there or a licence that is none; and what
    `fastgan.sampling.load_generator` raises.
    """
    out, source = Path(out), embedded.locate(source)
    if os.path.lexists(out):
        raise ValueError(f"{out} is there already: choose another name")
    if license is None or not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{1,40}", license):
        raise ValueError(
            f"license is {license!r}, expected an identifier of huggingface.co such as apache-2.0, mit, cc-by-4.0 or other: who"
            " takes the files must know what they may do with them"
        )
    check_writable(out.parent)
    if source.is_dir() and not (source / PACKED).is_file():
        read_run(source, recipe)
        source = load_checkpoint(source).path  # card, samples and networks are of one, whatever is trained meanwhile
    with new_folder(out) as folder:
        made, networks = load_generator(source, "cpu", recipe)
        if Path(source).is_file():
            if read_packed(source) is None:
                convert.load(source)  # it must not be a network of others, unchecked
            shutil.copyfile(source, folder / PACKED)
        else:
            pack(source, folder / PACKED, recipe)
        about = json.loads(read_tensors(folder / PACKED)[1]["fastgan"])
        _draw(made, networks, folder)
        names = sorted(path.name for path in folder.iterdir())
        config: Config = {
            "library_name": "fastgan",
            "version": fastgan.__version__,
            "model": about,
            "files": {name: _facts(folder / name) for name in names},
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        text = card(name or out.resolve().name, made, about, license, names, figures(source, about.get("step")))
        (folder / CARD).write_text(text, encoding="utf-8")
        check(folder)
    return out


def figures(source: str | Path, step: int | None) -> dict[str, Any]:
    """What `fastgan eval` has measured of step `step` of a run: metrics.json, as it is. {} where it is of another step."""
    path = find_run(source) / "metrics.json"
    if step is None or not path.is_file():
        return {}
    found = read_json(path)
    return found if found.get("step") == step else {}


def check(folder: Path) -> Config:
    """config.json of a shared folder, whose files are all there, as they were written and no larger than `FILES` says.

    Raises BadFile that names the file.
    """
    config = read_config(folder / CONFIG)
    for name, said in config["files"].items():
        if not (folder / name).is_file():
            raise BadFile(f"{folder} lacks {name}, which its {CONFIG} lists")
        if (found := _facts(folder / name)) != said:
            what = "bytes" if found["bytes"] != said["bytes"] else "sha256"
            raise BadFile(f"{folder / name} is damaged: {what} {found[what]}, expected {said[what]}, as {CONFIG} says")
    return config


def read_config(path: Path) -> Config:
    """A shared folder's config.json alone; BadFile that names it."""
    where, found = str(path), read_json(path)
    try:
        config = fields.record(Config, found, where)
        for name, said in config["files"].items():
            if name not in FILES or name in (CONFIG, CARD):
                raise BadFile(f"{where}: files: {fields.clip(name)} is none that a shared folder has")
            fields.record(File, said, f"{where}: {name}")
            if not 0 < said["bytes"] <= FILES[name]:
                raise BadFile(f"{where}: {name} has {said['bytes']} bytes, expected at most {FILES[name]}")
    except fields.Mismatch as error:
        raise BadFile(f"{error}; is this a folder of fastgan push?") from error
    if config["library_name"] != "fastgan" or PACKED not in config["files"]:
        raise BadFile(f"{where} is not of a folder of fastgan push: it lists no {PACKED}")
    return config


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, which becomes `out` when the block has ended; a failed block leaves nothing."""
    around = [path for path in out.absolute().parents if not path.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())
        os.rename(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # others may have put something there meanwhile
            for path in around:
                path.rmdir()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _facts(path: Path) -> File:
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _digest(file):  # Python 3.10
    digest = hashlib.sha256()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest


def _draw(made, networks: dict, folder: Path) -> None:
    """Samples of the first seeds, as the medium writes them; none of networks that make nothing of seeds alone."""
    from fastgan.convert.converted import Speaker, Translator
    from fastgan.media import Image
    from fastgan.training.log import save_samples
    from fastgan.training.recipe import draw

    if isinstance(made, Speaker | Translator):
        return
    image = issubclass(made.medium, Image)
    with torch.no_grad():
        samples = grid(pictures(made, networks, _SEEDS), len(_SEEDS)) if image else draw(made, networks, _SEEDS)
    save_samples(samples, folder / "samples", made.medium, made.data | {"sample_columns": made.sample_columns})
