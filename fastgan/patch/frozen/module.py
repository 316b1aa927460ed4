"""When the recorded function may run in place of the network, and what it must look at to know."""

from __future__ import annotations

import contextlib
import math
import operator
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fastgan._torch_packed import tree_flatten, tree_map, tree_unflatten
from fastgan._torch_private import autocast_anywhere, eager, module_hooks
from fastgan.patch.frozen.plan import compile
from fastgan.patch.frozen.tape import Mark, Tape, record
from fastgan.patch.layers import keeping_layout

MOST = 4  # kinds of inputs that are remembered, the last recorded: each has packed weights of its own
COUNTED = 256  # kinds whose calls are counted before they are recorded
PATIENCE = 64  # of these calls, at most
TOLERANCE = 1e-4  # of the largest number in a result
PLAIN = {int, float, bool, str, type(None)}
TORCHS = vars(nn.Module()).keys()  # attributes that every module has
TRIES = 3  # recordings, while the network changes its own attributes
WEIGHTS = WeightNorm, SpectralNorm  # hooks that make a weight: recorded with the rest


class Frozen:
    """The forward of `module`: of each kind of input (shapes, types, other arguments) the first call is recorded, the second is
    compared with the network's own result, and further ones run what was recorded.

    A recording takes as long as a call. Where several were dropped, for others, or unused as the network was another by then, a
    kind is recorded at its second call only, then at its fourth, and so on: a vocoder of sentences, none as long as another, runs
    as ever.

    Where a result is not finite, the network runs as ever after that, which takes the time of both: Winograd's convolutions make
    NaN of the neighbours of infinities.

    With gradients, in training mode, under autocast, a compiler or a transform, with hooks on submodules, and for inputs that are
    not plain tensors, numbers and strings, the network runs as ever. Where a parameter, buffer, submodule or attribute, or what
    lies in a list or dict of attributes, is another than it was, everything is recorded anew. Values written past autograd's
    knowledge (`parameter.data.copy_()`) are not seen.
    """

    def __init__(self, module: nn.Module):
        self._module = module
        self._calls: dict[tuple, int] = {}  # of kinds that are not recorded yet
        self._patience, self._dropped = 1, 0
        self._reset()

    def _reset(self) -> None:
        # Others: what another thread makes of the network as it was ends up in the table that it began with.
        self._kinds: dict[tuple, Tape | Callable] = {}
        self._seen: _Seen | None = None
        self._tries, self.refused = 0, ""
        self._lock = threading.Lock()

    @property
    def __code__(self):  # torch.export says where a forward was written
        return type(self._module).forward.__code__

    def __deepcopy__(self, memo):
        return Frozen(memo.get(id(self._module), self._module))

    def __reduce__(self):
        return Frozen, (self._module,)

    def __call__(self, *arguments, **options):
        flat, kind = _kind(arguments, options)
        if kind is None or self.refused or not self._may(flat):
            return self._plainly(arguments, options)
        if self._seen is not None and not self._seen.holds(kind):
            self._drop(sum(isinstance(one, Tape) for one in self._kinds.values()))
            self._reset()
        kinds = self._kinds
        known = kinds.get(kind)
        if known is not None and not isinstance(known, Tape):
            if not known.spreads:
                return known(*flat)
            state = torch.get_rng_state()
            result = known(*flat)
            if _finite(result):
                return result
            torch.set_rng_state(state)
            return self._plainly(arguments, options)
        if not self._lock.acquire(blocking=False):  # another thread is at it
            return self._plainly(arguments, options)
        try:
            if known is None:
                return self._record(kinds, kind, flat, arguments, options)
            return self._first(kinds, kind, known, flat, arguments, options)
        finally:
            self._lock.release()

    def _plainly(self, arguments, options):
        return type(self._module).forward(self._module, *arguments, **options)

    def _may(self, flat: list[torch.Tensor]) -> bool:
        if not eager() or autocast_anywhere():
            return False
        if self._seen is not None and self._seen.hooked():
            return False
        if torch.is_grad_enabled():
            return not any(t.requires_grad for t in (*flat, *self._module.parameters()))
        return True

    def _drop(self, recordings: int) -> None:
        self._dropped += recordings
        if self._dropped >= MOST:
            self._patience, self._dropped = min(2 * self._patience, PATIENCE), 0

    def _awaited(self, kind: tuple) -> bool:
        """Whether a kind has come too seldom to be recorded."""
        calls = self._calls.pop(kind, 0) + 1
        if calls >= self._patience:
            return False
        self._calls[kind] = calls
        if len(self._calls) > COUNTED:
            self._calls.pop(next(iter(self._calls)))
        return True

    def _record(self, kinds: dict, kind: tuple, flat, arguments, options):
        if self._awaited(kind):
            return self._plainly(arguments, options)
        before = _Seen(self._module)
        own = before.tensors()
        if before.hooked() or any(m.training for m in self._module.modules()) or any(id(x) in own for x in flat):
            return self._plainly(arguments, options)
        state = torch.get_rng_state()
        # Norms leave pixels as they are; but its code may take a view of what torch's make contiguous. If that was not it, it
        # raises again.
        for layout in (keeping_layout, contextlib.nullcontext):
            torch.set_rng_state(state)
            try:
                with layout():
                    result, tape = record(lambda: self._plainly(arguments, options), flat)
                break
            except Exception as error:
                tape = Tape(refused=f"{type(error).__name__}: {error}")
        else:
            torch.set_rng_state(state)
            result = self._plainly(arguments, options)
        if tape.refused:
            self._refuse(tape.refused)
            return result
        if not before.same():
            self._tries += 1
            if self._tries == TRIES:
                self._refuse("every call changes its attributes")
            return result
        tape.own = {n for n in tape.outside if id(tape.held[n]) in own}
        self._seen = self._seen or before
        self._seen.watch(kind, tape)
        while len(kinds) >= MOST:
            oldest = next(iter(kinds))
            kinds.pop(oldest)
            self._drop(1)
            self._seen.forget(oldest)
        kinds[kind] = tape
        return _first_result(result, flat, tape)

    def _first(self, kinds: dict, kind: tuple, tape: Tape, flat, arguments, options):
        state = torch.get_rng_state()
        expected = self._plainly(arguments, options)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        try:
            run = compile(tape)
            result = run(*flat)
        except Exception as error:
            self._refuse(f"{type(error).__name__}: {error}")
            torch.set_rng_state(after)
            return expected
        if _equal(result, expected):
            kinds[kind] = _laid_out(run, result, expected)
        else:
            self._refuse(f"the recorded operations do not give its result to {TOLERANCE:g} of the largest number")
        return expected

    def _refuse(self, why: str) -> None:
        self.refused = why
        self._kinds.clear()
        warnings.warn(f"{type(self._module).__name__} runs as ever, not frozen: {why}", stacklevel=5)


