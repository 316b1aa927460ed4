"""--graphs: updates captured once and replayed, by the stand-in of tests/graph_stub.py; on a GPU tests/cuda/train_graphs.py."""

import os
import signal
from typing import ClassVar

import pytest
import torch
from graph_stub import Stub

from fastgan import recipes
from fastgan.training import Interrupted, RunConfig, Trainer, TrainingError, engine, graphs
from fastgan.training.checkpoint import list_checkpoints
from fastgan.training.log import read_metrics
from fastgan.training.update import Updater

DCGAN, STYLEGAN2 = recipes.get("dcgan"), recipes.get("stylegan2")

TINY = {"batch_size": 4, "width": 4, "max_width": 8, "latent": 4}
# Options of each recipe small enough to train here; "how" is a second way to train it.
RECIPES = {
    "gan": {"batch_size": 4, "units": (8, 8), "batch_loss": 0.1},
    "dcgan": TINY | {"augment": "ada-full"},
    "dcgan plain": TINY,
    "dcgan bf16": TINY,
    "wgan-gp": TINY | {"critic_steps": 2},
    "sngan": TINY | {"d_steps": 2},
    "fastgan": TINY,
    "r3gan": TINY | {"gamma": (1.0, 1.0), "beta2": (0.9, 0.9), "group_width": 4},
    "stylegan2": TINY | {"augment": "ada", "r1_interval": 3, "path_interval": 2},
    "stylegan3": TINY | {"layers": 4, "variant": "R", "blur_images": 20, "r1_interval": 3},
    "pix2pix": {"batch_size": 2, "width": 4, "layers": 1, "lr_decay": 0.5},
    "cyclegan": {"batch_size": 2, "width": 4, "layers": 1, "blocks": 1, "pool": 0},
}
GRAPHS = {"stylegan2": 4, "stylegan3": 4}  # of two kinds of updates unless given; stylegan3 ends its blur in step 6
DYNAMIC = {"mle", "seqgan", "relgan", "realesrgan", "vocoder"}


def on_the_cpu(monkeypatch, warm_up=2):
    monkeypatch.setattr(graphs, "Backend", Stub)
    monkeypatch.setattr(graphs, "WARM_UP", warm_up)
    Stub.captured = Stub.replayed = 0


def train(recipe, options, data, folder, steps, **run):
    options = {k: v for k, v in options.items() if hasattr(recipe.Config, k)}
    settings = {"log_every": 1, "resolution": 32, "samples": 1, "device": "cpu"} | run
    trainer = Trainer(recipe, recipe.Config(steps=steps, **options), RunConfig(data=data, out=str(folder), **settings))
    trainer.train()
    return trainer


