"""The hub, through huggingface_hub: its address, its cache and its tokens are that package's (HF_ENDPOINT, HF_HOME, HF_TOKEN)."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan.models import embedded
from fastgan.sampling import load_generator
from fastgan.sharing.folder import CARD, CONFIG, FILES, check, new_folder, read_config
from fastgan.training.packed import PACKED
from fastgan.untrusted import BadFile, clip, shorten


def is_repository(name: str | Path) -> bool:
    """Whether `name` can be a user/name of the hub: it has one slash and is no path that begins with a dot, nor a folder here."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(name), re.ASCII)) and not os.path.lexists(name)


def load(
    where: str | Path, device: str | torch.device = "cpu", *, recipe: Any = None, revision: str | None = None
) -> tuple[Any, dict[str, nn.Module]]:
    """(recipe, networks) of a shared folder, of user/name on the hub, whose files then lie in huggingface_hub's cache, or of a
    generator that comes with the package (`fastgan:emoji`); as `fastgan.recipes.load_run`, and for converted networks as
    `fastgan.convert.load`.

    revision: a branch, a tag, or a commit, which alone stays as it is.

    Raises BadFile for what does not fit its description, ValueError for what the hub does not have.
    """
    if embedded.locate(where) != Path(where):
        return load_generator(where, device, recipe)
    folder = _fetch(str(where), revision) if is_repository(where) else Path(where)
    if not folder.is_dir():
        raise ValueError(f"{where} is neither a folder nor a user/name of the hub")
    check(folder)
    return load_generator(folder, device, recipe)


def pull(name: str, out: str | Path | None = None, *, revision: str | None = None, recipe: Any = None) -> Path:
    """Fetch user/name from the hub into the folder `out`, new; by default that of its name here. The networks have been built
    once before the folder appears. Raises as `load`; ValueError where `out` is there already."""
    if not is_repository(name):
        there = "a folder or file here" if os.path.lexists(name) else "not user/name, as the hub calls its repositories"
        raise ValueError(f"{clip(name)} is {there}: nothing to fetch")
    out = Path(name.partition("/")[2] if out is None else out)
    if os.path.lexists(out):
        raise ValueError(f"{out} is there already: choose another folder")
    with new_folder(out) as folder:
        _fetch(name, revision, folder)
        cache = folder / ".cache"  # huggingface_hub's notes on what it has fetched
        if cache.is_dir():
            shutil.rmtree(cache)
        check(folder)
        load_generator(folder, "cpu", recipe)
    return out


def push(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload a shared folder to user/name, which is made where it is not there yet, as one commit; returns the address. Files of
    `FILES` alone are uploaded. Raises BadFile, before anything is sent, for a folder that `check` refuses, and ValueError without
    a token or where the hub says no."""
    folder = Path(folder)
    check(folder)
    names = uploaded(folder)
    hub = _package()
    if hub.get_token() is None:
        raise ValueError("no token of the hub: run `hf auth login` first, or set HF_TOKEN")
    with _said(name):
        api = hub.HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        operations = [hub.CommitOperationAdd(path, str(folder / path)) for path in names]
        return str(api.create_commit(name, operations, commit_message="fastgan push").commit_url)


def uploaded(folder: Path) -> list[str]:
    """The files of a shared folder that `push` takes. Raises BadFile for one that is too large."""
    names = [*read_config(folder / CONFIG)["files"], CONFIG]
    if (folder / CARD).is_file():
        names.insert(0, CARD)
    for name in names:
        if (size := (folder / name).stat().st_size) > FILES[name]:
            raise BadFile(f"{folder / name} has {size} bytes, expected at most {FILES[name]}")
    return names


def _fetch(name: str, revision: str | None, folder: Path | None = None) -> Path:
    """The folder with the files of user/name: `folder`, or one in the cache. What is too large, or not what config.json lists, is
    refused before it is fetched."""
    hub = _package()
    with _said(name):
        api = hub.HfApi()
        info = api.model_info(name, revision=revision, files_metadata=True)
        there = {file.rfilename: file for file in info.siblings or () if file.rfilename in FILES}
        for path in (CONFIG, PACKED):
            if path not in there:
                raise BadFile(f"{name} has no {path}: it was not made by fastgan push")
        for path, file in there.items():
            if file.size is None or file.size > FILES[path]:
                raise BadFile(f"{name}: {path} has {file.size} bytes, expected at most {FILES[path]}")

        def get(path: str) -> Path:
            return Path(api.hf_hub_download(name, path, revision=info.sha, local_dir=folder))

        first = get(CONFIG)
        config = read_config(first)
        for path, said in config["files"].items():
            if path not in there:
                raise BadFile(f"{name} lacks {path}, which its {CONFIG} lists")
            file = there[path]
            digest = said["sha256"] if file.lfs is None else file.lfs.sha256
            if (file.size, digest) != (said["bytes"], said["sha256"]):
                raise BadFile(f"{name}: {path} is not the file that its {CONFIG} lists, by its size or SHA-256")
        for path in config["files"]:
            get(path)
        if CARD in there:
            get(CARD)
        return first.parent


@contextlib.contextmanager
def _said(name: str) -> Iterator[None]:
    """ValueError in a sentence for what huggingface_hub raises."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise ValueError(
            f"{name}: the hub has none of that name that you may see: check the name, and `hf auth whoami`"
        ) from error
    except (errors.HTTPError, OSError) as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{name}: the hub says {shorten(error)}") from error


def _package():
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError("this needs huggingface_hub: pip install 'fastgan[hub]'") from error
    return huggingface_hub
