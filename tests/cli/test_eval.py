"""fastgan eval: names and numbers are checked first, what is asked for is computed, and figures are never lost."""

import hashlib
import importlib
import json
import shutil
import types

import numpy as np
import pytest
import torch
from pixels import Pixels
from saved_runs import write_run

import fastgan
from fastgan import recipes
from fastgan.cli import main
from fastgan.metrics import fid, images, latent, prdc


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*tiny, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "load_extractor", lambda *given: Pixels())
    return shutil.copytree(trained, tmp_path / "run")


def figures(text):
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_kid_alone(run, capsys, monkeypatch):
    monkeypatch.setattr(fid, "frechet_distance", lambda *a: pytest.fail("computed"))
    monkeypatch.setattr(prdc, "prdc", lambda *a: pytest.fail("computed"))
    capsys.readouterr()
    assert main(["eval", str(run), "--samples", "20", "--metrics", "kid"]) == 0
    out = capsys.readouterr()
    assert figures(out.out) == ["kid_efflite0"] and not out.err
    saved = json.loads((run / "metrics.json").read_text())
    assert saved["samples"] == 20 and list(saved["dcgan"]) == ["kid_efflite0"]


def test_another_data_set_is_named(run, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "others.npz", images=images)
    other = str(tmp_path / "others.npz")
    assert main(["eval", str(run), "--samples", "20", "--metrics", "kid", "--data", other]) == 0
    saved = json.loads((run / "metrics.json").read_text())
    assert saved["data"] == [other] and saved["features"]["real"] == 9
    assert main(["eval", str(run), "--samples", "20", "--metrics", "kid"]) == 0
    assert "data" not in json.loads((run / "metrics.json").read_text())


def test_another_data_set_is_brought_to_the_size_of_the_runs_own(run, tmp_path, monkeypatch):
    """Against pictures of another size the distance would be that of sharpness."""
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 64, 64), dtype=np.uint8)
    np.savez(tmp_path / "large.npz", images=images)
    seen = []
    features = importlib.import_module("fastgan.metrics.images").dataset_features
    monkeypatch.setattr(
        "fastgan.metrics.images.dataset_features", lambda e, data: seen.append(data.images.shape) or features(e, data)
    )
    asked = ["eval", str(run), "--samples", "20", "--metrics", "kid", "--data", str(tmp_path / "large.npz")]
    assert main(asked) == 0 and seen == [(9, 3, 32, 32)]


@pytest.mark.parametrize("names", [["0", "1", "2"], ["a", "b", "c"]])
def test_classes_are_drawn_as_often_as_the_data_have_them(run, tmp_path, monkeypatch, capsys, names):
    """Else the distance of a perfect generator would be that of the classes' shares: 115 instead of 28 for real emoji."""
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "uneven.npz", images=images, labels=np.array([0] * 9 + [2] * 3), class_names=np.array(names))
    kind, seen = recipes.read_run(run).recipe, []
    generate = kind.generate
    monkeypatch.setattr(kind, "generate", lambda *given: seen.extend(given[3].tolist()) or generate(*given))
    asked = ["eval", str(run), "--samples", "200", "--metrics", "kid", "--data", str(tmp_path / "uneven.npz")]
    assert main(asked) == 0
    counts = np.bincount(seen, minlength=3).tolist()
    if names[0] == "0":
        assert counts[1] == 0 and abs(counts[0] - 150) <= 2 and sum(counts) == 200
        assert abs(seen[:20].count(0) - 15) <= 2
    else:  # others than the run's
        assert counts == [67, 67, 66] and "classes come in turn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (dict(classes=["0", "1", "2"], targets=[0, 2, 0, 0]), [15, 0, 5]),  # as torchvision's data sets have them
        (dict(class_names=["0", "1", "2"], labels=torch.tensor([1, 1])), [0, 20, 0]),
        (dict(class_names=["0", "1", "2"], labels=torch.tensor([1, 3])), None),
        (dict(class_names=["0", "1", "2"], labels=["a", "b"]), None),
        (dict(targets=[0, 1, 2]), None),
    ],
)
def test_what_tells_how_often_each_class_is_there(run, monkeypatch, facts, expected):
    recipe, networks = recipes.load_run(run)
    monkeypatch.setattr(type(recipe), "generate", lambda self, networks, latents, labels: labels)
    drawn = recipe.drawing(networks, lambda: types.SimpleNamespace(**facts))
    if expected is None:
        with pytest.warns(UserWarning, match="classes come in turn"):
            assert torch.equal(drawn(range(20)), recipe.labels(range(20)))
    else:
        assert (torch.bincount(drawn(range(20)), minlength=3) - torch.tensor(expected)).abs().max() <= 1


