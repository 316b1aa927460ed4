"""Runs on data sets that say little of themselves, and on what a run records of one that was given."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from fastgan.losses import adversarial
from fastgan.media import Signal
from fastgan.metrics import register
from fastgan.recipes import Recipe, RecipeConfig, load_run
from fastgan.training import Trainer, run_options
from fastgan.training.log import read_metrics


@register("media-test-level", needs=("data",))
def level(data):
    return torch.stack([signal for signal, *_ in data]).float().mean()


class Plain(Recipe):
    medium, metrics = Signal, ("media-test-level",)

    def __init__(self, config, data):
        super().__init__(config, data)
        shape = data["channels"], data["length"]
        generator = nn.Sequential(nn.Linear(4, shape[0] * shape[1]), nn.Unflatten(1, shape), nn.Tanh())
        self.adversaries(generator, nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], 1)), lr=1e-3)
        self.latent_shape = (4,)

    def d_step(self, batch):
        assert batch.real.dtype == torch.float32 and batch.real.abs().max() <= 1
        fake = self.discriminator(self.generator(batch.randn(4)))
        return {"loss": adversarial.hinge.d_loss(self.discriminator(batch.real), fake).mean()}

    def g_step(self, batch):
        return {"loss": adversarial.hinge.g_loss(None, self.discriminator(self.generator(batch.randn(4)))).mean()}


class Few(torch.utils.data.IterableDataset):
    """A stream without length, name or description."""

    rate = 100

    def __iter__(self):
        return iter([(torch.full((2, 16), 0.25), i) for i in range(12)])


class Items(torch.utils.data.Dataset):
    """Items by number, of 16 bits, without a name or description."""

    rate = 100

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i >= 12:
            raise IndexError(i)
        return torch.full((2, 16), 2**13, dtype=torch.int16), i


def options(folder, **more):
    return run_options(Plain)(out=str(folder), device="cpu", samples=2, log_every=1, **more)


@pytest.mark.parametrize(("kind", "mean"), [(Few, 0.25), (Items, 2.0**13)])
def test_a_data_set_that_says_little(kind, mean, tmp_path, capsys):
    run = options(tmp_path / "run", metrics_every=2, metrics_samples=4)
    folder = Trainer(Plain, RecipeConfig(steps=2, batch_size=4), run, dataset=kind()).train()
    saved = json.loads((folder / "config.json").read_text())
    facts = {"name": kind.__name__, "rate": 100, "channels": 2, "length": 16, "num_classes": 0, "class_names": []}
    assert saved["data"] == facts and saved["run"]["data"] == kind.__name__
    assert f"Plain on {kind.__name__}, 2 steps of 4 signals" in capsys.readouterr().out
    # Measured against what it was trained on, though no name leads there.
    measured = [row["media-test-level/Plain"] for row in read_metrics(folder / "metrics.jsonl") if len(row) == 2]
    assert measured == [mean]


def test_a_given_data_set_is_recorded_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Items()
    data.name = "my items"
    trainer = Trainer(Plain, RecipeConfig(steps=1, batch_size=4), dataset=data)
    assert trainer.run.data == "my items" and str(trainer.folder) == "runs/Plain-my-items"
    named = dataclasses.replace(trainer.run, data="mine")
    assert Trainer(Plain, RecipeConfig(steps=1), named, dataset=data).run.data == "mine"
    assert list(tmp_path.iterdir()) == []


class Facts:
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return torch.zeros(2, 16), 0


def describing(facts):
    return type("Described", (Plain,), {"describe": classmethod(lambda cls, dataset: facts)})


OWN = {"rate": 100, "channels": 2, "length": 16, "colour": ["blue", 1]}


def test_a_recipe_with_facts_of_its_own(tmp_path):
    recipe = describing(OWN)
    folder = Trainer(recipe, RecipeConfig(steps=1, batch_size=2), options(tmp_path / "run"), dataset=Items()).train()
    assert load_run(folder, recipe=recipe)[0].data == {"name": "Items", **OWN}
    assert "<title>Described on Items</title>" in (folder / "report.html").read_text()


class Broken(Plain):
    def __init__(self, config, data):
        raise ValueError("broken: no network fits")


class NoSample(Plain):
    def sample(self, networks, seeds):
        raise RuntimeError("no sample was drawn")


@pytest.mark.parametrize(
    ("recipe", "data", "error"),
    [
        (Plain, Facts, "sampling rate is None"),
        (describing(None), Items, r"Described: describe\(\) gave None, expected a dict"),
        (
            describing(OWN | {"mean": torch.zeros(2)}),
            Items,
            "Tensor is not JSON serializable; expected finite numbers, strings",
        ),
        (describing(OWN | {"mean": float("nan")}), Items, "not JSON compliant.*; expected finite numbers, strings"),
        (describing(OWN | {"name": 5}), Items, r"Described: describe\(\): name is 5, expected text"),
        (describing({"channels": 2, "length": 16}), Items, "sampling rate is None"),
        (Broken, Items, "no network fits"),
        (NoSample, Items, "no sample was drawn"),
    ],
)
def test_a_recipe_that_fails_leaves_no_folder(recipe, data, error, tmp_path):
    with pytest.raises((ValueError, RuntimeError), match=error):
        Trainer(recipe, RecipeConfig(steps=1, batch_size=2), options(tmp_path / "run"), dataset=data()).train()
    assert list(tmp_path.iterdir()) == []
