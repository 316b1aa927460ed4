"""Reads pickles of networks without running any code from them.

A pickle is a program: it names functions ("globals") and calls them. Here each name it may use is in the table below and
stands for something of ours that only builds plain data (`fastgan.untrusted.pickles` interprets it); every other name is
refused before anything is called. Source text in the file (`module_src`) is dropped unread.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fastgan.untrusted import BadFile, clip, open_regular, torch_file
from fastgan.untrusted.pickles import Budget, Global, Machine, Source, Stand, UnsafePickle
from fastgan.untrusted.plain import finder

LONGEST_NAME, MOST_MODULES = 300, 20_000


class Record(Stand):
    """What was an object of a class of the file's author: the name of its class and its attributes, no behaviour."""

    def __init__(self, class_name: str, state: dict | None = None):
        self.class_name, self.state = class_name, state or {}

    def set_state(self, state: Any) -> Record:
        if type(state) is not dict:
            raise UnsafePickle(f"the state of {self.class_name} is {clip(state)}, expected a dict")
        self.state = state
        return self

    def _part(self, name: str) -> dict[str, Any]:
        """One of the dicts that a module's attributes hold."""
        part = self.state.get(name)
        if not isinstance(part, dict | None) or not all(isinstance(key, str) for key in part or ()):
            raise UnsafePickle(f"{name} of {self.class_name} is {clip(part)}, expected a dict of names")
        return part or {}

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of its constructor, where the file recorded them."""
        return dict(self._part("_init_kwargs"))

    def children(self) -> dict[str, Record]:
        return {name: child for name, child in self._part("_modules").items() if child is not None}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by dotted name, as `torch.nn.Module.state_dict` orders them."""
        found: dict[str, torch.Tensor] = {}
        visited = 0
        waiting = [("", self)]
        while waiting:
            prefix, record = waiting.pop()
            visited += 1
            if visited > MOST_MODULES or len(prefix) > LONGEST_NAME:
                raise UnsafePickle(f"a network has more than {MOST_MODULES} parts, or contains itself")
            if not isinstance(record, Record):
                raise UnsafePickle(f"{clip(prefix)} is {clip(record)}, expected a network")
            for kind in ("_parameters", "_buffers"):
                hidden = record.state.get("_non_persistent_buffers_set") if kind == "_buffers" else None
                hidden = hidden if isinstance(hidden, set) else ()
                for name, tensor in record._part(kind).items():
                    if tensor is not None and name not in hidden:
                        if not isinstance(tensor, torch.Tensor) or len(name) > LONGEST_NAME:
                            raise UnsafePickle(f"{clip(prefix + name)} is {clip(tensor)}, expected a tensor")
                        found[prefix + name] = tensor
            waiting += [(f"{prefix}{name[:LONGEST_NAME]}.", child) for name, child in record.children().items()][::-1]
        return found


def _persistent(meta: Any) -> Record:
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise UnsafePickle("a persistent object has no state")
    return Record(clip(meta.get("class_name")), meta["state"])


def _reconstructor(cls: Any, *_) -> Record:
    if not isinstance(cls, Global) or not _NETWORKS.fullmatch(cls.name):
        raise UnsafePickle(f"copyreg._reconstructor of {clip(getattr(cls, 'name', cls))}")
    return Record(cls.name)


# Classes of networks: an inert Record stands for each. Modules whose every class is a network or a layer.
_NETWORKS = re.compile(
    r"(training\.networks\w*|R3GAN\.(Networks|Resamplers|FusedOperators))\.\w+"
    r"|torch\.nn\.modules\.(container\.ModuleList|conv\.Conv2d|linear\.Linear)"
)


def _names(budget: Budget) -> dict[str, Callable | None]:
    """What a snapshot may name, on top of tensors and plain data."""
    found = torch_file.names(budget)
    return found | {
        "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
        "dnnlib.util.EasyDict": found["collections.OrderedDict"],
        "copyreg._reconstructor": _reconstructor,
        "copy_reg._reconstructor": _reconstructor,
        "builtins.object": None,  # only ever an argument of _reconstructor
        "__builtin__.object": None,
    }


def _refuse(name: str) -> UnsafePickle:
    if name == "dnnlib.tflib.network.Network":
        return UnsafePickle("a snapshot of the TensorFlow era, which this reader does not know")
    return UnsafePickle(f"the pickle asks for {name}, which is not plain data: refused, nothing was run")


def load(path: str | Path) -> Any:
    """The content of pickle file `path`, networks as `Record`, tensors as they are, all else plain data.

    Raises UnsafePickle for any global outside the allow-list (it is named), and for a damaged file; BadFile and
    FileNotFoundError as `fastgan.untrusted.open_regular`.
    """
    with open_regular(path) as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise UnsafePickle(f"{path} is empty or cannot be read: {error}") from error
    budget = Budget(len(content))
    known = finder(_names(budget), _refuse)

    def find(module: str, name: str) -> Global:
        qualified = f"{module}.{name}"
        if _NETWORKS.fullmatch(qualified):
            return Global(qualified, lambda *_: Record(qualified))
        return known(module, name)

    try:
        return Machine(Source(content), find, budget).run()
    except BadFile as error:
        raise UnsafePickle(f"{path}: {error}") from error