def weights(trainer):
    held = {
        f"{kind} {name} {key}": value.clone()
        for kind, networks in (("network", trainer.recipe.networks), ("average", trainer.ema.networks))
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    return held | {
        f"{name} {i} {key}": value.clone()
        for name, optimizer in trainer.recipe.optimizers.items()
        for i, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []


def losses(trainer):
    rows = read_metrics(trainer.folder / "metrics.jsonl")
    found = [{k: v for k, v in row.items() if k.startswith(("generator/", "discriminator/"))} for row in rows]
    assert found and all(found)
    return found


def test_every_recipe_is_here():
    assert {name.split()[0] for name in RECIPES} | DYNAMIC == set(recipes.RECIPES)
    assert all(recipes.get(name).dynamic for name in DYNAMIC)


@pytest.mark.parametrize("name", RECIPES)
def test_replays_are_the_updates(name, pictures, tmp_path, monkeypatch):
    """Weights, averages, optimisers' states and logged values, bit for bit."""
    recipe, how = recipes.get(name.split()[0]), {"precision": "bf16"} if "bf16" in name else {}
    data = ("emoji:google:base:flags", "emoji:twitter:base:flags") if recipe.pairs else pictures
    on_the_cpu(monkeypatch, warm_up=10**6)
    eager = train(recipe, RECIPES[name], data, tmp_path / "eager", 9, graphs=True, **how)
    assert Stub.captured == 0
    on_the_cpu(monkeypatch)
    graphed = train(recipe, RECIPES[name], data, tmp_path / "graphs", 9, graphs=True, **how)
    assert Stub.captured == GRAPHS.get(name, 2) and Stub.replayed >= 9
    same(weights(graphed), weights(eager))
    assert losses(graphed) == losses(eager)


def test_near_a_run_without(pictures, tmp_path, monkeypatch):
    """Adam's one kernel, and its rate in float32, round otherwise than Adam's many: after 6 steps of 1e-3 by 2e-6 at most."""
    options = TINY | {"loss": "hinge"}  # pairs leave the last bias to rounding, of which Adam takes the sign
    plain = train(DCGAN, options, pictures, tmp_path / "plain", 6)
    on_the_cpu(monkeypatch)
    graphed = train(DCGAN, options, pictures, tmp_path / "graphs", 6, graphs=True)
    found, expected = weights(graphed), weights(plain)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-6)


def test_a_resumed_run_is_the_unbroken_one(pictures, tmp_path, monkeypatch):
    """Also where it goes on without graphs and with them again: what a checkpoint holds does not say how steps are made."""
    options = RECIPES["stylegan2"]
    on_the_cpu(monkeypatch)
    whole = train(STYLEGAN2, options, pictures, tmp_path / "whole", 8, graphs=True)
    train(STYLEGAN2, options, pictures, tmp_path / "parts", 5, graphs=True)
    captured = Stub.captured
    parts = train(STYLEGAN2, options, pictures, tmp_path / "parts", 8, graphs=True, resume=True)
    assert Stub.captured > captured
    same(weights(parts), weights(whole))
    train(STYLEGAN2, options, pictures, tmp_path / "parts", 10, resume=True)
    last = train(STYLEGAN2, options, pictures, tmp_path / "parts", 12, graphs=True, resume=True)
    assert last.step == 12 and all(v.isfinite().all() for v in weights(last).values())


class Spoilt(DCGAN):
    """From the step that its memory says, its loss is NaN; a graph finds it there."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.augment.register_buffer("done", torch.zeros(()))

    def updates(self, step):
        self.augment.done.fill_(step)
        return super().updates(step)

    def g_step(self, batch):
        values = super().g_step(batch)
        return values | {"loss": torch.where(self.augment.done >= 4, float("nan"), values["loss"])}


def test_a_loss_that_is_not_finite_ends_the_run(pictures, tmp_path, monkeypatch):
    on_the_cpu(monkeypatch)
    with pytest.raises(TrainingError, match=r"step 5: the generator's loss or gradient is not finite"):
        train(Spoilt, TINY, pictures, tmp_path, 9, graphs=True)
    assert Stub.replayed > 0


def test_a_gpu_is_read_only_where_something_is_written(pictures, tmp_path, monkeypatch):
    """On CUDA losses are looked at in steps that are logged or saved, and none is saved that was not looked at."""
    on_the_cpu(monkeypatch)
    looked = []

    class Watched(Updater):
        def _check(self, *arguments):
            looked.append(trainer.step + 1)
            super()._check(*arguments)

    monkeypatch.setattr(engine, "Updater", Watched)
    run = RunConfig(
        data=pictures,
        out=str(tmp_path),
        resolution=32,
        samples=1,
        device="cpu",
        graphs=True,
        log_every=4,
        checkpoint_every=6,
    )
    trainer = Trainer(Spoilt, Spoilt.Config(steps=9, **TINY), run)
    # As on a GPU, where the engine does not look at each step; the work stays where it is.
    monkeypatch.setattr(engine, "reads_freely", lambda device: False)
    with pytest.raises(TrainingError, match=r"step 6: .* not finite"):
        trainer.train()
    assert sorted(set(looked)) == [4, 6]
    assert list_checkpoints(tmp_path / "checkpoints") == []


def test_a_signal_is_seen_in_the_next_step(pictures, tmp_path, monkeypatch):
    on_the_cpu(monkeypatch)

    class Stopped(DCGAN):
        def updates(self, step):
            if step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().updates(step)

    with pytest.raises(Interrupted, match="saved step 5"):
        train(Stopped, TINY, pictures, tmp_path, 9, graphs=True, log_every=100)
    resumed = train(DCGAN, TINY, pictures, tmp_path, 9, resume=True)
    assert resumed.step == 9


class Counting(DCGAN):
    """Its generator's loss is a number of the host that changes from step to step."""

    weight = 0.0

    def updates(self, step):
        self.weight = float(step)
        return super().updates(step)


class Reading(DCGAN):
    def g_step(self, batch):
        values = super().g_step(batch)
        return values | {"read": values["loss"].new_full((), values["loss"].item())}


class Choosing(DCGAN):
    """Draws more in later steps, unseen by the recipe's attributes."""

    calls: ClassVar = [0]

    def g_step(self, batch):
        self.calls[0] += 1
        if self.calls[0] > 2:
            batch.rand(3)
        return super().g_step(batch)


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (Counting, "its updates are of more than 16 kinds"),
        (Reading, "the generator's g_step cannot be captured as a CUDA graph .*_local_scalar_dense"),
        (Choosing, "the generator's g_step cannot be captured .*draws other numbers"),
    ],
)
def test_a_dynamic_step_is_refused(recipe, why, pictures, tmp_path, monkeypatch):
    on_the_cpu(monkeypatch)
    with pytest.raises(TrainingError, match=rf"--graphs: step \d+: .*{why}(?s:.*)--resume --no-graphs"):
        train(recipe, TINY, pictures, tmp_path, 12, graphs=True)


