"""Recipes of a few steps on a few words or pictures. One thread: the networks are smaller than a thread team's start."""

import numpy as np
import pytest
import torch

from fastgan import recipes
from fastgan.training import RunConfig, Trainer
from fastgan.training.batch import Batch
from fastgan.training.distributed import World

LINES = [f"{who} {does} {what}" for who in "abcd" for does in ("sees", "hears") for what in ("x", "y z", "w")]
SMALL = {"batch_size": 8, "embedding": 8, "hidden": 8, "pretrain_lr": 0.02}


@pytest.fixture(scope="module", autouse=True)  # before a module's own runs: sums depend on the number of threads
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


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A file of 24 images of 32x32 in colour, in 3 classes: a bright square whose place is the class."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 90, (24, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(24) % 3
    for image, label in zip(images, labels, strict=True):
        image[label, 8 * label : 8 * label + 8, 10:20] += 150
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    np.savez(path, images=images, labels=labels)
    return str(path)


@pytest.fixture(scope="session")
def image_run(pictures):
    """Train a recipe on the pictures; returns its trainer."""

    def run(name, folder, *, resume=False, every=100, **options):
        recipe = recipes.get(name)
        settings = RunConfig(
            data=pictures, out=str(folder), resume=resume, samples=3, log_every=1, checkpoint_every=every, device="cpu"
        )
        trainer = Trainer(recipe, recipe.Config(**{"batch_size": 4, "latent": 8} | options), settings)
        trainer.train()
        return trainer

    return run


@pytest.fixture
def made():
    """made(name, **options) -> (a recipe for 32x32 images of 3 classes, batch(): the same data and draws each time)."""

    def make(name, **options):
        torch.manual_seed(0)
        recipe = recipes.get(name)
        data = {"name": "drawn", "resolution": 32, "channels": 3, "num_classes": 3, "class_names": ["a", "b", "c"]}
        built = recipe(recipe.Config(**{"batch_size": 4, "latent": 8} | options), data)
        real = torch.rand(4, 3, 32, 32) * 2 - 1
        world = World(0, 1, torch.device("cpu"))
        return built, lambda: Batch((real, torch.tensor([0, 2, 1, 1])), world, 0, 0, 0, 1)

    return make
