"""Triton kernels for CUDA tensors. `load()` registers them without importing triton, which happens at the first launch.

With TRITON_INTERPRET=1 in the environment when fastgan is imported, the same kernels run interpreted on CPU tensors as
`impl="triton"`: that is how the tests execute them without a GPU.
"""

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable

import torch

from fastgan.ops import _library

INTERPRETED = "fastgan_triton"
MODULES = {
    "bias_act": ("bias_act", "bias_act_backward"),
    "grad_penalty": ("grad_penalty", "grad_penalty_backward"),
    "gumbel_softmax": ("gumbel_softmax",),
    "modulated_activation": ("modulated_activation", "modulated_activation_backward"),
    "norm_act": ("norm_act", "norm_act_backward"),
}


def load() -> None:
    """Registers every kernel of `MODULES`, or records why not."""
    if importlib.util.find_spec("triton") is None:
        _library.record_failure("triton", "triton is not installed")
        return
    if torch.version.cuda is not None:
        for module, names in MODULES.items():
            for name in names:
                _library.implement(name, _launcher(module, name), "CUDA")
    if os.environ.get("TRITON_INTERPRET") == "1":
        register_for_cpu()


def register_for_cpu() -> None:
    """Makes `impl="triton"` call the launchers on CPU tensors: interpreted, or under the driver of tests/triton_stub.py."""
    _library.twin(INTERPRETED, tuple(name for names in MODULES.values() for name in names))
    for module, names in MODULES.items():
        for name in names:
            _library.implement(name, _launcher(module, name), "CPU", INTERPRETED)


def _launcher(module: str, name: str) -> Callable:
    @functools.cache
    def launcher() -> Callable:
        return getattr(importlib.import_module(f"fastgan.ops.triton.{module}"), name)

    def launch(*arguments):
        return launcher()(*arguments)

    return launch
