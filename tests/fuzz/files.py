"""Checkpoints and run folders, changed at random or made to harm: each is loaded, or refused by name, in time and memory.

    python tests/fuzz/files.py --seconds 60 --seed 0

Fails for an error of another kind than those that name the file, for more than 10 seconds or `MEMORY` bytes for a file,
and where a format of ours, which carries checksums, loads other weights or options than were written.
"""

# ruff: noqa: E402 - the tests' own modules are found from here, wherever this is run

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import hashlib
import io
import json
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import pytest
import torch
from bombs import bombs
from saved_runs import SMALL, write_run
from snapshot import persistent, stand_ins, write_snapshot

from fastgan import convert, recipes
from fastgan.models import r3gan, stylegan2, stylegan3
from fastgan.training import CheckpointError
from fastgan.training.checkpoint import MANIFEST, STATE, TENSORS, load_checkpoint
from fastgan.training.ema import EMA
from fastgan.training.state import unpack
from fastgan.untrusted import BadFile

SECONDS, MEMORY = 10.0, 128 << 20
SIZES = dict(z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=1, channel_base=32, channel_max=4)
STYLEGAN3 = SIZES | dict(img_resolution=16, channel_base=64, num_layers=4)
NASTY = [
    None, True, -1, 0, 1, 3, 2**20, 10**6, 2**31, 2**63, 10**30, 0.5, 1e300, float("nan"), float("inf"), "", "x", "\x1b[2J",
    "a" * 10**5, "__import__('os')", [], [1], [[]], [10**6] * 3, {}, {"x": 1}, [0] * 10**4,
]  # fmt: skip


@dataclass
class Kind:
    """A kind of file: the one that is whole, how it is loaded, the file in it to change, and whether it has a checksum."""

    name: str
    path: Path
    load: Callable[[Path], dict]
    part: str = ""
    checked: bool = False
    swap: Callable[[bytes, random.Random], bytes] | None = None


def weights(networks: dict[str, torch.nn.Module]) -> dict:
    return {f"{n}.{k}": t.clone() for n, network in networks.items() for k, t in network.state_dict().items()}


def load_converted(path: Path) -> dict:
    return weights(convert.load(path, say=lambda text: None)[1])


def load_foreign(path: Path) -> dict:
    return weights({"network": convert.read(path).build()})


def load_run(path: Path) -> dict:
    recipe, networks = recipes.load_run(path)
    return weights(networks) | {"config": (vars(recipe.config), recipe.data, vars(recipes.read_run(path).run))}


def resume(path: Path) -> dict:
    """As training continues: networks, averages and optimisers from the checkpoint."""
    recipe = recipes.read_run(path).build()
    ema = EMA({name: recipe.networks[name] for name in recipe.averaged}, 0.0)
    unpack(load_checkpoint(path), recipe, ema, {})
    return weights(recipe.networks)


def sign(run: Path) -> None:
    """A manifest that fits the checkpoint's files, whoever changed them."""
    folder = run / "checkpoints" / "step-00000001"
    content = {name: (folder / name).read_bytes() for name in (TENSORS, STATE)}
    entries = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in content.items()}
    (folder / MANIFEST).write_text(json.dumps(entries))


def swap_leaf(value, rng: random.Random):
    """`value`, as JSON has it, with one entry set to something nasty, removed, or renamed."""
    places = []

    def visit(at):
        for key in at if isinstance(at, dict) else range(len(at)):
            places.append((at, key))
            if isinstance(at[key], dict | list):
                visit(at[key])

    visit(value)
    if not places:
        return rng.choice(NASTY)
    at, key = rng.choice(places)
    change = rng.random()
    if change < 0.1:
        del at[key]
    elif change < 0.2 and isinstance(at, dict):
        at[rng.choice(["", "x" * 1000, "unheard", key.upper() if isinstance(key, str) else "y"])] = at.pop(key)
    else:
        at[key] = rng.choice(NASTY)
    return value


def swap_json(content: bytes, rng: random.Random) -> bytes:
    saved = json.loads(content)
    saved.pop("sha256", None)
    return json.dumps(swap_leaf(saved, rng)).encode()


