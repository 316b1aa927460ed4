"""CycleGAN and pix2pix through the engine: data, updates, resume, grids and evaluation."""

import numpy as np
import pytest
import torch
from PIL import Image

import fastgan.recipes as recipes
from fastgan.data import ImageDataset, PairDataset, load, to_float
from fastgan.data.source import evenly
from fastgan.explore.pictures import translated
from fastgan.recipes.translation_eval import evaluate, nearest
from fastgan.sampling import translate_folder
from fastgan.training import RunConfig, Trainer

SMALL = {
    "cyclegan": {"width": 4, "blocks": 1, "layers": 1, "batch_size": 2},
    "pix2pix": {"width": 4, "layers": 1, "batch_size": 2},
}


def run(name, folder, steps=3, data=("emoji:google:base:flags", "emoji:twitter:base:flags"), resume=False, **options):
    recipe = recipes.get(name)
    config = recipe.Config(**{**SMALL[name], "steps": steps, **options})
    settings = {"sample_every": 100, "checkpoint_every": 2, "samples": 4, "device": "cpu", "log_every": 1}
    trainer = Trainer(recipe, config, RunConfig(data=data, out=str(folder), resume=resume, **settings))
    trainer.train()
    return trainer


def weights(trainer):
    return {
        k: v.clone() for name, n in trainer.recipe.networks.items() for k, v in n.state_dict(prefix=f"{name}.").items()
    }


@pytest.mark.parametrize("name", ["cyclegan", "pix2pix"])
def test_a_resumed_run_ends_as_an_unbroken_one(name, tmp_path):
    """The pool of older translations and the examples are part of the state."""
    whole = weights(run(name, tmp_path / "whole", 5, **({"pool": 3} if name == "cyclegan" else {})))
    options = {"pool": 3} if name == "cyclegan" else {}
    first = run(name, tmp_path / "parts", 5, **options)
    for newest in sorted((tmp_path / "parts" / "checkpoints").glob("*"))[-1:]:
        import shutil

        shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    resumed = run(name, tmp_path / "parts", 5, resume=True, **options)
    assert resumed.step == 5 and first.step == 5
    for key, value in weights(resumed).items():
        assert torch.equal(value, whole[key]), key


@pytest.mark.parametrize("crop", ["center", "none"])
def test_jittered_images_are_made_of_the_originals(crop, tmp_path):
    """Not of what was first made as small as the run's resolution and then enlarged, which has lost its detail."""
    for side in "AB":
        (tmp_path / f"train{side}").mkdir()
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 256, (128, 128, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"train{side}/{i}.png")
    recipe = recipes.get("cyclegan")
    pair = recipe.load_data(str(tmp_path), recipe.Config(), resolution=64, crop=crop)
    assert pair.resolution == 64 and pair.a.images.shape[2:] == (72, 72)
    if crop == "center":
        assert torch.equal(pair.a.images, load(tmp_path / "trainA", resolution=72).images)
    assert recipe.load_data(str(tmp_path), recipe.Config(), crop=crop).resolution == 128
    plain = recipe.load_data(str(tmp_path), recipe.Config(jitter=False), resolution=64, crop=crop)
    assert plain.resolution == 64 == plain.a.images.shape[2]


def test_grids_show_both_directions(tmp_path):
    trainer = run("cyclegan", tmp_path / "run", 1)
    grid = Image.open(sorted((tmp_path / "run" / "samples").glob("*.png"))[-1])
    assert grid.size[0] >= 8 * 32
    recipe, networks = recipes.load_run(tmp_path / "run")
    strip = recipe.sample(networks, [1, 17, 2])
    assert strip.shape == (2, 3, 32, 8 * 32)  # seeds 1 and 17 show the same example
    a = strip[..., :32]
    assert torch.equal(a, trainer.recipe.networks["examples"].a[1:3])
    torch.testing.assert_close(strip[..., 32:64], networks["generator_ab"](a))
    torch.testing.assert_close(strip[..., 64:96], networks["generator_ba"](networks["generator_ab"](a)))


@pytest.mark.parametrize("gamma", [0.0, 3.0])
def test_gradients_in_pieces_change_nothing(tmp_path, gamma):
    recipe = recipes.get("cyclegan")

    def gradients(pieces):
        config = recipe.Config(**SMALL["cyclegan"], steps=1, pool=0, jitter=False, gamma=gamma)
        settings = RunConfig(
            data=("emoji:google:base:flags", "emoji:twitter:base:flags"), out=str(tmp_path / str(pieces))
        )
        settings.grad_accum, settings.device = pieces, "cpu"
        trainer = Trainer(recipe, config, settings)
        trainer.train()
        return torch.cat(
            [
                p.grad.flatten()
                for g in ("generator_ab", "discriminator_a")
                for p in trainer.recipe.networks[g].parameters()
                if p.grad is not None
            ]
        )

    torch.testing.assert_close(gradients(1), gradients(2), rtol=1e-4, atol=1e-6)