def test_attributes_make_graphs_of_their_own(pictures, tmp_path, monkeypatch):
    """A loss that depends on a truth value of the recipe: each value has its graph, and an old one is found again."""

    class Alternating(DCGAN):
        odd = False

        def updates(self, step):
            self.odd = step % 2 == 1
            return super().updates(step)

        def g_step(self, batch):
            values = super().g_step(batch)
            return values | {"loss": 3 * values["loss"]} if self.odd else values

    sizes = TINY | {"penalty_interval": 1}
    on_the_cpu(monkeypatch, warm_up=10**6)
    eager = train(Alternating, sizes, pictures, tmp_path / "eager", 9, graphs=True)
    on_the_cpu(monkeypatch)
    graphed = train(Alternating, sizes, pictures, tmp_path / "graphs", 9, graphs=True)
    assert Stub.captured == 4
    same(weights(graphed), weights(eager))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"precision": "fp16"}, "bf16 has no loss scale"),
        ({"grad_accum": 2}, "pieces of --grad-accum"),
        ({"compile": True}, "choose one of --compile and --graphs"),
    ],
)
def test_what_is_refused_at_the_start(options, why, pictures, tmp_path, monkeypatch):
    on_the_cpu(monkeypatch)
    with pytest.raises(ValueError, match=f"--graphs: dcgan cannot be trained by CUDA graphs here: .*{why}"):
        train(DCGAN, TINY | {"gamma": 0.0}, pictures, tmp_path / "run", 1, graphs=True, **options)
    assert not (tmp_path / "run").exists()


def test_recipes_say_what_is_dynamic(pictures, tmp_path, monkeypatch):
    on_the_cpu(monkeypatch)
    with pytest.raises(ValueError, match=r"r3gan cannot .*: gamma and beta2 change with every step of the burn-in"):
        train(recipes.get("r3gan"), TINY, pictures, tmp_path / "run", 1, graphs=True)
    pairs = ("emoji:google:base:flags", "emoji:twitter:base:flags")
    with pytest.raises(ValueError, match=r"cyclegan cannot .*: its pools .*--pool 0"):
        train(recipes.get("cyclegan"), {}, pairs, tmp_path / "run", 1, graphs=True)


def test_without_a_gpu_it_says_so(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"--graphs: .* graphs are made by CUDA, and this is on cpu"):
        train(DCGAN, TINY, pictures, tmp_path / "run", 1, graphs=True)
    assert not (tmp_path / "run").exists()
