"""Latents of seeds are those that are sampled; latents in files come back, and what is no such file is refused."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from saved_runs import write_run

from fastgan import editing
from fastgan.editing import Latents
from fastgan.untrusted import BadFile

NAMES = ("gan", "stylegan2", "r3gan", "classes w", "classes z")


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_latents_are_those_of_seeds(editor, name):
    made = editor(name)
    seeds = [5, 0, 7, 1]
    found = made.latents(seeds)
    assert found.values.shape[1:] == made.shape and len(found) == 4
    expected = made.recipe.sample(made.networks, seeds)
    assert (made.images(found) - expected).abs().max() < 1e-5
    assert (made.images(found[1:3]) - expected[1:3]).abs().max() < 1e-5
    assert (torch.cat([made.images(one) for one in found]) - expected).abs().max() < 1e-5
    assert torch.equal(made.images(found.repeated(2))[::2], made.images(found))
    drawn = made.draw(found)
    assert not next(drawn).requires_grad and torch.is_grad_enabled()  # between two parts too


@pytest.mark.parametrize("name", ["stylegan2", "classes w"])
def test_truncation_and_class(editor, name):
    made = editor(name)
    label = 2 if made.classes else None
    labels = made.labels([1, 2], label)
    expected = made.recipe.generate(made.networks, made.recipe.latents([1, 2]), labels, 0.5)
    assert (made.images(made.latents([1, 2], label, truncation=0.5)) - expected).abs().max() < 1e-5


def test_what_a_generator_does_not_have(editor, folder, tmp_path):
    with pytest.raises(ValueError, match="gan has no truncation"):
        editor("gan").latents([0], truncation=0.5)
    with pytest.raises(ValueError, match="truncation is nan, expected a finite number"):
        editor("stylegan2").latents([0], truncation=float("nan"))
    for seeds in (5, "12", [0.5]):
        with pytest.raises(TypeError, match=r"seeds is .*: expected whole numbers"):
            editor("classes w").latents(seeds)
    with pytest.raises(ValueError, match="label is 3, expected 0 to 2"):
        editor("classes z").latents([0], label=3)
    with pytest.raises(ValueError, match="label is 0, expected None"):
        editor("gan").latents([0], label=0)
    for name in ("mle", "pix2pix"):
        with pytest.raises(ValueError, match=f"{name} makes no images of latents"):
            editing.load(write_run(tmp_path / name, name))
    with pytest.raises(ValueError, match="no such file or folder"):
        editing.load(tmp_path / "nothing")


@pytest.mark.parametrize("suffix", ["", ".npz", ".safetensors"])
@pytest.mark.parametrize("name", ["classes w", "classes z"])
def test_a_file_gives_them_back(editor, name, suffix, tmp_path):
    found = editor(name).latents(range(3))
    found.noise = [torch.randn(3, 1, *shape) for shape in editor(name).noise]
    again = Latents.load(found.save(tmp_path / f"made{suffix}"))
    assert torch.equal(again.values, found.values) and again.space == found.space
    assert again.labels is None if found.labels is None else torch.equal(again.labels, found.labels)
    assert len(again.noise) == len(found.noise) == len(editor(name).noise)
    assert all(map(torch.equal, again.noise, found.noise))
    assert torch.equal(editor(name).images(again), editor(name).images(found))


def test_noise_is_seen_and_is_each_picture_s_own(editor):
    made = editor("stylegan2")
    for name, parameter in made.generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    found = made.latents([1, 1])
    own = {name: b for name, b in made.generator.named_buffers() if name.endswith("noise_const")}
    found.noise = [torch.stack([b, b + 1])[:, None] for b in own.values()]
    first, second = made.images(found)
    assert (first - made.images(made.latents([1]))[0]).abs().max() < 1e-5 < (first - second).abs().max()


BAD = {
    "no latents": (dict(values=torch.zeros(2, 4)), {}, "holds no latents"),
    "space": (dict(values=torch.zeros(2, 4)), {"space": "q"}, "space is 'q', expected w or z"),
    "absent": (dict(labels=torch.zeros(2).long()), {"space": "z"}, "values is absent"),
    "shape": (dict(values=torch.zeros(2, 4)), {"space": "w"}, r"values is torch.float32 \[2, 4\], expected finite"),
    "none": (dict(values=torch.zeros(0, 4)), {"space": "z"}, r"values is torch.float32 \[0, 4\], expected finite"),
    "nan": (dict(values=torch.full((2, 4), torch.nan)), {"space": "z"}, "expected finite floats"),
    "labels": (
        dict(values=torch.zeros(2, 4), labels=torch.zeros(3).long()),
        {"space": "z"},
        r"labels is torch.int64 \[3\]",
    ),
    "others": (dict(values=torch.zeros(2, 4), more=torch.zeros(1)), {"space": "z"}, r"also holds \['more'\]"),
    "noise": (
        dict(values=torch.zeros(2, 4), noise00=torch.zeros(1)),
        {"space": "z"},
        r"noise00 is torch.float32 \[1\]",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_other_files_are_refused(kind, tmp_path):
    tensors, about, message = BAD[kind]
    header = {"fastgan": "latents", **about} if about else None
    save_file(tensors, tmp_path / "bad.safetensors", metadata=header)
    with pytest.raises(BadFile, match=f"bad.safetensors.*{message}"):
        Latents.load(tmp_path / "bad.safetensors")


def test_npz_that_are_no_latents(tmp_path):
    np.savez(tmp_path / "a.npz", values=np.zeros((2, 4), np.float32), space=np.array("q"))
    np.savez(tmp_path / "b.npz", values=np.array(["x"]), space=np.array("z"))
    np.savez(tmp_path / "c.npz", values=np.array([{}], dtype=object), space=np.array("z"))
    for name, message in (("a", "space is 'q'"), ("b", "expected numbers"), ("c", "values")):
        with pytest.raises(ValueError, match=f"{name}.npz.*{message}"):
            Latents.load(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError):
        Latents.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=re.escape(".png is not written here")):
        Latents(torch.zeros(1, 4), "z").save(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(values=torch.zeros(2, 5, 4)), r"are \[5, 4\] of w, and stylegan2 takes \[6, 4\] of w"),
        (dict(values=torch.zeros(2, 4), space="z"), r"are \[4\] of z, and stylegan2 takes \[6, 4\] of w"),
        (dict(noise=[torch.zeros(2, 1, 4, 4)]), r"noise has sizes \[\(4, 4\)\], and stylegan2 takes"),
    ],
)
def test_another_generator_s_latents(editor, change, message):
    with pytest.raises(ValueError, match=message):
        editor("stylegan2").draw(Latents(**{"values": torch.zeros(2, 6, 4)} | change))
    with pytest.raises(ValueError, match="latents have no classes, unlike r3gan"):
        editor("classes z").draw(Latents(torch.zeros(1, 4), "z"))
    with pytest.raises(ValueError, match="not all 0 to 2"):
        editor("classes z").draw(Latents(torch.zeros(1, 4), "z", torch.tensor([3])))
