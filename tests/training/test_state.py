"""A resumed run takes from a checkpoint what fits it; anything else is a CheckpointError that says what."""

import copy

import pytest
import torch
from saved_runs import SMALL

from fastgan import recipes
from fastgan.training import CheckpointError
from fastgan.training.checkpoint import Checkpoint
from fastgan.training.ema import EMA
from fastgan.training.state import pack, unpack


@pytest.fixture
def run(tmp_path):
    """(a recipe, its average, a checkpoint of it after one step of Adam)"""
    options, data = SMALL["gan"]
    recipe = recipes.get("gan")
    made = recipe(recipe.Config(**options), data)
    for name, optimizer in made.optimizers.items():
        for parameter in made.networks[name].parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    ema = EMA({"generator": made.generator}, 0.0)
    tensors, state = pack(made, ema, {})
    state |= dict(step=1, update=2, images=8, seconds=0.5)
    return made, ema, Checkpoint(tmp_path / "step-00000001", 1, copy.deepcopy(tensors), copy.deepcopy(state))


def test_what_fits_is_taken(run):
    made, ema, loaded = run
    unpack(loaded, made, ema, {})
    value = made.optimizers["generator"].state_dict()["state"][0]["exp_avg"]
    assert torch.equal(value, loaded.tensors["optimizer/generator/0/exp_avg"])
    assert value.data_ptr() != loaded.tensors["optimizer/generator/0/exp_avg"].data_ptr()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("step", ...),
        ("step", "1"),
        ("step", 7),
        ("images", -1),
        ("update", 1.5),
        ("seconds", None),
        ("seen", -1),
        ("seen", 1.5),
        ("scales", {"generator": 5}),
        ("scales", 5),
        ("optimizers", ...),
        ("optimizers", []),
        ("optimizers.generator", ...),
        ("optimizers.generator", 3),
        ("optimizers.generator.groups", ...),
        ("optimizers.generator.groups", [5]),
        ("optimizers.generator.groups", []),
        ("optimizers.generator.groups.0.params", [0]),
        ("optimizers.generator.groups.0.params", ["x"] * 10**5),
        ("optimizers.generator.groups.0.params", ...),
        ("optimizers.generator.groups.0.lr", "fast"),
        ("optimizers.generator.groups.0.betas", [0.5]),
        ("optimizers.generator.groups.0.betas", {}),
        ("optimizers.generator.numbers", {"x/step": 1}),
        ("optimizers.generator.numbers", {"0/step": [1]}),
        ("optimizers.generator.numbers", {"9" * 5000: 1}),
    ],
)
def test_state_that_does_not_fit(run, path, value):
    made, ema, loaded = run
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    at = loaded.state
    for name in parents:
        at = at[name]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    with pytest.raises(CheckpointError) as caught:
        unpack(loaded, made, ema, {})
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer/generator/0/exp_avg", torch.zeros(3)),
        ("optimizer/generator/0/exp_avg", torch.zeros(4, 4, dtype=torch.int64)),
        ("optimizer/generator/0/exp_avg", ...),
        ("optimizer/generator/99/exp_avg", torch.zeros(3)),
        ("optimizer/generator/-1/exp_avg", torch.zeros(3)),
        ("optimizer/generator/x", torch.zeros(3)),
        ("network/generator/x", torch.zeros(3)),
        ("ema/generator/x", torch.zeros(3)),
    ],
)
def test_tensors_that_do_not_fit(run, name, value):
    made, ema, loaded = run
    if value is ...:
        del loaded.tensors[name]
    else:
        loaded.tensors[name] = value
    with pytest.raises(CheckpointError) as caught:
        unpack(loaded, made, ema, {})
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("kind", ["network", "ema"])
def test_networks_of_other_types(run, kind):
    made, ema, loaded = run
    name = next(n for n in loaded.tensors if n.startswith(f"{kind}/generator/"))
    for odd in (loaded.tensors[name].long(), loaded.tensors[name].to(torch.complex64), loaded.tensors[name][..., :1]):
        with pytest.raises(CheckpointError, match="does not fit"):
            unpack(Checkpoint(loaded.path, 1, loaded.tensors | {name: odd}, loaded.state), made, ema, {})
