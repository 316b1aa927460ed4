"""fastgan project, fastgan directions, and fastgan sample of what they find."""

import csv
import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from saved_runs import write_run

from fastgan import editing
from fastgan.cli import main
from fastgan.cli.edit import strength_list
from fastgan.cli.options import UsageError
from fastgan.editing import Directions, Latents
from fastgan.editing.projection import Projector
from fastgan.training.lock import RunLock


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("fastgan.editing.projection._DRAWS", 1000)


@pytest.fixture(scope="module")
def styled(tmp_path_factory):
    torch.manual_seed(0)
    return write_run(tmp_path_factory.mktemp("runs") / "styled", "stylegan2")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, name in enumerate(("a.png", "b.jpg")):
        pixels = np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def run(capsys, *argv) -> str:
    code = main([str(word) for word in argv])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def refused(capsys, *argv) -> str:
    assert main([str(word) for word in argv]) == 1
    return capsys.readouterr().err


PROJECT = ("--steps", 12, "--perceptual", "none", "--device", "cpu")


def test_project_and_draw_again(styled, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    said = run(capsys, "project", styled, pictures, pictures / "a.png", *PROJECT, "--noise", "--out", out)
    assert "step 12/12" in said and f"fastgan sample {styled} --latents {out}/latents.safetensors" in said
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("a.png", "a.png.png", "b.png"),
        *("latents.safetensors", "pairs.png", "way.gif", "distances.csv", "distances.svg", "project.json"),
    }
    latents = Latents.load(out / "latents.safetensors")
    made = editing.load(styled).images(latents)
    assert len(latents) == 3 and latents.noise
    first = np.asarray(Image.open(out / "a.png"), np.float32) / 127.5 - 1
    assert np.abs(first - made[0, 0].clamp(-1, 1).numpy()).max() < 0.01
    assert Image.open(out / "way.gif").n_frames > 10
    rows = list(csv.DictReader((out / "distances.csv").open()))
    errors = [float(row["error"]) for row in rows if row["picture"] == "a.png"]
    assert [int(row["step"]) for row in rows[::3]] == list(range(13)) and errors[-1] < errors[0]
    ElementTree.parse(out / "distances.svg")
    drawn = run(capsys, "sample", styled, "--latents", out / "latents.safetensors", "--device", "cpu").strip()
    assert drawn.endswith("samples/latents-latents.png") and Image.open(drawn).width > 64
    assert "already holds a projection" in refused(capsys, "project", styled, pictures, *PROJECT, "--out", out)


def test_no_picture_is_replaced(styled, pictures, tmp_path, capsys):
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    said = refused(capsys, "project", styled, pictures / "a.png", *PROJECT, "--out", pictures)
    assert f"{pictures} already holds a.png, one of 1 files to write: choose another --out" in said
    assert {path: path.read_bytes() for path in pictures.iterdir()} == before
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "a.npy").write_bytes(b"mine")  # what more channels than a picture has are written as
    options = (pictures / "a.png", *PROJECT, "--out", tmp_path / "arrays")
    assert "already holds a.npy" in refused(capsys, "project", styled, *options)
    (pictures / "a.png").rename(pictures / "pairs.png")
    run(capsys, "project", styled, pictures / "pairs.png", *PROJECT, "--out", tmp_path / "out")
    sizes = [Image.open(tmp_path / "out" / name).size for name in ("pairs.png.png", "pairs.png")]
    assert sizes[0] == (16, 16) and sizes[1] != (16, 16)


def test_sixteen_bits_stay(pictures, tmp_path, capsys):
    facts = dict(name="x", resolution=8, channels=1, bits=16, num_classes=0, class_names=[])
    folder = write_run(tmp_path / "deep", "gan", options=(dict(units=(4, 4), latent=4), facts))
    run(capsys, "project", folder, pictures / "a.png", *PROJECT, "--out", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "a.png").mode == "I;16"


