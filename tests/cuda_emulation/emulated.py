"""Builds csrc/cuda with g++ against the emulated CUDA runtime beside this file, and loads it: its kernels then run on CPU
tensors as impl="cuda", and as torch.ops.fastgan_cuda.*.

Objects are cached by the hash of all that goes into them, under $XDG_CACHE_HOME/fastgan (default ~/.cache/fastgan).
"""

import hashlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from fastgan.ops import _library

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
NAMESPACE = "fastgan_cuda"
FLAGS = [
    "-x",
    "c++",
    "-std=c++20",
    "-O2",
    "-fPIC",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-clobbered",
    "-Wno-volatile",
    "-Wno-maybe-uninitialized",
    "-fvisibility=hidden",
]
FLAGS += ["-DTORCH_TARGET_VERSION=0x020a000000000000", f"-DFASTGAN_NAMESPACE={NAMESPACE}", "-DFASTGAN_DISPATCH_KEY=CPU"]
# OS threads instead of fibers where a sanitizer is to see them. "banks" is none: kernels say each access to banks.cpp.
SANITIZE = {
    None: [],
    "banks": [
        "-O1",
        "-fsanitize=kernel-address",
        *(f"--param=asan-{name}=0" for name in ("instrumentation-with-call-threshold", "stack", "globals")),
        "-DFASTGAN_EMULATION_BANKS",
    ],
    "address": ["-g", "-O1", "-fsanitize=address", "-DFASTGAN_EMULATION_THREADS"],
    "thread": ["-g", "-O1", "-fsanitize=thread", "-DFASTGAN_EMULATION_THREADS"],
}


def kernels() -> list[Path]:
    """The CUDA sources of the package; build.cu has no kernel."""
    return sorted(p for p in (CSRC / "cuda").glob("*.cu") if p.stem != "build")


def cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fastgan"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fingerprint(*parts: object) -> str:
    """A hash of the given things, of every header a CUDA source may include, and of torch's version."""
    headers = [*CSRC.glob("*.h"), *(CSRC / "cuda").glob("*.h")]
    digest = hashlib.sha256(repr((torch.__version__, *parts)).encode())
    for path in sorted(headers):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def compiler() -> str | None:
    """g++, which this emulation is written for; None where there is none."""
    return shutil.which("g++")


def build(sources: list[Path], sanitize: str | None = None) -> Path:
    """The shared library of `sources`, emulated; sanitize: None, "address", "thread" or "banks"."""
    include = Path(torch.__file__).parent / "include"
    flags = [*FLAGS, *SANITIZE[sanitize], *(f"-I{d}" for d in (HERE, CSRC, include))]
    runtime = (HERE / "cuda_runtime.h").read_bytes()
    if sanitize == "banks":
        sources = [*sources, HERE / "banks.cpp"]
    objects = [cache() / f"{s.stem}-{fingerprint(flags, runtime, s.read_bytes())}.o" for s in sources]

    def compile_one(source: Path, target: Path) -> None:
        if not target.exists():
            partial = target.with_suffix(f".{os.getpid()}.part")
            without = ["-fno-sanitize=all"] if source.stem == "banks" else []
            subprocess.run([compiler(), *flags, *without, "-c", source, "-o", partial], check=True)
            partial.replace(target)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources, objects))
    library = cache() / f"emulated-{hashlib.sha256(repr(objects).encode()).hexdigest()[:20]}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}.part")
        link = [
            compiler(),
            "-shared",
            *objects,
            "-o",
            partial,
            f"-L{include.parent / 'lib'}",
            "-ltorch_cpu",
            "-lpthread",
        ]
        subprocess.run(link + (["-fsanitize=" + sanitize] if sanitize in ("address", "thread") else []), check=True)
        partial.replace(library)
    return library


def load(sources: list[Path] | None = None, sanitize: str | None = None) -> None:
    """Makes impl="cuda" run on CPU tensors in this process."""
    _library.twin(NAMESPACE, tuple(name for name, op in _library._STATE.ops.items() if "cuda" in op.kernels))
    torch.ops.load_library(build(kernels() if sources is None else sources, sanitize))


def kernels_of(library: Path) -> dict[int, str]:
    """{where it begins: name} of every kernel in `library`, each of its forms (element types, factors, taps) by itself."""
    listed = subprocess.check_output(["nm", "-C", "--defined-only", library], text=True)
    listed = listed.replace("(anonymous namespace)::", "")
    symbols = re.findall(
        r"^([0-9a-f]+) [tTwW] void fastgan::([\w:]+_kernel<.*?>)\((?!.*(?:lambda|clone)).*$", listed, re.M
    )
    return {int(at, 16): name for at, name in symbols}


def sanitized_environment(sanitize: str) -> dict[str, str]:
    """Environment variables under which a Python process can load a library built with `sanitize`."""
    runtime = subprocess.check_output([compiler(), f"-print-file-name=lib{sanitize[0]}san.so"], text=True).strip()
    preload = {} if sanitize == "banks" else {"LD_PRELOAD": os.path.realpath(runtime)}
    return os.environ | {
        **preload,
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:report_signal_unsafe=0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
