"""Text files are UTF-8 whatever the locale: nothing in the package opens one with the locale's encoding."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import fastgan

PACKAGE = Path(fastgan.__file__).parent


def without_encoding(call: ast.Call) -> bool:
    """Whether `call` opens a text file and does not say in which encoding."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name in ("read_text", "write_text", "TextIOWrapper"):
        return True
    if name != "open" or not (isinstance(call.func, ast.Name) or ast.unparse(call.func).startswith("path.")):
        return False
    mode = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    return not any("b" in m for m in mode if isinstance(m, str))


def test_every_text_file_is_opened_as_utf_8():
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and without_encoding(node)
    ]
    assert found == []


def test_a_run_of_chinese_text_in_the_c_locale(tmp_path):
    lines = ["白帝朝驚浪", "陽臺暮映雲", "等閑生險易", "世路秪如君"] * 2
    (tmp_path / "lines.txt").write_text("\n".join(f"{line}{i}" for i, line in enumerate(lines)), encoding="utf-8")
    script = """
import sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module="fastgan")
from fastgan.recipes import get
from fastgan.training import RunConfig, Trainer
recipe = get("mle")
config = recipe.Config(steps=1, batch_size=2, hidden=8, embedding=8, level="char")
run = RunConfig(data="lines.txt", out="run", device="cpu", samples=2, sample_every=1, checkpoint_every=1)
sys.stdout.reconfigure(errors="backslashreplace")
Trainer(recipe, config, run).train()
"""
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-X", "warn_default_encoding", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written = next((tmp_path / "run" / "samples").glob("*.txt")).read_text(encoding="utf-8")
    assert set("".join(lines)) & set(written)
    assert written.split("\n")[0] in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
