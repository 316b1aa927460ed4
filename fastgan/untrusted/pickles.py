"""A pickle is a program. Here it is interpreted, not run: numbers, text, containers, and the few functions of a table.

Python's own unpickler, however its names are restricted, calls methods of whatever lies on its stack (`__setstate__`,
`append`, `obj[key] = value`), fills a table as long as an index in the file says, and compares keys that take for ever. So
this one knows each instruction itself: a container is changed only if it is exactly a list, dict or set, only what a
`Global` offers is called, only a `Stand` takes state, and keys are plain. Each step is paid for from a `Budget`.
"""

from __future__ import annotations

import pickletools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastgan.untrusted import BadFile, clip, shorten


class UnsafePickle(BadFile):
    """The file asks for something that is not plain data; the message names it."""


class Budget:
    """What reading one file may cost. Raises UnsafePickle where it is spent.

    size: bytes of the file; arrays and tensors together may take as many. seconds: of this thread's own work.
    """

    def __init__(self, size: int, operations: int = 500_000, text: int = 64 << 20, seconds: float = 8.0):
        self.left = {"bytes of tensors": size, "operations": operations, "characters": text}
        self.limits = dict(self.left)
        self._end = time.thread_time() + seconds

    def spend(self, kind: str, amount: int) -> None:
        self.left[kind] -= amount
        if self.left[kind] < 0:
            raise UnsafePickle(f"the pickle takes more than {self.limits[kind]} {kind}")
        if self.left["operations"] % 256 == 0 and time.thread_time() > self._end:
            raise UnsafePickle("the pickle takes too long to read")


@dataclass(frozen=True, eq=False)
class Global:
    """What stands for a name of the table: `call` takes the place of the function or class; None: only ever an argument."""

    name: str
    call: Callable | None = None


class Stand:
    """Stands for an object; `set_state` may answer with what takes its place from then on."""

    def set_state(self, state: Any) -> Any:
        raise UnsafePickle(f"the pickle gives a state to {type(self).__name__.strip('_')}, which has none")


class Replaced(Stand):
    """Stands for an object until its state arrives; then `value` takes its place."""

    done = False
    value: Any = None


class Source:
    """A file in memory, read in order; long parts are views of it."""

    LONG = 1 << 16

    def __init__(self, content: Any):
        self.content, self.view, self.at = content, memoryview(content), 0

    def read(self, n: int) -> bytes | memoryview:
        part = self.view[self.at : self.at + n]
        self.at += len(part)
        return part if len(part) > self.LONG else bytes(part)

    def readline(self) -> bytes:
        end, step = self.at, 1024
        while end < len(self.view):
            found = bytes(self.view[end : end + step]).find(b"\n")
            if found >= 0:
                end += found + 1
                break
            end += step
        line = bytes(self.view[self.at : end])
        self.at += len(line)
        return line


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_SKIPPED = {"PROTO", "FRAME"}


def key(value: Any) -> Any:
    """A dict's or set's key: plain, as comparing nested ones has no bound."""
    if value is None or isinstance(value, str | bytes | float) or (isinstance(value, int) and value.bit_length() < 64):
        return value
    raise UnsafePickle(f"a dict or set has the key {clip(value)}, expected a number or text")


def fill(target: Any, items: list, budget: Budget) -> None:
    """Adds items to a list or set, keys and values in turn to a dict."""
    budget.spend("operations", len(items))
    if type(target) is list:
        target.extend(items)
    elif type(target) is set:
        target.update(map(key, items))
    elif type(target) is dict and len(items) % 2 == 0:
        target.update(zip(map(key, items[::2]), items[1::2], strict=True))
    else:
        raise UnsafePickle(f"the pickle adds items to {clip(target)}")


def _name(value: Any) -> str:
    return value.name if isinstance(value, Global) else clip(value)


