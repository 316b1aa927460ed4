"""Writes pickles of the kind that other projects do, from networks of ours: nested objects, source text, numpy scalars."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import torch
from device import seeded
from torch import nn

MODULE_SRC = "raise RuntimeError('the source text of the pickle was executed')"


def _reconstruct_persistent_obj(meta):
    raise RuntimeError("the test's own stand-in must not be called when reading")


class _Persistent:
    """Pickles as the original's persistent classes do."""

    def __init__(self, class_name: str, state: dict):
        self.class_name, self.state = class_name, state

    def __reduce__(self):
        meta = dict(type="class", version=6, module_src=MODULE_SRC, class_name=self.class_name, state=self.state)
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


class EasyDict(dict):
    pass


def stand_ins(monkeypatch) -> None:
    """Modules by the originals' names, so that pickle can write references to them."""
    for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(_reconstruct_persistent_obj, "__module__", "torch_utils.persistence")
    sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setattr(EasyDict, "__module__", "dnnlib.util")
    sys.modules["dnnlib.util"].EasyDict = EasyDict


def _frozen(module: nn.Module) -> dict:
    return {n: None if p is None else nn.Parameter(p.detach(), False) for n, p in module._parameters.items()}


def by_reference(module: nn.Module, monkeypatch, package: str = "training.networks"):
    """`module` as an ordinary object of a class that another project's package defines; children likewise."""
    name = type(module).__name__
    if package not in sys.modules:
        parent = package.partition(".")[0]
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    if not hasattr(sys.modules[package], name):
        setattr(sys.modules[package], name, type(name, (), {"__module__": package}))
    made = getattr(sys.modules[package], name)()
    made.__dict__ |= {
        "training": False,
        "_parameters": _frozen(module),
        "_buffers": dict(module._buffers),
        "_modules": {n: by_reference(m, monkeypatch, "R3GAN.Networks") for n, m in module._modules.items()},
        "_non_persistent_buffers_set": set(),
        "DataType": torch.bfloat16,
    }
    return made


def persistent(module: nn.Module, **init_kwargs) -> _Persistent:
    """`module` as such an object; children likewise."""
    state = {
        "training": False,
        "_parameters": _frozen(module),
        "_buffers": dict(module._buffers),
        "_modules": {n: m if m is None else persistent(m) for n, m in module._modules.items()},
        "_non_persistent_buffers_set": set(module._non_persistent_buffers_set),
        "_forward_hooks": {},
        "bias": None,
        "gain": np.float64(0.5),
        "sizes": np.arange(3),
        "_init_args": (),
        "_init_kwargs": EasyDict(init_kwargs),
    }
    return _Persistent(type(module).__name__, state)


def write_snapshot(path: Path, **networks) -> Path:
    with open(path, "wb") as file:
        pickle.dump({"training_set_kwargs": EasyDict(path="x.zip"), "augment_pipe": None, **networks}, file)
    return path


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Biases and strengths too, so that every tensor matters."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()
