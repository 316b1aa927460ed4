"""Recipes that are not fastgan's own: they train, resume, are sampled and measured; and no run folder chooses code to import."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from packages import install
from safetensors.torch import save_file
from saved_runs import IMAGES, write_run

import fastgan
from fastgan import recipes, user_code
from fastgan.cli import main
from fastgan.recipes import RECIPES, Recipe, RecipeConfig
from fastgan.training import CheckpointError, RunConfig, Trainer, load_checkpoint
from fastgan.training.run import write_config

SOURCE = '''
from dataclasses import dataclass
import torch
from neighbour import RATE
from fastgan.recipes import Recipe, RecipeConfig

@dataclass
class Config(RecipeConfig):
    """Two linear layers."""
    steps: int = 2
    """Length of the run."""
    batch_size: int = 4
    """Images per update."""
    width: int = 3
    """Dimensions of the latent."""

class Mine(Recipe):
    Config = Config
    def __init__(self, config, data):
        super().__init__(config, data)
        self.shape = (data["channels"], data["resolution"], data["resolution"])
        size = data["channels"] * data["resolution"] ** 2
        self.latent_shape = (config.width,)
        layers = torch.nn.Linear(config.width, size), torch.nn.Tanh(), torch.nn.Unflatten(1, self.shape)
        judge = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size, 1))
        self.adversaries(torch.nn.Sequential(*layers), judge, lr=RATE)
    def d_step(self, batch):
        fake = self.generator(batch.randn(*self.latent_shape))
        return {"loss": (self.discriminator(fake) - self.discriminator(batch.real)).mean()}
    def g_step(self, batch):
        return {"loss": -self.discriminator(self.generator(batch.randn(*self.latent_shape))).mean()}
'''
QUICK = ["--device", "cpu", "--samples", "4"]


def forget():
    """As in another process, which has not been told of any code."""
    for name in ("mine", "neighbour", "mypackage", "mypackage.recipes"):
        sys.modules.pop(name, None)
    user_code._files.clear()
    RECIPES._typed.clear()
    RECIPES._given.clear()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with a data set, mine.py and mypackage/recipes.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", images=images)
    (tmp_path / "neighbour.py").write_text("RATE = 1e-3\n")
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "recipes.py").write_text(SOURCE)
    forget()
    yield tmp_path
    forget()


@pytest.mark.parametrize("name", ["./mine.py:Mine", "mypackage.recipes:Mine"])
def test_trains_resumes_and_is_used(name, here, capsys):
    assert main(["train", name, "--data", "pictures.npz", *QUICK]) == 0
    folder = here / "runs" / "Mine-pictures"
    saved = json.loads((folder / "config.json").read_text())
    resolvable = str(here / "mine.py:Mine") if name.startswith("./") else name
    assert saved["recipe"] == resolvable and saved["version"] == 2
    assert "Mine" in (folder / "report.html").read_text()

    forget()
    assert main(["train", name, "--out", str(folder), "--resume", "--steps", "4"]) == 0
    assert load_checkpoint(folder).state["step"] == 4

    for command in (["sample", str(folder)], ["eval", str(folder), "--samples", "4"]):
        forget()
        before = set(sys.modules)
        capsys.readouterr()
        assert main([*command, "--device", "cpu"]) == 1
        said = capsys.readouterr().err
        assert f"{resolvable!r} is code to import" in said and f"--recipe {resolvable!r}" in said
        assert not {"mine", "mypackage", "mypackage.recipes"} & (set(sys.modules) - before)
    assert main(["sample", str(folder), "--device", "cpu", "--recipe", name]) == 0
    forget()
    assert main(["train", "gan", "--out", str(folder), "--resume"]) == 1
    assert f"a run of recipe {resolvable!r}, not gan" in capsys.readouterr().err


def test_load_run_is_told_which_code_it_may_import(here):
    assert main(["train", "./mine.py:Mine", "--data", "pictures.npz", "--out", "run", *QUICK]) == 0
    forget()
    for read in (recipes.read_run, recipes.load_run, recipes.check_run):
        with pytest.raises(
            ValueError, match=r"config\.json: recipe '.*mine\.py:Mine' is code to import.*recipe='.*mine.py:Mine'"
        ):
            read("run")
    assert "mine" not in sys.modules
    made, networks = recipes.load_run("run", recipe="mine.py:Mine")
    assert type(made).__name__ == "Mine" and networks["generator"](torch.zeros(1, 3)).shape == (1, 3, 8, 8)
    assert type(recipes.load_run("run")[0]) is type(made), "the caller has named it before"
    given = type(made)
    forget()
    assert type(recipes.load_run("run", recipe=given)[0]) is given
    with pytest.raises(ValueError, match="no recipe, a class derived from"):
        recipes.load_run("run", recipe="pathlib:Path")


@pytest.mark.slow
def test_the_printed_command_resumes_the_run(here):
    """Killed at step 2 of 6 by a signal to itself; in a process of its own, from another folder."""
    stopping = SOURCE.replace(
        "    def g_step(self, batch):",
        "    def updates(self, step):\n        import os, signal\n        if step == 2 and not self.config.on:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n        return super().updates(step)\n    def g_step(self, batch):",
    ).replace("    width: int = 3\n", '    on: bool = False\n    """Go on."""\n    width: int = 3\n')
    (here / "mine.py").write_text(stopping)
    program = [sys.executable, "-m", "fastgan"]
    start = [*program, "train", "./mine.py:Mine", "--data", str(here / "pictures.npz"), "--steps", "6", *QUICK]
    killed = subprocess.run([*start, "--out", str(here / "a")], capture_output=True, text=True)
    assert killed.returncode == 143, killed.stderr
    command = killed.stdout.strip().splitlines()[-1].strip()
    assert command == f"fastgan train {here / 'mine.py:Mine'} --out {here / 'a'} --resume"
    (here / "elsewhere").mkdir()
    subprocess.run([*program, *command.split()[1:], "--on"], check=True, capture_output=True, cwd=here / "elsewhere")
    subprocess.run([*start, "--on", "--out", str(here / "b")], check=True, capture_output=True)
    first, second = (load_checkpoint(here / name).tensors for name in "ab")
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class Named(Recipe):
    """A name of no use in a file's name, and networks of next to nothing."""

    name = "../odd: / name"

    def __init__(self, config, data):
        super().__init__(config, data)
        self.adversaries(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))


