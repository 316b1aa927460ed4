"""Options by name: names that cannot collide, nested dataclasses, presets, and what is refused."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from fastgan import fields, recipes
from fastgan.options import Count, NonNegative, check_ranges
from fastgan.recipes.gan import GAN, GANConfig
from fastgan.training.recipe import Preset, Recipe, RecipeConfig
from fastgan.training.run import RunConfig, check_options
from fastgan.training.settings import Settings, options, spellings


@dataclass
class Deeper:
    """Of a block."""

    rank: Count = 2
    """Rank."""


@dataclass
class Net:
    """Of the networks."""

    width: Count = 4
    """Channels."""
    deep: bool = False
    block: Deeper = field(default_factory=Deeper)


@dataclass
class Config(RecipeConfig):
    """Of a test."""

    seed: Count = 7
    """Not the run's."""
    flip: bool = True
    no_strict: bool = False
    no_seed: int = 0
    help: str = "x"
    data: Net = field(default_factory=Net)
    run: Net = field(default_factory=Net)
    model: Net = field(default_factory=Net)
    table: dict[str, list[int]] = field(default_factory=dict)
    made: int = field(init=False, default=1)


class Colliding(Recipe):
    name, Config = "colliding", Config
    presets = {"small": Preset("Small.", {"recipe.seed": 3, "model": {"width": 1}, "keep": 9})}  # noqa: RUF012


def test_names():
    named = {option.name: ".".join(option.path) for option in options(Colliding)}
    assert len(named) == len(options(Colliding))
    expected = {
        "seed": "run.seed", "flip": "run.flip", "data": "run.data", "strict": "run.strict", "split": "run.split",
        "recipe.seed": "recipe.seed", "recipe.flip": "recipe.flip", "recipe.no_strict": "recipe.no_strict",
        "no_seed": "recipe.no_seed", "recipe.help": "recipe.help", "steps": "recipe.steps", "table": "recipe.table",
        "data.width": "recipe.data.width", "recipe.run.width": "recipe.run.width",
        "model.block.rank": "recipe.model.block.rank",
    }  # fmt: skip
    assert {name: named.get(name) for name in expected} == expected and "made" not in named
    known = spellings(Colliding)
    assert known["run.seed"].name == "seed" and known["recipe.model.deep"].name == "model.deep"
    titles = list(dict.fromkeys(option.section.title for option in options(Colliding)))
    nested = ["data", "data.block", "recipe.run", "recipe.run.block", "model", "model.block"]
    assert titles == ["run", "hardware", "log", "transfer", "image", "recipe", *nested]
    assert known["model.width"].about == "Channels." and known["seed"].about.startswith("Decides every random draw")


def test_no_recipe_of_fastgan_needs_a_prefix():
    for name in recipes.RECIPES:
        assert not [option.name for option in options(recipes.get(name)) if "." in option.name], name


def test_values_by_any_spelling():
    made = Settings.of(Colliding).updated(
        {
            "seed": 1, "recipe": {"seed": 2, "steps": 1e3}, "model": {"width": np.int64(3), "block": {"rank": 5}},
            "recipe.model.deep": True, "batch-size": 8, "ema_halflife": 2, "table": {"a": [1]}, "data": "here", "split": None,
        }
    )  # fmt: skip
    assert made.run.seed == 1 and made.run.data == "here"
    config = made.recipe
    assert (config.seed, config.steps, config.batch_size, config.table) == (2, 1000, 8, {"a": [1]})
    assert type(config.steps) is int and type(config.ema_halflife) is float and type(config.model.width) is int
    assert config.model == Net(3, True, Deeper(5)) and config.run == Net()
    assert Settings.of(Colliding).recipe == Config()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stesp": 1}, "HERE colliding has no option 'stesp'; did you mean 'steps'?"),
        ({"model": {"widht": 1}}, "HERE colliding has no option 'model.widht'; did you mean 'model.width'?"),
        ({"seed": "1"}, "HERE seed is '1', expected a whole number"),
        ({"recipe": {"seed": 0}}, "HERE recipe.seed is 0, expected at least 1"),
        ({"steps": np.int64(-1)}, "HERE steps is -1, expected at least 1"),
        ({"ema_halflife": np.float64(-1)}, "HERE ema_halflife is -1.0, expected at least 0"),
        ({"recipe.seed": None}, "HERE recipe.seed is None, expected a whole number"),
        ({"model": {"block": {"rank": 0}}}, "HERE model.block.rank is 0, expected at least 1"),
        ({"model": 5}, "HERE colliding has no option 'model'"),
        ({"steps": 1.5}, "HERE steps is 1.5, expected a whole number"),
        ({"steps": 2, "recipe.steps": 2}, "HERE steps is given twice"),
        ({"batch_size": 4, "batch-size": 8}, "HERE batch_size is given twice"),
        ({"model": {"width": 1}, "model.width": 2}, "HERE model.width is given twice"),
        ({"made": 2}, "HERE colliding has no option 'made'"),
        ({"table": {"a": 1}}, "HERE table\\['a'\\] is 1, expected list"),
        ({"flip": "yes"}, "HERE flip is 'yes', expected true or false"),
        ({"x" * 10**6: 1}, "HERE colliding has no option xxx"),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?").replace("option xxx", "option 'xxx")) as raised:
        Settings.of(Colliding).updated(values, lambda name: "HERE ")
    assert len(str(raised.value)) < 300


