"""Builds the compiled kernels: fastgan._C (CPU) and fastgan._C_cuda (for the GPUs of this machine), for every Python and torch.

Without a C++ compiler the package installs with its pure-PyTorch references; FASTGAN_REQUIRE_EXT=1 makes that an error.
CUDA kernels need nvcc. FASTGAN_CUDA=auto (the default) builds them for the GPUs that are here, or for TORCH_CUDA_ARCH_LIST where
that is set; FASTGAN_CUDA=1 without either builds them for every GPU since Ampere (wheels); FASTGAN_CUDA=0 leaves them out.
What was built, and why the rest was not, stays in fastgan/_build.json, for `fastgan info`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
WINDOWS = sys.platform == "win32"
REQUIRE = os.environ.get("FASTGAN_REQUIRE_EXT", "0") == "1"
DEFAULT_CUDA_ARCHS = "8.0;8.6;8.9;9.0;10.0;12.0+PTX"
# LibTorch stable ABI of 2.10: one build runs on every later torch.
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
# FASTGAN_MANYLINUX=1, for wheels: these calls go to csrc/manylinux.cpp, which binds them to versions that glibc 2.28 has.
MANYLINUX = ("exp", "exp2", "log", "log2", "dlsym") if os.environ.get("FASTGAN_MANYLINUX") == "1" else ()
BUILT: dict[str, str] = {}  # library: "" if it was built, else why not

# torch takes the folder above `nvcc` for the toolkit; where that is a wrapper, the libraries are elsewhere.
if "CUDA_HOME" not in os.environ and Path("/usr/local/cuda/bin/nvcc").exists():
    os.environ["CUDA_HOME"] = "/usr/local/cuda"


def say(text):
    print(f"fastgan build: {text}", file=sys.stderr, flush=True)


def sources(pattern):
    return sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").glob(pattern))


def by_work(paths):
    """The files of an op that is the most text take the longest to compile: first, so that none of the cores waits for them."""
    text = {path: sum(p.stat().st_size for p in Path(path).parent.glob(f"{Path(path).stem}*")) for path in paths}
    return sorted(paths, key=text.__getitem__, reverse=True)


def missing_compiler():
    """Why there is none; None if there is. The kernels use the vectors of GCC and clang, which Microsoft's cl does not know."""
    if WINDOWS and "CXX" not in os.environ and shutil.which("clang-cl"):
        os.environ["CXX"] = "clang-cl"  # what torch's build then calls
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["clang-cl"] if WINDOWS else ["c++", "g++"]
    return None if any(map(shutil.which, compilers)) else f"no C++ compiler (no {' or '.join(compilers)} on PATH)"


def cxx_flags():
    # No trapping math lets GCC turn a leaky ReLU into a blend; -fopenmp-simd honours `omp simd` without a runtime.
    maths = ["-fno-trapping-math", "-fno-math-errno", "-fopenmp-simd"]
    if WINDOWS:
        return ["/O2", "/std:c++20", "/W3", "/EHsc", *(f"/clang:{flag}" for flag in ["-O3", *maths])]
    # -g0: with the debug information that Python asks for, the library has 43 MB instead of 7.
    flags = ["-O3", "-g0", "-std=c++20", *maths, "-fvisibility=hidden", "-Wall"]
    # Vectors pass between functions of one file and one instruction set alone.
    flags += ["-Wno-psabi"]
    version = subprocess.run(
        [*os.environ.get("CXX", "c++").split(), "--version"], capture_output=True, text=True
    ).stdout
    # clang warns of each loop that `omp simd` does not vectorise; GCC 12 of its own half-precision intrinsics.
    return flags + (["-Wno-pass-failed"] if "clang" in version else ["-Wno-uninitialized", "-Wno-maybe-uninitialized"])


