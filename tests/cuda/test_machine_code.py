"""The CUDA kernels as machine code for sm_80, sm_90 and sm_100, compiled here without a GPU: no spills, no local memory, and
128-bit global loads and stores where the tensors are contiguous and 16-byte aligned."""

import concurrent.futures
import functools
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from cuda_emulation import emulated

ARCHS = (80, 90, 100)
BOTH = ("LDG", "STG")
# What each kernel must load and store in 128 bits. Kernels that only finish sums are not listed; scalar ones are <.., 1, ..>.
WIDE = {
    "upfirdn2d": {"tile_kernel": BOTH, "direct_kernel": BOTH},
    "upfirdn2d_mma": {"mma_kernel": ("STG",), "mma_pixels_kernel": ("LDGSTS", "STG")},
    "upfirdn2d_stream": {"stream_kernel": ("LDG",)},
    "upfirdn2d_filter": {},
    "upfirdn2d_separable": {},  # its rows begin at multiples of 4 bytes
    "filtered_lrelu": {"filtered_lrelu_kernel": BOTH},
    "filtered_lrelu_mma": {},  # its rows begin at multiples of 4 bytes
    "filtered_lrelu_stream": {"stream_kernel": ("LDG",)},
    "filtered_snake": {"forward_kernel": BOTH, "backward_kernel": BOTH},
    "filtered_snake_mma": {"mma_kernel": BOTH},
    "filtered_snake_mma_backward": {"mma_backward_kernel": ("LDGSTS", "STG")},
    "filtered_snake_packs": {"forward_kernel": BOTH, "backward_kernel": BOTH},
    "modulated_conv2d": {
        "weight_kernel": BOTH,
        "sums_kernel": ("LDG",),
        "weight_gradient_kernel": BOTH,
        "squares_kernel": ("LDG",),
    },
}
SCALAR = re.compile(r"direct_kernelI.*Li1E[il]E")
MOST_REGISTERS = 128  # of 128 threads: four blocks on an SM


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def tool(name: str) -> str:
    """A tool of the CUDA toolkit, or the one that the triton wheel brings."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(nvcc()).parent))
    triton = importlib.util.find_spec("triton")
    return found or str(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / name)


pytestmark = pytest.mark.skipif(nvcc() is None, reason="nvcc is not installed")


def compile_for(source: Path, arch: int) -> Path:
    include = Path(torch.__file__).parent / "include"
    flags = [
        "-O3",
        "-std=c++20",
        "-DUSE_CUDA",
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
        f"-arch=sm_{arch}",
        "-cubin",
    ]
    cubin = emulated.cache() / f"{source.stem}-{arch}-{emulated.fingerprint(nvcc(), flags, source.read_bytes())}.cubin"
    if not cubin.exists():
        partial = cubin.with_suffix(f".{os.getpid()}.part")
        command = [nvcc(), *flags, f"-I{emulated.CSRC}", f"-I{include}", source, "-o", partial]
        subprocess.run(command, check=True, capture_output=True)
        partial.replace(cubin)
    return cubin


@functools.cache
def cubins() -> dict[tuple[str, int], concurrent.futures.Future]:
    pool = concurrent.futures.ThreadPoolExecutor(2)
    return {(s.stem, arch): pool.submit(compile_for, s, arch) for s in emulated.kernels() for arch in ARCHS}


def per_kernel(text: str, header: str) -> dict[str, str]:
    """The parts of a listing by the kernel that `header` names."""
    parts = re.split(header, text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def faults(name: str, usage: str, code: str, wide: tuple[str, ...]) -> list[str]:
    figures = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    found = [f"{key} {figures[key]}" for key in ("STACK", "LOCAL") if figures[key]]
    if figures["REG"] > MOST_REGISTERS:
        found.append(f"{figures['REG']} registers")
    if local := re.search(r"\b(LDL|STL)\b.*", code):
        found.append(local.group())
    found += [f"no 128-bit {access}" for access in wide if not re.search(rf"\b{access}\.E[.\w]*\.128\b", code)]
    return [f"{name}: {fault}" for fault in found]


def inspect(cubin: Path, wide: dict[str, tuple[str, ...]]) -> tuple[int, list[str]]:
    """(kernels, their faults)"""
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
    usages = per_kernel(run([tool("cuobjdump"), "-res-usage", cubin]).stdout, r"Function (\w+):")
    codes = per_kernel(run([tool("nvdisasm"), "-c", cubin]).stdout, r"\.section\s+\.text\.(\w+),")
    assert usages and usages.keys() == codes.keys()
    result = []
    for name, usage in usages.items():
        (needed,) = [w for kernel, w in wide.items() if re.search(rf"\d{kernel}I", name)] or [()]
        result += faults(name, usage, codes[name], () if SCALAR.search(name) else needed)
    return len(usages), result


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", [s.stem for s in emulated.kernels()])
def test_machine_code(source, arch):
    kernels, found = inspect(cubins()[source, arch].result(), WIDE[source])
    assert kernels and not found


def test_the_gate_can_fail(tmp_path):
    source = tmp_path / "bad.cu"
    source.write_text(
        """
template <class T> __global__ void tile_kernel(const T* x, T* y, int n, int pick) {
  T local[64];
  for (int i = 0; i < 64; ++i) local[i] = x[i * n];
  for (int i = 0; i < n; ++i) local[(i * pick) & 63] += 1;
  for (int i = 0; i < 64; ++i) y[i * n] = local[i];
}
template __global__ void tile_kernel<float>(const float*, float*, int, int);
"""
    )
    _, found = inspect(compile_for(source, 90), {"tile_kernel": BOTH})
    for fault in ("STACK", "STL", "no 128-bit LDG", "no 128-bit STG"):
        assert any(fault in f for f in found), found
