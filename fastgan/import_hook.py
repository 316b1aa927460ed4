"""Patches packages as they are imported: what `python -m fastgan.run` and FASTGAN_PATCH=1 install.

A package's own modules are patched before its `__init__` runs, so that whatever it and others import from them is fastgan's, and
nothing is compiled. Importing this module imports no torch.
"""

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODES = ("1", "accelerate")
# Modules that say that a package may be one of `fastgan.patch.families`, and modules that are looked into as they are.
MARKS = (
    "fused_bias_leakyrelu",
    "fused_act",
    "bias_act",
    "upfirdn2d",
    "conv2d_gradfix",
    "cuda/activation1d",
    "torch/act",
    "resample",
    "ops/fused_act",
)
MODULES = ("activations", "dac.nn.layers", "transformers.models.qwen2_5_omni.modeling_qwen2_5_omni")
_patching: list[str] = []


def install(mode: str) -> None:
    """mode: "1" patches packages; "accelerate" also accelerates each network when it is first called.

    Raises: ValueError for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"FASTGAN_PATCH={mode!r}; expected one of {', '.join(MODES)}")
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder(mode == "accelerate"))


class Finder(importlib.abc.MetaPathFinder):
    def __init__(self, accelerate: bool):
        self.accelerate = accelerate
        self.asked: set[str] = set()  # of the other finders, right now

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self.asked or name.partition(".")[0] == "fastgan":
            return None
        self.asked.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asked.discard(name)
        if spec is None or not hasattr(spec.loader, "exec_module"):
            return None
        if name == "torch" and self.accelerate:
            spec.loader = _Loader(spec.loader, after=lambda module: accelerate_networks(module.nn.Module))
        elif any(_has(folder, mark) for folder in spec.submodule_search_locations or () for mark in MARKS):
            spec.loader = _Loader(spec.loader, before=_patch_package)
        elif name in MODULES:
            spec.loader = _Loader(spec.loader, after=_patch)
        return spec


def _has(folder: str, mark: str) -> bool:
    path = os.path.join(folder, mark)
    return os.path.isdir(path) or os.path.exists(f"{path}.py")


class _Loader(importlib.abc.Loader):
    """Another loader, and what is done before or after it has run the module."""

    def __init__(
        self,
        loader: importlib.abc.Loader,
        before: Callable[[ModuleType], None] = lambda module: None,
        after: Callable[[ModuleType], None] = lambda module: None,
    ):
        self.loader, self.before, self.after = loader, before, after

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self.loader
        self.before(module)
        self.loader.exec_module(module)
        self.after(module)


def _patch_package(module: ModuleType) -> None:
    from fastgan.patch import PatchReport, families

    if families.marked(module.__name__) is not None:
        _patch(module)
    elif family := families.marked(f"{module.__name__}.ops"):
        families.rename(family, PatchReport(module.__name__))


def _patch(module: ModuleType) -> None:
    from fastgan.patch import patch_ops

    if any(f"{module.__name__}.".startswith(f"{package}.") for package in _patching):
        return  # a part of what is being patched
    _patching.append(module.__name__)
    try:
        _tell(patch_ops(module))
    except (ImportError, ValueError) as error:
        _say(f"{module.__name__} runs as it is: {error}")
    finally:
        _patching.pop()


def accelerate_networks(module_class: type) -> None:
    """Has every network accelerated when it is first called: the outermost module and all that is in it."""
    from weakref import WeakSet

    import torch

    seen: WeakSet = WeakSet()
    original = module_class.__call__

    def call(self, *args, **kwargs):
        # What is traced or compiled holds the calls of the original.
        if self not in seen and not torch.jit.is_tracing() and not torch.compiler.is_compiling():
            seen.update(self.modules())
            if self._modules and not isinstance(self, torch.jit.ScriptModule):
                from fastgan.patch import accelerate

                _tell(accelerate(self))
        return original(self, *args, **kwargs)

    module_class.__call__ = call


def _tell(report: Any) -> None:
    if report.replaced:
        _say(str(report).partition("\n")[0].removeprefix("fastgan: "))


def _say(what: str) -> None:
    print(f"fastgan: {what}", file=sys.stderr)
