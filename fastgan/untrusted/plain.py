"""What a pickle of plain data may name besides tensors: numpy's numbers and arrays, and Python's containers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from fastgan.untrusted import clip
from fastgan.untrusted.pickles import Budget, Global, Replaced, Stand, UnsafePickle, fill


class DType(Stand):
    """A numpy dtype of numbers; objects, which carry pickles of their own, are refused."""

    def __init__(self, code: Any, *_):
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?[biufcUS]\d{1,6}|[?]", code):
            raise UnsafePickle(f"numpy dtype {clip(code)} is not one of numbers or text")
        self.value = np.dtype(code)

    def set_state(self, state: Any) -> Any:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise UnsafePickle("a numpy dtype has an unknown state")
        self.value = self.value.newbyteorder(state[1])
        return self


class Array(Replaced):
    """A numpy array; its state is version, shape, dtype, order and bytes."""

    def __init__(self, budget: Budget):
        self._budget = budget

    def set_state(self, state: Any) -> np.ndarray:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, DType) or not isinstance(data, bytes | memoryview):
            raise UnsafePickle("a numpy array holds objects, expected bytes")
        whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not whole or math.prod(shape) * dtype.value.itemsize != len(data):
            raise UnsafePickle(f"a numpy array of shape {clip(shape)} and {dtype.value} has {len(data)} bytes")
        self._budget.spend("bytes of tensors", len(data))
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran else "C").copy()
        self.done = True
        return self.value


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, DType) or not isinstance(data, bytes) or len(data) != dtype.value.itemsize:
        raise UnsafePickle("a numpy scalar holds an object, expected its bytes")
    return np.frombuffer(data, dtype.value)[0].item() if data else ""


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafePickle(f"_codecs.encode with {clip(encoding)}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How old protocols write b""."""
    return b""


def table(budget: Budget) -> dict[str, Callable | None]:
    """Function by name, for `Global`; None: a name that is only an argument."""

    def container(make: type) -> Callable:
        def construct(items: Any = ()) -> Any:
            made = make()
            if not isinstance(items, list | tuple | set | dict):
                raise UnsafePickle(f"a {make.__name__} is made of {clip(items)}")
            if make is dict:
                pairs = items.items() if isinstance(items, dict) else items
                items = [part for at, value in pairs for part in (at, value)]
            fill(made, list(items), budget)
            return made

        return construct

    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        budget.spend("characters", len(text))
        return _encode(text, encoding)

    found: dict[str, Callable | None] = {
        "collections.OrderedDict": container(dict),
        "builtins.set": container(set),
        "__builtin__.set": container(set),
        "builtins.bytes": _no_bytes,
        "__builtin__.bytes": _no_bytes,
        "numpy.dtype": DType,
        "numpy.ndarray": None,
        "_codecs.encode": encode,
    }
    for core in ("core", "_core"):
        found[f"numpy.{core}.multiarray.scalar"] = _scalar
        found[f"numpy.{core}.multiarray._reconstruct"] = lambda *_: Array(budget)
    return found


def finder(names: dict[str, Callable | None], refuse: Callable[[str], Exception]) -> Callable[[str, str], Global]:
    """The `find` of a Machine: a Global per name of the table, `refuse(name)` raised for any other."""
    known = {name: Global(name, call) for name, call in names.items()}

    def find(module: str, name: str) -> Global:
        qualified = f"{module}.{name}"
        if qualified not in known:
            raise refuse(clip(qualified, 200).strip("'\""))
        return known[qualified]

    return find
