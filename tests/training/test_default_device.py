"""`torch.set_default_device`: what fastgan makes for itself is where it was without it. On "meta" a tensor in the wrong place
has no numbers, so that it cannot go unseen."""

import pytest
import torch

from fastgan import data, recipes
from fastgan.metrics.kid import kernel_distance
from fastgan.training import RunConfig, Trainer
from fastgan.training.recipe import draw


@pytest.fixture(params=["cpu", "meta"])
def elsewhere(request):
    before = torch.get_default_device()
    torch.set_default_device(request.param)
    yield request.param
    torch.set_default_device(before)


FOUND = {}


def same_as_before(key, tensors):
    expected = FOUND.setdefault(key, tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, expected, strict=True))


@pytest.mark.parametrize("name", ["gan", "stylegan2"])
def test_a_run(name, elsewhere, pictures, tmp_path):
    recipe = recipes.get(name)
    sizes = {"units": (4, 4), "latent": 4, "batch_size": 4, "width": 4, "max_width": 4}
    sizes = {key: value for key, value in sizes.items() if hasattr(recipe.Config, key)}
    for steps, resume in ((1, False), (2, True)):
        run = RunConfig(data=pictures, out=str(tmp_path), resolution=32, samples=2, device="cpu", resume=resume)
        Trainer(recipe, recipe.Config(steps=steps, **sizes), run).train()
    loaded, networks = recipes.load_run(tmp_path)
    weights = [value for _, value in sorted(networks["generator"].state_dict().items())]
    same_as_before(name, [draw(loaded, networks, [0, 1]), *weights])


def test_data_and_metrics(elsewhere, pictures):
    batches = [next(data.Loader(data.load(pictures), 4, seed=1, workers=workers)) for workers in (0, 1)]
    same_as_before("data", [part for batch in batches for part in batch])
    rows = batches[0][0].float().flatten(1)
    same_as_before("kid", [torch.tensor(kernel_distance(rows, rows.flip(0), subsets=2, size=3), device="cpu")])
