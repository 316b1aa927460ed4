"""Builds the compiled kernels: fastgan._C (CPU), fastgan._C_cuda (for the GPUs of this machine) and fastgan._text (pybind11).

Without a C++ compiler the package installs with its pure-PyTorch references; FASTGAN_REQUIRE_EXT=1 makes that an error.
CUDA kernels need nvcc. FASTGAN_CUDA=auto (the default) builds them for the GPUs that are here, or for TORCH_CUDA_ARCH_LIST where
that is set; FASTGAN_CUDA=1 without either builds them for every GPU since Ampere (wheels); FASTGAN_CUDA=0 leaves them out.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
REQUIRE = os.environ.get("FASTGAN_REQUIRE_EXT", "0") == "1"
DEFAULT_CUDA_ARCHS = "8.0;8.6;8.9;9.0;10.0;12.0+PTX"
# LibTorch stable ABI of 2.10: one build runs on every later torch.
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPy_LIMITED_API=0x030a0000"]
# -fno-trapping-math lets GCC turn a leaky ReLU into a blend; -fopenmp-simd honours `omp simd` without a runtime.
# -g0: with the debug information that Python asks for, the library has 43 MB instead of 7.
CXX = [
    "-O3",
    "-g0",
    "-std=c++20",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-fopenmp-simd",
    "-fvisibility=hidden",
    "-Wall",
]
# GCC 12 warns about its own half-precision intrinsics.
CXX += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
# Vectors pass between functions of one file and one instruction set alone.
CXX += ["-Wno-psabi"]


# torch takes the folder above `nvcc` for the toolkit; where that is a wrapper, the libraries are elsewhere.
if "CUDA_HOME" not in os.environ and Path("/usr/local/cuda/bin/nvcc").exists():
    os.environ["CUDA_HOME"] = "/usr/local/cuda"


def say(text):
    print(f"fastgan build: {text}", file=sys.stderr, flush=True)


def sources(pattern):
    return sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").glob(pattern))


def missing_compiler():
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++"]
    return None if any(map(shutil.which, compilers)) else f"no C++ compiler (no {' or '.join(compilers)} on PATH)"


def cuda_archs(wanted):
    """What to compile CUDA kernels for: what was asked for, else the GPUs that are here, else all if `wanted` is "1"."""
    import torch

    if archs := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return archs
    here = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return ";".join(f"{major}.{minor}" for major, minor in sorted(here)) or (
        DEFAULT_CUDA_ARCHS if wanted == "1" else ""
    )


def cuda_choice():
    """(build CUDA kernels?, why)"""
    wanted = os.environ.get("FASTGAN_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"fastgan build: FASTGAN_CUDA={wanted!r}: expected auto, 0 or 1")
    if wanted == "0":
        return False, "FASTGAN_CUDA=0"
    if not sources("cuda/*.cu"):
        return False, "no CUDA sources"
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    found = CUDA_HOME and (Path(CUDA_HOME) / "bin" / "nvcc").exists()
    if not found:
        reason = "nvcc not found (install the CUDA toolkit or set CUDA_HOME)"
    elif torch.version.cuda is None:
        reason = f"torch {torch.__version__} of the build environment is a CPU build"
    elif archs := cuda_archs(wanted):
        os.environ["TORCH_CUDA_ARCH_LIST"] = archs
        return True, f"nvcc in {CUDA_HOME}, torch {torch.__version__}, archs {archs}"
    else:
        return False, "no GPU here; FASTGAN_CUDA=1 or TORCH_CUDA_ARCH_LIST=9.0 builds them all the same"
    if wanted == "1":
        sys.exit(f"fastgan build: FASTGAN_CUDA=1, but {reason}")
    return False, reason


def extensions():
    cuda, why = cuda_choice()
    from pybind11.setup_helpers import Pybind11Extension
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    headers = sources("**/*.h")  # named, so that an sdist holds them and a change of one rebuilds
    found = [
        CppExtension(
            "fastgan._C",
            ["csrc/module.cpp", *sources("cpu/*.cpp")],
            include_dirs=[str(ROOT / "csrc")],
            depends=headers,
            extra_compile_args={"cxx": [*CXX, *STABLE_ABI]},
            py_limited_api=True,
        )
    ]
    say(f"CPU kernels: yes ({len(found[0].sources) - 1} files; portable, AVX2 and AVX-512 in one library)")
    if cuda:
        archs = os.environ["TORCH_CUDA_ARCH_LIST"]
        found.append(
            CUDAExtension(
                "fastgan._C_cuda",
                ["csrc/module.cpp", *sources("cuda/*.cu")],
                include_dirs=[str(ROOT / "csrc")],
                depends=headers,
                extra_compile_args={
                    "cxx": [*CXX, *STABLE_ABI, "-DFASTGAN_MODULE=PyInit__C_cuda"],
                    "nvcc": [
                        "-O3",
                        "-std=c++20",
                        "-DUSE_CUDA",
                        *STABLE_ABI,
                        f'-DFASTGAN_ARCHS="{archs}"',
                    ],
                },
                py_limited_api=True,
            )
        )
    say(f"CUDA kernels: {'yes' if cuda else 'no'} ({why})")
    if sources("text/*.cpp"):
        found.append(Pybind11Extension("fastgan._text", sources("text/*.cpp"), cxx_std=17, extra_compile_args=["-O3"]))
        say("text metrics: yes (pybind11)")
    return found


def build_arguments():
    reason = missing_compiler()
    try:
        if reason is None:
            from torch.utils.cpp_extension import BuildExtension

            return {"ext_modules": extensions(), "cmdclass": {"build_ext": optional(BuildExtension)}}
    except ImportError as error:
        reason = f"{error} (pip install torch ninja pybind11, or build with pip's default isolation)"
    if REQUIRE:
        sys.exit(f"fastgan build: FASTGAN_REQUIRE_EXT=1, but {reason}")
    say(f"no compiled kernels: {reason}. Every op works through its pure-PyTorch reference.")
    return {"ext_modules": []}


def optional(base):
    """A failed compilation leaves the pure-Python package, loudly, unless FASTGAN_REQUIRE_EXT=1."""

    class Build(base.with_options(use_ninja=shutil.which("ninja") is not None)):
        def build_extension(self, extension: Extension):
            try:
                super().build_extension(extension)
            except Exception as error:
                if REQUIRE:
                    raise
                say(f"{extension.name} failed to build and is left out: {error}")
                extension.optional = True

    return Build


setup(**build_arguments())