def test_paths_have_the_classes_of_the_samples(tmp_path, monkeypatch):
    """Paths of class 0, nine tenths of the data, are 1 long and the others 10: of both alike the mean would be 5.5."""
    images = np.zeros((20, 3, 32, 32), dtype=np.uint8)
    labels = np.array([0] * 18 + [1] * 2)
    np.savez(tmp_path / "uneven.npz", images=images, labels=labels, class_names=np.array(["a", "b"]))
    kind = recipes.get("stylegan2")
    facts = {"name": "x", "resolution": 32, "channels": 3, "num_classes": 2, "class_names": ["a", "b"]}
    config = kind.Config(conditional=True, width=4, max_width=8, latent=8, batch_size=4)
    recipe = kind(config, facts)

    class Classes(torch.nn.Module):
        z_dim, c_dim = 8, 2

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.mapping = lambda z, c: c @ torch.tensor([[1.0], [10.0]]) + 0 * z[:, :1]
            self.synthesis = torch.nn.Identity()

    def lengths(generate, features, start, end, t):
        assert torch.equal(start, end)  # one class at both ends
        return start[:, 0]

    monkeypatch.setattr(latent, "path_lengths", lengths)
    run = {"data": str(tmp_path / "uneven.npz"), "resolution": None, "crop": "center", "strict": False}
    found = recipe.evaluate({"generator": Classes()}, run, 100, metrics=["ppl"])["stylegan2"]
    assert found["ppl_efflite0"] == pytest.approx(0.9 * 1 + 0.1 * 10, abs=0.2)


@pytest.mark.parametrize("metrics", [[], ["--metrics", "is"]])
def test_data_that_were_asked_for_and_cannot_be_read_end_it(run, tmp_path, capsys, monkeypatch, metrics):
    """With the figures that need no data alone it would look as if all had been measured."""
    monkeypatch.setattr(recipes.read_run(run).recipe, "sample", lambda *a: pytest.fail("drawn first"))
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    for missing in ("nowhere", "broken.npz"):
        path = str(tmp_path / missing)
        assert main(["eval", str(run), "--samples", "20", "--data", path, *metrics]) == 1
        out = capsys.readouterr()
        assert path in out.err and not out.out and not (run / "metrics.json").exists()


def test_the_step_is_that_of_the_networks_while_a_run_is_trained_further(run, monkeypatch):
    load_run = recipes.load_run

    def meanwhile(*given):
        loaded = load_run(*given)
        newest = max((run / "checkpoints").iterdir())
        newest.rename(newest.with_name("step-00000999"))  # as if it were another's
        return loaded

    step = fastgan.training.load_checkpoint(run).step
    monkeypatch.setattr(recipes, "load_run", meanwhile)
    assert main(["eval", str(run), "--samples", "20", "--metrics", "kid"]) == 0
    assert json.loads((run / "metrics.json").read_text())["step"] == step != 999


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_null(run, monkeypatch, value):
    monkeypatch.setattr("fastgan.metrics.kid.kernel_distance", lambda *a: (value, 0.0))
    assert main(["eval", str(run), "--samples", "20", "--metrics", "kid,is"]) == 0
    saved = json.loads((run / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert saved["dcgan"]["kid_efflite0"] is None


def test_what_cannot_be_measured_is_said(run, capsys):
    """8 samples: all but the Inception score, which takes 10."""
    capsys.readouterr()
    assert main(["eval", str(run), "--samples", "8"]) == 0
    out = capsys.readouterr()
    expected = ["fd", "kid", "precision", "recall", "density", "coverage"]
    assert figures(out.out) == [f"{name}_efflite0" for name in expected]
    assert out.err == "fastgan eval: not measured: is (needs at least 10 samples, got 8)\n"
    assert main(["eval", str(run), "--samples", "1"]) == 1
    assert "no figure could be computed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "fid"], "--metrics is 'fid', expected some of fd, kid"),
        (["--metrics", "fid"], "did you mean 'fd'?"),
        (["--metrics", "fd,"], "--metrics is ''"),
        (["--samples", "0"], "--samples is 0, expected at least 1"),
        (["--samples", "1", "--metrics", "fd"], "--samples is 1, expected at least 2 for fd"),
        (["--extractor", "vgg"], "expected efflite0 or inception"),
        (["--weights", "w.pth"], "--weights w.pth is for extractor inception"),
        (["--extractor", "inception", "--weights", "/nonexistent.pth"], "/nonexistent.pth: No such file"),
        (["--device", "gpu"], "--device is 'gpu'"),
        (["--out", "/dev/null/x.json"], "--out /dev/null/x.json cannot be written"),
    ],
)
def test_what_is_wrong_ends_before_anything_is_computed(run, capsys, monkeypatch, options, message):
    monkeypatch.setattr(images, "collect", lambda *a: pytest.fail("computed"))
    assert main(["eval", str(run), *options]) == 1
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and len(said.splitlines()) == 1
    assert not (run / "metrics.json").exists()


