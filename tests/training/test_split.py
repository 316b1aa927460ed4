"""`--split` chooses the part of a data set that a run trains on and is measured against."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from fastgan import recipes
from fastgan.training import RunConfig, Trainer


@pytest.fixture
def data(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        for side in "AB":
            for i in range(count):
                path = tmp_path / "set" / side / part / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((32, 32, 3), i, np.uint8)).save(path)
    os.symlink(tmp_path / "set" / "A", tmp_path / "one")
    return tmp_path


def test_a_run_reads_its_part_and_remembers_it(data, capsys):
    recipe = recipes.get("dcgan")
    run = RunConfig(data=str(data / "one"), split="val", out=str(data / "run"), device="cpu", samples=1)
    trainer = Trainer(recipe, recipe.Config(steps=1, batch_size=2), run)
    assert len(trainer.dataset) == 2
    trainer.train()
    assert "2 images, no classes" in capsys.readouterr().out
    assert json.loads((data / "run" / "config.json").read_text(encoding="utf-8"))["run"]["split"] == "val"


def test_translation_takes_the_part_of_both_sets(data):
    recipe = recipes.get("cyclegan")
    sets = (str(data / "set" / "A"), str(data / "set" / "B"))
    config = recipe.Config(jitter=False)
    pair = recipe.load_data(sets, config, split="train", resolution=32)
    assert (len(pair.a), len(pair.b)) == (3, 3)
    with pytest.raises(ValueError, match="split='test' needs a sub-folder of that name; there are train, val"):
        recipe.load_data(sets, config, split="test", resolution=32)


def test_texts_have_no_parts():
    recipe = recipes.get("mle")
    with pytest.raises(ValueError, match="split='train' is not offered for texts"):
        recipe.load_data("kjv", recipe.Config(), split="train")