def test_one_that_was_stopped_goes_on(styled, pictures, tmp_path, capsys, monkeypatch):
    options = (styled, pictures, "--steps", 30, "--perceptual", "none", "--npz", "--device", "cpu")
    whole, part = tmp_path / "whole", tmp_path / "part"
    run(capsys, "project", *options, "--out", whole)
    advance = Projector.advance

    def stopped(self):
        if self.step == 23:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(Projector, "advance", stopped)
    assert main([*map(str, ("project", *options, "--out", part))]) == 130
    capsys.readouterr()
    monkeypatch.setattr(Projector, "advance", advance)
    other = refused(capsys, "project", *options[:2], "--steps", 31, *options[4:], "--out", part, "--resume")
    assert "is another projection: --steps is 31, not 30" in other
    torch.manual_seed(1)
    another = write_run(tmp_path / "another", "stylegan2")
    said = refused(capsys, "project", another, *options[1:], "--out", part, "--resume")
    assert "the generator has other weights" in said
    Image.new("RGB", (30, 40)).save(pictures / "b.jpg")
    assert "pictures are others" in refused(capsys, "project", *options, "--out", part, "--resume")
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)).save(pictures / "b.jpg")
    assert f"resuming {part} at step 19" in run(capsys, "project", *options, "--out", part, "--resume")
    assert torch.equal(Latents.load(whole / "latents.npz").values, Latents.load(part / "latents.npz").values)
    assert (whole / "distances.csv").read_text() == (part / "distances.csv").read_text()
    assert (whole / "way.gif").read_bytes() == (part / "way.gif").read_bytes()
    assert "is done" in refused(capsys, "project", *options, "--out", part, "--resume")


