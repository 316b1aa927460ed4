"""Metrics of a user's own: on any medium, asked for by name, and no harm to others where they fail."""

import json
import sys
import warnings
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from packages import install
from pixels import Pixels

import fastgan.metrics
from fastgan.media import Medium, save_grid
from fastgan.metrics import images, suite
from fastgan.recipes import Recipe, RecipeConfig
from fastgan.training import RunConfig, Trainer
from fastgan.training.log import read_metrics


class Signals(list):
    """A data set of 12 signals."""

    name = "waves"


class Wave(Medium):
    name, unit = "wave", "waves"

    @dataclass
    class Options:
        rate: int = 8000

    @classmethod
    def save(cls, samples, path, facts=None):
        return save_grid(samples[:, None], path)


class Waves(Recipe):
    """Signals [N, 1, 16] by a linear layer."""

    medium = Wave
    metrics = ("level",)
    headline = ("level",)
    run_defaults: ClassVar = {"data": "waves"}

    def __init__(self, config, data):
        super().__init__(config, data)
        self.latent_shape = (4,)
        layers = torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Unflatten(1, (1, 16))
        self.adversaries(torch.nn.Sequential(*layers), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1)))

    @classmethod
    def load_data(cls, name, config, rate=0):
        assert rate == 8000
        return Signals((torch.full((1, 16), i / 12),) for i in range(12))

    def d_step(self, batch):
        fake = self.generator(batch.randn(*self.latent_shape))
        return {"loss": (self.discriminator(fake) - self.discriminator(batch.real)).mean()}

    def g_step(self, batch):
        return {"loss": -self.discriminator(self.generator(batch.randn(*self.latent_shape))).mean()}

    def provided(self, networks, run, count):
        return super().provided(networks, run, count) | {"half": lambda: 0.5}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(suite.METRICS, "_given", {})


def waves():
    return Waves(RecipeConfig(), {"name": "waves"})


def measure(recipe, metrics=None, count=5):
    networks = {"generator": recipe.generator}
    return recipe.evaluate(networks, {"data": "waves", "rate": 8000}, count, metrics=metrics)[recipe.name]


def level(samples):
    return samples.abs().mean()


def test_on_signals():
    """What a metric asks for is made once, and only what is asked for."""
    made = []

    @fastgan.metrics.register("level", needs=("samples", "data", "count"), figures=("level", "distance"))
    def compute(samples, data, count):
        made.append(samples)
        assert samples.shape == (count, 1, 16) and samples.device.type == "cpu" and not samples.requires_grad
        mean = torch.stack([item[0] for item in data]).mean()
        return samples.mean(), (samples.mean() - mean).abs()

    recipe = waves()
    found = measure(recipe)
    assert list(found) == ["level", "distance"] and len(made) == 1
    with torch.no_grad():
        assert found["level"] == pytest.approx(float(recipe.sample({"generator": recipe.generator}, range(5)).mean()))
    assert list(measure(recipe, ["dist"])) == ["distance"]


def test_numbers_and_lists_of_them():
    fastgan.metrics.register(suite.Row("level", ("level",), ("half",), lambda half: half))
    assert measure(waves()) == {"level": 0.5}
    for value in (1, torch.tensor(1.0), [1.0], torch.ones(1), (1,), iter([1])):
        suite.register(suite.Row("level", ("level",), (), lambda value=value: value))
        assert measure(waves()) == {"level": 1.0}
    suite.register(suite.Row("level", ("level",), (), lambda: [1, 2]))
    with pytest.raises(ValueError, match="level: 2 values for 1 figures, level"):
        measure(waves(), ["level"])


def test_a_registered_metric_needs_no_place_in_the_recipe():
    suite.register("level")(level)
    fastgan.metrics.register("Bumps", needs=("samples",))(lambda samples: 3)
    assert list(measure(waves())) == ["level"], "others are computed when they are asked for"
    assert measure(waves(), ["bumps"]) == {"Bumps": 3.0}
    with pytest.raises(ValueError, match=r"metrics is 'bmups', expected some of level, Bumps; did you mean 'Bumps'\?"):
        measure(waves(), ["bmups"])


