"""How long a run takes: what was measured, for which options it holds, and how it is said."""

import dataclasses

import pytest

from fastgan.cli import main
from fastgan.recipes import OURS, durations, get
from fastgan.training.settings import Settings

MEASURED = durations.Durations(
    "a processor",
    2,
    "2026-01-31",
    "2.14",
    "0.2",
    0.1,
    False,
    {"dcgan": {"steps": 4000, "seconds": 260.0, "start": 10.0}},
)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3.2, "3 s"), (89, "89 s"), (90, "2 min"), (290, "5 min"), (5400, "1.5 h"), (40_000, "11 h"), (1e6, "12 days")],
)
def test_two_figures(seconds, said):
    assert durations.spoken(seconds) == said


def test_of_the_default_options_at_any_length():
    usual = Settings.of(get("dcgan"))
    assert MEASURED.of(usual) == 260 and MEASURED.of(usual.updated({"steps": 400})) == 35
    assert MEASURED.of(usual.updated({"seed": 3, "out": "a", "keep": 1, "device": "cpu"})) == 260
    for other in (
        {"width": 8},
        {"data": "fashion-mnist"},
        {"resolution": 64},
        {"device": "cuda"},
        {"precision": "bf16"},
    ):
        assert MEASURED.of(usual.updated(other)) is None
    assert MEASURED.of(Settings.of(get("gan"))) is None  # not measured


def test_what_the_package_holds_is_of_its_recipes():
    found = durations.read()
    assert found is not None and list(found.recipes) == list(OURS)
    for name, row in found.recipes.items():
        assert row["steps"] == get(name).Config().steps, f"{name}: python bench/recipe_durations.py {name}"
        counts = {part: row[part] for part in ("step", "samples", "checkpoint", "measurement")}
        assert row["seconds"] >= row["start"] + row["steps"] * counts["step"] > 0


def test_the_list_says_of_what_machine(capsys, monkeypatch):
    monkeypatch.setattr(durations, "read", lambda: MEASURED)
    assert main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:4] for line in said.splitlines() if line}
    assert rows["dcgan"] == ["4", "min", "4000"] and rows["gan"][:2] == ["-", "-"]
    assert "2 CPU cores (a processor), the machine idle,\n" in said and "2026-01-31" in said and "No GPU timed" in said
    monkeypatch.setattr(durations, "read", lambda: dataclasses.replace(MEASURED, busy=True, cores=1))
    main(["train", "--help"])
    assert "1 CPU core (a processor), processor time of one thread" in capsys.readouterr().out
    monkeypatch.setattr(durations, "read", lambda: None)
    assert main(["train", "--help"]) == 0 and "CPU core" not in capsys.readouterr().out
