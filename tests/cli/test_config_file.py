"""fastgan train with a YAML file, presets, and options whose names would collide."""

import re
import shutil

import pytest
import yaml

from fastgan.cli import main
from fastgan.cli.options import as_options
from fastgan.training import load_checkpoint

MINE = """
from dataclasses import dataclass, field

from fastgan.options import Count
from fastgan.recipes.gan import GAN, GANConfig
from fastgan.training.recipe import Preset


@dataclass
class Net:
    "Of the networks."

    units: Count = 4
    '''Widths.'''
    deep: bool = False


@dataclass
class Config(GANConfig):
    "Of a test."

    seed: int = 7
    '''Of the recipe.'''
    flip: bool = True
    model: Net = field(default_factory=Net)


class Mine(GAN):
    name, Config = "mine", Config
    presets = {"small": Preset("Few units.", {"model": {"units": 2}, "recipe.seed": 3, "keep": 7, "steps": 2})}
"""
SMALL = ["--units", "4", "4", "--latent", "2", "--batch-size", "4", "--samples", "4", "--steps", "1", "--device", "cpu"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "collider.py").write_text(MINE)
    return tmp_path


def options(folder):
    return yaml.safe_load((folder / "run.yaml").read_text())


def said(argv, capsys, code=1):
    capsys.readouterr()
    assert main(argv) == code
    return capsys.readouterr().err


def weights(folder):
    return load_checkpoint(folder).tensors


