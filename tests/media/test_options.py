"""The options of a run are those of its recipe's kind of samples; config.json of runs from before is read."""

import dataclasses
import json

import pytest
import torch
from saved_runs import write_run

from fastgan import recipes
from fastgan.cli import main
from fastgan.media import Image, Medium, Text
from fastgan.training import RunConfig, RunOptions, Trainer, run_options
from fastgan.training.run import adapt

OF_IMAGES = {
    "split": "train",
    "resolution": 64,
    "channels": 1,
    "bits": 16,
    "crop": "stretch",
    "flip": True,
    "strict": True,
}
TEXT = [name for name in recipes.RECIPES if issubclass(recipes.get(name).medium, Text)]


class Heights(Medium):
    """A kind of samples that a user adds."""

    name, unit = "height", "heights"

    @dataclasses.dataclass
    class Options:
        metres: int = 3
        """How high."""


class Hills(recipes.Recipe):
    name, medium = "hills", Heights


def test_which_options_there_are():
    assert set(TEXT) == {"mle", "seqgan", "relgan"}
    assert set(OF_IMAGES) <= {field.name for field in dataclasses.fields(Image.Options)}
    assert run_options(recipes.get("dcgan")) is run_options(recipes.get("cyclegan")) is RunConfig
    common = {field.name for field in dataclasses.fields(RunOptions)}
    for name in TEXT:
        assert {field.name for field in dataclasses.fields(run_options(recipes.get(name)))} == common
    hills = run_options(Hills)
    assert hills is run_options(Hills) and {f.name for f in dataclasses.fields(hills)} == common | {"metres"}
    assert hills().metres == 3 and issubclass(hills, RunOptions)


@pytest.mark.parametrize(("option", "value"), OF_IMAGES.items())
@pytest.mark.parametrize("kind", [*TEXT, Hills])
def test_an_option_that_the_medium_lacks(kind, option, value, tmp_path):
    recipe = recipes.get(kind) if isinstance(kind, str) else kind
    run = RunConfig(data="tang-quatrains", out=str(tmp_path / "run"), device="cpu", **{option: value})
    unit = recipe.medium.unit
    with pytest.raises(
        ValueError, match=f"^{option} is {value!r}, but {recipe.name} trains on {unit}, which have no {option}"
    ):
        Trainer(recipe, None, run)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", TEXT)
@pytest.mark.parametrize(
    "given",
    [["--resolution", "64"], ["--flip"], ["--crop", "stretch"], ["--split", "test"], ["--strict"]],
    ids=" ".join,
)
def test_on_the_command_line(recipe, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["train", recipe, *given, "--out", "r"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and given[0] in said and list(tmp_path.iterdir()) == []


def test_the_help_shows_what_there_is(capsys):
    for recipe, offers in (("dcgan", True), ("mle", False)):
        with pytest.raises(SystemExit):
            main(["train", recipe, "--help"])
        said = capsys.readouterr().out
        for option in ("resolution", "crop", "flip", "split", "strict"):
            assert (f"--{option}" in said) == offers
        assert "Mirror half of the images" in said or not offers


def test_options_of_another_medium_at_their_defaults():
    run = adapt(Hills, RunConfig(data="alps", seed=5, samples=3))
    assert type(run) is run_options(Hills) and (run.data, run.seed, run.samples, run.metres) == ("alps", 5, 3, 3)
    assert adapt(Hills, run) is run
    back = RunConfig(data="alps")
    assert adapt(recipes.get("dcgan"), back) is back
    with pytest.raises(ValueError, match="metres is 4, but dcgan trains on images, which have no metres"):
        adapt(recipes.get("dcgan"), dataclasses.replace(run, metres=4))


def test_no_run_given_means_the_recipes_own_defaults():
    recipe = recipes.get("mle")
    trainer = Trainer(recipe, recipe.Config(steps=1, embedding=4, hidden=4))
    assert trainer.run.data == "tang-quatrains" and trainer.run.samples == recipe.run_defaults["samples"]


@pytest.mark.parametrize("name", ["mle", "gan", "pix2pix"])
def test_config_of_a_run_from_before(name, tmp_path):
    """All fields were flat, and of images."""
    folder = write_run(tmp_path / "run", name, steps=(1,))
    file = folder / "config.json"
    saved = json.loads(file.read_text())
    saved.pop("sha256")
    saved.pop("version", None)
    before = {"resolution": None, "channels": None, "crop": "center", "flip": True, "strict": False, "split": None}
    saved["run"] |= before
    file.write_text(json.dumps(saved))
    run = recipes.read_run(folder).run
    assert type(run) is run_options(recipes.get(name))
    assert (run.flip if name != "mle" else hasattr(run, "flip")) == (name != "mle")
    assert recipes.load_run(folder)[0].medium is recipes.get(name).medium
    saved["run"]["unheard"] = 1
    file.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="unheard"):
        recipes.read_run(folder)


def test_a_run_records_what_it_has(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {i} of many\n" for i in range(40)))
    recipe = recipes.get("mle")
    config = recipe.Config(steps=1, batch_size=4, embedding=4, hidden=4, length=6)
    run = RunConfig(data=str(path), out=str(tmp_path / "run"), device="cpu", samples=2)
    Trainer(recipe, config, run).train()
    saved = json.loads((tmp_path / "run/config.json").read_text())["run"]
    assert set(saved) == {field.name for field in dataclasses.fields(RunOptions)}
    assert (tmp_path / "run/samples/step-00000001.txt").is_file()


class Flat(recipes.Recipe):
    """Samples that are no images, though nothing says so."""

    name = "flat"

    def __init__(self, config, data):
        super().__init__(config, data)
        self.adversaries(torch.nn.Linear(2, 5), torch.nn.Linear(5, 1))
        self.latent_shape = (2,)

    @classmethod
    def describe(cls, dataset):
        return {"name": "flat"}


def test_samples_of_another_kind_leave_no_folder(tmp_path):
    data = torch.utils.data.TensorDataset(torch.randn(8, 5))
    run = RunConfig(out=str(tmp_path / "run"), device="cpu", samples=3)
    with pytest.raises(ValueError, match=r"flat: its samples are \[3, 5\], and of images a tensor \[N, C, H, W\]"):
        Trainer(Flat, Flat.Config(steps=1, batch_size=2), run, dataset=data).train()
    assert list(tmp_path.iterdir()) == []
