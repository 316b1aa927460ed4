"""What is asked for is computed, from what it needs, and nothing else; what cannot be is said, and stops nothing."""

import warnings

import pytest
import torch
from pixels import Pixels

from fastgan.data import ImageDataset
from fastgan.metrics import fid, images, kid, prdc, suite
from fastgan.recipes import Recipe, RecipeConfig
from fastgan.training import RunConfig

IMAGES = ("fd", "kid", "prdc", "is")


class Noise(Recipe):
    """Draws random images; its data are as many others."""

    name = "noise"
    pictures = 30
    level = 1.0

    def __init__(self):
        super().__init__(RecipeConfig(), {"name": "noise"})
        self.generator = torch.nn.Linear(1, 1)
        self.drawn = 0

    def sample(self, networks, seeds):
        self.drawn += len(seeds)
        return torch.randn(len(seeds), 3, 8, 8).clamp(-1, 1) * self.level

    @classmethod
    def load_data(cls, name, config, **options):
        if name == "gone":
            raise FileNotFoundError("gone: no such folder")
        return ImageDataset(torch.randint(0, 256, (cls.pictures, 3, 8, 8), dtype=torch.uint8), name="noise")

    def measure(self, count=20, metrics=None, data="noise", **options):
        run = {"data": data, "resolution": None, "crop": "center", "strict": False}
        return self.evaluate({"generator": self.generator}, run, count, metrics=metrics, **options)["noise"]


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(images, "load_extractor", lambda *given: Pixels())


def forbid(monkeypatch, *names):
    known = {
        "fd": (fid, "frechet_distance"),
        "kid": (kid, "kernel_distance"),
        "prdc": (prdc, "prdc"),
        "is": (fid, "inception_score"),
        "features": (images, "load_extractor"),
        "data": (Noise, "load_data"),
    }
    for name in names:
        monkeypatch.setattr(*known[name], lambda *a, name=name, **k: pytest.fail(f"{name} was computed"))


@pytest.mark.parametrize("asked", IMAGES)
def test_only_what_is_asked_for_is_computed(monkeypatch, asked):
    forbid(monkeypatch, *(name for name in IMAGES if name != asked))
    found = Noise().measure(metrics=[asked])
    expected = prdc.PRDC._fields if asked == "prdc" else (asked,)
    assert list(found) == [f"{name}_efflite0" for name in expected]


def test_the_inception_score_needs_no_data(monkeypatch):
    forbid(monkeypatch, "data")
    assert Noise().measure(metrics=["is"])["is_efflite0"] >= 1


def test_all_at_once_share_their_features(monkeypatch):
    recipe = Noise()
    assert len(recipe.measure()) == 7 and recipe.drawn == 20
    found = recipe.measure(metrics=[" Recall", "density_efflite0", "fd"])
    assert list(found) == ["fd_efflite0", "recall_efflite0", "density_efflite0"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["fid"], "metrics is 'fid', expected some of fd, kid, prdc .*did you mean 'fd'"),
        (["kid", "precison"], "'precison'.*did you mean 'precision"),
        ([""], "metrics is ''"),
        (["fd", "zzz"], "'zzz', expected some of fd, kid"),
        (["ppl"], "'ppl'"),
    ],
)
def test_names_are_checked_before_anything_is_computed(monkeypatch, asked, message):
    forbid(monkeypatch, *IMAGES, "features", "data")
    with pytest.raises(ValueError, match=message):
        Noise().measure(metrics=asked)


@pytest.mark.parametrize(
    ("count", "asked", "message"),
    [
        (0, None, "samples is 0"),
        (-3, ["kid"], "samples is -3"),
        (1, ["kid"], "at least 2"),
        (5, ["fd", "prdc"], "at least 6"),
    ],
)
def test_too_few_samples_are_refused_before_anything_is_computed(monkeypatch, count, asked, message):
    forbid(monkeypatch, *IMAGES, "features", "data")
    with pytest.raises(ValueError, match=message):
        Noise().measure(count, asked)


@pytest.mark.parametrize(
    ("pictures", "count", "left"),
    [(4, 20, {"fd", "kid", "is"}), (1, 20, {"is"}), (30, 7, {"fd", "kid", "prdc"}), (30, 1, set())],
)
def test_what_cannot_be_measured_is_left_out(monkeypatch, pictures, count, left):
    """Asked for by name it is an error; otherwise it is said once, and the rest is there."""
    monkeypatch.setattr(Noise, "pictures", pictures)
    recipe = Noise()
    with pytest.warns(UserWarning, match="not measured") as caught:
        found = recipe.measure(count)
    rows = {name.removesuffix("_efflite0") for name in found}
    assert {"prdc" if name in prdc.PRDC._fields else name for name in rows} == left
    said = " ".join(str(w.message) for w in caught)
    assert all(name in said for name in {*IMAGES} - left)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe.measure(count)
    for name in {*IMAGES} - left:
        with pytest.raises(ValueError, match=name):
            recipe.measure(count, [name])
    for name in left:
        assert recipe.measure(count, [name])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_generator_that_diverged_has_no_figures(monkeypatch, bad):
    """Its images would be grey ones: not a figure is made of them."""
    recipe = Noise()
    recipe.level = bad
    with pytest.warns(UserWarning, match=r"fd, kid, prdc, is \(the network draws images that hold NaN or Inf"):
        assert recipe.measure() == {}
    assert recipe.drawn == 20, "they are drawn once, not once for each figure"
    with pytest.raises(ValueError, match="kid: the network draws"):
        recipe.measure(metrics=["kid"])


