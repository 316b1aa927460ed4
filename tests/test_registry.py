"""Names that users add: by a program, by an installed package, by module or file on their own command line."""

import subprocess
import sys
import warnings

import pytest
from packages import install

from fastgan.registry import Registry

GROUP = "fastgan.shapes"


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """sys.path and sys.modules as before, the working directory an empty one."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def shapes() -> Registry:
    return Registry("shape", GROUP).own({"path": "pathlib:Path", "counter": ("collections:Counter", "counts")})


def test_our_own():
    import pathlib

    table = shapes()
    assert table.resolve("path") is pathlib.Path and table["counter"].help == "counts"
    assert "path" in table and "square" not in table and list(table) == ["path", "counter"] and len(table) == 2
    with pytest.raises(ValueError, match=r"unknown shape 'pahth'; did you mean 'path'\?; known: path, counter"):
        table.resolve("pahth")


def test_ours_are_found_without_a_look_at_packages():
    source = (
        "from importlib import metadata\n"
        "found = metadata.entry_points\n"
        "def look(group):\n"
        "    assert not group.startswith('fastgan'), 'packages were looked at'\n"
        "    return found(group=group)\n"
        "metadata.entry_points = look\n"
        "import fastgan, fastgan.data, fastgan.metrics.images\n"
        "from fastgan import losses, models, recipes\n"
        "recipes.get('gan'), models.network_class('mlp.generator'), losses.LOSSES.resolve('hinge')\n"
        "fastgan.data.load('emoji'), fastgan.metrics.suite.rows(['fd', 'kid'])\n"
        "recipes.get('gan').Config(loss='minimax')\n"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


def test_registered_by_a_program():
    table = shapes()

    @table.register("mine", help="my own")
    class Mine: ...

    assert table.resolve("mine") is Mine and table["mine"].help == "my own" and table.name_of(Mine) == "mine"
    assert table.name_of(Mine, elsewhere=True) == f"{Mine.__module__}:{Mine.__qualname__}"
    assert table.register("lazy", "fractions:Fraction") == "fractions:Fraction"
    assert table.resolve("lazy").__name__ == "Fraction"
    assert table.register("mine", dict) is dict and table.resolve("mine") is dict
    with pytest.raises(ValueError, match="'path' is one of fastgan's own"):
        table.register("path", dict)
    for name in ("a:b", "a/b", "", "a b"):
        with pytest.raises(ValueError, match="expected a name of letters"):
            table.register(name, dict)


def test_a_package_brings_a_name(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "site", "circles", {GROUP: {"round": "circles:Round"}}, circles="class Round: ...")
    table = shapes()
    assert list(table) == ["path", "counter", "round"] and table["round"].help == "from circles"
    assert "circles" not in sys.modules
    round_ = table.resolve("round")
    assert round_ is sys.modules["circles"].Round and table.name_of(round_) == "round"


@pytest.mark.parametrize(
    "source", ["import nowhere_at_all", "1 / 0", "class Other: ...", "this is no Python"], ids=lambda s: s[:9]
)
def test_a_broken_package_harms_itself_alone(source, monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "good", "circles", {GROUP: {"round": "circles:Round"}}, circles="class Round: ...")
    install(monkeypatch, tmp_path / "bad", "squares", {GROUP: {"square": "squares:Square"}}, squares=source)
    table = shapes()
    assert list(table) == ["path", "counter", "square", "round"]
    assert table.resolve("round").__name__ == "Round"
    with pytest.raises(ImportError, match=r"shape 'square' of package squares \(squares:Square\) cannot be imported"):
        table.resolve("square")


@pytest.mark.parametrize("text", [f"[{GROUP}]\nnonsense\n", "no section\n", f"[{GROUP}]\nodd = ::\n"])
def test_an_unreadable_list_harms_its_package_alone(text, monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "good", "circles", {GROUP: {"round": "circles:Round"}}, circles="class Round: ...")
    install(monkeypatch, tmp_path / "bad", "squares", text)
    table = shapes()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert table.resolve("round").__name__ == "Round" and "path" in table
    assert all("squares" in str(warning.message) for warning in told)


def test_ours_win_over_a_package(monkeypatch, tmp_path):
    import pathlib

    install(monkeypatch, tmp_path / "site", "thief", {GROUP: {"path": "thief:Path"}}, thief="class Path: ...")
    table = shapes()
    assert table.resolve("path") is pathlib.Path
    with pytest.warns(UserWarning, match="package thief offers the shape 'path', .* the package's is thief:Path"):
        assert list(table) == ["path", "counter"]


def test_a_program_wins_over_a_package(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "site", "circles", {GROUP: {"round": "circles:Round"}}, circles="class Round: ...")
    table = shapes()
    table.register("round", dict)
    assert table.resolve("round") is dict and list(table) == ["path", "counter", "round"]


def test_two_packages_with_one_name(monkeypatch, tmp_path):
    for name in ("circles", "rings"):
        install(monkeypatch, tmp_path / name, name, {GROUP: {"round": f"{name}:Round"}}, **{name: "class Round: ..."})
    with pytest.raises(ValueError, match=r"packages .* both offer the shape 'round': rings:Round and circles:Round"):
        shapes().resolve("round")


def test_code_is_found_only_by_a_users_word(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "forms.py").write_text("class Outer:\n    class Mine: ...\n")
    table = shapes()
    mine = table.resolve("own.forms:Outer.Mine", code=True)
    assert mine is sys.modules["own.forms"].Outer.Mine and table.name_of(mine) == "own.forms:Outer.Mine"
    assert table.typed("own.forms:Outer.Mine") and not table.typed("path") and list(table) == ["path", "counter"]
    assert table.resolve("own.forms:Outer.Mine") is mine, "what the user has named counts as registered"
    canary = tmp_path / "ran"
    (tmp_path / "hostile.py").write_text(f"open({str(canary)!r}, 'w')\nMine = 1\n")
    for name in ("hostile:Mine", "./hostile.py:Mine", str(tmp_path / "hostile.py:Mine"), "os:system", "hostile:"):
        with pytest.raises(ValueError, match="is code to import, and only registered names"):
            table.resolve(name)
    assert not canary.exists() and "hostile" not in sys.modules


def test_a_file(tmp_path):
    folder = tmp_path / "some.where"
    folder.mkdir()
    (folder / "neighbour.py").write_text("word = 'hello'\n")
    (folder / "file_of_mine.py").write_text("from neighbour import word\nclass Mine: ...\n")
    (folder / "signal.py").write_text("class Mine: ...\n")
    (folder / "two.words.py").write_text("class Mine: ...\n")
    table = shapes()
    for name in ("file_of_mine", "signal", "two.words"):
        found = table.resolve(f"some.where/{name}.py:Mine", code=True)
        assert table.resolve(str(folder / f"{name}.py:Mine"), code=True) is found
        assert table.name_of(found) == str(folder / f"{name}.py:Mine")
    assert sys.modules["file_of_mine"].word == "hello"
    import signal

    assert signal.SIGINT


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.forms:Mine", "there is no module 'nowhere'"),
        ("own.other:Mine", "there is no module 'own.other'"),
        ("own.forms:Other", "there is no 'Other' in own.forms"),
        ("own/other.py:Mine", r"other\.py: there is no such file"),
        ("own/forms.py:Other", "there is no 'Other' in forms"),
        ("word", "unknown shape 'word'; known: path, counter, or MODULE:NAME, or FILE.py:NAME"),
    ],
)
def test_code_that_is_not_there(name, said, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "forms.py").write_text("class Mine: ...\n")
    with pytest.raises(ValueError, match=said):
        shapes().resolve(name, code=True)


def test_an_error_in_the_users_code_passes(tmp_path):
    (tmp_path / "faulty.py").write_text("1 / 0")
    for name in ("faulty:Mine", "faulty.py:Mine"):
        with pytest.raises(ZeroDivisionError):
            shapes().resolve(name, code=True)
    (tmp_path / "lacking.py").write_text("import nowhere_at_all")
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        shapes().resolve("lacking:Mine", code=True)


def test_a_script_is_known_by_its_file(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("class Mine: ...\nfrom fastgan import user_code\nprint(user_code.name_of(Mine))\n")
    for source, expected in (([str(script)], f"{script}:Mine"), (["-c", script.read_text()], "__main__:Mine")):
        done = subprocess.run([sys.executable, *source], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