def test_two_at_once(styled, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    lock = RunLock(out)
    lock.hold()
    note = lock.path.read_text()
    assert f"{out} is being written by process" in refused(
        capsys, "project", styled, pictures / "a.png", *PROJECT, "--out", out
    )
    assert [path.name for path in out.iterdir()] == [".lock"] and lock.path.read_text() == note
    lock.release()


def test_no_picture_at_all(styled, tmp_path, capsys):
    assert "no picture is named" in refused(capsys, "project", styled, *PROJECT, "--out", tmp_path / "out")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("text")
    for name in ("empty.png", "text.png"):
        said = refused(capsys, "project", styled, tmp_path / name, *PROJECT, "--out", tmp_path / "out")
        assert said == f"fastgan project: {tmp_path / name} cannot be read as a picture: not an image\n"
    (tmp_path / "folder.png").mkdir()
    said = refused(capsys, "project", styled, tmp_path / "folder.png", *PROJECT, "--out", tmp_path / "out")
    assert (
        said == f"fastgan project: {tmp_path / 'folder.png'} cannot be read as a picture: a folder, expected a file\n"
    )
    assert not (tmp_path / "out").exists()


def test_commands_that_are_shown_can_be_typed(pictures, tmp_path, capsys, monkeypatch):
    torch.manual_seed(1)
    made = write_run(tmp_path / "it's a run", "stylegan2")
    said = run(capsys, "project", made, pictures / "a.png", *PROJECT, "--out", tmp_path / "the out")
    words = shlex.split(said.partition("next: fastgan ")[2])
    assert Path(run(capsys, *words, "--device", "cpu").strip()).is_file()
    said = refused(capsys, "sample", made, "--direction", 0)
    assert f"fastgan directions {shlex.quote(str(made))} finds some" in said


def test_directions_and_strips(styled, tmp_path, capsys):
    said = run(capsys, "directions", styled, "--count", 3, "--draws", 60, "--seeds", "0,1", "--device", "cpu")
    assert str(styled / "directions.safetensors") in said and "variance" in said
    assert len(list((styled / "samples").glob("direction-pca-0?.png"))) == 3
    found = Directions.load(styled / "directions.safetensors")
    made = editing.load(styled)
    options = ("--seeds", "4,5", "--truncation", "0.7", "--device", "cpu", "--out", tmp_path / "strip.png")
    run(capsys, "sample", styled, "--direction", 1, "--strength", "-2:2:5", *options)
    expected, columns = editing.strip(made, found, 1, made.latents([4, 5], truncation=0.7), [-2, -1, 0, 1, 2])
    strip = np.asarray(Image.open(tmp_path / "strip.png").convert("L"))
    assert columns == 5 and strip.shape == (2 * 18 * 4 + 8, 5 * 18 * 4 + 8)  # 16 pixels, 2 between, 4 times
    cell = strip[8 + 72 : 8 + 72 + 64 : 4, 8 + 72 : 8 + 72 + 64 : 4] / 127.5 - 1  # second row, second column
    assert np.abs(cell - expected[6, 0].clamp(-1, 1).numpy()).max() < 0.01
    assert len(run(capsys, "sample", styled, "--direction", "0-2", "--seeds", 1, "--device", "cpu").split()) == 3
    latents = made.latents([7]).save(tmp_path / "l.npz")
    assert "strip.png" in run(capsys, "sample", styled, "--latents", latents, "--direction", 0, *options[-2:])
    sefa = run(
        capsys, "directions", styled, "--method", "sefa", "--layers", "0-2", "--out", tmp_path / "sefa.safetensors"
    )
    assert "weights" in sefa and Directions.load(tmp_path / "sefa.safetensors").layers == (0, 1, 2)
    assert (
        tmp_path / "sefa-direction-sefa-00.png"
    ).exists()  # of two files of directions in one folder each has its own
    assert "sefa-01" in run(capsys, "sample", styled, "--direction", 1, "--directions", tmp_path / "sefa.safetensors")


def test_one_file_for_one_strip(styled, tmp_path, capsys):
    run(capsys, "directions", styled, "--count", 2, "--draws", 60, "--seeds", 0, "--device", "cpu")
    for options, message in {
        ("--direction", "0-1", "--out", tmp_path / "x.png"): r"--out .*x\.png is one file, and --direction 0-1 draws 2",
        (
            "--direction",
            0,
            "--seeds",
            "0-19999",
            "--strength",
            "0:1:101",
        ): "2020000 images of 16x16 pixels are too many",
    }.items():
        assert re.search(message, refused(capsys, "sample", styled, *options, "--device", "cpu"))
    run(capsys, "sample", styled, "--direction", "0,0", "--seeds", 1, "--out", tmp_path / "x.png", "--device", "cpu")
    assert (tmp_path / "x.png").exists()


def test_strengths():
    assert strength_list("-3:3") == [-3, -2, -1, 0, 1, 2, 3] and strength_list("1.5") == [1.5]
    assert strength_list("0:1:3") == [0, 0.5, 1] and strength_list("2:0:2") == [2, 0]
    for text in (
        "",
        "a",
        "1:2:3:4",
        "1:2:0",
        "1:2:x",
        "nan",
        "0:inf",
        "1e300",
        "0:-1001",
        "0:nan",
        "1:2:102",
        "1:2:1.5",
    ):
        with pytest.raises(UsageError, match=r"--strength is"):
            strength_list(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sample", "--direction", "0"], "there is no .*directions.safetensors; fastgan directions .* finds some"),
        (["sample", "--direction", "AtoC"], "--direction is 'AtoC'"),
        (["sample", "--direction", "AtoB"], "--direction says more about --input"),
        (["sample", "--strength", "-1:1"], "--strength says more about --direction"),
        (["sample", "--directions", "x"], "--directions says more about --direction"),
        (["sample", "--direction", "0", "--mix", "1"], "--mix and --direction are different things"),
        (["sample", "--latents", "x", "--interpolate", "2"], "--interpolate and --latents are different things"),
        (["sample", "--latents", "x", "--seeds", "3"], "--seeds chooses latents, and --latents has them"),
        (["sample", "--latents", "nowhere.npz"], "nowhere.npz"),
        (["directions", "--layers", "9"], r"layers is \[9\], expected some of the layers that there are: 0 to 5"),
        (["directions", "--draws", "3"], "--draws is 3, expected more than 4"),
        (["directions", "--seeds", "0-19999", "--strength", "0:1:101"], "2020000 images of 16x16 pixels are too many"),
        (["project", "nothing.png"], "nothing.png"),
        (["project", "PICTURE", "--class-label", "0"], "--class-label: stylegan2 was trained without classes"),
        (["project", "PICTURE", "--space", "z"], r"--space is 'z', expected w or w\+"),
        (["project", "PICTURE", "--perceptual", "alex"], "--perceptual is 'alex', expected efflite0"),
        (
            ["project", "PICTURE", "--perceptual", "none", "--lpips", "x.pth"],
            "--lpips x.pth belongs to VGG-16: name .*, --perceptual vgg16.pth",
        ),
        (["project", "BROKEN"], "cannot be read as a picture"),
    ],
)
def test_refused(options, message, tmp_path, pictures, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "run", "stylegan2")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = {"PICTURE": str(pictures / "a.png"), "BROKEN": "broken.png"}
    before = sorted(folder.rglob("*"))
    assert re.search(message, refused(capsys, options[0], folder, *(words.get(word, word) for word in options[1:])))
    assert sorted(folder.rglob("*")) == before


def test_a_class_that_is_none(tmp_path, pictures, capsys):
    images = dict(name="x", resolution=16, channels=1, num_classes=3, class_names=["a", "b", "c"])
    small = dict(width=2, max_width=4, latent=4, augment="none", conditional=True)
    folder = write_run(tmp_path / "run", "stylegan2", options=(small, images))
    said = refused(capsys, "project", folder, pictures / "a.png", "--class-label", 3, "--device", "cpu")
    assert "--class-label is 3, expected 0 to 2" in said


def test_what_has_no_latents(tmp_path, capsys):
    folder = write_run(tmp_path / "run", "mle")
    assert "mle makes no images of latents" in refused(capsys, "directions", folder)
