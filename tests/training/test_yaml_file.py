"""run.yaml: read whoever made it, written so that it reads back the same."""

import enum
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

from fastgan import recipes
from fastgan.recipes.gan import GAN, GANConfig
from fastgan.training.settings import Settings
from fastgan.training.yaml_file import LONGEST, read, scalar, write
from fastgan.untrusted import BadFile


def given(tmp_path, text: str | bytes) -> Path:
    path = tmp_path / "given.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_what_is_read(tmp_path):
    file = read(
        given(
            tmp_path,
            "# a comment\nrecipe: dcgan\n\nsteps: 1e4\nbatch-size: 1_000\nlr: 1e-3\ndata: [a, 'b c']\nflip: true\n"
            "split:\nmodel:\n  width: 3\n  block: {rank: 4}\n",
        )
    )
    assert file.recipe == "dcgan" and file.lines["model.block.rank"] == 12 and file.lines["batch_size"] == 5
    assert file.values == {
        "steps": 1e4, "batch-size": 1000, "lr": 1e-3, "data": ["a", "b c"], "flip": True, "split": None,
        "model": {"width": 3, "block": {"rank": 4}},
    }  # fmt: skip
    assert read(given(tmp_path, "\ufefflr: 1\r\nsteps: 2\r\n")).values == {"lr": 1, "steps": 2}
    for empty in ("", "# nothing\n", "---\n"):
        assert read(given(tmp_path, empty))[1:] == (None, {}, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("2026-11-28", "2026-11-28"), ("1:30", "1:30"), ("0x10", "0x10"), (".inf", ".inf"),
        ("nan", "nan"), ("1e", "1e"), ("-", "-"), (".", "."), ("1e-3", 1e-3), ("+1.5E+2", 150.0), (".5", 0.5), ("1.", 1.0),
        ("9" * 400, float("inf")), ("9" * 50_000, float("inf")), ("1" * 50, 1.1111111111111111e49), ("1_", "1_"),
        ("1_000_0", 10_000), ("-3", -3), ("010", 10), ("10_000", 10_000), ("True", True), ("NULL", None), ("~", None), ("", None),
    ],
)  # fmt: skip
def test_plain_words(text, value):
    assert scalar(text) == value and type(scalar(text)) is type(value)


BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)
WRONG = [
    (b"\xff\xfe\x00", "is not YAML"),
    ("lr: [1\n", ":2 is not YAML"),
    ("lr: 1\n\tb: 2\n", ":2 is not YAML"),
    ("lr: \x07", "is not YAML"),
    ("a: 1\n---\nb: 2\n", ":2 is not YAML"),
    ("just words", "expected lines such as"),
    ("- a\n- b\n", "expected lines such as"),
    ("lr: 1\nsteps: 2\nlr: 3\n", ":3: 'lr' stands here a second time"),
    ("model:\n  a: 1\n  a: 2\n", ":3: 'a' stands here a second time"),
    ("lr: &x 1\nbeta1: *x\n", ":1: aliases (*name) are not read here"),
    ("a: &a [*a]\n", "aliases (*name) are not read here"),
    (BOMB, "aliases (*name) are not read here"),
    ("? [a, b]\n: 1\n", ":1: expected the name of an option"),
    ("lr: !!python/object/apply:os.system ['touch x']\n", ":1: tags such as"),
    ("lr: !!python/name:os.system\n", ":1: tags such as"),
    ("lr: !mine 3\n", ":1: tags such as '!mine'"),
    ("recipe: [gan]\n", ":1: recipe is ['gan'], expected the name of one"),
    ("a: " + "[" * 5000, "is nested too deeply"),
    ("a: " + "{a: " * 5000, "is nested too deeply"),
    ("#" * (LONGEST + 1), "KiB, expected a file of options"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_refused(text, message, tmp_path):
    began = time.monotonic()
    path = given(tmp_path, text)
    with pytest.raises(BadFile) as raised:
        read(path)
    said = str(raised.value)
    assert said.startswith(str(path)) and message in said and len(said) < 500 and time.monotonic() - began < 30


def test_any_bytes(tmp_path):
    """Damaged or hostile: options, or a ValueError that names the file."""
    settings = Settings.of(GAN)
    write(tmp_path / "run.yaml", "gan", settings)
    whole = b"\n".join(line for line in (tmp_path / "run.yaml").read_bytes().splitlines() if line[:1] != b"#")
    draw = random.Random(0)
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(content))
            content[at : at + draw.randint(0, 3)] = draw.choice(
                [b"", b"[", b"{", b"!!x ", b"&a ", b"*a", b": ", b"\n", b"\xff", b"-", b"'", b"9" * 9]
            )
        try:
            file = read(given(tmp_path, bytes(content)))
            settings.updated(file.values, file.where)
        except ValueError as error:
            assert str(error).startswith(str(tmp_path / "given.yaml")) and len(str(error)) < 500


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.yaml")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(BadFile, match="expected a file"):
            read(path)


@dataclass
class Net:
    """Of the networks."""

    width: int = 4


@dataclass
class Config(GANConfig):
    """Of a test: ünïcode, too."""

    seed: int = 7
    name: str = ""
    model: Net = field(default_factory=Net)
    pairs: tuple[tuple[str, float], ...] = ()
    table: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class Bare:
    rate: float = 0.5


@dataclass
class Loose(GANConfig):
    maybe: Net | None = None
    several: tuple[Net, ...] = ()
    bare: Bare = field(default_factory=Bare)


class Hanging(GAN):
    Config = Loose


def test_dataclasses_where_there_may_be_none(tmp_path):
    settings = Settings(
        Hanging, Settings.of(Hanging).run, Loose(maybe=Net(5), several=(Net(1), Net(2)), bare=Bare(0.25))
    )
    write(tmp_path / "run.yaml", "gan", settings)
    assert Settings.of(Hanging).updated(read(tmp_path / "run.yaml").values) == settings
    text = (tmp_path / "run.yaml").read_text()
    assert "maybe: {width: 5}" in text and "bare.rate: 0.25" in text and "# bare\n" in text and "Bare(" not in text


class Kind(str, enum.Enum):
    A = "a"


class Mine(GAN):
    Config = Config


WORDS = [
    "no",
    "1",
    "1e3",
    "1.0",
    "null",
    "~",
    "",
    " a",
    "a: b",
    "# c",
    "*x",
    "&y",
    "!t",
    "[z]",
    "'",
    '"',
    "\n",
    "\\",
    "é春",
    "\udcff",
]


@pytest.mark.parametrize("word", WORDS, ids=repr)
def test_any_text_comes_back(word, tmp_path):
    values = {"name": word, "data": word + "a", "pairs": [[word, 1e-300], ["b", 1e22]], "table": {word or "k": [1]}}
    made = Settings.of(Mine).updated({**values, "lr": 3e-05, "recipe.seed": 2**62, "model.width": 5})
    write(tmp_path / "run.yaml", "gan", made)
    file = read(tmp_path / "run.yaml")
    assert file.recipe == "gan" and Settings.of(Mine).updated(file.values) == made


def test_a_value_is_what_config_json_holds(tmp_path):
    settings = Settings(Mine, Settings.of(Mine).run, Config(name=Kind.A, pairs=(("x", np.float64(0.5)),)))
    write(tmp_path / "run.yaml", "gan", settings)
    values = read(tmp_path / "run.yaml").values
    assert values["name"] == "a" and values["pairs"] == [["x", 0.5]]


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_comes_back(name, tmp_path):
    """As itself, with each option and its help, and to other readers of YAML as well."""
    kind = recipes.get(name)
    made = Settings.of(kind).updated({"out": "somewhere", "seed": 5})
    write(tmp_path / "run.yaml", name, made)
    file, text = read(tmp_path / "run.yaml"), (tmp_path / "run.yaml").read_text()
    back = Settings.of(kind).updated(file.values, file.where)
    assert back.recipe == made.recipe and back.run == Settings.of(kind).updated({"seed": 5}).run
    fields = [line.partition(":")[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert fields == ["recipe", *(f for f in vars(made.run) if f not in ("out", "resume")), *vars(made.recipe)]
    assert "# Decides every random draw: same seed" in text and "# Length of the run" in text
    plain = yaml.safe_load(text)
    assert plain.pop("recipe") == name and plain == {key: file.values[key] for key in plain}
    assert max(map(len, text.splitlines())) < 130
