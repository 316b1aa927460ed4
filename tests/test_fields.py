"""Values against the types of a dataclass's fields, and what messages show of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from fastgan import fields


@dataclass(frozen=True)
class Options:
    count: int = 1
    share: float = 0.5
    flag: bool = False
    name: str | None = None
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    table: dict[str, list[int]] | None = None
    anything: Any = None


def test_what_fits():
    made = fields.build(
        Options, dict(count=2, share=1, pair=[3, 4], many=[1, 2.5], table={"x": [1]}, anything=[{}]), "f.json"
    )
    assert made == Options(2, 1, False, None, "a", (3, 4), (1, 2.5), {"x": [1]}, [{}])
    made = Options(count=np.int64(3), share=np.float32(0.5), many=[1])
    fields.check("options", made)
    assert made.many == (1,) and made.count == 3
    for value in (np.float64(0.5), np.float32(0.5), np.int64(3)):  # NumPy's float64 is a float too
        assert type(fields.conform(value, float, "share")) in (int, float)
    assert fields.conform(Path("a"), str | None, "name") == "a"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", True), ("count", 1.0), ("count", "1"), ("count", None), ("count", 2**63), ("count", [1]),
        ("share", float("nan")), ("share", float("inf")), ("share", "0.5"), ("share", False),
        ("flag", 1), ("flag", "true"), ("name", 5), ("kind", "c"), ("kind", ["a"]), ("kind", True),
        ("pair", [1]), ("pair", [1, 2, 3]), ("pair", [1, "2"]), ("pair", 5), ("many", [None]), ("many", "12"),
        ("table", {"x": 1}), ("table", {1: [1]}), ("table", []),
    ],
)  # fmt: skip
def test_what_does_not(name, value):
    with pytest.raises(fields.Mismatch, match=rf"f\.json: {name}"):
        fields.build(Options, {name: value}, "f.json")


def test_unknown_names_and_no_options():
    with pytest.raises(fields.Mismatch, match=r"f\.json has the unknown option 'cuont'; known are count"):
        fields.build(Options, {"cuont": 1}, "f.json")
    for values in (None, [], 5, "x"):
        with pytest.raises(fields.Mismatch, match=r"f\.json is"):
            fields.build(Options, values, "f.json")


def test_messages_are_bounded_and_printable():
    shared: list = []
    for _ in range(60):
        shared = [shared, shared]
    for value in (
        "x" * 10**6,
        "\x1b[2J\ud800",
        10**5000,
        shared,
        {"a": shared},
        [10**5000] * 3,
        b"x" * 10**6,
        {1},
        object(),
    ):
        for text in (fields.clip(value), fields.shorten(fields.clip(value))):
            assert len(text) < 200 and text.isprintable()
    assert fields.clip([1, 2.5, "x"]) == "[1, 2.5, 'x']" and fields.clip((1,)) == "(1)"
    assert fields.shorten(ValueError("a\x1b[0mb\nc")) == "a?[0mb\nc"