def _kind(arguments: tuple, options: dict) -> tuple[list[torch.Tensor], tuple | None]:
    """The tensors, and what must be equal for a recording to hold; None where there is to be none."""
    flat: list[torch.Tensor] = []
    kind: list[Any] = []
    for name, value in (*((None, a) for a in arguments), *options.items()):
        if type(value) in (torch.Tensor, nn.Parameter):
            if value.device.type != "cpu" or value.layout != torch.strided or value.is_conj() or value.is_neg():
                return flat, None
            twin = next((i for i, t in enumerate(flat) if t is value), None)
            kind.append((name, value.shape, value.stride(), value.dtype, twin))
            flat.append(value)
        elif type(value) in PLAIN:
            kind.append((name, type(value), value))
        else:
            return flat, None
    return flat, tuple(kind) if flat else None


def _laid_out(run: Callable, result, expected) -> Callable:
    """`run`, whose `result` was to be `expected`: in the memory order of that, of which views may be taken."""
    made, wanted = tree_flatten(result)[0], tree_flatten(expected)[0]
    strides = [None if _same_order(y, w) else w.stride() for y, w in zip(made, wanted, strict=True)]
    if not any(strides):
        return run

    def finished(*inputs):
        flat, form = tree_flatten(run(*inputs))
        laid = [
            y if s is None else y.new_empty_strided(y.shape, s).copy_(y) for y, s in zip(flat, strides, strict=True)
        ]
        return tree_unflatten(laid, form)

    finished.spreads = run.spreads
    return finished


