"""Checkpoints that are whole or absent, and run no code when read.

A checkpoint is a folder `step-00001000` with `tensors.safetensors`, `state.json` (numbers and names) and
`manifest.json` (size and SHA-256 of the other two). It is written under a temporary name, flushed to disk, and renamed:
after a crash at any moment a folder of that name is complete. The manifest finds what happens to it later.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch

from fastgan import fields
from fastgan.untrusted import BadFile, clip, open_regular, read_json, read_tensors, shorten
from fastgan.untrusted.blueprint import check_fit

NAME = re.compile(r"step-(\d{8,})$")
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


class CheckpointError(RuntimeError):
    """No whole checkpoint, or one that does not fit what it is loaded into."""


@dataclass
class Checkpoint:
    """What was read: `tensors` by name ("network/generator/...", "ema/...", "optimizer/..."), `state` as saved."""

    path: Path
    step: int
    tensors: dict[str, torch.Tensor]
    state: dict
    skipped: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        size = sum(tensor.nbytes for tensor in self.tensors.values()) / 2**20
        return f"Checkpoint({str(self.path)!r}: step {self.step}, {len(self.tensors)} tensors, {size:.1f} MiB)"

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose name starts with `prefix`, which is cut off."""
        return {name[len(prefix) :]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


class _Entry(TypedDict):
    """What the manifest says of a file."""

    bytes: int
    sha256: str


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the finished checkpoints in `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((int(m[1]), p) for p in folder.iterdir() if (m := NAME.match(p.name)))


def _verify(path: Path, entry: Any) -> None:
    """CheckpointError unless `path` has the size and the SHA-256 that the manifest says."""
    entry = fields.record(_Entry, entry, f"{path.parent / MANIFEST}: {path.name}")
    digest, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    if size != entry["bytes"]:
        raise CheckpointError(f"{path} has {size} bytes instead of {entry['bytes']}")
    if digest.hexdigest() != entry["sha256"]:
        raise CheckpointError(f"{path} does not match its SHA-256")


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and state of one checkpoint folder. Raises CheckpointError that says what is wrong with it."""
    try:
        manifest = read_json(path / MANIFEST)
        for name in (TENSORS, STATE):
            _verify(path / name, manifest.get(name))
        return read_tensors(path / TENSORS)[0], read_json(path / STATE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def load_checkpoint(path: str | Path, *, say: Callable[[str], None] | None = None) -> Checkpoint:
    """The newest whole checkpoint of a run folder, or the one in a checkpoint's own folder. Executes nothing it reads.

    Args:
        path: a run folder (with `checkpoints/` in it), a folder of checkpoints, or one checkpoint.
        say: called with a sentence for every damaged checkpoint that is passed over; by default it goes to stderr.

    Raises:
        CheckpointError: there is none, or none is whole; the message lists what was tried.
    """
    path = Path(path)
    say = say or (lambda text: print(text, file=sys.stderr))
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    try:
        found = [(int(m[1]), path)] if (m := NAME.match(path.resolve().name)) else list_checkpoints(folder)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    skipped = []
    for step, candidate in reversed(found):
        try:
            tensors, state = _read(candidate)
        except CheckpointError as error:
            skipped.append(str(error))
            say(f"damaged checkpoint passed over: {error}")
        else:
            return Checkpoint(candidate, step, tensors, state, skipped)
    raise CheckpointError("; ".join([f"no whole checkpoint in {path}", *skipped]))


def _write_file(path: Path, content: bytes) -> dict:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sync_folder(path: Path) -> None:
    """Makes new names in a folder last. Windows, where a folder cannot be opened, keeps them with its own journal."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_checkpoint(folder: Path, step: int, tensors: dict[str, torch.Tensor], state: dict, keep: int) -> Path:
    """Write one checkpoint into `folder` and remove all but the last `keep` and this one: any of a later step was found damaged.
    A failed write leaves nothing behind."""
    from safetensors.torch import save

    final = folder / f"step-{step:08d}"
    temporary = folder / f".tmp-{final.name}"
    folder.mkdir(exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        manifest = {TENSORS: _write_file(temporary / TENSORS, save(tensors))}
        manifest[STATE] = _write_file(temporary / STATE, json.dumps(state, indent=1, allow_nan=False).encode())
        _write_file(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
        _sync_folder(temporary)
        # A damaged checkpoint of the same step may be in the way; it moves aside, under a name that is never read.
        if final.exists():
            os.rename(final, temporary.with_suffix(".old"))
        os.rename(temporary, final)
        _sync_folder(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(temporary.with_suffix(".old"), ignore_errors=True)
    for _, old in list_checkpoints(folder)[:-keep]:
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


class Writer:
    """Writes checkpoints in a thread of its own, one at a time: training goes on with the next step meanwhile.

    `save` takes a snapshot before it returns. An error in the thread is raised by the next `save` or by `wait`.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, tensors: dict[str, torch.Tensor], state: dict) -> None:
        self.wait()
        snapshot = {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
        self._thread = threading.Thread(target=self._run, args=(step, snapshot, state), name="fastgan-checkpoint")
        self._thread.start()

    def _run(self, step: int, tensors: dict[str, torch.Tensor], state: dict) -> None:
        try:
            write_checkpoint(self.folder, step, tensors, state, self.keep)
        except BaseException as error:  # handed to the training thread
            self._error = error

    def wait(self) -> None:
        """Until the last checkpoint is on disk."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    close = wait


def options_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The options of each of its groups, without the parameters."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def pack_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, made: list[dict[str, Any]] | None = None
) -> tuple[dict[str, torch.Tensor], dict]:
    """(tensors by name, JSON-able rest) of an optimiser's state. made: its `options_of` before the run's first step."""
    saved, tensors, numbers = optimizer.state_dict(), {}, {}
    for index, entries in saved["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{prefix}{index}/{key}"] = value
            else:
                numbers[f"{index}/{key}"] = value
    groups = [{name: v for name, v in group.items() if name not in _HOW} for group in saved["param_groups"]]
    return tensors, {"numbers": numbers, "groups": groups} | ({} if made is None else {"made": made})


class _OptimizerState(TypedDict):
    """What `pack_optimizer` says in JSON; `groups` hold numbers of parameters and options."""

    numbers: dict[str, int | float | bool | None]
    groups: list[dict[str, Any]]


_OPTION = int | float | bool | None | tuple[float, float]
_OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}
# How a step is computed, not what it is: the run that goes on decides.
_HOW = {"foreach", "fused", "capturable"}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], rest: dict) -> None:
    """Inverse of `pack_optimizer`, the prefix cut off the names: `optimizer` is as the run's options make it now, and an option
    that they made otherwise before, a learning rate say, is theirs. Raises CheckpointError if it does not fit."""
    try:
        rest = fields.record(_OptimizerState, rest, "the optimiser")
        groups = [_group(saved, f"group {i}") for i, saved in enumerate(rest["groups"])]
        state: dict[int, dict] = {}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for name, value in [*tensors.items(), *rest["numbers"].items()]:
            index, _, key = name.partition("/")
            if not index.isdecimal() or len(index) > 9 or int(index) >= len(parameters):
                raise BadFile(f"{clip(name)} is of none of its {len(parameters)} parameters")
            if isinstance(value, torch.Tensor):
                shape = parameters[int(index)].shape
                if not value.is_floating_point() or (value.numel() != 1 and value.shape != shape):
                    raise BadFile(f"{clip(name)} is {value.dtype} {list(value.shape)}, the parameter {list(shape)}")
                value = value.clone()  # what was read is the file itself, and an optimiser writes to its state
            state.setdefault(int(index), {})[key] = value
        if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            odd = next((index for index, entries in state.items() if not entries.keys() >= _OF_ADAM), None)
            if odd is not None:
                raise BadFile(f"parameter {odd} lacks one of {', '.join(sorted(_OF_ADAM))}")
        made = fields.conform(rest.get("made", []), list[dict[str, Any]], "made")  # older versions kept none
        made = [_group(saved, f"made {i}") for i, saved in enumerate(made)] or [{}] * len(groups)
        for group, own, before in zip(groups, optimizer.param_groups, made, strict=True):
            changed = {name for name in own.keys() & before.keys() if own[name] != before[name]}
            group |= {name: own[name] for name in (_HOW & own.keys()) | changed}
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the optimiser's state does not fit: {shorten(error)}") from error


def _group(saved: dict[str, Any], where: str) -> dict[str, Any]:
    """A parameter group's options, checked."""
    hints = {"params": list[int]}
    return {name: fields.conform(v, hints.get(name, _OPTION), f"{where}: {clip(name)}") for name, v in saved.items()}


def load_network(network: torch.nn.Module, tensors: dict[str, torch.Tensor], name: str) -> None:
    """Strict `load_state_dict`. Raises CheckpointError that names the network and the first mismatch."""
    try:
        check_fit(network, tensors, name)
        network.load_state_dict(tensors, strict=True)
    except (BadFile, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint does not fit: {shorten(error)}") from error
