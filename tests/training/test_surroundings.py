"""Torch's defaults and the caller's contexts: what fastgan makes for itself is where and what it was without them. On "meta" a
tensor in the wrong place has no numbers, so that it cannot go unseen; bfloat16 of an autocast would show in the weights."""

import contextlib

import pytest
import torch

from fastgan import data, editing, recipes
from fastgan.data import to_uint8
from fastgan.data.text import load_text
from fastgan.media import save_grid
from fastgan.metrics import fid, speech
from fastgan.metrics.images import collect, load_extractor
from fastgan.metrics.kid import kernel_distance
from fastgan.metrics.pairs import ssim
from fastgan.metrics.perceptual import load_perceptual
from fastgan.training import RunConfig, Trainer
from fastgan.training.recipe import draw


@pytest.fixture(params=["cpu", "meta"])
def elsewhere(request):
    with torch.device(request.param):
        yield request.param


@contextlib.contextmanager
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)


AROUND = {
    "float64": in_float64,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


FOUND = {}


def same_as_before(key, tensors):
    expected = FOUND.setdefault(key, tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, expected, strict=True))


@pytest.mark.parametrize("name", ["gan", "stylegan2"])
def test_a_run(name, elsewhere, pictures, tmp_path):
    loaded, networks = trained(name, pictures, tmp_path)
    weights = [value for _, value in sorted(networks["generator"].state_dict().items())]
    same_as_before(name, [draw(loaded, networks, [0, 1]), *weights])


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", ["gan", "stylegan2"])
def test_a_run_amid_something_else(name, around, pictures, tmp_path):
    with AROUND[around]():
        loaded, networks = trained(name, pictures, tmp_path)
        found = list(editing.project(editing.Editor(loaded, networks), torch.zeros(1, 3, 32, 32), 2, perceptual=None))
        if around == "float64":
            assert draw(loaded, networks, [0]).dtype == loaded.latents([0]).dtype == torch.float32
    weights = [value.clone() for _, value in sorted(networks["generator"].state_dict().items())]
    same_as_before(name, [draw(loaded, networks, [0, 1]), *weights])
    same_as_before(f"{name} projected", [found[-1].latents.values.clone(), found[-1].distances.clone()])


def trained(name, pictures, tmp_path):
    """(recipe, networks) of a run of two steps, the second resumed."""
    recipe = recipes.get(name)
    sizes = {"units": (4, 4), "latent": 4, "batch_size": 4, "width": 4, "max_width": 4}
    sizes = {key: value for key, value in sizes.items() if hasattr(recipe.Config, key)}
    for steps, resume in ((1, False), (2, True)):
        run = RunConfig(data=pictures, out=str(tmp_path), resolution=32, samples=2, device="cpu", resume=resume)
        Trainer(recipe, recipe.Config(steps=steps, **sizes), run).train()
    return recipes.load_run(tmp_path)


def test_data_and_metrics(elsewhere, pictures):
    batches = [next(data.Loader(data.load(pictures), 4, seed=1, workers=workers)) for workers in (0, 1)]
    same_as_before("data", [part for batch in batches for part in batch])
    rows = batches[0][0].float().flatten(1)
    same_as_before("kid", [torch.tensor(kernel_distance(rows, rows.flip(0), subsets=2, size=3), device="cpu")])


def figures(tmp_path):
    """Of numbers on the CPU, whatever the defaults."""
    made = {"generator": torch.Generator("cpu").manual_seed(0), "device": "cpu", "dtype": torch.float32}
    rows, sound = torch.randn(40, 8, **made), torch.randn(4000, **made)
    images = torch.rand(4, 3, 16, 16, **made) * 2 - 1
    seen = [fid.Statistics(8) for _ in range(2)]
    for statistics, part in zip(seen, rows.split(20), strict=True):
        statistics.update(part)
    extractor, perceptual = load_extractor(), load_perceptual()
    save_grid(images, tmp_path / "grid.png")
    found = [fid.frechet_distance(*seen), *fid.inception_score(rows), float(ssim(images, images.flip(0)).sum())]
    found += [speech.stft_distance([sound], [sound.flip(0)]), float(extractor(to_uint8(images)).double().sum())]
    found += perceptual.distance(*map(perceptual.features, (images, images.flip(0)))).tolist()
    found += collect(extractor, [to_uint8(images)]).statistics.mean.tolist()
    return [torch.tensor(found, device="cpu", dtype=torch.float64)]


def test_figures(elsewhere, tmp_path):
    same_as_before("figures", figures(tmp_path))


SMALL = {"width": 4, "blocks": 1, "layers": 1, "embedding": 8, "hidden": 8}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["realesrgan", "cyclegan", "mle"])
def test_figures_of_recipes_that_measure_otherwise(name, dtype, elsewhere, pictures, tmp_path):
    kind = recipes.get(name)
    (tmp_path / "text").write_text("\n".join(f"{a} sees {b}" for a in "abcd" for b in "wxyz"))
    with torch.device("cpu"):
        images = data.load(pictures, resolution=32)
        pair = data.PairDataset(images, images.replace(images=images.images.flip(0)), paired=True)
        given = {"realesrgan": images, "cyclegan": pair}.get(name) or load_text(tmp_path / "text")
        torch.manual_seed(0)
        sizes = {option: size for option, size in SMALL.items() if hasattr(kind.Config, option)}
        recipe = kind(kind.Config(**sizes), kind.describe(given))
        recipe.dataset = given
        networks = {part: recipe.networks[part].eval() for part in recipe.averaged}
    torch.set_default_dtype(dtype)
    try:
        columns = recipe.evaluate(networks, {}, 4, extractor=None)
    finally:
        torch.set_default_dtype(torch.float32)
    found = [value for column in columns.values() for value in column.values()]
    assert len(found) > 5
    same_as_before(name, [torch.tensor(found, dtype=torch.float64, device="cpu")])


def test_figures_in_another_default_dtype(tmp_path):
    with in_float64():
        (found,) = figures(tmp_path)
    # The order of torch's own sums may follow the default: an ulp of float32.
    torch.testing.assert_close(found, FOUND.setdefault("figures", figures(tmp_path))[0], rtol=2e-7, atol=1e-7)