def test_r1_moves_the_discriminators_alone_and_refuses_batch_normalisation(tmp_path):
    without, with_it = (weights(run("cyclegan", tmp_path / str(gamma), 1, gamma=gamma)) for gamma in (0.0, 100.0))
    changed = {key.split(".")[0] for key in without if not torch.equal(without[key], with_it[key])}
    assert changed == {"discriminator_a", "discriminator_b"}
    with pytest.raises(ValueError, match="--norm batch mixes images"):
        run("cyclegan", tmp_path / "batch", 1, gamma=1.0, norm="batch")


def test_the_learning_rate_is_constant_then_falls():
    recipe = recipes.get("cyclegan")
    made = recipe(recipe.Config(**SMALL["cyclegan"], steps=100), {"name": "x", "resolution": 16, "channels": 3})
    rates = []
    for step in (0, 50, 75, 99):
        made.updates(step)
        rates.append([group["lr"] for o in made.optimizers.values() for group in o.param_groups])
    assert rates == [[2e-4] * 2, [2e-4] * 2, [1e-4] * 2, pytest.approx([4e-6] * 2)]


def test_crops_are_parts_of_the_images_and_the_same_of_pairs():
    class Batch:
        def __init__(self, items):
            self.items = items

        def rand(self, *shape):
            return torch.rand(len(self.items[0]), *shape, generator=torch.Generator().manual_seed(0))

    big = torch.arange(3 * 36 * 36.0).reshape(1, 3, 36, 36).repeat(4, 1, 1, 1)
    data = {"name": "x", "resolution": 32, "channels": 3}
    pix2pix, cyclegan = (recipes.get(n)(recipes.get(n).Config(**SMALL[n]), data) for n in ("pix2pix", "cyclegan"))
    a, b = pix2pix.cut(Batch((big, big)))
    assert a.shape == (4, 3, 32, 32) and torch.equal(a, b)
    assert len({x[0, 0, 0].item() for x in a}) > 1
    a, b = cyclegan.cut(Batch((big, big)))
    assert not torch.equal(a, b)
    assert torch.equal(a[0, 0, 0], torch.arange(32.0) + a[0, 0, 0, 0])


def test_held_out_emoji_are_not_trained_on():
    recipe = recipes.get("cyclegan")
    training = recipe.load_data("emoji", recipe.Config())
    test = recipe.load_pair("emoji", split="test", paired=True)
    assert len(test.a) == len(test.b) > 100
    assert not set(test.a.files) & set(training.a.files) and not set(test.b.files) & set(training.b.files)
    assert training.resolution == 32 and training.a.resolution == 36 and not training.paired


def test_evaluation_by_hand():
    """Translators that are known: the identity, and inversion, which is the truth here."""
    colours = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    sides = ImageDataset(colours, name="a"), ImageDataset(255 - colours, name="b")
    held_out = PairDataset(*sides, paired=True)
    found = evaluate({"AtoB": torch.neg, "BtoA": lambda x: x}, held_out, held_out, None, None, truth=True)
    assert list(found) == [f"{d}{kind}" for d in ("AtoB", "BtoA") for kind in ("", " identity", " nearest")]
    assert found["AtoB"]["l1"] == pytest.approx(0, abs=1e-7) and found["AtoB"]["ssim"] == pytest.approx(1)
    assert found["BtoA"]["l1"] == found["BtoA identity"]["l1"] > 0.2
    difference = np.abs(2.0 * colours.numpy() - 255).mean() / 255
    assert found["AtoB identity"]["l1"] == pytest.approx(difference, rel=1e-5)
    assert found["AtoB"]["cycle"] == pytest.approx(difference, rel=1e-5)


@pytest.mark.parametrize("paired", [True, False])
def test_sets_that_were_given_are_measured_whatever_their_name_says(tmp_path, paired):
    """Of larger ones, of which training cuts parts, the middle, as in the grids."""
    colours = torch.randint(0, 256, (2, 6, 3, 36, 36), dtype=torch.uint8)
    given = PairDataset(*(ImageDataset(x, name="emoji") for x in colours), paired=paired, crop=32)
    kind = recipes.get("cyclegan")
    settings = RunConfig(out=str(tmp_path / "run"), device="cpu")
    trainer = Trainer(kind, kind.Config(**SMALL["cyclegan"], steps=1), settings, dataset=given)
    options = {"data": settings.data}
    found = trainer.recipe.evaluate(trainer.recipe.networks, options, 4, extractor=None)["AtoB identity"]
    a, b = (x[evenly(6, 4)][..., 2:34, 2:34].double() for x in colours)
    assert set(found) == ({"l1", "psnr", "ssim", "cycle"} if paired else {"cycle"})
    assert trainer.recipe.measured["AtoB"] == 4
    if paired:
        assert found["l1"] == pytest.approx(float((a - b).abs().mean() / 255), rel=1e-5)


