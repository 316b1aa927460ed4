"""The operations of a plan as one Python function, and the memory of what lies between them.

A value that does not leave the function has its memory in a `Room`, kept from call to call, where the operation can be told
where to write; those that do not live at once share it. Fresh memory may cost more than what is written to it: to fill 67 MB for
the first time took 55 ms, to copy as much 12, in a virtual machine with pages of 4 KiB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from fastgan.patch.frozen.convolutions import Convolution
from fastgan.patch.frozen.tape import Node, Ref, Tape, refs

aten = torch.ops.aten
POINTWISE = {
    "default": ("relu", "leaky_relu", "tanh", "sigmoid", "silu", "clamp", "hardtanh", "elu", "addcmul"),
    "Tensor": ("add", "sub", "mul", "div"),
    "Scalar": ("add", "sub", "mul", "div"),
}
# What writes over an argument nobody needs any more, and what writes where it is told.
OVER = {
    getattr(getattr(aten, name), form): getattr(getattr(aten, f"{name}_"), form)
    for form, names in POINTWISE.items()
    for name in names
}
OUT = {
    getattr(getattr(aten, name), form): getattr(aten, name).out
    for form in ("default", "Tensor")
    for name in POINTWISE[form]
} | {aten.cat.default: aten.cat.out}


class Room:
    """Memory for the values of one call at a time, given back at its end; calls at once have several."""

    def __init__(self, sizes: list[int], places: list[tuple[int, tuple, tuple]]):
        self._sizes, self._places = sizes, places
        self._idle: list[list[torch.Tensor]] = []

    def take(self) -> list[torch.Tensor]:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        with torch.inference_mode(False):
            blocks = [torch.empty(size, dtype=torch.float32, device="cpu") for size in self._sizes]
            return [blocks[slot].as_strided(shape, strides) for slot, shape, strides in self._places]

    def give(self, values: list[torch.Tensor]) -> None:
        self._idle.append(values)


class _Memory:
    """Which values share memory, and where it is."""

    def __init__(self, tape: Tape, nodes: list[Node], output):
        self.tape, self.facts, self.nodes = tape, tape.facts, nodes
        self.last: dict[int, int] = {}
        for i, node in enumerate(nodes):
            self.last.update(dict.fromkeys((*node.inputs(), *node.outs), i))
        self.kept = {*refs(output), *tape.inputs}
        self.made = {n for node in nodes for n in node.outs}
        self.over = [self._over(i, node) for i, node in enumerate(nodes)]
        self.block = dict(tape.base)  # by value: any value of the same memory, the same for all of these
        for node, n in zip(nodes, self.over, strict=True):
            if n is not None:
                self._join(node.outs[0], n)
        self._plan()

    def dying(self, i: int) -> set[int]:
        node = self.nodes[i]
        return {n for n in {*node.inputs(), *node.outs} if self.last[n] == i and n in self.made and n not in self.kept}

    def _over(self, i: int, node: Node) -> int | None:
        """The argument that the operation at place i writes its result over."""
        if isinstance(node.func, Convolution):
            n = node.args[1].n if len(node.args) == 2 else None
            return n if n is not None and n != node.args[0].n and self._free(n, i) else None
        if node.func not in OVER or not isinstance(node.args[0], Ref) or not node.outs:
            return None
        n = node.args[0].n
        same = self.facts[node.outs[0]] == self.facts[n] and n not in refs((node.args[1:], node.kwargs))
        return n if same and self._free(n, i) else None

    def _free(self, n: int, i: int) -> bool:
        """Whether the memory of value n is nobody's after operation i."""
        base = self.tape.base[n]
        alone = sum(b == base for m, b in self.tape.base.items() if m in self.made or m in self.tape.inputs) == 1
        return n in self.dying(i) and alone and base not in self.tape.written

    def _join(self, a: int, b: int) -> None:
        old, new = self.block[a], self.block[b]
        self.block.update((n, new) for n, block in self.block.items() if block == old)

    def _plan(self) -> None:
        ends: dict[int, int] = {}
        for n, i in self.last.items():
            ends[self.block[n]] = max(i, ends.get(self.block[n], 0))
        fixed = {self.block[n] for n in (*self.kept, *self.tape.held)} | {self.block[n] for n in self.tape.written}
        self.sizes: list[int] = []
        self.places: list[tuple[int, tuple, tuple]] = []
        self.place: dict[int, int] = {}  # by value
        idle: list[int] = []
        used: dict[int, int] = {}  # slot by block
        for i, node in enumerate(self.nodes):
            for n in node.outs if self.over[i] is None and _can_be_told(node) else ():
                shape, strides, dtype = self.facts[n]
                if dtype != torch.float32 or self.block[n] in fixed or 0 in shape:
                    continue
                if isinstance(node.func, Convolution):
                    shape, strides = node.func.shape, node.func.strides
                need = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
                used[self.block[n]] = slot = self._slot(idle, need)
                self.place[n] = len(self.places)
                self.places.append((slot, shape, strides))
            for block in [b for b in used if ends[b] == i]:
                idle.append(used.pop(block))

    def _slot(self, idle: list[int], need: int) -> int:
        """An idle block of memory: the smallest that is enough, else the largest, made larger."""
        enough = [slot for slot in idle if self.sizes[slot] >= need]
        if enough or idle:
            slot = min(enough, key=self.sizes.__getitem__) if enough else max(idle, key=self.sizes.__getitem__)
            idle.remove(slot)
            self.sizes[slot] = max(need, self.sizes[slot])
            return slot
        self.sizes.append(need)
        return len(self.sizes) - 1


