"""What every recipe for images must do: train from the command line's options, resume bit for bit, generate by class."""

import dataclasses
import json
import math
import shutil

import pytest
import torch

from fastgan import recipes
from fastgan.training import load_checkpoint
from fastgan.training.checkpoint import list_checkpoints

SMALL = {
    "gan": {"units": (8, 6)},
    "dcgan": {"width": 4, "max_width": 16},
    "wgan-gp": {"width": 8, "critic_steps": 2},
    "sngan": {"width": 8, "d_steps": 2},
    "r3gan": {"width": 8, "max_width": 16, "burn_in": 20},
    "fastgan": {"width": 4, "max_width": 16},
    "stylegan2": {"width": 2, "max_width": 4, "path_interval": 2},
    "stylegan3": {"width": 2, "max_width": 4, "layers": 4},
}
CONDITIONAL = ["dcgan", "sngan", "r3gan", "stylegan2", "stylegan3"]


def changed(before, after):
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.fixture(scope="module", params=SMALL)
def finished(request, image_run, tmp_path_factory):
    """A run of three steps with a checkpoint after each, by class where the recipe can."""
    name = request.param
    options = SMALL[name] | ({"conditional": True} if name in CONDITIONAL else {})
    return image_run(name, tmp_path_factory.mktemp(name) / "run", steps=3, every=1, **options)


def checkpoints(trainer):
    return [load_checkpoint(path).tensors for _, path in list_checkpoints(trainer.folder / "checkpoints")]


def test_logs_every_step_and_samples(finished):
    rows = [json.loads(line) for line in (finished.folder / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    recipe, networks = recipes.load_run(finished.folder)
    images = recipe.sample(networks, [0, 1])
    assert images.shape == (2, 3, 32, 32)
    torch.testing.assert_close(images[1:], recipe.sample(networks, [1]))


def test_resumes_as_if_unbroken(finished, image_run, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "broken")
    shutil.rmtree(list_checkpoints(tmp_path / "broken" / "checkpoints")[-1][1])
    config = dataclasses.asdict(finished.config)
    resumed = image_run(finished.recipe.name, tmp_path / "broken", every=1, resume=True, **config)
    whole, parts = checkpoints(finished)[-1], checkpoints(resumed)[-1]
    assert whole.keys() == parts.keys()
    assert not changed(whole, parts)


def test_every_weight_of_both_networks_learns(finished):
    # By the last step: beside path length's gradient another may move a weight less than float32 tells apart.
    first, *_, last = checkpoints(finished)
    weights = {
        f"network/{network}/{parameter}"
        for network in ("generator", "discriminator")
        for parameter, _ in finished.recipe.networks[network].named_parameters()
    }
    # A constant in the logits cancels in these losses: its gradient is 0.
    assert weights - changed(first, last) <= {"network/discriminator/bias", "network/discriminator/linear.bias"}


def test_generates_by_class(finished):
    recipe, networks = recipes.load_run(finished.folder)
    name = recipe.name
    if name not in CONDITIONAL:
        assert not hasattr(recipe.config, "conditional") and recipe.labels([0]) is None
        return
    latents = recipe.latents([0, 0])
    images = recipe.generate(networks, latents, torch.tensor([0, 1]))
    assert (images[0] - images[1]).abs().max() > 1e-4
    assert recipe.labels([0, 1, 2, 3]).tolist() == [0, 1, 2, 0]
    data = recipe.data | {"num_classes": 0, "name": "pictures"}
    with pytest.raises(
        ValueError, match=f"{name}: --conditional needs labels, and pictures has none; .* --classes says"
    ):
        recipes.get(name)(recipe.config, data)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_no_class_option_means_no_labels(name, made):
    recipe, batch = made(name, **SMALL[name])
    assert recipe.labels([0, 1]) is None
    assert "embedding" not in " ".join(recipe.generator.state_dict())
    assert recipe.d_step(batch())["loss"].isfinite()
