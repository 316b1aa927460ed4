"""`fastgan sample` over all recipes: what each has, what it has not, and that no picture is lost or framed."""

import contextlib
import re

import numpy as np
import pytest
import torch
from PIL import Image
from recipes.test_images import SMALL as IMAGES

from fastgan import recipes, sampling
from fastgan.cli import main
from fastgan.data import load, to_float, to_uint8
from fastgan.data.wav import write_wav
from fastgan.training import RunConfig, Trainer

SMALL = {name: options | {"latent": 8, "batch_size": 4} for name, options in IMAGES.items()} | {
    "mle": {"embedding": 8, "hidden": 8, "batch_size": 8},
    "seqgan": {"embedding": 8, "hidden": 8, "batch_size": 8, "pretrain": 1},
    "relgan": {"embedding": 8, "hidden": 8, "batch_size": 8, "pretrain": 1},
    "cyclegan": {"width": 4, "blocks": 1, "layers": 1, "batch_size": 2},
    "pix2pix": {"width": 4, "layers": 1, "batch_size": 2},
    "vocoder": {"batch_size": 2, "judge": 0.03, "warmup": 0},
    "realesrgan": {"width": 4, "blocks": 1, "disc_width": 4, "warmup": 0, "perceptual": 0.0, "batch_size": 2},
}
CONDITIONAL = ("dcgan", "sngan", "r3gan", "stylegan2", "stylegan3")
TEXTS, TRANSLATORS = ("mle", "seqgan", "relgan"), ("cyclegan", "pix2pix")
HAVE = {
    "separate": [name for name in recipes.RECIPES if name in IMAGES or name == "vocoder"],
    "interpolate": [name for name in recipes.RECIPES if name in IMAGES],
    "class-label": CONDITIONAL,
    "truncation": ["stylegan2", "stylegan3"],
    "mix": ["stylegan2", "stylegan3"],
    "input": (*TRANSLATORS, "vocoder", "realesrgan"),
    "mel": ["vocoder"],
}
VALUES = {"interpolate": ["3"], "class-label": ["1"], "truncation": ["0.5"], "mix": ["4,5"]}


def tones(folder):
    """Six recordings of 8 kHz, in two folders."""
    folder.mkdir(exist_ok=True)
    for i in range(6):
        path = folder / ("a" if i % 2 else "b") / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        write_wav(path, 0.5 * np.sin(np.arange(9000 + 700 * i) * 0.05 * (i + 1))[None], 8000)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, pictures):
    """run(name, **options): the folder of a run of one step, made once."""
    made, sounds = {}, tones(tmp_path_factory.mktemp("sounds"))
    corpus = tmp_path_factory.mktemp("text") / "corpus.txt"
    corpus.write_text("\n".join(f"{a} sees {b} {c}" for a in "abcd" for b in "xyz" for c in ("now", "then")), "utf-8")

    def make(name, **options):
        key = (name, *options.items())
        if key not in made:
            out = tmp_path_factory.mktemp("runs") / name
            sets = ("emoji:google:base:flags", "emoji:twitter:base:flags")
            data = str(corpus) if name in TEXTS else sets if name in TRANSLATORS else pictures
            data = str(sounds) if name == "vocoder" else data
            settings = RunConfig(data=data, out=str(out), device="cpu", samples=2)
            recipe = recipes.get(name)
            made[key] = Trainer(recipe, recipe.Config(**SMALL[name] | options, steps=1), settings).train()
        return made[key]

    return make


@pytest.fixture
def photographs(tmp_path):
    """Pictures of one stem in two folders and of several suffixes, one of them grey, one transparent."""
    folder = tmp_path / "photographs"
    for i, (name, mode) in enumerate(
        [
            ("x.png", "RGB"),
            ("x.jpg", "RGB"),
            ("a/x.png", "L"),
            ("a/x.PNG", "RGBA"),
            ("b/deep/x.jpg", "RGB"),
            ("y.bmp", "RGB"),
        ]
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (40, 30), 40 * i if mode == "L" else (40 * i, 90, 20, 200)[: len(mode)]).save(folder / name)
    return folder


