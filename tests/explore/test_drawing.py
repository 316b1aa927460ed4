"""The functions behind the page's controls: latents as chosen, samples as HTML, pictures within limits."""

import base64
import re
import shutil

import pytest
import torch
from saved_runs import write_run
from uploads import bomb, encoded

from fastgan.editing import Latents, find_directions
from fastgan.explore import Choice, Explored, chosen, drawing, pictures
from fastgan.media import Image, Signal


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    made = {}

    def load(name):
        if name not in made:
            torch.manual_seed(1)
            made[name] = Explored.load(write_run(tmp_path_factory.mktemp("runs") / name, name))
        return made[name]

    return load


@pytest.mark.parametrize(
    "name, what", [("gan", "edit"), ("stylegan2", "edit"), ("mle", "text"), ("pix2pix", "translate")]
)
def test_the_page_of_a_run(explored, name, what):
    assert explored(name).what == what and (explored(name).editor is not None) == (what == "edit")


@pytest.mark.parametrize("name", ["gan", "stylegan2"])
def test_controls_choose_latents(explored, name):
    editor, directions = explored(name).editor, explored(name).directions
    seeds = editor.latents([3, 7])
    assert torch.equal(chosen(editor, Choice(3, 7)).values, seeds.values[:1])
    assert torch.allclose(chosen(editor, Choice(3, 7, blend=1)).values, seeds.values[1:], atol=1e-5)
    half = chosen(editor, Choice(3, 7, blend=0.5)).values
    assert not torch.allclose(half, seeds.values[:1]) and not torch.allclose(half, seeds.values[1:])
    moved = chosen(editor, Choice(3, 7, strengths=(0.0, 2.0)), directions).values
    assert torch.allclose(moved, directions.moved(seeds[:1], 1, 2.0).values)
    found = Latents(seeds.values[:1] * 0, editor.space)
    assert torch.equal(chosen(editor, Choice(3, 7), found=found).values, found.values)


def test_styles_are_mixed_and_truncated(explored):
    editor = explored("stylegan2").editor
    seeds = editor.latents([3, 7], truncation=0.5)
    mixed = chosen(editor, Choice(3, 7, layers=(1, 3), truncation=0.5)).values[0]
    for layer in range(editor.layers):
        assert torch.equal(mixed[layer], seeds.values[int(layer in (1, 3)), layer])


@pytest.mark.parametrize(
    "choice, message",
    [
        (Choice(seed=-1), "seed is -1, expected a whole number"),
        (Choice(other=1 << 31), "other is 2147483648"),
        (Choice(seed=None), "seed is None"),
        (Choice(blend=2.0), "blend is 2.0, expected 0 to 1"),
        (Choice(layers=(0,)), "gan has no styles"),
        (Choice(truncation=0.5), "gan has no truncation"),
        (Choice(truncation=float("nan")), "truncation is nan"),
        (Choice(label=1), "label is 1"),
        (Choice(strengths=(1.0,) * 9), "strengths is"),
        (Choice(strengths=(float("nan"),)), "strengths is"),
    ],
)
def test_what_makes_no_sense_is_refused(explored, choice, message):
    with pytest.raises(ValueError, match=message):
        chosen(explored("gan").editor, choice, explored("gan").directions)


def test_a_picture_holds_itself_and_its_latent(explored, tmp_path):
    editor = explored("gan").editor
    latents = editor.latents([5])
    shown = drawing.picture(editor.images(latents)[0], 'a"<b>', latents=latents, note="<i>")
    assert "<b>" not in shown and "<i>" not in shown and shown.count("data:image/png") == 2
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(base64.b64decode(re.search(r"octet-stream;base64,([^\"]+)", shown)[1]))
    assert torch.equal(Latents.load(kept).values, latents.values)


def test_directions_are_the_runs_own(tmp_path, explored):
    run = write_run(tmp_path / "run", "stylegan2")
    find_directions(Explored.load(run).editor, count=2, samples=50).save(run / "directions.safetensors")
    assert len(Explored.load(run).directions) == 2
    other = explored("gan").directions.save(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="they are another generator's"):
        Explored.load(run, directions=other)