def test_a_medium_has_its_own_options():
    assert "flip" not in spellings(recipes.get("mle")) and "flip" in spellings(GAN)
    with pytest.raises(ValueError, match="mle has no option 'flip'"):
        Settings.of(recipes.get("mle")).updated({"flip": True})


def test_presets():
    made = Settings.of(Colliding, "small")
    assert (made.recipe.seed, made.recipe.model.width, made.run.keep, made.run.seed) == (3, 1, 9, 0)
    with pytest.raises(ValueError, match=r"colliding has no preset 'smal'; did you mean 'small'\?; known: small"):
        Settings.of(Colliding, "smal")
    with pytest.raises(ValueError, match="mle has no preset 'x'; there is none"):
        Settings.of(recipes.get("mle"), "x")

    class Broken(Colliding):
        presets = {"bad": Preset("", {"lr": 3})}  # noqa: RUF012

    with pytest.raises(ValueError, match="preset bad: colliding has no option 'lr'"):
        Settings.of(Broken, "bad")


def test_nested_options_in_config_json():
    config = Config(model=Net(9, block=Deeper(3)))
    saved = {name: value for name, value in dataclasses.asdict(config).items() if name != "made"}
    assert fields.build(Config, saved, "config.json") == config
    saved["model"]["block"]["rank"] = "3"
    with pytest.raises(ValueError, match=r"config\.json: model: block: rank is '3', expected a whole number"):
        fields.build(Config, saved, "config.json")
    saved["model"]["block"] = {"rnak": 1}
    with pytest.raises(ValueError, match=r"config\.json: model: block has the unknown option 'rnak'"):
        fields.build(Config, saved, "config.json")


def test_ranges_of_nested_options():
    with pytest.raises(ValueError, match=r"^model\.block\.rank is 0, expected at least 1"):
        check_ranges(Config(model=Net(block=Deeper(0))))
    with pytest.raises(ValueError, match=r"^model\.width is 0"):
        check_options(Colliding, Config(model=Net(0)), RunConfig())


def test_types_of_options():
    """Of a Config that is made by hand: what config.json could not hold is refused before there is a folder."""
    config = GANConfig(lr=np.float32(0.5), beta1=np.float64(0.25), units=[np.int64(8), 4])
    run = RunConfig(out=Path("here"), data=Path("a.npz"))
    check_options(GAN, config, run)
    assert (config.lr, config.beta1, config.units, run.out, run.data) == (0.5, 0.25, (8, 4), "here", "a.npz")
    assert {type(config.lr), type(config.beta1)} == {float} and type(config.units[0]) is int
    with pytest.raises(ValueError, match="gan: lr is '1', expected a number"):
        check_options(GAN, GANConfig(lr="1"), RunConfig())
    with pytest.raises(ValueError, match="gan: data is 5, expected text"):
        check_options(GAN, GANConfig(), RunConfig(data=5))


def test_a_class_whose_annotations_nobody_understands():
    class Local(GANConfig):
        __annotations__ = {"rate": "Hidden"}
        rate = 0.5

    class Hiding(GAN):
        Config = dataclass(Local)

    assert Settings.of(Hiding).updated({"rate": 1.5}).recipe.rate == 1.5


def test_docs_of_fields():
    assert fields.docs(Config)["seed"] == "Not the run's." and "steps" in fields.docs(Config)
    assert "flip" not in fields.docs(Config)
    made = dataclasses.make_dataclass("Made", [("x", NonNegative, 1.0)], bases=(Net,))
    assert fields.docs(made) == {"width": "Channels."}
    assert fields.docs(RunConfig)["workers"] == fields.docs(RunConfig.__mro__[2])["workers"]
