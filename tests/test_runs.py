"""Runs from Python: fastgan.run and fastgan.Run."""

from pathlib import Path

import numpy as np
import pytest
import torch

import fastgan
from fastgan.cli import main
from fastgan.data import DATA
from fastgan.recipes.gan import GAN
from fastgan.training import CheckpointError, load_checkpoint
from fastgan.training.recipe import Preset

SMALL = {"units": [4, 4], "latent": 2, "batch_size": 4, "samples": 4, "steps": 1, "device": "cpu"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("pictures.npz", images=np.random.default_rng(0).integers(0, 256, (12, 1, 16, 16), dtype=np.uint8))
    return tmp_path


class Mine(GAN):
    presets = {"small": Preset("Small.", {**SMALL, "keep": 9})}  # noqa: RUF012


def test_three_lines(place):
    made = fastgan.run("gan", data="pictures.npz", **SMALL)
    assert isinstance(made, fastgan.Run) and made.folder == Path("runs/gan-pictures")
    images = made.sample([0, 1, 5])
    assert (
        images.shape == (3, 1, 16, 16)
        and torch.allclose(images[2:], made.sample([5]), atol=1e-5)
        and made.sample().shape[0] == 16
    )
    assert repr(made) == "Run('runs/gan-pictures': gan on pictures.npz, step 1 of 1, on cpu)"
    assert list(made.networks) == ["generator"] and made.recipe.config.latent == 2
    assert made.metrics[-1]["step"] == 1 and made.saved.run.data == "pictures.npz"
    assert torch.equal(fastgan.Run(made.folder, "cpu").sample([5]), made.sample([5]))
    for seeds in (np.array([0, 1, 5]), torch.tensor([0, 1, 5]), [np.int64(0), True, 5], (seed for seed in (0, 1, 5))):
        assert torch.equal(made.sample(seeds), images)
    for seeds, error in (
        (7, TypeError),
        ([1.5], TypeError),
        (["7"], TypeError),
        ([], ValueError),
        ([2**64], ValueError),
    ):
        with pytest.raises(error, match=r"seeds is .*: expected"):
            made.sample(seeds)
    assert {"run", "Run", "accelerate", "models"} <= set(dir(fastgan))


def test_a_class_paths_presets_and_data(place):
    from fastgan.data import load

    made = fastgan.run(
        Mine, preset="small", data=Path("pictures.npz"), out=place / "a", recipe={"lr": 0.5}, run={"keep": 2}
    )
    assert (made.saved.config.lr, made.saved.run.keep, made.saved.config.units) == (0.5, 2, (4, 4))
    assert made.folder == place / "a" and made.saved.recipe is Mine
    other = fastgan.run(Mine, config=place / "a/run.yaml", out="b")
    assert other.saved.config == made.saved.config
    given = fastgan.run("gan", dataset=load("pictures.npz"), out="c", **SMALL)
    assert given.saved.data["resolution"] == 16


def test_a_data_set_that_was_given_is_measured_and_not_the_one_of_its_name(place):
    """A part of a named set has its name."""
    part = fastgan.data.load("pictures.npz").subset(torch.arange(10))
    given = fastgan.run("gan", dataset=part, out="d", **SMALL)
    assert given.dataset is part
    given.evaluate(samples=8, metrics=["fd"])
    assert given.recipe.features["real"] == 10
    later = fastgan.Run("d")
    with pytest.raises(ValueError, match=r"an object of Python, 'ImageDataset', and '.*' is but its name"):
        later.evaluate(8, metrics=["fd"])
    with pytest.warns(UserWarning, match="not measured: fd, kid, prdc .*is but its name"):
        assert set(later.evaluate(10)["gan"]) == {"is_efflite0"}
    later.dataset = part
    assert later.evaluate(8, metrics=["fd"]) == given.evaluate(8, metrics=["fd"])


def test_the_name_of_a_data_set_that_was_given_leads_nowhere(place, capsys):
    """From the command line nothing is measured against the whole set of that name, and no run goes on with it, unasked."""
    part = fastgan.data.load("pictures.npz").subset(torch.arange(10))
    made = fastgan.run("gan", dataset=part.replace(name="pictures.npz"), out="d", **SMALL)
    assert made.saved.given == "ImageDataset" and "an object of Python" in (place / "d/run.yaml").read_text()
    assert main(["eval", "d", "--metrics", "fd", "--samples", "8"]) == 1
    assert "fastgan eval --data NAME another" in capsys.readouterr().err
    assert main(["eval", "d", "--metrics", "fd", "--samples", "8", "--data", "pictures.npz"]) == 0
    more = ["train", "gan", "--out", "d", "--resume", "--steps", "2"]
    assert main(more) == 1
    assert "d was trained on an object of Python" in (said := capsys.readouterr().err) and "--data NAME" in said
    fastgan.run("gan", out="d", resume=True, steps=2, dataset=part.replace(name="mine"))
    saved = fastgan.Run("d").saved
    assert (saved.given, saved.run.data) == ("ImageDataset", "mine")
    assert main([*more, "--data", "pictures.npz"]) == 0
    saved = fastgan.Run("d").saved
    assert (saved.given, saved.run.data) == ("", "pictures.npz")
    assert fastgan.run("gan", dataset=part, data="./pictures.npz", out="e", **SMALL).saved.given == ""


def test_the_file_and_resuming(place):
    first = fastgan.run("gan", data="pictures.npz", out="a", **SMALL)
    again = fastgan.run(config="a/run.yaml", out="b")
    tensors, others = load_checkpoint("a").tensors, load_checkpoint("b").tensors
    assert all(tensors[name].equal(others[name]) for name in tensors)
    more = fastgan.run("gan", out="a", resume=True, steps=3)
    assert repr(more) == "Run('a': gan on pictures.npz, step 3 of 3, on cpu)" and more.saved.config.latent == 2
    assert again.saved.config == first.saved.config
    older = fastgan.Run("a/checkpoints/step-00000001", "cpu")
    assert older.folder == Path("a") and torch.equal(older.sample([1]), again.sample([1]))


def test_code_that_the_caller_names(place):
    (place / "mydata.py").write_text("import fastgan.data\ndef load(): return fastgan.data.load('pictures.npz')\n")
    (place / "told.py").write_text(
        "class Told:\n    def __init__(*_): open('told', 'w').close()\n    write = show = close = print\n"
    )
    for given in ({"data": "./mydata.py:load"}, {"run": {"data": "./mydata.py:load"}}):
        assert fastgan.run("gan", **SMALL, **given).saved.data["resolution"] == 16
        DATA._typed.clear()
    (place / "some.yaml").write_text("recipe: gan\ndata: ./mydata.py:load\n")
    with pytest.raises((ValueError, OSError), match="mydata"):
        fastgan.run(config="some.yaml", **SMALL)
    (place / "some.yaml").write_text("recipe: gan\ndata: pictures.npz\nrun: {log: ['./told.py:Told']}\n")
    with pytest.warns(UserWarning, match=r"some\.yaml: .*told\.py:Told: code to import"):
        fastgan.run(config="some.yaml", **SMALL)
    assert not (place / "told").exists()


def tree():
    return sorted(str(path) for path in Path().rglob("*"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stepz": 3}, "gan has no option 'stepz'; did you mean 'steps'"),
        ({"steps": "3"}, "steps is '3', expected a whole number"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"recipe": {"stepz": 3}}, "gan has no option 'recipe.stepz'"),
        ({"recipe": {"steps": 3}, "steps": 4}, "steps is given twice"),
        ({"preset": "x"}, "gan has no preset 'x'"),
        ({"config": "none.yaml"}, "none.yaml"),
        ({"out": "none", "resume": True}, "none holds no run"),
        ({"data": "no-such-set"}, "no-such-set"),
    ],
)
def test_what_is_refused(place, given, message):
    before = tree()
    with pytest.raises((ValueError, OSError), match=message):
        fastgan.run("gan", **{"data": "pictures.npz", **given})
    assert tree() == before


