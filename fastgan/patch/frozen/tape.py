"""What a call of a network does, as a list of torch's operations.

A mode of dispatch sees every operation beneath autograd: `Recorder` numbers the tensors and notes who made them of whom. What
Python decided, by shapes and by attributes, is decided; where it decides by the numbers in a tensor that depends on the inputs,
the tape says so (`refused`) and is not used.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from fastgan._torch_packed import DispatchMode, tree_flatten, tree_map, tree_unflatten
from fastgan.ops.conv_forms import plainly

aten = torch.ops.aten
LOOKS = {
    torch.Tensor.numpy,
    torch.Tensor.tolist,
    torch.Tensor.__array__,
    torch.Tensor.data_ptr,
    torch.Tensor.__dlpack__,
}
UNDEFINED = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}


@dataclass(frozen=True, slots=True)
class Ref:
    """The tensor of this number."""

    n: int


@dataclass
class Node:
    """outs = func(*args, **kwargs), tensors being `Ref`s. `writes`: in place, to tensors that others see."""

    func: Callable
    args: tuple
    kwargs: dict
    outs: list[int]
    writes: bool = False

    def inputs(self) -> list[int]:
        return refs((self.args, self.kwargs))


class Mark(NamedTuple):
    """What tells whether a tensor is still what it was. `memory` holds its memory, so that nothing else comes to lie there."""

    version: int
    address: int
    memory: torch.Tensor

    @classmethod
    def of(cls, t: torch.Tensor) -> Mark:
        return cls(_version(t), t.data_ptr(), t.detach())

    def holds(self, t: torch.Tensor) -> bool:
        return _version(t) == self.version and t.data_ptr() == self.address


def _version(t: torch.Tensor) -> int:
    return -1 if t.is_inference() else t._version


@dataclass
class Tape:
    """inputs: their numbers. output: the result, with Refs. held: tensors that do not depend on inputs. facts: (shape, stride,
    dtype) of each. base: the first of the tensors that share memory."""

    inputs: list[int] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    output: Any = None
    held: dict[int, torch.Tensor] = field(default_factory=dict)
    outside: dict[int, Mark] = field(default_factory=dict)  # of those, what no node made: parameters, buffers, Python's
    own: set[int] = field(default_factory=set)  # of those, the network's
    facts: dict[int, tuple] = field(default_factory=dict)
    base: dict[int, int] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)  # bases of what nodes write to
    refused: str = ""


def refs(tree) -> list[int]:
    return [leaf.n for leaf in tree_flatten(tree)[0] if isinstance(leaf, Ref)]


TURNED = 8  # channels and pixels at least, for which `to_pixels` is faster than torch's copy


def pixels(x: torch.Tensor) -> torch.Tensor:
    """x [N, C, H, W] or [N, C, L] with the channels of a pixel side by side."""
    if x.dim() == 3:
        return pixels(x.unsqueeze(2)).squeeze(2)
    if x.is_contiguous() and x.dtype == torch.float32 and x.shape[1] >= TURNED <= x.shape[2] * x.shape[3]:
        return torch.ops.fastgan.to_pixels(x)
    x = x.contiguous(memory_format=torch.channels_last)
    if x.stride(1) != 1:  # one channel, or one pixel: both layouts at once
        _, c, h, w = x.shape
        x = x.as_strided(x.shape, (c * h * w, 1, c * w, c))
    return x


def in_images(x: torch.Tensor, *vectors: Sequence[int]) -> tuple:
    """Signals [N, C, L] as images [N, C, 1, L], with the numbers of an axis as those of two: stride, padding."""
    return (x.unsqueeze(2), *((fill, *v) for fill, v in zip((1, 0, 1, 0), vectors, strict=False)))


def record(function: Callable, inputs: Sequence[torch.Tensor]) -> tuple[Any, Tape]:
    """function() of `inputs`, and its tape."""
    tape = Tape()
    recorder = _Recorder(tape, inputs)
    with plainly(), _Watch(recorder), recorder:
        result = function()
    flat, spec = tree_flatten(result)
    if any(not isinstance(y, torch.Tensor | int | float | str | None) for y in flat):
        tape.refused = tape.refused or "its result holds something else than tensors"
    tape.output = tree_unflatten([Ref(recorder.number(y)) if isinstance(y, torch.Tensor) else y for y in flat], spec)
    return result, tape


class _Watch(TorchFunctionMode):
    """Sees tensors whose numbers leave torch."""

    def __init__(self, recorder: _Recorder):
        self.recorder = recorder

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in LOOKS and self.recorder.depends(args[0]):
            self.recorder.refuse(f"it takes numbers out of torch (Tensor.{func.__name__})")
        return func(*args, **(kwargs or {}))


class _Recorder(DispatchMode):
    def __init__(self, tape: Tape, inputs: Iterable[torch.Tensor]):
        super().__init__()
        self.tape, self.known, self.live = tape, {}, set()
        for x in inputs:
            n = self.new(x)
            tape.inputs.append(n)
            self.live.add(n)

    def refuse(self, why: str) -> None:
        self.tape.refused = self.tape.refused or why

    def new(self, t: torch.Tensor) -> int:
        n = len(self.tape.facts)
        self.tape.facts[n] = tuple(t.shape), t.stride(), t.dtype
        self.tape.base[n] = n
        self.known[id(t)] = weakref.ref(t), n
        if t.device.type != "cpu" or t.layout != torch.strided:
            self.refuse(f"it has a tensor of {t.layout} on {t.device}")
        return n

    def find(self, t: torch.Tensor) -> int | None:
        held, n = self.known.get(id(t), (lambda: None, None))
        return n if held() is t else None  # the number of an object may come back

    def number(self, t: torch.Tensor) -> int:
        n = self.find(t)
        if n is None:
            n = self.new(t)
            self.tape.held[n] = t
            self.tape.outside[n] = Mark.of(t)
        return n

    def depends(self, t: torch.Tensor) -> bool:
        return self.find(t) in self.live

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, tape = kwargs or {}, self.tape
        noted_args, noted_kwargs = tree_map(
            lambda a: Ref(self.number(a)) if isinstance(a, torch.Tensor) else a, (tuple(args), kwargs)
        )
        node = Node(func, noted_args, noted_kwargs, [])
        if func is aten.as_strided.default and self.depends(args[0]) and not args[0].is_contiguous():
            raise RuntimeError("it reads memory by strides, which differ in a frozen network")
        live = func.overloadpacket in UNDEFINED or torch.Tag.nondeterministic_seeded in func.tags
        live = live or any(n in self.live for n in node.inputs())
        # A weight that is made of the inputs is packed by nobody.
        by_pixels = func is aten.convolution.default and _by_pixels(args) and not self.depends(args[1])
        result = _convolution(*args) if by_pixels else func(*args, **kwargs)
        if func._schema.is_mutable:
            self._written(node, args, live)
            live = live or node.writes
        made = [y for y in tree_flatten(result)[0] if y is not None]
        if live and torch.Tag.dynamic_output_shape in func.tags:
            self.refuse(f"the shape of a result depends on numbers ({func})")
        if any(not isinstance(y, torch.Tensor) for y in made):
            if live:
                self.refuse(f"its Python decides by numbers in a tensor ({func})")
            return result  # a number that is the same at every call
        for y in made:
            n = self.find(y) if node.writes else None
            node.outs.append(self.new(y) if n is None else n)
            if live:
                self.live.add(node.outs[-1])
            else:
                tape.held[node.outs[-1]] = y
        if node.inputs() and not node.writes:
            views = [r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns]
            several = len(node.outs) > len(views)  # split, unbind: a list of views
            for n, view in zip(node.outs, [True] * len(node.outs) if several else views, strict=False):
                if view:
                    tape.base[n] = tape.base[node.inputs()[0]]
        tape.nodes.append(node)
        return result

    def _written(self, node: Node, args, live: bool) -> None:
        """An operation in place becomes the one out of place if nobody else holds that memory; else it stays where it is."""
        tape = self.tape
        plain = functional(node.func)
        alone = node.args and isinstance(node.args[0], Ref) and self._alone(node.args[0].n)
        if plain is not None and alone and live and node.args[0].n in self.live - set(tape.inputs):
            node.func = plain  # the result gets a number of its own
            return
        node.writes = True
        for argument, value in zip(node.func._schema.arguments, node.args, strict=False):
            if argument.alias_info and argument.alias_info.is_write:
                self._spoil(refs(value))
        for argument in node.func._schema.arguments:
            if argument.alias_info and argument.alias_info.is_write:
                self._spoil(refs(node.kwargs.get(argument.name)))

    def _spoil(self, numbers: list[int]) -> None:
        for n in numbers:
            base = self.tape.base[n]
            if base in self.tape.outside or base in self.tape.inputs:
                self.refuse("it writes to an input, a parameter or a buffer")
            self.tape.written.add(base)
            self.live.update(m for m, b in self.tape.base.items() if b == base)

    def _alone(self, n: int) -> bool:
        base = self.tape.base[n]
        return sum(b == base for b in self.tape.base.values()) == 1


def functional(func) -> Callable | None:
    """relu for relu_, and so on; None where there is no such operation."""
    name = func.overloadpacket.__name__
    if func.namespace != "aten" or not name.endswith("_") or not hasattr(aten, name[:-1]):
        return None
    packet = getattr(aten, name[:-1])
    return getattr(packet, func._overloadname, None) if func._overloadname in packet.overloads() else None


def _by_pixels(args) -> bool:
    x, w = args[:2]
    return x.dim() in (3, 4) and x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0 and w.numel() > 0


def _convolution(x, w, bias, stride, padding, dilation, transposed, output_padding, groups):
    """aten::convolution in pixels, the layout that the frozen network keeps: what follows is recorded in it."""
    if x.dim() == 3:
        x, stride, padding, dilation, output_padding = in_images(x, stride, padding, dilation, output_padding)
        return _convolution(
            x, w.unsqueeze(2), bias, stride, padding, dilation, transposed, output_padding, groups
        ).squeeze(2)
    return pixels(aten.convolution(pixels(x), w, bias, stride, padding, dilation, transposed, output_padding, groups))