def precompile(extension, usual, folder):
    """torch's headers once for all files: they cost each 2.4 s otherwise."""
    compiler = os.environ.get("CXX", "c++").split()
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    if "Free Software Foundation" not in version:
        return  # clang asks for the file by another option
    from torch.utils.cpp_extension import include_paths

    # Without it ccache keeps nothing that uses such a file.
    os.environ.setdefault("CCACHE_SLOPPINESS", "pch_defines,time_macros")
    folder = (ROOT / folder / "precompiled").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / "precompiled.h"
    header.write_text('#include "check.h"\n', encoding="utf-8")
    flags = [*usual, *extension.extra_compile_args["cxx"], "-DTORCH_API_INCLUDE_EXTENSION_H"]
    includes = [f"-I{path}" for path in [*extension.include_dirs, *include_paths()]]
    target = header.with_suffix(".h.gch")
    subprocess.run([*compiler, *flags, *includes, "-x", "c++-header", header, "-o", target], check=True)
    extension.extra_compile_args["cxx"].extend(["-include", str(header)])


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
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    found = CUDA_HOME and shutil.which("nvcc", path=str(Path(CUDA_HOME) / "bin"), mode=os.F_OK)
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
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    headers = sources("**/*.h")  # named, so that an sdist holds them and a change of one rebuilds
    module = ["csrc/module.cpp", *(["csrc/manylinux.cpp"] if MANYLINUX else [])]
    shared = {
        "include_dirs": [str(ROOT / "csrc")],
        "depends": headers,
        "py_limited_api": True,
        "extra_link_args": [f"-Wl,--wrap={name}" for name in MANYLINUX],
    }
    cxx = [*cxx_flags(), *STABLE_ABI]
    found = [
        CppExtension(
            "fastgan._C",
            [*module, *sources("cpu/*.cpp"), *sources("text/*.cpp")],
            extra_compile_args={"cxx": cxx},
            **shared,
        )
    ]
    say(f"CPU kernels: yes ({len(found[0].sources)} files; portable, AVX2 and AVX-512 in one library)")
    if cuda:
        archs = os.environ["TORCH_CUDA_ARCH_LIST"]
        nvcc = ["-O3", "-std=c++20", "-DUSE_CUDA", *STABLE_ABI, f'-DFASTGAN_ARCHS="{archs}"']
        found.append(
            CUDAExtension(
                "fastgan._C_cuda",
                [*module, *sources("cuda/*.cu")],
                extra_compile_args={"cxx": [*cxx, "-DFASTGAN_MODULE=PyInit__C_cuda"], "nvcc": nvcc},
                **shared,
            )
        )
    BUILT["_C_cuda"] = "" if cuda else why
    say(f"CUDA kernels: {'yes' if cuda else 'no'} ({why})")
    return found


def write_record(package):
    """package: the folder of fastgan that was built."""
    (package / "_build.json").write_text(json.dumps(BUILT, indent=1) + "\n", encoding="utf-8")


class BuildPython(build_py):
    """Writes the record of a package without extensions, for which build_ext is not run."""

    def run(self):
        super().run()
        write_record((ROOT if self.editable_mode else Path(self.build_lib)) / "fastgan")


def optional(base):
    """A failed compilation leaves the pure-Python package, loudly, unless FASTGAN_REQUIRE_EXT=1."""

    class Build(base.with_options(use_ninja=shutil.which("ninja") is not None)):
        def run(self):
            super().run()
            write_record(Path(self.get_ext_fullpath("fastgan._C")).parent)

        def build_extension(self, extension):
            compile_all = self.compiler.compile  # setuptools hands it the files by name
            self.compiler.compile = lambda files, *given, **named: compile_all(by_work(files), *given, **named)
            try:
                if extension.name == "fastgan._C" and not WINDOWS:
                    precompile(extension, self.compiler.compiler_so[1:], Path(self.build_temp))
                super().build_extension(extension)
                BUILT[extension.name.split(".")[1]] = ""
            except Exception as error:
                if REQUIRE:
                    raise
                BUILT[extension.name.split(".")[1]] = f"its compilation failed: {error}"
                say(f"{extension.name} failed to build and is left out: {error}")
                extension.optional = True
            finally:
                self.compiler.compile = compile_all

    return Build


def build_arguments():
    reason = missing_compiler()
    try:
        if reason is None:
            from torch.utils.cpp_extension import BuildExtension

            options = {"bdist_wheel": {"py_limited_api": "cp310"}}
            return {
                "ext_modules": extensions(),
                "cmdclass": {"build_ext": optional(BuildExtension)},
                "options": options,
            }
    except ImportError as error:
        reason = f"{error} (pip install torch ninja, or build with pip's default isolation)"
    if REQUIRE:
        sys.exit(f"fastgan build: FASTGAN_REQUIRE_EXT=1, but {reason}")
    BUILT.update(_C=reason, _C_cuda=reason)
    say(f"no compiled kernels: {reason}. Every op works through its pure-PyTorch reference.")
    return {"ext_modules": [], "cmdclass": {"build_py": BuildPython}}


setup(**build_arguments())