def test_what_a_recipe_does_not_provide_is_named():
    suite.register("level", needs=("samples", "spectrum"))(level)
    assert measure(waves()) == {}
    said = "level cannot be measured: it needs 'spectrum', and this recipe provides samples, data, networks, recipe, count, half"
    with pytest.raises(ValueError, match=said):
        measure(waves(), ["level"])


@pytest.mark.parametrize("error", [TypeError("odd"), RuntimeError("odd"), KeyError("odd"), ValueError("odd")])
def test_a_faulty_metric_harms_itself_alone(error, recwarn):
    def fail(samples):
        raise error

    suite.register("level")(fail)
    suite.register("half", needs=("half",))(lambda half: half)
    recipe = waves()
    recipe.metrics = ("level", "half")
    with pytest.warns(UserWarning, match="not measured: level .*odd"):
        assert measure(recipe) == {"half": 0.5}
    with pytest.raises(ValueError, match=r"level: .*odd"):
        measure(recipe, ["level"])


def test_names_of_ours_stay():
    with pytest.raises(ValueError, match="metric 'fd' is one of fastgan's own"):
        suite.register("fd")(level)
    with pytest.raises(ValueError, match="unknown metric 'levle'"):
        suite.rows(["levle"])


def test_an_installed_package(monkeypatch, tmp_path):
    source = "from fastgan.metrics.suite import Row\nTHEIRS = Row('theirs', ('theirs',), ('count',), lambda n: n)\nNONE = 1\n"
    points = {"fastgan.metrics": {"theirs": "measures:THEIRS", "none": "measures:NONE", "broken": "measures:Nothing"}}
    install(monkeypatch, tmp_path, "measures", points, measures=source)
    suite.register("level")(level)
    assert list(measure(waves())) == ["level"]
    assert measure(waves(), ["theirs"], count=7) == {"theirs": 7.0}
    with pytest.raises(ImportError, match="metric 'broken' of package measures"):
        measure(waves(), ["broken"])
    with pytest.raises(ValueError, match=r"metric 'none' is 1, expected a fastgan\.metrics\.suite\.Row"):
        measure(waves(), ["none"])


def test_of_images_by_their_features(monkeypatch, tmp_path):
    """Named for the extractor, like ours."""
    from fastgan.data import ImageDataset

    class Pictures(Recipe):
        def __init__(self):
            super().__init__(RecipeConfig(), {"name": "pictures"})
            self.generator = torch.nn.Linear(1, 1)

        def sample(self, networks, seeds):
            return torch.zeros(len(seeds), 3, 8, 8)

        @classmethod
        def load_data(cls, name, config, **options):
            return ImageDataset(torch.zeros(9, 3, 8, 8, dtype=torch.uint8), name="pictures")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(images, "load_extractor", lambda *given: Pixels())
    suite.register("gap", needs=("real", "fake"))(lambda real, fake: (real.rows.mean() - fake.rows.mean()).abs())
    suite.register("size", needs=("samples", "data"))(lambda samples, data: samples.shape[0] + len(data))
    recipe = Pictures()
    found = recipe.evaluate({"generator": recipe.generator}, {"data": "x"}, 4, metrics=["gap", "size"])["Pictures"]
    assert list(found) == ["gap_efflite0", "size"] and found["size"] == 13