def swap_header(content: bytes, rng: random.Random) -> bytes:
    """A .safetensors file with another header: the tensors', or the description in the metadata, its checksum left out."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    about = header.get("__metadata__", {})
    if "fastgan" in about and rng.random() < 0.7:
        header["__metadata__"] = {"fastgan": json.dumps(swap_leaf(json.loads(about["fastgan"]), rng))}
    else:
        header = swap_leaf(header, rng)
    new = json.dumps(header).encode()
    return struct.pack("<Q", len(new)) + new + content[8 + size :]


def swap_bytes(content: bytes, rng: random.Random) -> bytes:
    """Numbers of a pickle: small integers, memo indices, lengths."""
    places = [i for i, byte in enumerate(content[: 1 << 16]) if byte in b"KMJhqjrU\x8a"] or [0]
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.choice(places) + 1
        size = rng.choice((1, 2, 4))
        changed[at : at + size] = rng.choice((b"\xff", b"\x00", b"\x7f", rng.randbytes(1))) * size
    return bytes(changed)


def mutate(content: bytes, kind: Kind, rng: random.Random) -> tuple[bytes, str]:
    """(content, how it was changed)"""
    how = rng.choice(["flip", "flip", "truncate", "splice", "zero", "grow", *(["swap"] * 4 if kind.swap else [])])
    changed = bytearray(content)
    at, size = rng.randrange(len(content)), rng.randint(1, max(1, len(content) // 4))
    if how == "flip":
        # Half of the flips lie in the first kilobytes, where formats keep what decides the rest.
        for _ in range(rng.choice((1, 1, 1, 8))):
            place = rng.randrange(min(len(content), 4096)) if rng.random() < 0.5 else rng.randrange(len(content))
            changed[place] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del changed[at:]
    elif how == "splice":
        source = rng.randrange(len(content))
        changed[at : at + size] = content[source : source + size]
    elif how == "zero":
        changed[at : at + size] = bytes(len(changed[at : at + size]))
    elif how == "grow":
        changed[at:at] = rng.randbytes(min(size, 4096))
    else:
        return kind.swap(content, rng), how
    return bytes(changed), how


def small_networks() -> dict[str, torch.nn.Module]:
    made = {
        "stylegan2": stylegan2.Generator.from_reference(**SIZES, mapping_kwargs={"num_layers": 1}),
        "stylegan3": stylegan3.Generator.from_reference(**STYLEGAN3),
        "r3gan": r3gan.Generator.from_reference(
            NoiseDimension=4, WidthPerStage=[4, 4], CardinalityPerStage=[2, 2], BlocksPerStage=[1, 1], ExpansionFactor=2
        ),
    }
    return {name: network.eval() for name, network in made.items()}


def kinds(folder: Path) -> Iterator[Kind]:
    """A whole file of every kind."""
    from argparse import Namespace

    from safetensors.torch import save_file

    networks = small_networks()
    for name, network in networks.items():
        state = network.state_dict()
        torch.save(state, folder / f"{name}.pt")
        torch.save(
            {"g_ema": state, "args": Namespace(lr=1)}, folder / f"{name}.pth", _use_new_zipfile_serialization=False
        )
        save_file(state, folder / f"{name}-foreign.safetensors")
        yield Kind(f"{name}.pt, zip", folder / f"{name}.pt", load_foreign, swap=swap_bytes)
        yield Kind(f"{name}.pth, old", folder / f"{name}.pth", load_foreign, swap=swap_bytes)
        yield Kind(f"{name}.safetensors", folder / f"{name}-foreign.safetensors", load_foreign, swap=swap_header)
        ours = convert.convert(folder / f"{name}.pt", folder / f"{name}.safetensors")
        yield Kind(f"{name} converted", ours, load_converted, checked=True, swap=swap_header)
    with pytest.MonkeyPatch.context() as patch:
        stand_ins(patch)
        arguments = SIZES | {"mapping_kwargs": {"num_layers": 1}}
        snapshot = write_snapshot(folder / "s.pkl", G_ema=persistent(networks["stylegan2"], **arguments))
    yield Kind("snapshot.pkl", snapshot, load_foreign, swap=swap_bytes)
    for name in SMALL:
        run = write_run(folder / f"run-{name}", name, steps=(1,))
        inside = "checkpoints/step-00000001/"
        yield Kind(f"{name} run, config.json", run, load_run, "config.json", True, swap_json)
        yield Kind(f"{name} run, {MANIFEST}", run, load_run, inside + MANIFEST, True, swap_json)
        yield Kind(f"{name} run, {STATE}", run, resume, inside + STATE, True, swap_json)
        yield Kind(f"{name} run, {TENSORS}", run, load_run, inside + TENSORS, True, swap_header)


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(value, expected[name]) if isinstance(value, torch.Tensor) else value == expected[name]
        for name, value in found.items()
    )


class Slow(BaseException):
    """The alarm: no handler on the way may take it for an error of the file."""


def judge(load: Callable[[Path], dict], path: Path, expected: dict | None) -> tuple[str, str]:
    """(outcome, what is wrong with it or nothing)"""
    signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
    faulthandler.dump_traceback_later(12 * SECONDS, exit=True)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    outcome, fault = "loaded", ""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where damaged checkpoints are named
            outcome = "same" if same(load(path), expected or {}) else "other"
    except (BadFile, CheckpointError, FileNotFoundError, ValueError) as error:
        outcome = "refused"
        if path.name not in str(error):
            fault = f"the message names no file: {error}"
        if len(str(error)) > 2000 or not str(error).replace("\n", " ").isprintable():
            fault = f"the message is {len(str(error))} long, or not printable"
    except (Exception, Slow):
        outcome, fault = "error", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
    spent = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if spent > SECONDS:
        fault = fault or f"{spent:.1f} s"
    if grown > MEMORY:
        fault = fault or f"{grown >> 20} MiB"
    return outcome, fault


def run(seconds: float, seed: int, folder: Path, keep: Path | None) -> int:
    """The number of faults."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)

    def alarm(*_):
        raise Slow

    signal.signal(signal.SIGALRM, alarm)
    table: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    faults = 0

    def report(name: str, outcome: str, fault: str, path: Path, how: str) -> None:
        nonlocal faults
        table[name][outcome] += 1
        if fault:
            faults += 1
            print(f"FAULT {name}, {how}: {fault}", flush=True)
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                target = keep / f"{faults}-{path.name}"
                (shutil.copytree if path.is_dir() else shutil.copy)(path, target)

    whole = list(kinds(folder))
    expected = {kind.name: kind.load(kind.path) for kind in whole}
    for path in bombs(folder, SIZES):
        outcome, fault = judge(load_converted if path.suffix == ".safetensors" else load_foreign, path, None)
        report(
            f"bomb: {path.name}", outcome, fault or ("a bomb was taken" if outcome == "other" else ""), path, "as made"
        )
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        kind = whole[count % len(whole)]
        count += 1
        target = kind.path / kind.part
        content = target.read_bytes()
        changed, how = mutate(content, kind, rng)
        target.write_bytes(changed)
        if how == "swap" and target.name in (STATE, TENSORS):
            sign(kind.path)
        try:
            outcome, fault = judge(kind.load, kind.path, expected[kind.name])
            if kind.checked and outcome == "other" and how != "swap":
                fault = fault or "silent damage"
            report(kind.name, outcome, fault, kind.path, how)
        finally:
            target.write_bytes(content)
            if how == "swap" and target.name in (STATE, TENSORS):
                sign(kind.path)
    width = max(map(len, table))
    for name, outcomes in sorted(table.items()):
        print(f"{name:{width}}  " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items())))
    print(f"{count} files changed with seed {seed}: {faults} faults")
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="decides every change")
    parser.add_argument("--keep", type=Path, help="a folder for the files that were faults")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        sys.exit(run(options.seconds, options.seed, Path(made), options.keep) > 0)
