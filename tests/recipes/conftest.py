"""Recipes of a few steps on a few words. One thread: the networks are smaller than a thread team's start."""

import pytest
import torch

from fastgan import recipes
from fastgan.training import RunConfig, Trainer

LINES = [f"{who} {does} {what}" for who in "abcd" for does in ("sees", "hears") for what in ("x", "y z", "w")]
SMALL = {"batch_size": 8, "embedding": 8, "hidden": 8, "pretrain_lr": 0.02}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def corpus(tmp_path):
    """A text file of 24 sentences."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES), "utf-8")
    return str(path)


@pytest.fixture
def small_run(corpus):
    """Train a recipe on the corpus; returns its trainer."""

    def run(name, folder, *, resume=False, **options):
        recipe = recipes.get(name)
        settings = RunConfig(data=corpus, out=str(folder), resume=resume, samples=4, log_every=1, device="cpu")
        trainer = Trainer(recipe, recipe.Config(**SMALL | options), settings)
        trainer.train()
        return trainer

    return run
