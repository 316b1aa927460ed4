"""Adversarial losses of a user's own, on --loss; and names that no file decides."""

import dataclasses
import json
import sys

import pytest
from packages import install
from saved_runs import SMALL, write_run

from fastgan import losses, recipes
from fastgan.cli import main
from fastgan.losses import LOSSES, adversarial
from fastgan.losses.adversarial import Adversarial
from fastgan.options import check_ranges
from fastgan.training.pieces import check

TAKERS = ["gan", "dcgan", "cyclegan", "pix2pix", "relgan"]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(LOSSES, "_given", {})


def squared() -> Adversarial:
    equation = "D: f^2 + (r - 1)^2; G: (f - 1)^2"
    return Adversarial("squared", equation, lambda r, f: f**2 + (r - 1) ** 2, lambda r, f: (f - 1) ** 2)


def test_the_table_holds_ours_by_their_names_on_the_command_line():
    assert LOSSES.resolve("non-saturating") is adversarial.non_saturating
    assert {LOSSES.resolve(name).name for name in LOSSES} == set(adversarial.__all__) - {"Adversarial"}
    with pytest.raises(ValueError, match="loss 'hinge' is one of fastgan's own"):
        losses.register("hinge", squared())


@pytest.mark.parametrize("name", TAKERS)
def test_a_registered_loss_is_an_option(name):
    losses.register("squared", squared())
    for given, code in (("squared", True), ("sqared", False), ("wasserstein", False), ("os:abort", False)):
        kind = recipes.get(name)
        config = kind.Config(loss=given)
        if code:
            check_ranges(config)
        else:
            with pytest.raises(ValueError, match=f"loss is '{given}', expected '.*' or 'squared'"):
                check_ranges(config)


def test_it_trains_resumes_and_is_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    losses.register("squared", squared())
    sizes = ["--units", "4", "4", "--latent", "4", "--batch-size", "4", "--samples", "4", "--device", "cpu"]
    assert main(["train", "gan", "--loss", "squared", "--steps", "1", "--out", "run", *sizes]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["loss"] == "squared"
    assert recipes.load_run("run")[0].loss.name == "squared"
    assert main(["train", "gan", "--out", "run", "--resume", "--steps", "2"]) == 0
    LOSSES._given.clear()
    capsys.readouterr()
    assert main(["train", "gan", "--out", "run", "--resume"]) == 1
    assert "loss is 'squared', expected 'non-saturating' or 'minimax'" in capsys.readouterr().err
    assert main(["train", "gan", "--loss", "squraed", "--out", "other"]) == 1
    said = capsys.readouterr().err
    assert "--loss is 'squraed', expected 'non-saturating' or 'minimax'" in said and not (tmp_path / "other").exists()


def test_an_installed_package(tmp_path, monkeypatch):
    source = "from fastgan.losses.adversarial import hinge\nTHEIRS = hinge\n"
    points = {"fastgan.losses": {"theirs": "their_losses:THEIRS", "broken": "nowhere:X"}}
    install(monkeypatch, tmp_path, "theirs", points, their_losses=source)
    made = recipes.get("gan")(recipes.get("gan").Config(**SMALL["gan"][0], loss="theirs"), SMALL["gan"][1])
    assert made.loss is adversarial.hinge
    assert LOSSES.resolve("hinge") is adversarial.hinge


HOSTILE = ["os:abort", "hostile:LOSS", "hostile.py:LOSS", "./hostile.py:LOSS", "adversarial", "__import__"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_run_folder_chooses_no_code(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.py").write_text("open('ran', 'w')\n")
    folder = write_run(tmp_path / "run", "gan", steps=(1,))
    content = json.loads((folder / "config.json").read_text())
    content["config"]["loss"] = name
    del content["sha256"]
    (folder / "config.json").write_text(json.dumps(content))
    for read in (recipes.read_run, recipes.load_run):
        with pytest.raises(ValueError, match=r"config\.json: loss is '.*', expected 'non-saturating' or 'minimax'"):
            read(folder)
    assert main(["sample", str(folder), "--device", "cpu"]) == main(["eval", str(folder), "--device", "cpu"]) == 1
    assert not (tmp_path / "ran").exists() and "hostile" not in sys.modules


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_a_loss_that_compares_with_real_images_is_refused_where_they_are_not_seen(name, tmp_path):
    compared = Adversarial("compared", "", lambda r, f: f - r, lambda r, f: r - f, relativistic=True)
    losses.register("compared", compared)
    kind = recipes.get(name)
    data = {"name": "x", "resolution": 32, "channels": 3, "num_classes": 0}
    with pytest.raises(ValueError, match="loss is 'compared', which compares with real images"):
        kind(kind.Config(loss="compared", width=1, **({"layers": 0} if name == "pix2pix" else {})), data)


@pytest.mark.parametrize("name", ["gan", "dcgan", "realesrgan", "cyclegan", "pix2pix"])
def test_a_loss_with_means_of_the_batch_is_not_taken_in_pieces(name):
    losses.register("averaged", dataclasses.replace(squared(), averaging=True))
    kind = recipes.get(name)
    data = {"name": "x", "resolution": 32, "channels": 3, "num_classes": 0}
    sizes = {"gan": {"units": (4, 4)}, "dcgan": {"width": 4, "max_width": 4}, "realesrgan": {"width": 4, "blocks": 1}}
    config = kind.Config(batch_size=4, **sizes.get(name, {"width": 1, "layers": 0, "norm": "instance"}))
    config.loss = "averaged"
    check(kind(config, data), 1)
    with pytest.raises(ValueError, match=f"--grad-accum 2: {name} .*"):
        check(kind(config, data), 2)
    assert kind(config, data).whole_batch == "as --loss averaged compares with means of the batch"
