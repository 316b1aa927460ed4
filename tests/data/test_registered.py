"""Data sets that users add: by name, by package, by their own word; and no file's word imports anything."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from packages import install

import fastgan.data
from fastgan import user_code
from fastgan.cli import main
from fastgan.data import DATA, ImageDataset, PairDataset
from fastgan.data.text import load_text

SOURCE = """
import torch
from fastgan.data import ImageDataset
def load(*parts, split=None):
    name = ":".join(["theirs", *parts, split or "all"])
    return ImageDataset(torch.full((9, 3, 8, 8), len(parts), dtype=torch.uint8), name=name)
"""
QUICK = ["--device", "cpu", "--samples", "4", "--units", "4", "4", "--latent", "4", "--batch-size", "4"]


def forget():
    DATA._given.clear()
    DATA._typed.clear()
    user_code._files.clear()
    for name in ("sets", "theirs"):
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget()
    yield tmp_path
    forget()


def pictures():
    return ImageDataset(torch.arange(9 * 192).reshape(9, 3, 8, 8).to(torch.uint8), name="mine")


def test_a_loader_gets_what_it_takes():
    seen = {}

    @fastgan.data.register("mine")
    def load(*parts, split=None, channels=3):
        seen.update(parts=parts, split=split, channels=channels)
        return pictures()

    data = fastgan.data.load("mine:cats:big", split="train", channels=3, resolution=4, flip=True)
    assert seen == {"parts": ("cats", "big"), "split": "train", "channels": 3}
    assert data.resolution == 4 and data.flip, "what is left is done as for any other images"
    assert fastgan.data.load("mine", bits=16).images.dtype == torch.uint16
    assert "mine" in fastgan.data.names()
    with pytest.raises(ValueError, match="mine: strict=True is not offered: its loader takes no strict"):
        fastgan.data.load("mine", strict=True)


def test_loaders_of_many_kinds():
    fastgan.data.register("plain", pictures)
    fastgan.data.register("items", lambda: [(torch.zeros(2), 1)] * 5)
    fastgan.data.register("every", lambda **options: [options])
    assert len(fastgan.data.load("plain")) == 9 and len(fastgan.data.load("items")) == 5
    (options,) = fastgan.data.load("every", resolution=4, crop="stretch")
    assert options["resolution"] == 4 and options["crop"] == "stretch" and options["split"] is None
    with pytest.raises(ValueError, match="items: resolution=4 is not offered"):
        fastgan.data.load("items", resolution=4)
    with pytest.raises(ValueError, match=r"data set items:a: its loader takes \(\) \(too many positional"):
        fastgan.data.load("items:a")
    with pytest.raises(ValueError, match="'emoji' is one of fastgan's own"):
        fastgan.data.register("emoji", pictures)
    with pytest.raises(ValueError, match="'kjv' is one of fastgan's own"):
        fastgan.data.register("kjv", pictures)
    with pytest.raises(FileNotFoundError, match=r"did you mean 'plain'\?"):
        fastgan.data.load("plian")


def test_pairs_texts_and_signals():
    fastgan.data.register("pair", lambda flip=False: PairDataset(pictures(), pictures(), paired=True))
    assert fastgan.data.load_pair("pair", split="train").paired
    with pytest.raises(ValueError, match="pair: split='test' is not offered"):
        fastgan.data.load_pair("pair", split="test")
    texts = load_text("tang-quatrains")
    fastgan.data.register("poems", lambda: texts)
    assert load_text("poems") is texts
    signals = [torch.zeros(1, 4)]
    fastgan.data.register("waves", lambda rate=None: signals)
    assert fastgan.data.load_signals("waves", rate=8000) is signals
    with pytest.raises(ValueError, match="waves: length=4 is not offered"):
        fastgan.data.load_signals("waves", length=4)


def test_an_installed_package(monkeypatch, here, capsys):
    points = {"fastgan.data": {"theirs": "theirs:load", "broken": "nowhere:load", "emoji": "theirs:load"}}
    install(monkeypatch, here / "site", "theirs", points, theirs=SOURCE)
    assert fastgan.data.load("emoji").resolution == 32 and "theirs" not in sys.modules, "ours win, and wake nobody"
    with pytest.warns(UserWarning, match="package theirs offers the data set 'emoji'"):
        assert fastgan.data.load("theirs:a", split="x").name == "theirs:a:x"
    with pytest.warns(UserWarning), pytest.raises(ImportError, match="data set 'broken' of package theirs"):
        fastgan.data.load("broken")
    with pytest.warns(UserWarning):
        assert main(["data", "list"]) == 0
    listed = {line.split()[0]: line.split(maxsplit=6)[-1] for line in capsys.readouterr().out.splitlines() if line}
    assert listed["theirs"] == listed["broken"] == "from theirs"


def test_code_by_a_callers_own_word(here):
    (here / "sets.py").write_text(SOURCE)
    for name in ("sets:load", "./sets.py:load", str(here / "sets.py:load")):
        forget()
        with pytest.raises(
            FileNotFoundError, match="It is code, which is imported only where you name it yourself, with --data"
        ):
            fastgan.data.load(name)
        assert "sets" not in sys.modules
        assert fastgan.data.load(name, code=True, split="test").name == "theirs:test"
        assert fastgan.data.load(name).name == "theirs:all", "it has been named once"
    with pytest.raises(ValueError, match="there is no 'other' in sets"):
        fastgan.data.load("sets:other", code=True)
    with pytest.raises(FileNotFoundError, match=r"no data set of that name; did you mean 'emoji.*with :CLASS\.$"):
        fastgan.data.load("emojy:food", code=True)


def test_on_the_command_line(here, capsys):
    (here / "sets.py").write_text(SOURCE)
    train = ["train", "gan", "--data", "./sets.py:load", "--steps", "1", "--out", "run", *QUICK]
    assert main(train) == 0
    assert json.loads((here / "run" / "config.json").read_text())["run"]["data"] == "./sets.py:load"
    from fastgan import recipes
    from fastgan.training import Trainer

    saved = recipes.read_run("run")
    again = Trainer(saved.recipe, saved.config, dataclasses.replace(saved.run, resume=True))
    assert again.resume_command == f"fastgan train gan --out run --resume --data {here / 'sets.py:load'}"
    forget()
    capsys.readouterr()
    assert main(["train", "gan", "--out", "run", "--resume", "--steps", "2"]) == 1
    assert (
        "imported only where you name it yourself, with --data" in capsys.readouterr().err and "sets" not in sys.modules
    )
    assert main(["train", "gan", "--out", "run", "--resume", "--steps", "2", "--data", str(here / "sets.py:load")]) == 0
    forget()
    assert main(["sample", "run", "--device", "cpu"]) == 0 and "sets" not in sys.modules


def test_in_a_call_of_run(here):
    (here / "sets.py").write_text(SOURCE)
    sizes = {"units": (4, 4), "latent": 4, "batch_size": 4, "samples": 4}
    made = fastgan.run("gan", data="sets:load", steps=1, device="cpu", out="run", **sizes)
    assert made.saved.data["name"] == "theirs:all"


def test_evaluation_against_another_set(here, capsys, monkeypatch):
    from pixels import Pixels

    from fastgan.metrics import images

    monkeypatch.setenv("XDG_CACHE_HOME", str(here))
    monkeypatch.setattr(images, "load_extractor", lambda *given: Pixels())
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        np.savez(here / f"{name}.npz", images=rng.integers(0, 256, (9, 3, 8, 8), dtype=np.uint8))
    assert main(["train", "gan", "--data", "one.npz", "--steps", "1", "--out", "run", *QUICK]) == 0
    evaluate = ["eval", "run", "--samples", "8", "--metrics", "kid", "--device", "cpu"]
    found = []
    for data in ([], ["--data", "one.npz"], ["--data", "two.npz"], ["--data", "./sets.py:load"]):
        (here / "sets.py").write_text(SOURCE)
        assert main([*evaluate, *data]) == 0
        found.append(json.loads((here / "run" / "metrics.json").read_text())["gan"]["kid_efflite0"])
    assert found[0] == found[1] and len(set(found)) == 3


HOSTILE = ["os:getcwd", "os:abort", "hostile:load", "hostile.py:load", "ABSOLUTE", "run/hostile.py:load", "..:x"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("recipe", ["gan", "pix2pix", "mle"])
def test_a_run_folder_chooses_no_code(recipe, name, here, capsys):
    from saved_runs import write_run

    from fastgan import recipes
    from fastgan.training import Trainer

    folder = write_run(here / "run", recipe, steps=(1,))
    for place in (here, folder):
        (place / "hostile.py").write_text(f"open({str(here / 'ran')!r}, 'w')\ndef load(**options): 1 / 0\n")
    name = str(here / "hostile.py:load") if name == "ABSOLUTE" else name
    file = folder / "config.json"
    content = json.loads(file.read_text())
    content["run"]["data"] = name
    del content["sha256"]
    file.write_text(json.dumps(content))
    made = recipes.load_run(folder)[0]
    saved = recipes.read_run(folder)
    with pytest.raises((OSError, ValueError)):
        made.load_data(saved.run.data, saved.config)
    for resume in (True, False):
        options = dataclasses.replace(
            saved.run, resume=resume, out=str(folder if resume else here / "new"), device="cpu"
        )
        with pytest.raises((OSError, ValueError)):
            Trainer(saved.recipe, saved.config, options)
    main(
        ["eval", str(folder), "--device", "cpu", "--samples", "4", "--metrics", "nll-test" if recipe == "mle" else "l1"]
    )
    assert main(["train", recipe, "--out", str(folder), "--resume", "--device", "cpu"]) == 1
    capsys.readouterr()
    assert not (here / "ran").exists() and "hostile" not in sys.modules
