"""Triton kernels for CUDA tensors. `load()` registers them without importing triton, which happens at the first launch.

With TRITON_INTERPRET=1 in the environment when fastgan is imported, the same kernels run interpreted on CPU tensors as
`impl="triton"`: that is how the tests execute them without a GPU.
"""

import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable

import torch

from fastgan.ops import _library

INTERPRETED = "fastgan_triton"
MODULES = {
    "bias_act": ("bias_act", "bias_act_backward"),
    "grad_penalty": ("grad_penalty", "grad_penalty_backward"),
    "gumbel_softmax": ("gumbel_softmax",),
    "modulate": ("modulate", "modulate_backward"),
    "modulated_activation": ("modulated_activation", "modulated_activation_backward"),
    "norm_act": ("norm_act", "norm_act_backward"),
}


def load() -> None:
    """Registers every kernel of `MODULES`, or records why not."""
    if importlib.util.find_spec("triton") is None:
        _library.record_failure("triton", "triton is not installed")
        return
    if torch.version.cuda is not None:
        _library.probe("triton", why_not)
        for module, names in MODULES.items():
            for name in names:
                launcher = _launcher(module, name, else_reference=True)
                _library.implement(name, launcher, "CUDA", check=_check(module, name))
    if os.environ.get("TRITON_INTERPRET") == "1":
        register_for_cpu()


def register_for_cpu() -> None:
    """Makes `impl="triton"` call the launchers on CPU tensors: interpreted, or under the driver of tests/triton_stub.py."""
    _library.twin(INTERPRETED, tuple(name for names in MODULES.values() for name in names))
    for module, names in MODULES.items():
        for name in names:
            _library.implement(name, _launcher(module, name), "CPU", INTERPRETED, check=_check(module, name))


@functools.cache
def why_not() -> str | None:
    """Why Triton can launch nothing in this process; None where it can. Its driver compiles a C file at its first start, which
    takes a C compiler and Python's headers: images of containers often have neither."""
    try:
        from triton.runtime import driver

        driver.active.get_current_device()
    except Exception as error:
        said = " ".join(str(error).split()) or repr(error)
        return f"Triton does not start ({said}); it needs a C compiler and Python's headers: gcc, python3-dev"
    return None


def _launcher(module: str, name: str, else_reference: bool = False) -> Callable:
    found: Callable | None = None

    def find() -> Callable:
        if else_reference and (why := why_not()):
            _warn(f"fastgan: {why}. PyTorch's operations do its work, slower.")
            return _library.reference(name)
        return getattr(importlib.import_module(f"fastgan.ops.triton.{module}"), name)

    def launch(*arguments):
        nonlocal found
        found = found or find()
        return found(*arguments)

    return launch


def _check(module: str, name: str) -> Callable:
    def check(*arguments):
        from fastgan.ops.triton.launch import check_tensors

        kernels = importlib.import_module(f"fastgan.ops.triton.{module}")
        check_tensors(*kernels.EXPECTED[name](*arguments))

    return check


@functools.cache
def _warn(text: str) -> None:
    """Once, whatever the filters."""
    warnings.warn(text, RuntimeWarning, stacklevel=2)