@pytest.mark.parametrize("option", HAVE)
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_option_of_every_recipe(name, option, run, tmp_path, capsys, photographs):
    folder = run(name, **{"conditional": True} if name in CONDITIONAL else {})
    capsys.readouterr()
    before = sorted(folder.rglob("*"))
    np.save(tmp_path / "heard.npy", np.zeros((80, 5), np.float32))
    things = {"input": tones(tmp_path / "sounds") if name == "vocoder" else photographs, "mel": tmp_path / "heard.npy"}
    given = [f"--{option}", *([str(things[option])] if option in things else VALUES.get(option, []))]
    seeds = [] if option in things else ["--seeds", "3,0-2"]
    code = main(["sample", str(folder), *seeds, *given, "--device", "cpu"])
    said = capsys.readouterr()
    if name in HAVE[option]:
        assert code == 0, said.err
        new = [path for path in folder.rglob("*") if path not in before and path.is_file()]
        assert len(new) == {"separate": 4, "input": 6}.get(option, 1)
        assert str(new[0].relative_to(folder)).startswith("translated" if option == "input" else "samples")
        for path in new:
            path.unlink()
    else:
        have = ", ".join(HAVE[option])
        assert (code, said.err) == (
            1,
            f"fastgan sample: --{option} is nothing for {name}; recipes that have it: {have}\n",
        )
        assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--interpolate", "2", "--mix", "3"], "--interpolate and --mix are different things to write"),
        (["--separate", "--interpolate", "2"], "--separate and --interpolate are different things to write"),
        (["--interpolate", "0"], "--interpolate is 0, expected at least 1"),
        (["--interpolate", "1000000000000"], "at most 10,000"),
        (["--interpolate", "700"], "--interpolate is 700: 11200 frames, expected at most 10000"),
        (["--seeds", "0-999", "--mix", "0-999"], "1002001 images of 32x32 pixels are too many for one picture"),
        (["--truncation", "nan"], "--truncation is nan, expected a finite number"),
        (["--mix-layers", "0"], "--mix-layers says more about --mix, which is not there"),
        (["--direction", "BtoA"], "--direction says more about --input, which is not there"),
        (["--seeds", "5-3"], "--seeds is '5-3'"),
        (["--seeds", "0-1000000000000"], "--seeds is '0-1000000000000'"),
        (["--seeds", "18446744073709551616"], "--seeds is '18446744073709551616'"),
        (["--mix", "5-3"], "--mix is '5-3'"),
        (["--mix", "1", "--mix-layers", "x"], "--mix-layers is 'x'"),
        (["--mix", "1", "--mix-layers", "99"], r"style layers \[99\]: this generator has layers 0 to"),
        (["--class-label", "3"], "--class-label is 3, expected 0 to 2"),
        (["--class-label", "-1"], "--class-label is -1, expected 0 to 2"),
        (["--separate", "--out", "x.png"], r"--out x.png: --separate writes a folder"),
        (["--mel", "x.npy", "--seeds", "3"], "--mel is spoken instead of --seeds: choose one"),
        (["--input", "x", "--tile", "0", "--overlap", "8"], "--overlap is of tiles, and --tile 0 has none"),
        (["--device", "cuda", "--engine", "onnxruntime"], "--device is cuda, and --engine onnxruntime runs on the CPU"),
    ],
)
def test_what_makes_no_sense_is_said(options, message, run, capsys):
    assert main(["sample", str(run("stylegan2", conditional=True)), *options]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_sound_that_nobody_named_is_kept(run, tmp_path, capsys):
    folder, out = run("vocoder"), tmp_path / "x.png"
    out.with_suffix(".wav").write_text("a recording")
    capsys.readouterr()
    assert main(["sample", str(folder), "--seeds", "0", "--out", str(out)]) == 1
    assert capsys.readouterr().err.endswith(f"x.wav is there, and would be replaced with {out}: choose another name\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]
    assert main(["sample", str(folder), "--seeds", "0", "--out", str(tmp_path / "x.wav")]) == 0
    assert main(["sample", str(folder), "--seeds", "1", "--out", str(out)]) == 0
    assert out.with_suffix(".wav").read_bytes()[:4] == b"RIFF"


def test_separate_pictures_are_those_of_the_seeds_and_bare(run, tmp_path, capsys):
    folder, out = run("dcgan"), tmp_path / "some"
    assert main(["sample", str(folder), "--separate", "--seeds", "7,0-2,7", "--out", str(out)]) == 0
    assert capsys.readouterr().out.endswith(f"{out}: 4 images\n")
    names = sorted(path.name for path in out.iterdir())
    assert names == ["seed0000.png", "seed0001.png", "seed0002.png", "seed0007.png"]
    recipe, networks = recipes.load_run(folder)
    expected = recipe.sample(networks, [0, 1, 2, 7])
    for image, name in zip(expected, names, strict=True):
        pixels = torch.from_numpy(np.asarray(Image.open(out / name)).copy()).permute(2, 0, 1)
        assert pixels.shape == (3, 32, 32)
        assert (pixels.float() / 127.5 - 1 - image.clamp(-1, 1)).abs().max() < 0.01


@pytest.mark.parametrize(("seeds", "given", "served"), [
    ("0-129", [], True),
    ("0-127", [], False),
    ("0-2", ["--class-label", "1"], True),
    ("0-1", ["--class-label", "1"], False),
    ("0-2", ["--separate"], False),
])  # fmt: skip
def test_the_serving_form_where_it_pays_draws_the_same(seeds, given, served, run, tmp_path, monkeypatch):
    folder, made = run("dcgan", conditional=True), []
    accelerate = sampling.accelerate
    for name in ("seen", "plain"):
        out = tmp_path / name if given == ["--separate"] else tmp_path / f"{name}.png"
        monkeypatch.setattr(sampling, "accelerate", lambda *a, **k: made.append(accelerate(*a, **k)) or made[-1])
        if name == "plain":
            monkeypatch.setattr(sampling, "served", lambda networks: contextlib.nullcontext())
        assert main(["sample", str(folder), "--seeds", seeds, *given, "--device", "cpu", "--out", str(out)]) == 0
        assert bool(made) == served
    files = [
        sorted(f.rglob("*.png")) if (f := tmp_path / name).is_dir() else [f.with_suffix(".png")]
        for name in ("seen", "plain")
    ]
    for a, b in zip(*files, strict=True):
        a, b = (np.asarray(Image.open(file)).astype(int) for file in (a, b))
        assert a.shape == b.shape and abs(a - b).max() <= 1 and (a != b).mean() < 0.01


def test_a_checkpoint_of_a_run(run, capsys):
    folder = run("gan")
    step = folder / "checkpoints" / "step-00000001"
    assert main(["sample", str(step), "--seeds", "4"]) == 0
    made = folder / "samples" / "step-00000001-seeds-4.png"
    assert capsys.readouterr().out.endswith(f"{made}\n")
    assert main(["sample", str(folder), "--seeds", "4", "--out", str(folder / "newest.png")]) == 0
    assert made.read_bytes() == (folder / "newest.png").read_bytes()


@pytest.mark.parametrize("name", ["run", "G.safetensors", "network.pkl"])
def test_what_is_not_there_is_said(name, tmp_path, capsys):
    assert main(["sample", str(tmp_path / name)]) == 1
    assert f"{tmp_path / name}: no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.xml", "x.pt2", "x.png"])