def test_what_is_no_run_or_recipe(place):
    with pytest.raises(ValueError, match="unknown recipe 'gna'; did you mean 'gan'"):
        fastgan.run("gna")
    with pytest.raises(ValueError, match="no recipe is named"):
        fastgan.run(steps=3)
    with pytest.raises(CheckpointError, match="is no run folder"):
        fastgan.Run(place)
    fastgan.run("gan", data="pictures.npz", out="a", **SMALL)
    for kind, given in (("gan", {"config": "a/run.yaml"}), (Mine, {"preset": "small"})):
        with pytest.raises(ValueError, match="is for a new run"):
            fastgan.run(kind, out="a", resume=True, **given)
    with pytest.raises(ValueError, match=r"a/run\.yaml:2: these are options of recipe gan, not dcgan"):
        fastgan.run("dcgan", config="a/run.yaml")


def test_reprs(place):
    """One line or a few, whatever they hold: no walls of text, no addresses."""
    import fastgan.data
    from fastgan.recipes import RECIPES, read_run
    from fastgan.training import RunConfig, Trainer
    from fastgan.training.augment import Augment

    trainer = Trainer(
        GAN, GAN.Config(units=(4, 4), latent=2, steps=1, batch_size=4), RunConfig("pictures.npz", "a", samples=4)
    )
    assert repr(trainer) == "Trainer('a': gan on pictures.npz, step 0 of 1, on cpu)"
    said = repr(trainer.recipe).splitlines()
    assert said[0] == "gan on pictures.npz: GANConfig(steps=1, batch_size=4, units=(4, 4), latent=2)"
    assert said[1].startswith("  generator: ") and said[1].endswith(" parameters, sampled from")
    trainer.train()
    assert "step 1 of 1" in repr(trainer)
    saved = repr(read_run("a"))
    assert (
        saved.startswith("SavedRun('a', gan, GANConfig(steps=1, batch_size=4")
        and "samples=4" in saved
        and len(saved) < 500
    )
    assert repr(RECIPES).startswith("recipes: gan, dcgan, ") and repr(Augment("ada")) == "Augment('ada')"
    loader = fastgan.data.Loader(trainer.dataset, 4)
    next(loader)
    assert repr(loader) == "Loader(ImageDataset, batches of 4, 4 samples handed out)"
    report = fastgan.accelerate(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), dry_run=True)
    assert repr(report) == str(report) and repr(report).startswith("fastgan: ")
    page = fastgan.Run("a", "cpu")._repr_html_()
    assert page.startswith("<p>Run(&#x27;a&#x27;: gan on pictures.npz") and "data:image/png;base64," in page
    (place / "a/samples/step-00000001.png").unlink()
    (place / "a/samples/step-00000000.png").unlink()
    assert fastgan.Run("a", "cpu")._repr_html_().endswith("</p>")


def test_sinks(place):
    class Kept:
        steps: list = []  # noqa: RUF012

        def write(self, step, values):
            self.steps.append(step)

        def show(self, step, path):
            assert path.exists()

        def close(self):
            self.steps.append("closed")

    fastgan.run("gan", data="pictures.npz", out="a", sinks=[Kept()], log=("jsonl",), **SMALL)
    assert Kept.steps == [1, "closed"] and not (place / "a/tensorboard").exists()
