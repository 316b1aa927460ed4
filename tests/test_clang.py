"""The CPU kernels in clang, the compiler of macOS: GCC's own extensions must not be all there is."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not shutil.which("clang++"), reason="needs clang++")
@pytest.mark.parametrize("source", sorted(p.name for p in (ROOT / "csrc" / "cpu").glob("*.cpp")))
def test_compiles(source, tmp_path):
    includes = [f"-isystem{path}" for path in (*include_paths(), sysconfig.get_path("include"))]
    options = ["-std=c++20", "-w", "-fopenmp-simd", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    command = ["clang++", *options, f"-I{ROOT / 'csrc'}", *includes, "-c", str(ROOT / "csrc" / "cpu" / source)]
    done = subprocess.run([*command, "-o", str(tmp_path / "out.o")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