def test_while_training_and_on_the_command_line(tmp_path, capsys):
    suite.register("level")(level)
    run = RunConfig(
        data="waves", out=str(tmp_path / "run"), device="cpu", samples=2, metrics_every=1, metrics_samples=4
    )
    Trainer(Waves, RecipeConfig(steps=1, batch_size=4), run, dataset=Waves.load_data("waves", None, 8000)).train()
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["level/Waves"] for row in rows if "level/Waves" in row]
    from fastgan.cli import main
    from fastgan.recipes import RECIPES

    RECIPES.register("waves-of-mine", Waves)
    try:
        config = tmp_path / "run" / "config.json"
        saved = json.loads(config.read_text()) | {"recipe": "waves-of-mine"}
        del saved["sha256"]
        config.write_text(json.dumps(saved))
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert main(["eval", str(tmp_path / "run"), "--samples", "6", "--device", "cpu"]) == 0
        assert "level" in capsys.readouterr().out
        assert main(["eval", str(tmp_path / "run"), "--metrics", "levle"]) == 1
        assert "--metrics is 'levle', expected some of level; did you mean 'level'?" in capsys.readouterr().err
    finally:
        RECIPES._given.clear()


EXTRACTOR = """
import torch
class Means(torch.nn.Module):
    name, dim = "means", 3
    def forward(self, images):
        assert images.dtype == torch.uint8 and images.shape[1] in (1, 3)
        return images.expand(-1, 3, -1, -1).float().mean((2, 3))
class Classes(Means):
    name = "classes"
    def logits(self, features): return features
def number(): return 5
def nameless(): return torch.nn.Linear(1, 1)
"""


@pytest.fixture
def extractors(monkeypatch, tmp_path):
    monkeypatch.setattr(images.EXTRACTORS, "_given", {})
    monkeypatch.setattr(images.EXTRACTORS, "_typed", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    install(monkeypatch, tmp_path, "means_of", {"fastgan.extractors": {"theirs": "means_of:Means"}}, means_of=EXTRACTOR)
    (tmp_path / "mine.py").write_text(EXTRACTOR)
    monkeypatch.setattr(sys, "path", [*sys.path])


class Grey(Recipe):
    """Grey images."""

    def __init__(self):
        super().__init__(RecipeConfig(), {"name": "pictures"})
        self.generator = torch.nn.Linear(1, 1)

    def sample(self, networks, seeds):
        return torch.stack([torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    @classmethod
    def load_data(cls, name, config, **options):
        from fastgan.data import ImageDataset

        return ImageDataset(torch.arange(1280).reshape(20, 1, 8, 8).to(torch.uint8), name="pictures")

    def measure(self, extractor, metrics=None):
        networks = {"generator": self.generator}
        return self.evaluate(networks, {"data": "x"}, 12, extractor=extractor, metrics=metrics)["Grey"]


@pytest.mark.parametrize("name", ["theirs", "means_of:Means", "./mine.py:Means"])
def test_an_extractor_of_ones_own(name, extractors):
    with pytest.warns(UserWarning, match=r"not measured: is \(the extractor has no class logits\)"):
        found = Grey().measure(name)
    assert list(found) == [f"{figure}_means" for figure in ("fd", "kid", "precision", "recall", "density", "coverage")]
    assert Grey().measure(name, ["kid"]) == {"kid_means": found["kid_means"]}, "features that were kept"
    with pytest.raises(ValueError, match=r"weights=w\.pth is for extractor inception"):
        images.load_extractor(name, weights="w.pth")


def test_a_registered_extractor(extractors):
    import means_of

    images.EXTRACTORS.register("mine", means_of.Classes)
    assert "is_classes" in Grey().measure("mine")
    with pytest.raises(ValueError, match="extractor 'efflite0' is one of fastgan's own"):
        images.EXTRACTORS.register("efflite0", means_of.Means)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "vgg",
            "extractor 'vgg' is unknown; expected efflite0 or inception, dinov2, clip, openclip, theirs, MODULE:NAME",
        ),
        ("means_of:number", "the extractor is of type int; expected a module"),
        ("means_of:nameless", "the extractor lacks name; expected a module"),
        ("means_of:other", "there is no 'other' in means_of"),
    ],
)
def test_what_is_no_extractor(name, said, extractors):
    with pytest.raises(ValueError, match=said):
        images.load_extractor(name)
    with pytest.raises(ValueError, match=said):
        Grey().measure(name)
