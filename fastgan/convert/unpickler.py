"""Reads pickles of networks without running any code from them.

A pickle is a program: it names functions ("globals") and calls them. Here each name it may use is in the table below and
stands for something of ours that only builds plain data; every other name is refused before anything is called. Source text
in the file (`module_src`) is dropped unread.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class UnsafePickle(ValueError):
    """The file asks for something that is not plain data; the message names it."""


class _Sealed(type):
    """A class that a pickle cannot write to: BUILD would otherwise set attributes of whatever lies on the stack."""

    def __setattr__(cls, name, value):
        raise UnsafePickle(f"the pickle tries to change {name!r} of a class")


class Record(metaclass=_Sealed):
    """What was an object of a class of the file's author: the name of its class and its attributes, no behaviour."""

    __slots__ = ("class_name", "state")
    original = ""

    def __new__(cls, *_):
        record = object.__new__(cls)
        record.class_name, record.state = cls.original, {}
        return record

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise UnsafePickle(f"the state of {self.class_name} is a {type(state).__name__}, expected a dict")
        self.state = state

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of its constructor, where the file recorded them."""
        return dict(self.state.get("_init_kwargs") or {})

    def children(self) -> dict[str, Record]:
        return {name: child for name, child in (self.state.get("_modules") or {}).items() if child is not None}

    def state_dict(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Parameters and buffers by dotted name, as `torch.nn.Module.state_dict` orders them."""
        found = {}
        for kind in ("_parameters", "_buffers"):
            hidden = self.state.get("_non_persistent_buffers_set") or () if kind == "_buffers" else ()
            for name, tensor in (self.state.get(kind) or {}).items():
                if tensor is not None and name not in hidden:
                    if not isinstance(tensor, torch.Tensor):
                        raise UnsafePickle(f"{prefix}{name} is a {type(tensor).__name__}, expected a tensor")
                    found[prefix + name] = tensor
        for name, child in self.children().items():
            if not isinstance(child, Record):
                raise UnsafePickle(f"{prefix}{name} is a {type(child).__name__}, expected a network")
            found |= child.state_dict(f"{prefix}{name}.")
        return found


class _Dict(dict, metaclass=_Sealed):
    """OrderedDict and EasyDict; attributes beside the items are dropped."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _Call:
    """A function of ours under a global's name; has no attributes to write to."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments):
        return self._function(*arguments)

    def __setattr__(self, name, value):
        raise UnsafePickle(f"the pickle tries to change {name!r} of a function")

    def __setstate__(self, state):
        raise UnsafePickle("the pickle tries to change a function")


def _persistent(meta) -> Record:
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise UnsafePickle("a persistent object has no state")
    record = Record()
    record.class_name, record.state = str(meta.get("class_name")), meta["state"]
    return record


def _storage(data):
    # One storage in torch's legacy format; weights_only keeps torch's own reader to an allow-list of its own.
    found = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    if not isinstance(found, torch.storage.TypedStorage):
        raise UnsafePickle(f"a storage holds a {type(found).__name__}")
    return found


def _tensor(storage, offset, size, stride, *_) -> torch.Tensor:
    if not isinstance(storage, torch.storage.TypedStorage):
        raise UnsafePickle(f"a tensor is built on a {type(storage).__name__}, expected a storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise UnsafePickle(f"a tensor has offset {offset}, size {size} and stride {stride}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    flat = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)
    if math.prod(size) and last >= len(flat):
        raise UnsafePickle(f"a tensor reaches element {last} of a storage of {len(flat)}")
    return flat.as_strided(size, stride, offset)


def _parameter(tensor, *_):
    return tensor


class _DType(metaclass=_Sealed):
    """A numpy dtype of numbers; objects, which carry pickles of their own, are refused."""

    __slots__ = ("value",)

    def __init__(self, code, *_):
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?[biufcUS]\d+|[?]", code):
            raise UnsafePickle(f"numpy dtype {code!r} is not one of numbers or text")
        self.value = np.dtype(code)

    def __setstate__(self, state):
        order = state[1]
        if order in ("<", ">", "="):
            self.value = self.value.newbyteorder(order)


class _Array(metaclass=_Sealed):
    __slots__ = ("value",)

    def __init__(self, *_):
        self.value = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise UnsafePickle("a numpy array holds objects, expected bytes")
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran else "C").copy()


def _scalar(dtype, data):
    if not isinstance(dtype, _DType) or not isinstance(data, bytes):
        raise UnsafePickle("a numpy scalar holds an object, expected bytes")
    return np.frombuffer(data, dtype.value)[0].item()


def _encode(text, encoding="latin1"):
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafePickle(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


def _reconstructor(cls, base, state):
    if not (isinstance(cls, type) and issubclass(cls, Record)):
        raise UnsafePickle(f"copyreg._reconstructor of {cls!r}")
    return cls()


# Classes of networks: an inert Record stands for each. Modules whose every class is a network or a layer.
_NETWORKS = re.compile(
    r"(training\.networks\w*|R3GAN\.(Networks|Resamplers|FusedOperators))\.\w+"
    r"|torch\.nn\.modules\.(container\.ModuleList|conv\.Conv2d|linear\.Linear)"
)
_NUMPY = {
    f"numpy.{core}.multiarray.{name}": function
    for core in ("core", "_core")
    for name, function in (("scalar", _Call(_scalar)), ("_reconstruct", _Call(_Array)))
}
ALLOWED = {
    "torch_utils.persistence._reconstruct_persistent_obj": _Call(_persistent),
    "dnnlib.util.EasyDict": _Dict,
    "collections.OrderedDict": _Dict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch._utils._rebuild_tensor_v2": _Call(_tensor),
    "torch._utils._rebuild_parameter": _Call(_parameter),
    "torch.storage._load_from_bytes": _Call(_storage),
    "numpy.dtype": _Call(_DType),
    "numpy.ndarray": "numpy.ndarray",  # only ever an argument of _reconstruct
    **_NUMPY,
    "_codecs.encode": _Call(_encode),
    "copyreg._reconstructor": _Call(_reconstructor),
    "copy_reg._reconstructor": _Call(_reconstructor),
    "builtins.object": "builtins.object",  # only ever an argument of _reconstructor
    "__builtin__.object": "builtins.object",
    **{f"torch.{name}": getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        qualified = f"{module}.{name}"
        if qualified in ALLOWED:
            return ALLOWED[qualified]
        if _NETWORKS.fullmatch(qualified):
            return _Sealed(name, (Record,), {"__slots__": (), "original": qualified})
        if qualified == "dnnlib.tflib.network.Network":
            raise UnsafePickle("a snapshot of the TensorFlow era, which this reader does not know")
        raise UnsafePickle(f"the pickle asks for {qualified}, which is not plain data: refused, nothing was run")

    def persistent_load(self, pid):
        raise UnsafePickle("the pickle refers to data outside itself")


def _plain(value: Any) -> Any:
    """numpy stand-ins become arrays, all the way down."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _DType):
        return value.value.str
    if isinstance(value, Record):
        value.state = _plain(value.state)
        return value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value


def load(path: str | Path) -> Any:
    """The content of pickle file `path`, networks as `Record`, tensors as they are, all else plain data.

    Raises UnsafePickle for any global outside the allow-list (it is named), and for a damaged file.
    """
    with open(path, "rb") as file:
        try:
            return _plain(_Unpickler(file).load())
        except UnsafePickle:
            raise
        except RecursionError as error:
            raise UnsafePickle(f"{path}: nested too deeply") from error
        except Exception as error:  # any opcode on any stand-in may fail in its own way
            raise UnsafePickle(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from error