def test_what_is_no_network_is_said(name, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"something")
    assert main(["sample", str(tmp_path / name)]) == 1
    assert (
        f"{tmp_path / name} is no network that is read here; expected a run, a .safetensors" in capsys.readouterr().err
    )


def test_many_seeds_are_drawn_a_few_at_a_time(tmp_path, monkeypatch):
    largest = []

    class Counted:
        def sample(self, networks, seeds):
            largest.append(len(seeds))
            return torch.zeros(len(seeds), 1, 8, 8)

    seeds = list(range(200))
    assert sampling.save_separately(sampling.pictures(Counted(), {}, seeds), seeds, tmp_path / "many") == 200
    assert max(largest) <= 64 and len(list((tmp_path / "many").iterdir())) == 200
    monkeypatch.setattr(sampling, "MOST_PIXELS", 100 * 64)
    with pytest.raises(ValueError, match="200 images of 8x8 pixels are too many for one picture, expected at most 100"):
        sampling.grid(sampling.pictures(Counted(), {}, seeds), 200)


def test_a_walk_takes_the_class_of_the_nearer_seed(run):
    recipe, networks = recipes.load_run(run("dcgan", conditional=True))
    seen = []
    recipe.generate = lambda networks, z, c, truncation: seen.append(c) or torch.zeros(len(z), 3, 2, 2)
    assert len(list(sampling.interpolate(recipe, networks, [0, 4, 2], 10, None, 1.0))) == 30
    assert torch.cat(seen).tolist() == [0] * 5 + [1] * 10 + [2] * 10 + [0] * 5


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 1, 3)])
def test_the_great_arc_between_latents_of_any_shape(shape):
    """At equal distance of both ends halfway, and of their length; each of several on its own."""
    a, b = torch.randn(2, 4, *shape, dtype=torch.float64)
    a, b = (x / x.flatten(1).norm(dim=1).view(-1, *[1] * len(shape)) for x in (a, b))
    half = sampling.slerp(a, b, 0.5)
    assert half.shape == a.shape
    torch.testing.assert_close(half.flatten(1).norm(dim=1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close((half - a).flatten(1).norm(dim=1), (half - b).flatten(1).norm(dim=1))
    torch.testing.assert_close(sampling.slerp(a, b, 0.0), a)


def test_translated_files_keep_their_tree_and_their_size(run, photographs, tmp_path, capsys):
    folder, out = run("cyclegan"), tmp_path / "out"
    arguments = ["sample", str(folder), "--input", str(photographs), "--out", str(out)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith(f"{out}: 6 images\n")
    made = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert set(made) == {"x.png", "x.jpg.png", "a/x.png", "a/x.PNG.png", "b/deep/x.png", "y.png"}
    assert all(Image.open(path).size == (32, 32) and Image.open(path).mode == "RGB" for path in made.values())
    recipe, networks = recipes.load_run(folder)
    images = load(photographs, resolution=32, labels=False)
    one = images.files.index("b/deep/x.jpg")
    expected = to_uint8(recipe.translate(networks, to_float(images.images[one : one + 1])))[0].permute(1, 2, 0)
    assert np.abs(np.asarray(Image.open(made["b/deep/x.png"])).astype(int) - expected.numpy()).max() <= 1
    # A second time nothing is replaced.
    changed = made["x.png"].stat().st_mtime_ns
    assert main(arguments) == 1
    assert f"{out} already holds" in capsys.readouterr().err and made["x.png"].stat().st_mtime_ns == changed


def test_a_run_that_learnt_the_way_back_translates_back(run, photographs, tmp_path):
    folder = run("pix2pix", direction="BtoA")
    assert main(["sample", str(folder), "--input", str(photographs), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6


def test_target_names():
    assert sampling.target_names(["b/x.jpg", "b/x.png", "b/x.jpg.png", "b/v1.2.jpg", "c"]) == [
        *("b/x.jpg_.png", "b/x.png", "b/x.jpg.png", "b/v1.2.png", "c.png")
    ]
    for names in (["../../x.png", "/x.png", "x.png"], ["a.jpg", "a.jpeg", "a.png", "a.PNG"]):
        found = sampling.target_names(names)
        assert len(set(found)) == len(names) and not any(n.startswith("/") or ".." in n.split("/") for n in found)
