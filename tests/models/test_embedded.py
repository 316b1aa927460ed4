"""The generators that come with the package: what they are, and every command that takes one by name."""

import dataclasses
import json

import pytest
import torch
from PIL import Image

from fastgan import data, editing, recipes
from fastgan.cli import main
from fastgan.data import to_uint8
from fastgan.explore import Explored
from fastgan.export.plan import plan
from fastgan.models import embedded
from fastgan.sampling import load_generator
from fastgan.training.packed import read_packed

NAME = "fastgan:emoji"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def about() -> dict:
    return json.loads(embedded.locate(NAME).with_suffix(".json").read_text(encoding="utf-8"))


def test_it_is_small_and_said_whole():
    file = embedded.locate(NAME)
    header, tensors = read_packed(file)
    assert file.stat().st_size <= 4 << 20
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    said = about()
    assert said["weights"] == sum(p.numel() for p in load_generator(NAME)[1]["generator"].parameters())
    assert said["steps"] == header["step"] and header["data"]["resolution"] == 32
    assert {"fd_efflite0", "kid_efflite0", "precision_efflite0", "recall_efflite0"} <= said["measured"]["emoji"].keys()
    command = said["command"].split()
    assert command[:3] == ["fastgan", "train", header["recipe"]] and command[3:5] == ["--data", "emoji"]
    kind = recipes.get(header["recipe"])
    usual = dataclasses.asdict(kind.Config())
    changed = {name for name, value in header["config"].items() if value != usual[name]}
    said_options = {word[2:].replace("-", "_") for word in command if word.startswith("--")}
    assert changed <= said_options  # the command trains this network, and no other


def test_it_draws_what_training_has_taught():
    made, networks = load_generator(NAME)
    with torch.no_grad():
        pictures = torch.cat([made.sample(networks, list(range(i, i + 32))) for i in (0, 32)]).float()
    real = data.to_float(data.load("emoji").images)
    assert pictures.shape == (64, 3, 32, 32) and bool(pictures.isfinite().all())
    # On white, as all of them: networks without training have corners of any colour.
    corners = [images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]] for images in (pictures, real)]
    assert abs(float(corners[0].median() - corners[1].median())) < 0.1
    assert abs(float(pictures.std() - real.std())) < 0.2 * float(real.std())
    assert len({tuple(picture.flatten().tolist()) for picture in to_uint8(pictures)}) == 64


def test_every_command_takes_its_name(elsewhere, capsys):
    classes = editing.load(NAME).classes
    of_class = ["--class-label", "0"] if classes else []
    Image.fromarray(data.load("emoji:twitter:base").images[0].permute(1, 2, 0).numpy()).save("mine.png")
    quick = ["--steps", "2", "--perceptual", "none", "--device", "cpu"]
    for command, out in {
        ("sample", NAME, "--seeds", "0-3", *of_class): "emoji-seeds-0-3.png",
        ("directions", NAME, "--count", "2", "--draws", "100", "--seeds", "0"): "emoji-directions.safetensors",
        ("sample", NAME, "--direction", "1", "--seeds", "0"): "emoji-direction-pca-01.png",
        ("project", NAME, "mine.png", *quick, *of_class): "emoji-projected/latents.safetensors",
        ("sample", NAME, "--latents", "emoji-projected/latents.safetensors"): "emoji-latents-latents.png",
        ("push", NAME, "emoji-folder", "--license", "apache-2.0"): "emoji-folder/README.md",
    }.items():
        assert main(list(command)) == 0, capsys.readouterr().err
        assert (elsewhere / out).is_file(), command
    loaded = type(load_generator(NAME)[1]["generator"]).from_pretrained(NAME)
    assert not loaded.training
    explored = Explored.load(NAME)
    assert explored.what == "edit" and explored.directions is not None
    assert "latents" in plan(NAME).examples  # what fastgan export begins with


@pytest.mark.parametrize("command", ["sample", "explore", "project"])
def test_another_name_is_refused_with_those_there_are(elsewhere, capsys, command):
    if command == "explore":
        pytest.importorskip("gradio", reason="gradio is not installed")
    assert main([command, "fastgan:emojis", *(["x.png"] if command == "project" else [])]) == 1
    said = capsys.readouterr().err
    assert "there is no fastgan:emojis; did you mean 'fastgan:emoji'?; known: fastgan:emoji" in said
    assert not list(elsewhere.iterdir())


@pytest.mark.slow
def test_its_figures_are_measured_again(elsewhere):
    said = about()
    assert main(["eval", NAME, "--metrics", "fd,kid", "--samples", str(said["samples"])]) == 0
    found = json.loads((elsewhere / "emoji-metrics.json").read_text(encoding="utf-8"))
    assert found["step"] == said["steps"]
    for name, value in found[said["command"].split()[2]].items():
        assert value == pytest.approx(said["measured"]["emoji"][name], rel=0.02), name
