"""What a checkpoint holds of a run, as tensors by name and JSON-able state, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import torch

from fastgan import fields
from fastgan.training.checkpoint import (
    STATE,
    Checkpoint,
    CheckpointError,
    load_network,
    pack_optimizer,
    unpack_optimizer,
)
from fastgan.training.distributed import World
from fastgan.training.ema import EMA
from fastgan.training.recipe import Recipe
from fastgan.training.shard import portion

COUNTERS = ("step", "update", "images", "seconds")


class _State(TypedDict):
    """What the engine and `pack` leave in state.json, besides loss scales."""

    step: int
    update: int
    images: int
    seconds: float
    optimizers: dict[str, Any]


class _Place(TypedDict):
    """Where one process is in a stream: `fastgan.data.source.StreamReader`."""

    epoch: int
    window: int
    offset: int
    place: Any


def pack(
    recipe: Recipe, ema: EMA, scalers: dict, made: Mapping[str, list[dict[str, Any]]] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, state) of networks, averages, optimisers and loss scales. The tensors are the live ones, no copies.

    made: by optimiser, as of `pack_optimizer`.
    """
    tensors, optimizers = {}, {}
    for kind, networks in (("network", recipe.networks), ("ema", ema.networks)):
        for name, network in networks.items():
            tensors |= {f"{kind}/{name}/{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in recipe.optimizers.items():
        packed, optimizers[name] = pack_optimizer(f"optimizer/{name}/", optimizer, made and made[name])
        tensors |= packed
    return tensors, {"optimizers": optimizers, "scales": {name: s.state_dict() for name, s in scalers.items()}}


def unpack(loaded: Checkpoint, recipe: Recipe, ema: EMA, scalers: dict) -> None:
    """Inverse of `pack`. Raises CheckpointError that names the checkpoint and what does not fit."""
    try:
        _unpack(loaded, recipe, ema, scalers)
    except (CheckpointError, fields.Mismatch) as error:
        raise CheckpointError(f"{loaded.path}: {error}") from error


def _unpack(loaded: Checkpoint, recipe: Recipe, ema: EMA, scalers: dict) -> None:
    saved = fields.record(_State, loaded.state, STATE)
    scales = fields.conform(saved.get("scales", {}), dict[str, dict[str, int | float]], f"{STATE}: scales")
    seen = fields.conform(saved.get("seen", 0), int, f"{STATE}: seen")
    if min(seen, *(saved[name] for name in COUNTERS)) < 0 or saved["step"] != loaded.step:
        raise CheckpointError(f"{STATE}: a counter is negative, or step is not the folder's, {loaded.step}")
    for name, network in recipe.networks.items():
        load_network(network, _parts(loaded.under(f"network/{name}/"), network), name)
    for name, network in ema.networks.items():
        load_network(network, _parts(loaded.under(f"ema/{name}/"), network), f"the average of {name}")
    for name, optimizer in recipe.optimizers.items():
        parameters = {str(i): p for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
        tensors = {
            key: portion(tensor, parameters.get(key.partition("/")[0], tensor))
            for key, tensor in loaded.under(f"optimizer/{name}/").items()
        }
        unpack_optimizer(optimizer, tensors, saved["optimizers"].get(name))
    for name, scaler in scalers.items():
        if scales.get(name):
            _load_scaler(scaler, scales[name], f"{STATE}: scales of {name}")


def streams(loaded: Checkpoint) -> list[dict[str, Any]] | None:
    """Where each process of that run was in its stream; None where the data were an indexed source. Raises CheckpointError."""
    try:
        found = fields.conform(loaded.state.get("streams", []), list[Any], f"{STATE}: streams")
        places = [fields.record(_Place, place, f"{STATE}: streams[{i}]") for i, place in enumerate(found)]
    except fields.Mismatch as error:
        raise CheckpointError(f"{loaded.path}: {error}") from error
    for place in places:
        if set(place) != set(_Place.__annotations__) or min(place["epoch"], place["window"], place["offset"]) < 0:
            raise CheckpointError(f"{loaded.path}: {STATE}: streams: a place has other names, or a negative number")
    return places or None


def _load_scaler(scaler: Any, saved: dict[str, Any], where: str) -> None:
    missing = next((key for key in scaler.state_dict() if key not in saved), None)
    if missing is not None:
        raise CheckpointError(f"{where} lacks {missing}")
    scaler.load_state_dict(saved)


def _parts(tensors: dict[str, torch.Tensor], network: torch.nn.Module) -> dict[str, torch.Tensor]:
    held = network.state_dict()
    return {name: portion(tensor, held.get(name, tensor)) for name, tensor in tensors.items()}


def share(world: World, loaded: Checkpoint | None) -> Checkpoint:
    """Rank 0's checkpoint on every process: other hosts need not see its disk."""
    if world.size == 1:
        return loaded
    shapes = {n: (t.shape, t.dtype) for n, t in loaded.tensors.items()} if world.main else None
    head = (loaded.path, loaded.step, loaded.state, shapes) if world.main else None
    path, step, state, shapes = world.agree(head)
    tensors = {}
    for name, (shape, dtype) in shapes.items():
        tensor = loaded.tensors[name] if world.main else torch.empty(shape, dtype=dtype)
        tensor = tensor.to(world.device)
        world.broadcast([tensor])
        tensors[name] = tensor.cpu()  # one at a time: together they may not fit the device
    return Checkpoint(path, step, tensors, state)
