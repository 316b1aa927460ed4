"""What setup.py decides to build (with an nvcc that is not run, on a machine without GPU), and what it packs."""

import os
import re
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import setuptools
import torch

import fastgan

ROOT = Path(__file__).parents[1]
EVERY = "8.0;8.6;8.9;9.0;10.0;12.0+PTX"
CHOICES = {  # environment, what is said
    "no GPU": ({}, "no (no GPU here; FASTGAN_CUDA=1 "),
    "asked for": ({"FASTGAN_CUDA": "1"}, f"yes (nvcc in {{home}}, torch {torch.__version__}, archs {EVERY})"),
    "architectures": ({"TORCH_CUDA_ARCH_LIST": "8.6"}, f"yes (nvcc in {{home}}, torch {torch.__version__}, archs 8.6)"),
    "refused": ({"FASTGAN_CUDA": "0", "TORCH_CUDA_ARCH_LIST": "8.6"}, "no (FASTGAN_CUDA=0)"),
}


@pytest.mark.skipif(torch.version.cuda is None, reason="torch is a CPU build")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU that is here is built for")
@pytest.mark.parametrize("case", CHOICES)
def test_cuda_kernels_are_built_where_there_is_a_gpu_or_they_are_asked_for(case, tmp_path):
    environment, said = CHOICES[case]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch()
    kept = {k: v for k, v in os.environ.items() if k not in ("FASTGAN_CUDA", "TORCH_CUDA_ARCH_LIST")}
    command = [sys.executable, "setup.py", "--version"]
    environment = {**kept, "CUDA_HOME": str(tmp_path), **environment}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert f"fastgan build: CUDA kernels: {said.format(home=tmp_path)}" in done.stderr


def test_the_sdist_has_all_that_is_built_and_tested(tmp_path):
    """Also what this machine would not build: CUDA kernels, csrc/manylinux.cpp. `.ci/packaging` builds from it alone."""
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, env={**os.environ, "FASTGAN_CUDA": "0"}
    )
    (archive,) = tmp_path.glob("fastgan-*.tar.gz")
    with tarfile.open(archive) as file:
        held = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    kept = [path for folder in ("csrc", "fastgan", "tests") for path in (ROOT / folder).rglob("*") if path.is_file()]
    built = {".pyc", ".so", ".pyd", ".o"}
    wanted = {
        path.relative_to(ROOT).as_posix() for path in kept if path.suffix not in built and path.name != "_build.json"
    }
    assert wanted - held == set()


def test_the_files_that_take_longest_are_compiled_first(monkeypatch):
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setenv("FASTGAN_CUDA", "0")
    monkeypatch.setenv("CXX", sys.executable)  # no GCC: no headers are compiled beforehand
    given = []

    class Base:
        compiler = SimpleNamespace(compiler_so=["c++"], compile=lambda files, **_: given.extend(files))
        build_temp = ""
        with_options = classmethod(lambda cls, **_: cls)

        def build_extension(self, extension):  # as setuptools does
            self.compiler.compile(sorted(extension.sources), output_dir="")

    sources = [str(path) for path in (ROOT / "csrc" / "cpu").glob("*.cpp")]
    build = runpy.run_path(str(ROOT / "setup.py"))["optional"](Base)()
    build.build_extension(SimpleNamespace(name="fastgan._C", sources=sources))
    assert sorted(given) == sorted(sources)
    names = [Path(path).stem for path in given]
    assert names[0] == "filtered_lrelu"
    assert names.index("upfirdn2d") < names.index("bias_act") < names.index("gumbel_softmax") < names.index("build")


def test_one_version_everywhere():
    version = fastgan.__version__
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"version {version}, 20" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {version}\b", (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8"), re.MULTILINE)
