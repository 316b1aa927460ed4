"""Sides of images from 8 to 48 pixels, and grey ones: every recipe for images trains, or is refused before a file is written."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from recipes.test_images import SMALL as IMAGES

from fastgan import recipes
from fastgan.cli import main
from fastgan.data import ImageDataset, PairDataset
from fastgan.metrics import images
from fastgan.training import RunConfig, Trainer

SMALL = {name: options | {"latent": 8, "batch_size": 4} for name, options in IMAGES.items()} | {
    "cyclegan": {"width": 2, "blocks": 1, "batch_size": 2},
    "pix2pix": {"width": 2, "batch_size": 2},
}
SIDES = (8, 12, 16, 20, 24, 28, 32, 33, 48)
TRAIN = {
    "gan": SIDES,
    "dcgan": (32,),
    "fastgan": (32,),
    "cyclegan": (24, 28, 32, 48),
    "pix2pix": (32,),
} | dict.fromkeys(("wgan-gp", "sngan", "r3gan", "stylegan2", "stylegan3"), (8, 16, 32))


def dataset(name, side, channels=3):
    pixels = np.random.default_rng(side).integers(0, 256, (8, channels, side, side), dtype=np.uint8)
    images = ImageDataset(torch.from_numpy(pixels), torch.arange(8) % 2, name="drawn", class_names=("a", "b"))
    return PairDataset(images, images, paired=True) if name in ("cyclegan", "pix2pix") else images


def train(name, data, out, **options):
    recipe = recipes.get(name)
    settings = RunConfig(device="cpu", out=str(out), samples=1)
    return Trainer(recipe, recipe.Config(**SMALL[name] | options, steps=1), settings, dataset=data).train()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", SMALL)
def test_every_side_trains_or_is_refused(name, side, tmp_path):
    if side in TRAIN[name]:
        recipe, networks = recipes.load_run(train(name, dataset(name, side), tmp_path / "run"))
        assert recipe.sample(networks, [0]).shape[2] == side
        return
    with pytest.raises(ValueError, match=f": resolution is {side}, (expected|too small)"):
        train(name, dataset(name, side), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "side", "options", "message"),
    [
        ("cyclegan", 16, {}, "discriminator see: give layers=2, or resolution=24"),
        ("cyclegan", 20, {}, "discriminator see: give layers=2, or resolution=24"),
        ("cyclegan", 33, {}, "expected a multiple of 4, at least 16: give resolution=32"),
        ("cyclegan", 12, {}, "expected a multiple of 4, at least 16: give resolution=24"),
        ("pix2pix", 48, {}, "expected a multiple of 32, at least 32: give resolution=64"),
        ("pix2pix", 32, {"layers": 4}, "discriminator see: give layers=3, or resolution=64"),
    ],
)
def test_what_is_advised_works(name, side, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(name, dataset(name, side), tmp_path / "run", **options)
    advice = {}
    for part in message.replace(",", "").split():
        key, _, value = part.partition("=")
        if value:
            advice[key] = int(value)
    for key, value in advice.items():
        chosen = options | {key: value} if key == "layers" else options
        train(name, dataset(name, value if key == "resolution" else side), tmp_path / key, **chosen)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in colour; in pairs, two sub-folders of them."""
    made = tmp_path_factory.mktemp("pictures")
    for side in ("A", "B"):
        (made / side).mkdir()
        for i in range(8):
            Image.new("RGB", (32, 32), (30 * i, 200, 0)).save(made / side / f"{i}.png")
    return made


@pytest.mark.parametrize("name", SMALL)
def test_grey_from_the_command_line(name, folder, tmp_path, capsys):
    out = tmp_path / "run"
    values = {"steps": 1, "samples": 2, "out": out, "device": "cpu", "channels": 1} | SMALL[name]
    data = folder if name in ("cyclegan", "pix2pix") else folder / "A"
    given = [f"--{key.replace('_', '-')}={value}" for key, value in values.items() if not isinstance(value, tuple)]
    tuples = [
        word for key, value in values.items() if isinstance(value, tuple) for word in (f"--{key}", *map(str, value))
    ]
    assert main(["train", name, "--data", str(data), *given, *tuples]) == 0
    saved = json.loads((out / "config.json").read_text())
    assert saved["run"]["channels"] == 1 and saved["data"]["channels"] == 1
    assert Image.open(next((out / "samples").glob("*.png"))).mode == "L"
    extra = ["--input", str(folder / "A")] if name in ("cyclegan", "pix2pix") else ["--separate", "--seeds", "0-1"]
    assert main(["sample", str(out), *extra, "--out", str(tmp_path / "drawn"), "--device", "cpu"]) == 0
    drawn = [Image.open(path) for path in (tmp_path / "drawn").iterdir()]
    assert {(image.mode, image.size) for image in drawn} == {("L", (32, 32))}
    capsys.readouterr()


def test_measured_on_grey_images(folder, tmp_path, monkeypatch):
    recipe_class = recipes.get("gan")
    run = RunConfig(data=str(folder / "A"), channels=1, device="cpu", out=str(tmp_path / "run"), samples=1)
    Trainer(recipe_class, recipe_class.Config(**SMALL["gan"], steps=1), run).train()
    recipe, networks = recipes.load_run(tmp_path / "run")

    class Seen(BaseException):
        pass

    def features(network, dataset):
        raise Seen(f"{dataset.channels} of {len(dataset)}")

    extractor = torch.nn.Identity()
    extractor.name = "identity"
    monkeypatch.setattr(images, "load_extractor", lambda *_: extractor)
    monkeypatch.setattr(images, "dataset_features", features)
    with pytest.raises(Seen, match="1 of 8"):
        recipe.evaluate(networks, dataclasses.asdict(run), 4)


def test_runs_from_before_there_were_channels(folder, tmp_path):
    out = tmp_path / "run"
    small = ["--units", "8", "6", "--latent", "8", "--batch-size", "4", "--samples", "2", "--device", "cpu"]
    assert main(["train", "gan", "--data", str(folder / "A"), "--steps", "1", "--out", str(out), *small]) == 0
    saved = json.loads((out / "config.json").read_text())
    del saved["run"]["channels"], saved["sha256"]
    (out / "config.json").write_text(json.dumps(saved))
    assert main(["train", "gan", "--out", str(out), "--resume", "--steps", "2"]) == 0
    assert main(["sample", str(out), "--seeds", "0"]) == 0