def _can_be_told(node: Node) -> bool:
    func = node.func
    return len(node.outs) == 1 and not node.writes and (func.told if isinstance(func, Convolution) else func in OUT)


def function(tape: Tape, nodes: list[Node], output, constants: dict[int, torch.Tensor]) -> Callable[..., Any]:
    """One line per operation, names freed where they are last used."""
    memory = _Memory(tape, nodes, output)
    room = Room(memory.sizes, memory.places)
    pool: dict[str, Any] = {"inf": math.inf, "nan": math.nan, "take": room.take, "give": room.give}

    def name(value) -> str:
        if isinstance(value, Ref):
            if value.n not in constants:
                return f"v{value.n}"
            pool[f"c{value.n}"] = constants[value.n]
            return f"c{value.n}"
        if isinstance(value, tuple | list):
            inner = ", ".join(map(name, value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if value else "()"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k!r}: {name(v)}" for k, v in value.items()) + "}"
        if value is None or isinstance(value, bool | int | float | str):
            return repr(value)
        key = f"o{len(pool)}"
        pool[key] = value
        return key

    def line(i: int, node: Node) -> Iterable[str]:
        func, kwargs, over = node.func, dict(node.kwargs), memory.over[i]
        told = memory.place.get(node.outs[0]) if _can_be_told(node) else None
        if isinstance(func, Convolution):
            kwargs = {"over": True} if over is not None else {}
        elif over is not None:
            func = OVER[func]
        elif told is not None:
            func = OUT[func]
        given = [name(a) for a in node.args] + [f"{k}={name(v)}" for k, v in kwargs.items()]
        given += [] if told is None else [f"out=room[{told}]"]
        target = ", ".join(f"v{n}" for n in node.outs)
        several = len(node.outs) > 1 or len(getattr(getattr(func, "_schema", None), "returns", "1")) > 1
        target = f"{target}, = " if several and target else f"{target} = " if target else ""
        yield f"{target}{name(func)}({', '.join(given)})"
        if gone := sorted(memory.dying(i)):
            yield f"del {', '.join(f'v{n}' for n in gone)}"

    lines = ["room = take()"] if memory.places else []
    lines += [text for i, node in enumerate(nodes) for text in line(i, node)]
    lines += ["give(room)"] if memory.places else []
    lines.append(f"return {name(output)}")
    arguments = ", ".join(f"v{n}" for n in tape.inputs)
    source = f"def run({arguments}):\n" + "".join(f"    {text}\n" for text in lines)
    exec(source, pool)
    run = pool["run"]
    run.source = source
    return run