def test_texts_have_a_temperature(explored):
    recipe, networks = explored("mle").recipe, explored("mle").networks
    assert drawing.texts(recipe, networks, 4, 3, 1.0) == recipe.sample(networks, [4, 5, 6])
    likeliest, varied = (set(drawing.texts(recipe, networks, 0, 64, t)) for t in (1e-5, 4.0))
    assert len(likeliest) == 1 and len(varied) > 10
    for arguments, message in (
        ((0, 0, 1.0), "count is 0"),
        ((0, 1.5, 1.0), "count is 1.5"),
        ((0, 1, 0.0), "temperature is 0.0"),
        ((-1, 1, 1.0), "seed is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            drawing.texts(recipe, networks, *arguments)


def test_signals_have_a_player():
    class Tone:
        medium, sample_columns, data, name = Signal, (), {"rate": 8000}, "tone"

        def sample(self, networks, seeds):
            return torch.zeros(len(seeds), 1, 800)

    assert '<audio controls src="data:audio/wav;base64,' in drawing.sampled(Tone(), {}, 3)


def test_a_picture_is_translated(explored):
    recipe, networks = explored("pix2pix").recipe, explored("pix2pix").networks
    direction = next(iter(recipe.generators))
    pair = pictures.translated(recipe, networks, encoded(40, 50), direction)
    given = pictures.read_picture(encoded(40, 50), 32, 1)
    assert pair.shape == (1, 32, 64) and torch.equal(pair[:, :, :32], given[0])
    assert torch.equal(pair[:, :, 32:], recipe.translate(networks, given, direction)[0])
    with pytest.raises(ValueError, match="direction is 'up'"):
        pictures.translated(recipe, networks, encoded(), "up")


def test_a_picture_is_enlarged():
    class Double:
        scale, data = 2, {"channels": 3}

        def upscale(self, networks, x):
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    made = pictures.enlarged(Double(), {"generator": None}, encoded(9, 5))
    assert made.shape == (3, 10, 18) and made.dtype == torch.uint8
    with pytest.raises(ValueError, match="2000x2000 pixels, expected at most 1,048,576"):
        pictures.enlarged(Double(), {}, bomb(2000, 2000))


@pytest.mark.parametrize(
    "content, message",
    [
        (bomb(60_000, 60_000), "too many pixels"),
        (bomb(5000, 5000), "5000x5000 pixels, expected at most 16,777,216"),
        (bomb(500, 500), "the picture cannot be read"),
        (b"hello", "no picture that is read here: expected PNG, JPEG"),
        (b"", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),  # EPS would start Ghostscript
        (bytes(pictures.MOST_BYTES + 1), "the file has 16 MB"),
        (encoded(kind="TIFF"), "no picture"),
        (encoded()[:-40], "the picture cannot be read"),
    ],
)
def test_hostile_pictures(content, message):
    with pytest.raises(ValueError, match=message):
        pictures.read_picture(content, 16, 3)


def test_the_newest_samples_of_a_training(tmp_path):
    assert drawing.newest(tmp_path, Image) == ("", "")
    (tmp_path / "samples").mkdir()
    for step in (1, 2):
        (tmp_path / f"samples/step-{step:08d}.png").write_bytes(encoded())
    shown, name = drawing.newest(tmp_path, Image, "step-00000001.png")
    assert name == "step-00000002.png" and "step 00000002" in shown and "data:image/png" in shown
    assert drawing.newest(tmp_path, Image, name) == ("", name)


def test_a_run_without_a_checkpoint(tmp_path):
    shutil.rmtree(write_run(tmp_path / "gan", "gan") / "checkpoints")
    waiting = Explored.load(tmp_path / "gan")
    assert waiting.what == "wait" and waiting.folder == tmp_path / "gan" and waiting.medium is Image