def test_nearest():
    x = torch.tensor([[0.0], [9.0]]).view(2, 1, 1, 1)
    assert nearest(x, torch.tensor([1.0, 8.0, 30.0]).view(3, 1, 1, 1)).flatten().tolist() == [1.0, 8.0]


def test_nearest_among_more_than_are_made_floats_at_a_time(monkeypatch):
    monkeypatch.setattr("fastgan.recipes.translation_eval._KNOWN", 7)
    known = torch.randint(0, 256, (40, 3, 4, 4), dtype=torch.uint8)
    order = torch.randperm(40)
    assert torch.equal(nearest(to_float(known[order]) + 0.001, known), to_float(known[order]))


def test_evaluate_a_run(tmp_path):
    run("cyclegan", tmp_path / "run", 1)
    recipe, networks = recipes.load_run(tmp_path / "run")
    settings = {
        "data": ("emoji:google:base:flags", "emoji:twitter:base:flags"),
        "resolution": None,
        "crop": "center",
        "strict": False,
    }
    found = recipe.evaluate(networks, settings, 10, extractor=None)
    assert set(found["AtoB"]) == {"l1", "psnr", "ssim", "cycle"}
    with pytest.raises(ValueError, match="AtoB or BtoA"):
        recipe.translate(networks, torch.zeros(1, 3, 32, 32), "up")


@pytest.mark.parametrize("name", ["cyclegan", "realesrgan"])
def test_a_test_part_that_cannot_be_read_is_not_replaced_by_the_training_images(name, tmp_path):
    """The figures would be those of pictures that the network has learnt by heart."""
    parts = ("trainA", "trainB", "testA", "testB") if name == "cyclegan" else ("train", "test")
    for part in parts:
        (tmp_path / part).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{i}.png")
    kind = recipes.get(name)
    sizes = {"resolution": 32, "channels": 3, "num_classes": 0, "class_names": [], "name": "x"}
    small = SMALL["cyclegan"] if name == "cyclegan" else dict(width=4, blocks=1, disc_width=4)
    recipe = kind(kind.Config(**small), sizes)
    networks = {key: recipe.networks[key] for key in recipe.averaged}
    settings = {
        "data": str(tmp_path),
        "split": None if name == "cyclegan" else "train",
        "resolution": 32,
        "strict": True,
    }
    settings |= {"channels": None, "bits": None, "crop": "center"}
    recipe.evaluate(networks, settings, 10, metrics=["l1"])
    assert set(recipe.measured.values()) == {3}
    (tmp_path / parts[-1] / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=f"{parts[-1]}/0.png: not an image"):
        recipe.evaluate(networks, settings, 10, metrics=["l1"])


def test_pictures_to_translate_are_cut_as_those_of_the_training(tmp_path, monkeypatch):
    """Squeezed ones were squeezed there: of others the sides would be missing."""
    for side in "AB":
        (tmp_path / f"train{side}").mkdir()
        pixels = np.random.default_rng(ord(side)).integers(0, 256, (32, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"train{side}/0.png")
    for crop in ("stretch", "center"):
        recipe = recipes.get("pix2pix")
        config = recipe.Config(**SMALL["pix2pix"], steps=1)
        options = dict(resolution=32, crop=crop, samples=1, device="cpu", sample_every=100)
        Trainer(recipe, config, RunConfig(data=str(tmp_path), out=str(tmp_path / crop), **options)).train()
        made, networks = recipes.load_run(tmp_path / crop)
        seen = []
        monkeypatch.setattr(recipe, "translate", lambda self, networks, x, way, seen=seen: seen.append(x) or x)
        translate_folder(made, networks, str(tmp_path / "trainA"), None, tmp_path / f"{crop} out")
        expected = load(tmp_path / "trainA", resolution=32, crop=crop).images
        assert torch.equal(seen[0], to_float(expected))
        given = translated(made, networks, (tmp_path / "trainA/0.png").read_bytes(), "AtoB")[:, :, :32]
        assert torch.equal(given, to_float(expected)[0])
        monkeypatch.undo()


def test_the_command_line(tmp_path, capsys):
    from fastgan.cli import main

    arguments = ["--out", str(tmp_path / "run"), "--steps", "1", "--width", "4", "--blocks", "1", "--device", "cpu"]
    assert main(["train", "cyclegan", "--data", "emoji:google:base:flags", "emoji:twitter:base:flags", *arguments]) == 0
    assert main(["train", "cyclegan", "--out", str(tmp_path / "run"), "--resume", "--steps", "2"]) == 0
    assert "emoji:twitter" in (tmp_path / "run" / "config.json").read_text()
    capsys.readouterr()
