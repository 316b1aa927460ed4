"""No test is left out everywhere: of packages that `pip install -e '.[test]'` does not bring, .ci/run does, and runs it."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
# Modules that are called otherwise than their package, or that come with another one.
PACKAGES = {"yaml": "pyyaml", "pty": "torch", "triton": "torch", "huggingface_hub": "timm", "gradio_client": "gradio"}


def packages(extra: str) -> set[str]:
    """Of an extra and those in it, without their versions."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = [json.loads(re.search(rf"^{name} = (\[.*\])$", text, re.MULTILINE)[1]) for name in ("dependencies", extra)]
    found: set[str] = set()
    for wanted in lists[0] + lists[1]:
        name, _, inner = wanted.partition("[")
        if name == "fastgan":
            found = found.union(*map(packages, inner.rstrip("]").split(",")))
        found.add(re.split("[><=]", name)[0].replace("-", "_"))
    return found


def needed(path: Path) -> list[tuple[str, bool]]:
    """The packages without which a file's tests are left out, and whether each is so of slow tests alone."""
    found = []

    def visit(node: ast.AST, slow: bool) -> None:
        if isinstance(node, ast.FunctionDef):
            slow = slow or any("mark.slow" in ast.unparse(mark) for mark in node.decorator_list)
        asks = isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip"
        if asks and isinstance(node.args[0], ast.Constant):
            found.append((node.args[0].value.partition(".")[0], slow))
        for child in ast.iter_child_nodes(node):
            visit(child, slow)

    tree = ast.parse(path.read_text(encoding="utf-8"))
    marks = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    visit(tree, any(mark.startswith("pytestmark") and "mark.slow" in mark for mark in marks))
    return found


FILES = [path.relative_to(ROOT) for path in sorted((ROOT / "tests").rglob("test_*.py"))]


@pytest.mark.parametrize("path", [path for path in FILES if needed(ROOT / path)], ids=str)
def test_packages_that_tests_need(path):
    here, bench = packages("test"), packages("bench")
    named = {str(path), str(path.parent)} & set(CI.split())
    for module, slow in needed(ROOT / path):
        package = PACKAGES.get(module, module)
        if package not in here:
            assert package in CI or package in bench, f"{package} is installed nowhere"
            assert named or slow, f"{path} is run nowhere with {package}"
