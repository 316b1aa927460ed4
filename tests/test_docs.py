"""Every block of code of the README and of docs/ runs, a page's blocks one after the other in a folder with small data; links
lead somewhere; public names are in the API's pages; figures are what `bench/report.py` makes."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import page_data
import pytest
import report

from fastgan import cli
from fastgan.metrics import images, kid
from fastgan.ops import _library

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.M | re.S)
# What is added to a command, so that it takes a second instead of minutes.
TRAIN = ["--steps", "2", "--samples", "4", "--batch-size", "4", "--log-every", "1", "--device", "cpu"]
SMALL = {"train": TRAIN, "eval": ["--samples", "16", "--device", "cpu"], "sample": ["--device", "cpu"]}
# Commands that are not run, by a part of them, and where that is tested instead.
ELSEWHERE = {
    "--nproc-per-node": "tests/training/test_distributed.py, test_shard.py",
    "network-snapshot": "tests/convert: a snapshot is not part of the repository",
    "G.safetensors": "the same",
    "g_02500000": "tests/convert/test_vocoder.py",
    "voice.safetensors": "the same",
    "train vocoder --data speech": "tests/recipes/test_vocoder.py",
    "sample runs/voice": "the same",
    "RealESRGAN_x4plus.pth": "tests/convert/test_image_to_image.py",
    "sample x4.safetensors": "the same, tests/test_upscaling.py",
    "emoji-up": "tests/recipes/test_realesrgan.py: drawing the emoji larger takes a minute",
    "--log wandb": "tests/training/test_loggers.py",
    "--log trackio": "the same",
    "hf auth login": "no network in tests; tests/sharing/test_sharing.py has a hub of its own",
    "me/emoji-dcgan": "the same",
    "--graphs": "tests/training/test_graphs.py; refused without a GPU",
    "fastgan explore": "tests/explore: it goes on until it is stopped",
    "pip install": ".ci/run and .ci/packaging",
    "eval RUN": "published weights are not at hand; tests/metrics/test_vit.py, tests/cli/test_eval.py",
    "--preset paper": "networks of papers take hours; tests/recipes/test_presets.py",
    "mypackage": "no such package is installed; tests/test_registry.py",
}
GROUPS = {f"fastgan.{table}" for table in ("recipes", "models", "data", "metrics", "extractors", "losses", "sinks")}
PROGRAMS = ("pytest", "ruff", "python", ".ci/run", ".ci/gpu", "git", "pre-commit", "mkdocs", "tensorboard", "docker")


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, title, code) of each fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(block: str) -> list[str]:
    """The lines of a shell block, without comments, cut at `&&`."""
    lines = re.sub(r"\\\n", " ", block).splitlines()
    return [part.strip() for line in lines for part in re.sub(r"(^|\s)#.*", "", line).split("&&") if part.strip()]


def run(command: str) -> None:
    """One command of fastgan, in this process. Of another program only that what it reads is in the repository."""
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    if words[0] != "fastgan":
        assert words[0] in PROGRAMS, f"{command}: neither fastgan nor one of {', '.join(PROGRAMS)}"
        for word in words[1:]:
            if re.match(r"(tests|bench|docs|csrc)/", word) and "OUT" not in word:
                assert (ROOT / word.split("::")[0]).exists(), f"{command}: no {word} in the repository"
        return
    small = [] if "--help" in words else SMALL.get(words[1] if words[1:] else "", [])
    try:
        code = cli.main([*words[1:], *small])
    except SystemExit as stop:  # of --help
        code = stop.code
    assert code == 0, command


def absent(block: str) -> list[str]:
    """The packages that a block says to install, as extras of fastgan, and that are not here. .ci/run has them."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = [
        re.split(r"[><=\[ ]", requirement)[0]
        for extra in re.findall(r"pip install ['\"]fastgan\[(\w+)\]", block)
        for requirement in ast.literal_eval(re.search(rf"^{extra} = (\[.*\])", project, re.M)[1])
    ]
    return [package for package in needed if importlib.util.find_spec(package) is None]


def shell(block: str) -> None:
    if absent(block):
        return
    for command in commands(block):
        if not any(mark in command for mark in (*ELSEWHERE, "venv")):
            run(command)


@pages
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Rows that figures see, of 10,000, and subsets, of 100: seconds instead of minutes of products.
    for function, value in ((images.collect, (64,)), (kid.kernel_distance, (2, 1000, 0))):
        monkeypatch.setattr(function, "__defaults__", value)
    monkeypatch.setattr(images, "KEEP", 64)
    page_data.write(tmp_path)
    names: dict = {}
    lacking = [package for _, _, code in blocks(page) for package in absent(code)]
    for _, title, code in blocks(page):
        if title and "/" not in title:
            (tmp_path / title).write_text(code, encoding="utf-8")
    for language, title, code in blocks(page):
        if language == "python" and "/" not in title:
            if any(re.search(rf"^import {package}\b", code, re.M) for package in lacking):
                continue
            exec(compile(code, str(page), "exec"), names)
        elif language == "bash":
            shell(code)
        elif language == "toml":
            assert set(re.findall(r'entry-points\."([\w.]+)"', code)) <= GROUPS, f"{page.name}: nothing reads these"
        else:
            assert title or language in ("yaml", "text", "cpp"), f"{page.name}: nothing checks a block of {language}"


@pages
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("mark", ELSEWHERE)
def test_what_is_not_run_is_on_a_page_and_tested_elsewhere(mark):
    assert any(mark in code for page in PAGES for language, _, code in blocks(page) if language == "bash")
    for path in re.findall(r"[\w./]+/\w+", ELSEWHERE[mark]):
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), path


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"([\w/-]+\.md)", (ROOT / ".mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES[1:]}


@pytest.mark.parametrize("name", ["ops", "nn", "data", "media", "training", "recipes", "convert", "patch"])
def test_public_names_are_in_the_api(name):
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    module = importlib.import_module(f"fastgan.{name}")
    if re.search(rf"^::: fastgan\.{name}\n(?!.*\n.*\n.*\n    +members)", text, re.M):
        return
    listed = {word for line in re.findall(r"members: \[(.*)\]", text) for word in line.split(", ")}
    listed |= set(re.findall(r"^::: .*?(\w+)$", text, re.M))
    values = {n for n in module.__all__ if not (isinstance(getattr(module, n), dict) or n.isupper())}
    assert values <= listed, values - listed


def test_figures_are_what_the_command_makes():
    for path, text in report.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: python bench/report.py"


def test_the_ops_of_the_page_are_those_that_there_are():
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    ops = {name: op for name, op in _library._STATE.ops.items() if not name.endswith("_backward")}
    columns = {}
    for name, *cells in re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \| (\S+) \| (\S+) \| any", text, re.M):
        columns[name] = tuple(
            kind for kind, cell in zip(("reference", "cpp", "cuda", "triton"), cells, strict=True) if cell == "yes"
        )
    assert columns and columns == {name: ("reference", *sorted(ops[name].kernels)) for name in columns}
    assert [name for name in ops if f"`{name}`" not in text] == []