def test_missing_data_and_packages_stop_nothing(monkeypatch):
    with pytest.warns(UserWarning, match="fd, kid, prdc .gone: no such folder"):
        assert list(Noise().measure(data="gone")) == ["is_efflite0"]

    def missing(*given):
        raise ImportError("pip install it")

    monkeypatch.setattr(images, "load_extractor", missing)
    with pytest.warns(UserWarning, match="fd, kid, prdc, is .pip install it"):
        assert Noise().measure() == {}


def test_figures_are_named_for_the_extractor():
    names = {
        title: [f for row in suite.rows(IMAGES[:2], title) for f in row.figures] for title in ("inception", "a", None)
    }
    assert names == {"inception": ["fid", "kid"], "a": ["fd_a", "kid_a"], None: ["fd", "kid"]}
    assert suite.choose(suite.rows(["fd"], "inception"), ["fid"], 10)
    with pytest.raises(ValueError, match="did you mean 'fid'"):
        suite.choose(suite.rows(["fd"], "inception"), ["fd"], 10)


def test_every_recipe_lists_rows_that_exist():
    from fastgan.recipes import RECIPES, get

    used = {"fd-inf"}  # of no recipe's: it comes with fd where it is asked for
    for name in RECIPES:
        assert suite.rows(get(name).metrics)
        used |= set(get(name).metrics)
    assert used == {row.name for row in suite.TABLE}
    assert len(suite.TABLE) == len(used)


def test_what_a_run_lacks_is_named():
    choice = suite.choose(suite.rows(["l1", "cycle"]), ["l1"], 5)
    with pytest.raises(ValueError, match="l1 cannot be measured: it needs true counterparts"):
        suite.compute(choice, {"output": lambda: pytest.fail("computed")}, 5, strict=True)
    assert suite.compute(choice, {}, 5, strict=False) == {}


def test_of_several_rows_whose_names_begin_alike_those_that_can_be_are_measured():
    """Likelihoods of text, whose distribution is known of the oracle's alone."""
    choice = suite.choose(suite.rows(["nll-gen", "nll-test", "nll-oracle", "bleu"]), ["nll"], 5)
    assert [row.name for row, *_ in choice] == ["nll-gen", "nll-test", "nll-oracle"]

    class Even:
        log_prob = staticmethod(lambda tokens: torch.full(tokens.shape, -2.0))

    def lacking():
        raise ValueError("no sentence is held out")

    facts = {"model": Even, "train": lambda: torch.ones(3, 4, dtype=torch.int64), "ignored": list}
    with pytest.warns(UserWarning) as caught:
        assert suite.compute(choice, facts | {"test": facts["train"]}, 5, strict=True) == {"nll-gen": 2, "nll-test": 2}
    assert [str(w.message) for w in caught] == ["not measured: nll-oracle (it needs the data set oracle)"]
    with pytest.warns(UserWarning) as caught:
        assert suite.compute(choice, facts | {"test": lacking}, 5, strict=True) == {"nll-gen": 2}
    assert str(caught[1].message) == "not measured: nll-test (no sentence is held out)"
    with pytest.raises(ValueError, match="nll-oracle: it needs the data set oracle; nll-gen, nll-test: no sentence"):
        suite.compute(choice, facts | {"test": lacking, "train": lacking}, 5, strict=True)
    for asked in (["nll", "nll-oracle"], ["nll-oracle-r"], ["nll-o"]):
        choice = suite.choose(suite.rows(["nll-gen", "nll-test", "nll-oracle"]), asked, 5)
        with pytest.raises(ValueError, match="nll-oracle cannot be measured: it needs the data set oracle"):
            suite.compute(choice, facts, 5, strict=True)


def test_training_goes_on(tmp_path, capsys):
    """4 pictures, measured three times: PRDC cannot be, which is said once; the others are logged."""
    import numpy as np

    from fastgan import recipes
    from fastgan.training import Trainer
    from fastgan.training.log import read_metrics

    np.savez(tmp_path / "four.npz", images=np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8))
    recipe = recipes.get("dcgan")
    config = recipe.Config(steps=3, batch_size=4, width=4, max_width=8, latent=4)
    run = RunConfig(
        data=str(tmp_path / "four.npz"),
        out=str(tmp_path / "run"),
        device="cpu",
        samples=1,
        metrics_every=1,
        metrics_samples=12,
    )
    Trainer(recipe, config, run).train()
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "fd_efflite0/dcgan" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all("kid_efflite0/dcgan" in row and "precision_efflite0/dcgan" not in row for row in rows)
    said = capsys.readouterr().out
    assert said.count("not measured: prdc") == 1 and "step 1: not measured" in said