def _same_order(y, wanted) -> bool:
    if not isinstance(y, torch.Tensor) or 0 in y.shape:
        return True
    steps = [(s, w) for n, s, w in zip(y.shape, y.stride(), wanted.stride(), strict=True) if n > 1]
    return any(w == 0 for _, w in steps) or all(s == w for s, w in steps)  # of expanded ones no copy can be made


def _finite(result) -> bool:
    tensors = (y for y in tree_flatten(result)[0] if isinstance(y, torch.Tensor) and y.is_floating_point())
    return all(math.isfinite(y.sum(dtype=torch.promote_types(y.dtype, torch.float32))) for y in tensors)


def _first_result(result, flat, tape: Tape):
    """The recorded result, whose order the network has not shown yet where convolutions were recorded in pixels: contiguous, but
    of images whose channels are last."""
    last = any(not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last) for x in flat)
    if last or all(node.func is not torch.ops.aten.convolution.default for node in tape.nodes):
        return result
    return tree_map(lambda y: y.contiguous() if isinstance(y, torch.Tensor) else y, result)


def _equal(a, b) -> bool:
    (flat_a, form_a), (flat_b, form_b) = tree_flatten(a), tree_flatten(b)
    if form_a != form_b:
        return False
    for x, y in zip(flat_a, flat_b, strict=True):
        if not isinstance(x, torch.Tensor):
            if x != y:
                return False
        elif x.shape != y.shape or x.dtype != y.dtype:
            return False
        elif x.is_floating_point() and x.numel():
            x, y = x.double(), y.double()
            largest = y.nan_to_num(0, 0, 0).abs().max().item()
            if not torch.allclose(x, y, rtol=0, atol=TOLERANCE * largest + 1e-30, equal_nan=True):
                return False
        elif not torch.equal(x, y):
            return False
    return True


class _Seen:
    """What a network was when it was recorded: by identity, so that to ask takes a quarter of a microsecond per module."""

    def __init__(self, module: nn.Module):
        self._places: list[tuple[dict | list, set[str], tuple]] = []
        self._hooks: list[dict] = []
        for m in module.modules():
            makers = [hook for hook in m._forward_pre_hooks.values() if isinstance(hook, WEIGHTS)]
            made = {hook.name for hook in makers}
            for place in _places(m):
                self._places.append((place, made, _values(place, made)))
            recorded = m is not module and bool(makers) and len(makers) == len(m._forward_pre_hooks)
            if m is not module:
                self._hooks += module_hooks(m, recorded)
            elif makers:  # they run before the forward that is recorded
                self._hooks.append(m._forward_pre_hooks)
            if recorded:
                self._places.append((m._forward_pre_hooks, set(), tuple(makers)))
        self._tensors: dict[tuple, list[tuple[torch.Tensor, Mark]]] = {}

    def hooked(self) -> bool:
        return any(self._hooks) or module_hooks(None)

    def tensors(self) -> set[int]:
        """The ids of the network's own: parameters, buffers, attributes."""
        held = tree_flatten([list(_values(place, set())) for place, _, _ in self._places])[0]
        return {id(t) for t in held if isinstance(t, torch.Tensor)}

    def watch(self, kind: tuple, tape: Tape) -> None:
        """What inputs of a kind are computed with."""
        self._tensors[kind] = [(tape.held[n], mark) for n, mark in tape.outside.items()]

    def forget(self, kind: tuple) -> None:
        self._tensors.pop(kind, None)

    def same(self) -> bool:
        for place, made, values in self._places:
            now = _values(place, made) if made else place if type(place) is list else place.values()
            if len(now) != len(values) or not all(map(operator.is_, now, values)):
                return False
        return True

    def holds(self, kind: tuple) -> bool:
        return self.same() and all(mark.holds(t) for t, mark in self._tensors.get(kind, ()))


def _places(m: nn.Module) -> Iterator[dict | list]:
    yield vars(m)
    yield m._parameters
    yield m._buffers
    yield m._modules
    for name, value in vars(m).items():
        if name not in TORCHS:
            yield from _within(value)


def _within(value: Any) -> Iterator[dict | list]:
    """What of an attribute may change though it stays the same object."""
    if type(value) in (dict, list):
        yield value
        for inner in _values(value, set()):
            yield from _within(inner)


def _values(place: dict | list, without: set[str]) -> tuple:
    return tuple(place) if type(place) is list else tuple(v for k, v in place.items() if k not in without)
