"""`fastgan info`: always exit code 0, every op named, and the reason where a kernel is not loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastgan.ops
from fastgan import info as report_of
from fastgan.ops import _library

# Without the finder of an editable installation, which would supply the compiled libraries that a copy lacks.
ALONE = """
import runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
runpy.run_module("fastgan", run_name="__main__")
"""


def info(folder=None, **environment) -> str:
    start = ["-c", ALONE] if folder else ["-m", "fastgan"]
    command, environment = [sys.executable, *start, "info"], {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_every_op_and_version():
    text = info()
    for name in (
        *fastgan.ops.available(),
        "torch ",
        "CPU ",
        "GPU ",
        "fastgan._C ",
        "fastgan._C_cuda ",
    ):
        assert name in text


def test_says_why_a_kernel_is_missing():
    text = info(FASTGAN_DISABLE_EXT="1")
    assert "not loaded: FASTGAN_DISABLE_EXT=1" in text
    (line,) = [line for line in text.splitlines() if line.startswith("cpp not loaded for ")]
    assert "bias_act" in line and line.endswith("FASTGAN_DISABLE_EXT=1")


@pytest.fixture
def pure(tmp_path):
    """A copy of the package without compiled libraries, as the record of its build explains it."""
    package = tmp_path / "fastgan"
    source = Path(fastgan.__file__).parent
    for file in source.rglob("*.py"):
        (package / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (package / file.relative_to(source)).write_bytes(file.read_bytes())
    return package


def test_says_why_nothing_was_compiled_and_how_to_get_it(pure):
    why = {"_C": "no C++ compiler (no c++ or g++ on PATH)", "_C_cuda": "no GPU here"}
    (pure / "_build.json").write_text(json.dumps(why))
    text = info(pure.parent, PYTHONPATH=str(pure.parent))
    assert str(pure) in text
    assert "fastgan._C      not loaded: not compiled at installation: no C++ compiler (no c++ or g++ on PATH)" in text
    assert "CPU kernels: install a C++20 compiler (g++ or clang++), then pip install" in text
    if torch.version.cuda:
        assert "fastgan._C_cuda not loaded: not compiled at installation: no GPU here" in text
        assert f"CUDA kernels: install nvcc of CUDA {torch.version.cuda}, then FASTGAN_CUDA=1 pip install" in text


@pytest.mark.parametrize("record", [None, "", "[]", "{}"])
def test_an_installation_without_a_record_is_no_error(record, pure):
    if record is not None:
        (pure / "_build.json").write_text(record)
    text = info(pure.parent, PYTHONPATH=str(pure.parent))
    assert "fastgan._C      not loaded: not compiled at installation\n" in text


def test_says_nothing_of_how_where_nothing_is_missing(monkeypatch):
    monkeypatch.setattr(_library._STATE, "failures", {})
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert report_of._how_to_get_them() == []


def test_a_torch_without_cuda_is_named_first(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert any("install a CUDA build of torch" in line for line in report_of._how_to_get_them())


def test_a_lower_level_can_be_asked_for():
    assert "level portable" in info(FASTGAN_CPU_LEVEL="portable")


def test_a_reader_that_leaves_gets_no_traceback():
    command = [sys.executable, "-m", "fastgan", "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 1
