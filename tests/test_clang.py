"""The CPU kernels in clang, the compiler of macOS: GCC's own extensions must not be all there is, at any level."""

import platform
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
    path = ROOT / "csrc" / "cpu" / source
    includes = [f"-isystem{path}" for path in (*include_paths(), sysconfig.get_path("include"))]
    options = ["-std=c++20", "-O1", "-w", "-fopenmp-simd", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    command = ["clang++", *options, f"-I{ROOT / 'csrc'}", *includes, "-c", str(path), "-o", str(tmp_path / "out.o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if platform.machine() == "x86_64" and "FASTGAN_KERNEL" in path.read_text(encoding="utf-8"):
        code = subprocess.run(["objdump", "-d", str(tmp_path / "out.o")], capture_output=True, text=True, check=True)
        assert "%ymm" in code.stdout and "%zmm" in code.stdout