class Machine:
    """One pickle's instructions on a stack. `find` gives the Global of (module, name), `persistent` the object of an id."""

    def __init__(
        self,
        source: Source,
        find: Callable[[str, str], Global],
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
    ):
        self._source, self._find, self._budget, self._persistent = source, find, budget, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that the pickle describes. Raises UnsafePickle."""
        try:
            for opcode, argument, _ in pickletools.genops(self._source):
                self._budget.spend("operations", 1)
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument)
        except BadFile:
            raise
        except Exception as error:  # damaged bytes fail in as many ways as there are instructions
            raise UnsafePickle(f"not a readable pickle ({type(error).__name__}: {shorten(error, 100)})") from error
        raise UnsafePickle("the pickle has no end")

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise UnsafePickle("the pickle takes more than it has put down")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self._pop()
        self._stack.append(value)
        return value

    def _marked(self) -> list:
        """What lies above the last mark."""
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _step(self, name: str, argument: Any) -> None:
        push = self._stack.append
        if name in _SKIPPED:
            return
        if name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _VALUES:
            push(argument)
        elif name in _TEXTS:
            self._budget.spend("characters", len(argument))
            push(argument)
        elif name in _BYTES:
            push(argument)
        elif name in _EMPTY:
            push(_EMPTY[name]())
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            value = self._memo[argument]
            push(value.value if isinstance(value, Replaced) and value.done else value)
        elif name == "POP":
            if self._marks and self._marks[-1] == len(self._stack):
                self._marks.pop()
            else:
                self._pop()
        elif name == "POP_MARK":
            self._marked()
        elif name == "DUP":
            push(self._top())
        elif name in ("TUPLE", "LIST", "FROZENSET", "DICT"):
            items = self._marked()
            made = {"LIST": list, "DICT": dict}.get(name, set)()
            if name == "TUPLE":
                self._budget.spend("operations", len(items))
                made = tuple(items)
            else:
                fill(made, items, self._budget)
            push(made)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            push(tuple([self._pop() for _ in range(int(name[-1]))][::-1]))
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            items = self._marked()
            fill(self._top(), items, self._budget)
        elif name == "APPEND":
            item = self._pop()
            fill(self._top(), [item], self._budget)
        elif name == "SETITEM":
            value, at = self._pop(), self._pop()
            fill(self._top(), [at, value], self._budget)
        elif name == "GLOBAL":
            push(self._find(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self._pop(), self._pop()
            if not isinstance(attribute, str) or not isinstance(module, str):
                raise UnsafePickle("the pickle names a function by something that is no text")
            push(self._find(module, attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self._pop(), self._pop()
            push(self._call(function, arguments))
        elif name == "NEWOBJ_EX":
            named, arguments, function = self._pop(), self._pop(), self._pop()
            if named != {}:
                raise UnsafePickle(f"the pickle constructs {_name(function)} by keywords")
            push(self._call(function, arguments))
        elif name == "BUILD":
            state, target = self._pop(), self._pop()
            push(self._set_state(target, state))
        elif name == "BINPERSID" and self._persistent is not None:
            push(self._persistent(self._pop()))
        elif name in ("PERSID", "BINPERSID"):
            raise UnsafePickle("the pickle refers to data outside itself")
        else:
            raise UnsafePickle(f"the pickle has the instruction {name}, which plain data do not need")

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or function.call is None or not isinstance(arguments, tuple):
            raise UnsafePickle(f"the pickle calls {_name(function)} with {clip(arguments)}")
        try:
            return function.call(*arguments)
        except BadFile:
            raise
        except Exception as error:
            raise UnsafePickle(f"{function.name} does not take what the pickle gives it: {shorten(error)}") from error

    def _set_state(self, target: Any, state: Any) -> Any:
        if type(target) is dict:  # attributes beside the items, such as a state_dict's versions
            return target
        if not isinstance(target, Stand):
            raise UnsafePickle(f"the pickle gives a state to {_name(target)}, which takes none")
        return target.set_state(state)