class Nameless(Named):
    pass


def test_names_of_any_kind(here, capsys):
    assert Nameless.name == "Nameless"
    dataset = here / "pictures.npz"
    for kind in (Named, Nameless):
        trainer = Trainer(kind, RecipeConfig(steps=1), RunConfig(data=str(dataset), device="cpu"))
        assert trainer.folder.parent.name == "runs" and len(trainer.folder.parts) == 2
        assert ":" not in trainer.folder.name
        write_config_of(trainer.recipe, here / kind.__name__)
        assert json.loads((here / kind.__name__ / "config.json").read_text())["recipe"] == RECIPES.name_of(kind)


def write_config_of(recipe, folder):
    folder.mkdir()
    write_config(folder, recipe, RunConfig())


def test_a_file_of_weights_has_no_recipe(here, capsys):
    save_file({"weight": torch.zeros(1)}, here / "weights.safetensors")
    assert main(["sample", "weights.safetensors", "--recipe", "./mine.py:Mine"]) == 1
    assert "--recipe ./mine.py:Mine is for a run's folder" in capsys.readouterr().err and "mine" not in sys.modules


def test_a_registered_name(here):
    mine = RECIPES.register("mine", recipes.get("./mine.py:Mine"))
    write_run(here / "run", "mine", options=({}, IMAGES), steps=(1,))
    assert json.loads((here / "run" / "config.json").read_text())["recipe"] == "mine"
    assert type(recipes.load_run(here / "run")[0]) is mine
    trainer = Trainer(mine, run=RunConfig(data="pictures.npz", out="other", device="cpu"))
    assert f"train {here / 'mine.py:Mine'} " in trainer.resume_command, (
        "another process knows no name of this program's"
    )
    with pytest.raises(ValueError, match="a run of recipe 'mine', not gan"):
        recipes.load_run(here / "run", recipe="gan")
    forget()
    with pytest.raises(ValueError, match=r"unknown recipe 'mine'.*recipe='MODULE:CLASS'"):
        recipes.load_run(here / "run")


