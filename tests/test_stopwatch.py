"""`.ci/stopwatch`: the commands it walks are those of README.md."""

from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
stopwatch = ModuleType("stopwatch")
stopwatch.__file__ = str(ROOT / ".ci" / "stopwatch")
SourceFileLoader("stopwatch", stopwatch.__file__).exec_module(stopwatch)


def test_commands_one_by_one():
    text = (
        "```bash\n# why\na --b && c\nd\n```\n```text\nno\n```\n```python\nx = 1\n```\nprose\n```python\nprint(x)\n```\n"
    )
    assert stopwatch.commands(text) == ["a --b", "c", "d", "python - <<'END'\nx = 1\n\nprint(x)\nEND"]


def test_readme_is_walked_from_a_virtual_environment_to_python():
    found = stopwatch.commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found[0] == "python3 -m venv .venv" and "import fastgan" in found[-1]
    assert any(command.startswith("pip install -e") for command in found)
    assert any(command.startswith("fastgan train") for command in found)


def test_a_failure_has_its_status_and_the_environment_is_bare(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("FASTGAN_CUDA", "0")
    assert stopwatch.run('test -z "$PYTHONPATH$FASTGAN_CUDA"', tmp_path)[0] == 0
    code, minutes = stopwatch.run("exit 3", tmp_path)
    assert code == 3 and 0 <= minutes < 1