@pytest.mark.parametrize("option", ["--extractor", "--weights"])
def test_what_is_of_images_is_not_of_texts(tmp_path, capsys, option):
    folder = write_run(tmp_path / "run", "mle")
    assert main(["eval", str(folder), option, "inception"]) == 1
    assert f"{option} is of images, and mle makes sentences: leave it out" in capsys.readouterr().err


def test_a_run_that_may_not_be_written_to(run, tmp_path, capsys):
    """A folder stands where the file should be, as root may write everywhere."""
    (run / "metrics.json").mkdir()
    capsys.readouterr()
    assert main(["eval", str(run), "--samples", "20", "--metrics", "fd"]) == 0
    out = capsys.readouterr()
    assert figures(out.out) == ["fd_efflite0"]
    assert f"{run / 'metrics.json'} could not be written" in out.err and "--out FILE" in out.err
    assert main(["eval", str(run), "--samples", "20", "--metrics", "fd", "--out", str(tmp_path / "figures.json")]) == 0
    assert list(json.loads((tmp_path / "figures.json").read_text())["dcgan"]) == ["fd_efflite0"]


def test_a_list_of_names(tmp_path, capsys):
    """No word twice: held-out names are unknown words, so nll-test has nothing to count; the rest is measured."""
    (tmp_path / "names.txt").write_text("\n".join(f"first{i} last{i}" for i in range(20)))
    options = {"hidden": 8, "embedding": 8, "sweep": 1.0, "samples": 2, "device": "cpu", "level": "word"}
    sizes = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    train = ["train", "mle", "--data", str(tmp_path / "names.txt"), "--steps", "4", "--metrics-every", "2", *sizes]
    assert main([*train, "--metrics-samples", "10", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert said.count("not measured: nll-test") == 1
    assert main(["eval", str(tmp_path / "run"), "--samples", "10", "--metrics", "bleu,distinct-1"]) == 0
    assert figures(capsys.readouterr().out) == ["bleu-2", "bleu-3", "bleu-4", "bleu-5", "distinct-1"]
    assert main(["eval", str(tmp_path / "run"), "--samples", "10"]) == 0
    out = capsys.readouterr()
    missing = str(tmp_path / "nowhere.txt")
    assert main(["eval", str(tmp_path / "run"), "--samples", "10", "--data", missing]) == 1
    refused = capsys.readouterr()
    assert missing in refused.err and not refused.out
    assert "nll-gen" in figures(out.out) and "nll-test" not in figures(out.out) and "nll-test" in out.err


def test_a_translation(tmp_path, capsys):
    sets = ["emoji:google:base:flags", "emoji:twitter:base:flags"]
    sizes = ["--steps", "1", "--width", "4", "--blocks", "1", "--samples", "1", "--device", "cpu"]
    assert main(["train", "cyclegan", "--data", *sets, *sizes, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--samples", "3", "--metrics", "l1,cycle"]) == 0
    assert figures(capsys.readouterr().out) == ["l1", "cycle"]
    assert main(["eval", str(tmp_path / "run"), "--samples", "3", "--metrics", "prdc"]) == 1
    assert "expected some of l1, psnr, ssim, fd, kid, cycle" in capsys.readouterr().err


def test_figures_say_what_they_mean(run, capsys):
    capsys.readouterr()
    assert main(["eval", str(run), "--samples", "20", "--metrics", "fd,precision"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == ["figure", "dcgan", "better", "meaning"]
    assert [line.split()[2] for line in lines] == ["lower", "higher"] and "0 to 1: quality" in lines[1]


@pytest.fixture
def moments(run, tmp_path):
    """Of the run's own data set, as a published reference file holds them."""
    loaded = fastgan.Run(run)
    data = loaded.recipe.provided(loaded.networks, vars(loaded.saved.run), 1)["data"]()
    real = images.dataset_features(Pixels(), data, tmp_path / "features").statistics
    np.savez(tmp_path / "published.npz", mu=real.mean.numpy(), sigma=real.covariance.numpy(), more=[1])
    return tmp_path / "published.npz"


def test_a_reference_file_takes_the_place_of_the_data(run, moments, capsys):
    assert main(["eval", str(run), "--samples", "20", "--metrics", "fd"]) == 0
    saved = json.loads((run / "metrics.json").read_text())
    assert saved["features"] == {"extractor": "efflite0", "samples": 20, "real": saved["features"]["real"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "dataset_features", lambda *a: pytest.fail("the data set was read"))
        assert main(["eval", str(run), "--samples", "20", "--reference", str(moments)]) == 0
    found = json.loads((run / "metrics.json").read_text())
    assert found["features"]["reference"] == "published.npz" and "real" not in found["features"]
    assert found["features"]["reference_sha256"] == hashlib.sha256(moments.read_bytes()).hexdigest()
    assert set(found["dcgan"]) == {"fd_efflite0", "is_efflite0"}
    assert found["dcgan"]["fd_efflite0"] == pytest.approx(saved["dcgan"]["fd_efflite0"], rel=1e-6)


def test_the_published_protocol(run, moments, capsys, monkeypatch):
    """50,000 samples, here 30, in the published network's features alone is it FID."""
    monkeypatch.setattr(importlib.import_module("fastgan.cli.evaluate"), "_PUBLISHED", 30)
    title = images.title
    paper = ["eval", str(run), "--paper", "--reference", str(moments)]
    monkeypatch.setattr(images, "title", lambda name, weights=None: "inception" if name == "inception" else title(name))
    assert main(paper) == 0
    saved = json.loads((run / "metrics.json").read_text())
    assert list(saved["dcgan"]) == ["fid"] and saved["samples"] == 30
    assert main([*paper, "--extractor", "efflite0"]) == 0
    saved = json.loads((run / "metrics.json").read_text())
    assert list(saved["dcgan"]) == ["fd_efflite0"] and saved["samples"] == saved["features"]["samples"] == 30
    monkeypatch.setattr(images, "title", lambda *given: "inception_0123abcd")
    assert main(paper) == 0
    assert list(json.loads((run / "metrics.json").read_text())["dcgan"]) == ["fd_inception_0123abcd"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "100"], "--samples is 100, and --paper draws 50000"),
        (["--metrics", "kid"], "--metrics is 'kid', and --paper computes the Fréchet distance"),
        (["--weights", "/nonexistent.pth"], "/nonexistent.pth: No such file"),
        (["--reference", "/nonexistent.npz"], "--reference /nonexistent.npz: no such file"),
        (["--extractor", "dinov2"], "extractor dinov2 needs a local file of its published weights, --weights"),
    ],
)
def test_what_the_protocol_lacks_is_said_before_anything_is_computed(run, capsys, monkeypatch, options, message):
    monkeypatch.setattr(images, "collect", lambda *a: pytest.fail("computed"))
    assert main(["eval", str(run), "--paper", *options]) == 1
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1 and not (run / "metrics.json").exists()


def test_a_reference_says_nothing_of_kernel_distances(run, moments, tmp_path, capsys):
    assert main(["eval", str(run), "--reference", str(moments), "--metrics", "kid"]) == 1
    assert "--metrics is 'kid', expected some of fd, is" in capsys.readouterr().err
    assert main(["eval", str(run), "--reference", str(moments), "--data", "emoji"]) == 1
    assert "leave one of --reference and --data out" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", mu=np.zeros(5), sigma=np.eye(5))
    assert main(["eval", str(run), "--reference", str(tmp_path / "other.npz"), "--metrics", "fd"]) == 1
    assert "mu is torch.float64 [5], expected floats [12]" in capsys.readouterr().err


def test_the_protocol_is_for_generators(run, capsys, monkeypatch):
    monkeypatch.setattr(recipes.get("dcgan"), "evaluate", lambda *a, **k: pytest.fail("computed"))
    assert main(["eval", str(run), "--paper", "--extractor", "efflite0"]) == 1
    assert (
        "--paper is for recipes that draw images from latents, and dcgan is evaluated otherwise"
        in capsys.readouterr().err
    )