def test_an_installed_package(here, monkeypatch, capsys):
    points = {"fastgan.recipes": {"theirs": "brought:Mine", "broken": "nowhere:Other"}}
    install(monkeypatch, here / "site", "brought", points, brought=SOURCE)
    monkeypatch.syspath_prepend(str(here))
    assert main(["train"]) == 2 and "theirs" in capsys.readouterr().out
    assert main(["train", "theirs", "--data", "pictures.npz", *QUICK]) == 0
    folder = here / "runs" / "Mine-pictures"
    assert json.loads((folder / "config.json").read_text())["recipe"] == "theirs"
    assert main(["sample", str(folder), "--device", "cpu"]) == 0
    assert main(["sample", str(folder), "--device", "cpu", "--truncation", "0.5"]) == 1
    assert "recipes that have it: stylegan2" in capsys.readouterr().err
    assert main(["train", "broken"]) == 1
    assert "of package brought (nowhere:Other) cannot be imported" in capsys.readouterr().err


def test_config_files_of_every_version(here):
    folder = write_run(here / "run", "gan", steps=(1,))
    file = folder / "config.json"
    assert next(iter(json.loads(file.read_text()))) == "version"
    old = Path(__file__).with_name("config-version-1.json").read_text()
    file.write_text(old)
    saved = recipes.read_run(folder)
    assert saved.recipe is recipes.get("gan") and saved.config.units == (4, 4) and saved.run.data == "emoji"
    assert recipes.load_run(folder)[0].name == "gan"
    for version in (3, 0, -1, "2", None, 2.0, True, [1] * 1000):
        file.write_text(json.dumps(json.loads(old) | {"version": version}))
        with pytest.raises(
            CheckpointError, match=r"config\.json is of version .*; this fastgan reads versions up to 2"
        ):
            recipes.load_run(folder)


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "hostile:Mine",
        "hostile.py:Mine",
        "./hostile.py:Mine",
        "ABSOLUTE",
        "hostile:",
        ":",
        "..:x",
        "hostile",
    ],
)
def test_a_run_folder_chooses_no_code(name, here, capsys):
    (here / "hostile.py").write_text(f"open({str(here / 'ran')!r}, 'w')\nfrom mine import Mine\n")
    folder = write_run(here / "run", "gan", steps=(1,))
    name = str(here / "hostile.py:Mine") if name == "ABSOLUTE" else name
    file = folder / "config.json"
    content = json.loads(file.read_text()) | {"recipe": name}
    del content["sha256"]
    file.write_text(json.dumps(content))
    for read in (recipes.read_run, recipes.check_run, recipes.load_run):
        with pytest.raises((ValueError, CheckpointError)):
            read(folder)
    for command in (["sample"], ["eval"]):
        assert main([*command, str(folder), "--device", "cpu"]) == 1
    assert main(["train", "gan", "--out", str(folder), "--resume", "--device", "cpu"]) == 1
    assert not (here / "ran").exists() and "hostile" not in sys.modules


def test_a_class_of_a_notebook(here, monkeypatch):
    """Defined in __main__, which has no file."""
    notebook = {"__name__": "__main__"}
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(here))
        exec(compile(SOURCE, "<cell>", "exec"), notebook)
        for name in ("Mine", "Config"):
            patch.setattr(sys.modules["__main__"], name, notebook[name], raising=False)
        mine = notebook["Mine"]
        run = RunConfig(data="pictures.npz", out="run", device="cpu", samples=4)
        trainer = Trainer(mine, mine.Config(steps=1), run)
        assert trainer.resume_command == "fastgan.run(Mine, out='run', resume=True)"
        trainer.train()
        assert json.loads((here / "run" / "config.json").read_text())["recipe"] == "__main__:Mine"
        with pytest.raises(ValueError, match="recipe '__main__:Mine' is code to import"):
            recipes.load_run("run")
        assert type(recipes.load_run("run", recipe=mine)[0]) is mine
        again = fastgan.run(mine, out="run", resume=True, steps=2)
        assert load_checkpoint(again.folder).state["step"] == 2