def same(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def test_a_run_again_from_its_file(place, tiny, capsys):
    assert main([*tiny, "--out", "a", "--seed", "5", "--lr", "3e-5", "--flip"]) == 0
    shutil.copy("a/run.yaml", "kept.yaml")
    assert main(["train", "--config", "kept.yaml", "--out", "b"]) == 0
    assert same(weights(place / "a"), weights(place / "b"))
    assert (place / "a/run.yaml").read_text() == (place / "b/run.yaml").read_text()
    assert "a already holds a run" in said(["train", "--config", "kept.yaml", "--out", "a"], capsys)
    # The command line wins.
    assert main(["train", "dcgan", "--config=kept.yaml", "--out", "c", "--seed", "6", "--no-flip"]) == 0
    assert options(place / "c") == options(place / "a") | {"seed": 6, "flip": False}
    assert not same(weights(place / "a"), weights(place / "c"))
    # What a resumed run changes is in its file as well.
    assert main(["train", "dcgan", "--out", "c", "--resume", "--steps", "2"]) == 0
    assert options(place / "c")["steps"] == 2


def test_names_that_collide(place, capsys):
    mine = ["train", "./collider.py:Mine", *SMALL]
    assert (
        main([*mine, "--seed", "1", "--recipe.seed", "2", "--no-recipe.flip", "--model.units", "3", "--out", "a"]) == 0
    )
    command = capsys.readouterr().out.splitlines()[-1].partition("fastgan ")[2]
    assert command == f"sample a --seeds 0-15 --recipe {place}/collider.py:Mine" and main(command.split()) == 0
    made = options(place / "a")
    assert (made["seed"], made["recipe.seed"], made["flip"], made["recipe.flip"]) == (1, 2, False, False)
    assert (made["model.units"], made["model.deep"], made["recipe"]) == (3, False, f"{place}/collider.py:Mine")
    every = ["--run.seed", "1", "--recipe.lr=0.5", "--run.flip", "--recipe.model.deep", "--recipe.batch_size", "8"]
    assert main([*mine, *every, "--out", "b"]) == 0
    made = options(place / "b")
    assert (made["seed"], made["lr"], made["flip"], made["model.deep"], made["batch_size"]) == (1, 0.5, True, True, 8)
    assert main([*mine, "--no-run.flip", "--run.no-strict", "--model.no-deep", "--recipe.no-flip", "--out", "c"]) == 0
    assert main(["train", "./collider.py:Mine", "--out", "a", "--resume", "--model.units", "3"]) == 0


def test_errors_spell_what_is_nested(place, capsys):
    mine = ["train", "./collider.py:Mine", *SMALL, "--out", "a"]
    assert said([*mine, "--model.units", "0"], capsys).startswith(
        "fastgan train: --model.units is 0, expected at least 1"
    )
    assert said([*mine, "--recipe.seed", "99999999999999999999"], capsys).startswith("fastgan train: --recipe.seed is")
    assert said([*mine, "--recipe.lr", "-1"], capsys).startswith("fastgan train: --lr is -1.0")
    for message, spelt in {
        "recipe.flip=False": "--recipe.no-flip",
        "recipe.lr is 3": "--lr is 3",
        "seed is 3, and run.seed is 4": "seed is 3, and --seed is 4",  # whose it is, is not known
        "model.deep=True": "--model.deep",
        "collider.py:3: model.py is 3": "collider.py:3: model.py is 3",
    }.items():
        assert as_options(message) == spelt
    with pytest.raises(SystemExit):
        main([*mine, "--model.unist", "3"])
    assert "--model.units" in capsys.readouterr().err and not (place / "a").exists()


def test_help_has_groups_and_presets(place, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    run = ["run", "hardware", "log", "transfer"]
    for recipe, titles in (("./collider.py:Mine", [*run, "image", "recipe", "model"]), ("mle", [*run, "recipe"])):
        with pytest.raises(SystemExit):
            main(["train", recipe, "--help"])
        text = capsys.readouterr().out
        assert re.findall(r"^\W*([\w.]+) options\W*$", text, re.M) == titles
        assert ("--flip" in text) == ("small: Few units." in text) == ("--preset" in text) == (recipe != "mle")
    with pytest.raises(SystemExit) as stop:
        main(["train", "mle", "--flip"])
    assert stop.value.code == 2


def test_defaults_then_preset_then_file_then_command_line(place, capsys):
    (place / "some.yaml").write_text("keep: 8\nsteps: 1\nlr: 1e-3\nmodel:\n  deep: true\n")
    mine = ["train", "./collider.py:Mine", *SMALL[:-4], "--device", "cpu"]
    assert main([*mine, "--preset", "small", "--config", "some.yaml", "--lr", "1e-4", "--out", "a"]) == 0
    made = options(place / "a")
    assert (made["model.units"], made["recipe.seed"]) == (2, 3)  # the preset's
    assert (made["keep"], made["steps"], made["model.deep"]) == (8, 1, True)  # the file's
    assert made["lr"] == 1e-4 and "preset" not in made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: gan\nlatnet: 3\n", "bad.yaml:2: gan has no option 'latnet'; did you mean 'latent'?"),
        ("recipe: gan\nbatch_size: x\n", "bad.yaml:2: batch_size is 'x', expected a whole number"),
        ("recipe: gan\nunits: [1, 2, 3]\n", "bad.yaml:2: units is [1, 2, 3], expected (a whole number"),
        ("recipe: gan\n\nlatent: 0\n", "bad.yaml:3: latent is 0, expected at least 1"),
        ("recipe: gan\npreset: paper\n", "bad.yaml:2: gan has no option 'preset'"),
        ("recipe: gna\n", "bad.yaml:1: unknown recipe 'gna'; did you mean 'gan'?"),
        ("\nrecipe: ./collider.py:Mine\n", "bad.yaml:2: recipe './collider.py:Mine' is code to import"),
        ("recipe: os:system\n", "bad.yaml:1: recipe 'os:system' is code to import"),
        ("latent: 3\n", "bad.yaml: no recipe is named; known: gan"),
    ],
)
def test_files_that_are_refused(place, text, message, capsys):
    (place / "bad.yaml").write_text(text)
    (place / "collider.py").write_text("raise SystemExit('imported')")
    assert said(["train", "--config", "bad.yaml"], capsys).startswith(f"fastgan train: {message}")
    assert sorted(path.name for path in place.iterdir()) == ["bad.yaml", "collider.py"]


def test_commands_that_are_refused(place, tiny, capsys):
    (place / "gan.yaml").write_text("recipe: gan\n")
    assert "gan.yaml:1: these are options of recipe gan, not dcgan" in said([*tiny, "--config", "gan.yaml"], capsys)
    assert said(["train", "--steps", "3"], capsys).startswith("fastgan train: no recipe is named; known: gan, dcgan")
    assert said(["train", "--config", "no.yaml"], capsys) == "fastgan train: no.yaml: No such file or directory\n"
    assert "mine has no preset 'smal'; did you mean 'small'?" in said(
        ["train", "./collider.py:Mine", "--preset", "smal"], capsys
    )
    assert main([*tiny, "--out", "r"]) == 0
    assert main(["train", "./collider.py:Mine", *SMALL, "--out", "m"]) == 0
    for recipe, folder, option, value in (
        ("dcgan", "r", "--config", "r/run.yaml"),
        ("./collider.py:Mine", "m", "--preset", "small"),
    ):
        resumed = ["train", recipe, "--out", folder, "--resume", option, value]
        assert said(resumed, capsys).startswith(f"fastgan train: {option} '{value}' is for a new run")
