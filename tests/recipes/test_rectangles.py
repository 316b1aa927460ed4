"""Rectangles of 1, 3, 4 and 6 channels: each recipe for pictures takes its steps on them, or says what it needs."""

import json

import pytest
import torch
from PIL import Image
from recipes.test_sizes import SMALL

from fastgan import recipes
from fastgan.data import ImageDataset
from fastgan.sizes import sides
from fastgan.training import RunConfig, Trainer
from fastgan.training.batch import Batch
from fastgan.training.distributed import World

SIZES = {
    "gan": (6, 10),
    "dcgan": (32, 48),
    "wgan-gp": (12, 8),
    "sngan": (8, 20),
    "fastgan": (48, 32),
    "r3gan": (8, 12),
    "stylegan2": (12, 8),
    "cyclegan": (24, 28),
    "pix2pix": (32, 64),
}
PAIRS = ("cyclegan", "pix2pix")
AUGMENTED = {name: {"augment": "ada"} for name in ("dcgan", "fastgan", "stylegan2")}


def build(name, resolution, channels, **options):
    recipe = recipes.get(name)
    facts = {
        "name": "drawn",
        "resolution": resolution,
        "channels": channels,
        "num_classes": 2,
        "class_names": ["a", "b"],
    }
    torch.manual_seed(0)
    return recipe(recipe.Config(**SMALL[name] | AUGMENTED.get(name, {}) | options), facts)


def steps(recipe, items):
    """What two training steps return and leave, from the start."""
    recipe_logs, update, kept = {}, 0, {}
    if hasattr(recipe, "augment"):
        recipe.augment.p.fill_(0.8)
    for step in range(2):
        for row in recipe.updates(step):
            torch.manual_seed(update)
            batch = Batch(items, World(0, 1, torch.device("cpu")), 0, update, 0, 1, kept)
            optimizer = recipe.optimizers[row.optimizer]
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            logs = row.loss(batch)
            kept = kept | batch.keeps
            gradients = torch.autograd.grad(logs["loss"], parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            recipe_logs |= {f"{update} {key}": value.detach() for key, value in logs.items()}
            update += 1
    weights = {f"{n} {k}": v for n, m in recipe.networks.items() for k, v in m.state_dict().items()}
    return recipe_logs | weights


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("name", SIZES)
def test_two_steps(name, channels):
    """Finite, and the same again."""
    larger = tuple(n + 3 for n in SIZES[name]) if name in PAIRS else SIZES[name]
    images = torch.rand(2 if name in PAIRS else 4, channels, *larger) * 2 - 1
    items = (images, images.flip(3)) if name in PAIRS else (images, torch.tensor([0, 1, 1, 0]))
    options = {"conditional": True} if name in ("dcgan", "sngan", "r3gan", "stylegan2") else {}
    found = steps(build(name, SIZES[name], channels, **options), items)
    assert all(value.isfinite().all() for value in found.values())
    again = steps(build(name, SIZES[name], channels, **options), items)
    assert found.keys() == again.keys() and all(torch.equal(found[key], again[key]) for key in found)


@pytest.mark.parametrize("name", SIZES)
def test_samples(name):
    recipe = build(name, SIZES[name], 4)
    networks = {n: recipe.networks[n].eval() for n in recipe.averaged}
    height, width = SIZES[name]
    strip = {"cyclegan": 8, "pix2pix": 3}.get(name, 1)
    with torch.no_grad():
        assert recipe.sample(networks, [0, 1]).shape == (2, 4, height, strip * width)


@pytest.mark.parametrize("name", PAIRS)
def test_random_parts_of_pairs(name, tmp_path):
    """Loaded 286/256 as large along each side, and cut anywhere: the same part of both where they are pairs."""
    for side in "AB":
        (tmp_path / side).mkdir()
        for i in range(2):
            Image.new("RGB", (64, 32), (90 * i, 0, 0)).save(tmp_path / side / f"{i}.png")
    kind = recipes.get(name)
    data = kind.load_data(str(tmp_path), kind.Config(), resolution=(32, 64))
    assert data.resolution == (32, 64) and data.a.images.shape[1:] == (3, 36, 72)
    recipe = build(name, (32, 64), 1)
    places = torch.arange(36 * 72.0).view(1, 1, 36, 72).expand(8, -1, -1, -1)
    a, b = recipe.cut(Batch((places, places), World(0, 1, torch.device("cpu")), 0, 0, 0, 1))
    assert torch.equal(a, b) == recipe.paired
    corners = a[:, 0, 0, 0].long()
    assert torch.equal(a - corners[:, None, None, None], places[:, :, :32, :64])
    assert (corners // 72).unique().numel() > 1 and (corners // 72).max() <= 4
    assert (corners % 72).unique().numel() > 1 and (corners % 72).max() <= 8


@pytest.mark.parametrize(
    ("name", "resolution", "message"),
    [
        ("dcgan", (90, 160), r"multiples of 16 .*give resolution=\(96, 160\)$"),
        ("dcgan", (16, 160), r"multiples of 8 .*give resolution=\(32, 160\)$"),
        ("wgan-gp", (9, 9), "a power of two, at least 8"),
        ("sngan", (33, 70), r"multiples of 8 .*give resolution=\(32, 72\)$"),
        ("fastgan", (96, 150), r"multiples of 16 .*give resolution=\(96, 144\)$"),
        ("r3gan", (30, 50), r"multiples of 4 .*give resolution="),
        ("stylegan2", (100, 160), r"multiples of 16 .*give resolution=\(96, 160\)$"),
        ("stylegan3", (96, 160), "expected a square, since its filters .*give resolution=128$"),
        ("cyclegan", (90, 161), r"height and width multiples of 4, at least 16: give resolution=\(88, 160\)$"),
        ("pix2pix", (90, 160), r"height and width multiples of 32, at least 32: give resolution=\(96, 160\)$"),
        ("cyclegan", (16, 160), r"too small .*give layers=2, or resolution=\(24, 160\)$"),
    ],
)
def test_other_sizes_are_refused(name, resolution, message):
    with pytest.raises(ValueError, match=rf"^{name if name not in ('wgan-gp', 'sngan') else 'resnet'}: .*{message}"):
        build(name, resolution, 3)


@pytest.mark.parametrize("name", ["dcgan", "stylegan2"])
def test_a_run_on_opacity(name, tmp_path):
    """RGBA rectangles: config.json holds their sides as a list, and a resumed run repeats an unbroken one."""
    images = torch.randint(0, 256, (8, 4, *SIZES[name]), dtype=torch.uint8)
    dataset = ImageDataset(images, torch.arange(8) % 2, name="drawn", class_names=("a", "b"))
    kind = recipes.get(name)

    def run(out, steps, resume=False):
        settings = RunConfig(device="cpu", out=str(tmp_path / out), samples=2, resume=resume)
        return Trainer(
            kind, kind.Config(**SMALL[name] | AUGMENTED[name], steps=steps), settings, dataset=dataset
        ).train()

    whole = run("whole", 2)
    run("parts", 1)
    saved = json.loads((tmp_path / "parts" / "config.json").read_text())["data"]
    assert saved["resolution"] == list(SIZES[name]) and saved["channels"] == 4
    ((recipe, one), (_, other)) = (recipes.load_run(path) for path in (whole, run("parts", 2, resume=True)))
    assert recipe.data["resolution"] == SIZES[name]
    assert recipe.sample(one, [0]).shape == (1, 4, *sides(SIZES[name]))
    for key, value in one["generator"].state_dict().items():
        assert torch.equal(value, other["generator"].state_dict()[key])
