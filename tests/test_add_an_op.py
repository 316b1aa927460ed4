"""docs/add-an-op.md: its files, put into a copy of the package, compile, and the tests on the page pass."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths, library_paths

ROOT = Path(__file__).resolve().parents[1]
FILE = re.compile(r"^```\w+ title=\"([^\"]+)\"\n(.*?)^```", re.M | re.S)
FLAGS = "-O2 -std=c++20 -fPIC -shared -fopenmp-simd -fvisibility=hidden -w -DTORCH_TARGET_VERSION=0x020a000000000000"
# The page's one file is a library of its own here, where compiling all of csrc would take minutes.
LEVEL = '#include "cpu/level.h"\nfastgan::CpuLevel fastgan::cpu_level() { return CpuLevel::portable; }\n'


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_the_page_builds_and_passes_its_tests(tmp_path):
    for folder in ("fastgan", "csrc", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    files = dict(FILE.findall((ROOT / "docs" / "add-an-op.md").read_text(encoding="utf-8")))
    line = files.pop("fastgan/ops/__init__.py")
    package = tmp_path / "fastgan" / "ops" / "__init__.py"
    package.write_text(package.read_text(encoding="utf-8").replace("\n_library.load", f"\n{line}\n_library.load", 1))
    assert line in package.read_text(encoding="utf-8")
    for name, text in files.items():
        assert not (ROOT / name).exists(), f"{name} is in the repository already: the page needs another example"
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "level.cpp").write_text(LEVEL, encoding="utf-8")
    includes = [f"-I{tmp_path / 'csrc'}", *(f"-isystem{p}" for p in (*include_paths(), sysconfig.get_path("include")))]
    sources = [tmp_path / "csrc" / "cpu" / "soft_clip.cpp", tmp_path / "level.cpp"]
    link = [*(f"-L{path}" for path in library_paths()), "-ltorch_cpu", "-o", tmp_path / "soft_clip.so"]
    subprocess.run(["g++", *FLAGS.split(), *includes, *sources, *link], check=True)
    (tmp_path / "load_soft_clip.py").write_text(
        f"import torch\ntorch.ops.load_library({str(tmp_path / 'soft_clip.so')!r})\n"
    )
    paths = os.pathsep.join(map(str, (tmp_path, tmp_path / "tests")))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "load_soft_clip", "-c", os.devnull]
    command += ["--rootdir", tmp_path, "--import-mode=importlib", tmp_path / "tests" / "ops" / "test_soft_clip.py"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0 and "22 passed" in done.stdout, done.stdout + done.stderr
