"""A run as one .safetensors file: the averaged networks, and in the header what rebuilds them.

Tensors are called `NETWORK.TENSOR`. The header holds the recipe's name, its options and the facts of its data as JSON, the
step, and a SHA-256 of all, as in the files of `fastgan convert`. Options of the run, among them paths, stay at home.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path, PurePath

import torch
from torch import nn

from fastgan import fields
from fastgan._surroundings import apart, in_float32
from fastgan.convert.network import checksum
from fastgan.files import complete
from fastgan.options import check_ranges
from fastgan.recipes import RECIPES, Recipe, check_run, load_run, trusted
from fastgan.training.checkpoint import load_network
from fastgan.training.packed import About, read_packed
from fastgan.untrusted import BadFile
from fastgan.untrusted.blueprint import check_fit, naming, within

# (numbers, tensors) of the networks that a recipe builds and that only training needs: they are not in the file.
_OTHERS = (1 << 28, 20_000)


@in_float32
def pack(run: str | Path, out: Path, recipe: type[Recipe] | str | None = None) -> About:
    """Write the newest checkpoint of `run`, or the one at it, to `out`; returns the header. Raises as `load_run`."""
    from safetensors.torch import save_file

    saved, checkpoint = check_run(run, recipe)
    made, networks = load_run(checkpoint.path, "cpu", recipe)  # a run that is being trained writes others meanwhile
    tensors = {
        f"{name}.{key}": tensor.contiguous().clone()
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
    }
    names = str(made.data.get("name")).split(" | ")  # of pairs; folders stay at home
    about: About = {
        "recipe": RECIPES.name_of(saved.recipe),
        "config": dataclasses.asdict(made.config),
        "data": made.data | {"name": " | ".join(PurePath(name).name for name in names)},
        "step": checkpoint.step,
    }
    # Where the data were an object, which had a name of others, as a part of a set has.
    text = json.dumps(about | ({"given": saved.given} if saved.given else {}), allow_nan=False)
    with complete(out) as temporary:
        save_file(tensors, temporary, metadata={"fastgan": text, "sha256": checksum(text, tensors)})
    return about


@apart
def load_packed(
    path: str | Path, device: str | torch.device = "cpu", recipe: type[Recipe] | str | None = None
) -> tuple[Recipe, dict[str, nn.Module]] | None:
    """As `load_run`, of a file of `pack`; None for another .safetensors. Networks that the file does not hold take at most a GiB.

    Raises BadFile, or ValueError for a recipe that is not registered and not named by the caller.
    """
    if (found := read_packed(path)) is None:
        return None
    (about, tensors), where = found, f"{path}: its header"
    kind = trusted(about["recipe"], recipe)
    config = fields.build(kind.Config, about["config"], f"{where}: config")
    check_ranges(config)
    facts = fields.record(kind.Facts or kind.medium.Facts, about["data"], f"{where}: data")
    with within(tensors.values(), where, spare=_OTHERS):
        planned = kind(config, dict(facts))
    held: dict[str, dict[str, torch.Tensor]] = {name: {} for name in planned.averaged}
    for full, tensor in tensors.items():
        name, _, key = full.partition(".")
        if name not in held:
            raise BadFile(f"{path} has a tensor {fields.clip(full)} of no network of {kind.name}")
        held[name][key] = tensor
    for name, state in held.items():
        check_fit(planned.networks[name], state, f"{path}: {name}")
    with naming(where):
        made = kind(config, dict(facts))
    networks = {name: made.networks[name].eval().requires_grad_(False) for name in made.averaged}
    for name, network in networks.items():
        load_network(network, held[name], f"{path}: {name}")
        network.to(device)
    return made, networks
