"""Editors of small untrained generators: with styles and noise, and without."""

import pytest
import torch
from saved_runs import write_run

from fastgan import editing


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """folder(name): a run of that recipe, made once; classes "w" and "z" stand for class-conditional ones."""
    made = {}
    images = dict(name="x", resolution=16, channels=1, num_classes=3, class_names=["a", "b", "c"])
    options = {
        "classes w": ("stylegan2", (dict(width=2, max_width=4, latent=4, augment="none", conditional=True), images)),
        "classes z": ("r3gan", (dict(width=4, max_width=4, group_width=2, latent=4, conditional=True), images)),
    }

    def make(name):
        if name not in made:
            torch.manual_seed(3)
            recipe, own = options.get(name, (name, None))
            made[name] = write_run(tmp_path_factory.mktemp("runs") / name, recipe, options=own)
        return made[name]

    return make


@pytest.fixture(scope="session")
def editor(folder):
    return lambda name: editing.load(folder(name))
