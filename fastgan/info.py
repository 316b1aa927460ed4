"""What `fastgan info` prints: versions, how the kernels were built, and what each op runs on here, with the reason."""

import importlib.metadata
import os
import platform

import torch

import fastgan
from fastgan.ops import _library, available

_PACKAGES = ("torch", "torchvision", "triton", "numpy", "tyro", "tensorboard", "safetensors", "pillow")
_IMPLS = ("reference", "cpp", "cuda", "triton")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_kernels() -> str:
    if failure := _library.failure("_C"):
        return f"not loaded: {failure}"
    level = torch.ops.fastgan.cpu_level("")
    return f"built by {torch.ops.fastgan.compiler()}; level {level} (FASTGAN_CPU_LEVEL asks for a lower one)"


def _cuda_kernels() -> str:
    if failure := _library.failure("_C_cuda"):
        return f"not loaded: {failure}"
    return f"built for {torch.ops.fastgan.cuda_archs()}"


def _how_to_get_them() -> list[str]:
    """What brings the compiled libraries that are not there."""
    install = "pip install -v --force-reinstall --no-deps . (in a clone of fastgan)"
    absent = [name for name in ("_C", "_C_cuda") if (_library.failure(name) or "").startswith(_library.NOT_COMPILED)]
    lines = []
    if "_C" in absent:
        lines.append(f"CPU kernels: install a C++20 compiler (g++ or clang++), then {install}")
    if torch.version.cuda is None:
        lines.append("GPU kernels: install a CUDA build of torch, https://pytorch.org/get-started/locally")
    elif "_C_cuda" in absent:
        lines.append(f"CUDA kernels: install nvcc of CUDA {torch.version.cuda}, then FASTGAN_CUDA=1 {install};")
        lines.append("with TORCH_CUDA_ARCH_LIST=9.0 they are built for one kind of GPU, in a part of the time")
    return ["", "How to get what is not there:", *lines] if lines else []


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none" if torch.version.cuda else "none (torch is a CPU build)"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def report() -> str:
    """The text of `fastgan info`: a line per fact, then a row per op with a column per implementation, then why each
    implementation that exists is not loaded here and what to do about it. Never raises for something that is missing."""
    facts = {
        "fastgan": f"{fastgan.__version__}  ({os.path.dirname(fastgan.__file__)})",
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        **{package: _version(package) for package in _PACKAGES},
        "CPU": f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        "GPU": _gpus(),
        "fastgan._C": _cpu_kernels(),
        "fastgan._C_cuda": _cuda_kernels(),
    }
    lines = [f"{name:16}{value}" for name, value in facts.items()]

    ops = available()
    width = max(map(len, ops)) + 2
    lines += ["", " " * width + "".join(f"{impl:11}" for impl in _IMPLS)]
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, impls in ops.items():
        row = ""
        for impl in _IMPLS:
            state = impls.get(impl)
            row += f"{'-' if state is None else 'yes' if state else 'no':11}"
            if state is not None and not state:
                reasons.setdefault((impl, state.reason), []).append(name)
        lines.append(f"{name:{width}}{row}".rstrip())
    lines += ["", "- : the op has no such kernel; every op always has its PyTorch reference"]
    lines += [f"{impl} not loaded for {', '.join(names)}: {reason}" for (impl, reason), names in reasons.items()]
    lines += _how_to_get_them()
    return "\n".join(lines)
