"""What each piece of an accelerated network gains for the values that reach it, and which are kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from fastgan.patch.last import ChannelsLast, shapes_of
from fastgan.patch.report import MISSING, Assignment, Line, PatchReport
from fastgan.patch.swap import PAYS, PLAN, SHAPES, Accelerated, Swap, accelerated, original

if TYPE_CHECKING:
    from fastgan.patch.accelerate import Piece

LEAST = 1.02  # times as fast: a piece that gains less is left as it was
# Rounds at least, and seconds at least: of a piece, and of the whole, of which less may be gained. Of 9 rounds 8 decide.
ROUNDS, SECONDS, WHOLE = 9, 0.2, 1.0
WITHIN = 60.0  # seconds for all pieces


class Gain(NamedTuple):
    """How many times as fast: the median of rounds, and what it exceeds, with an error in less than one of twenty."""

    median: float
    sure: float

    @classmethod
    def of(cls, ratios: list[float]) -> Gain:
        """By ranks, whatever the distribution: below a median lie n/2 of n ratios, with a standard deviation of sqrt(n)/2."""
        ratios, n = sorted(ratios), len(ratios)
        return cls(ratios[n // 2], ratios[max(0, int(n / 2 - n**0.5))])

    @property
    def pays(self) -> bool:
        return self.sure >= LEAST

    def __str__(self) -> str:
        return f"{self.median:.2f}x" + f" (not beyond chance: {self.sure:.2f}x)" * (self.sure < LEAST <= self.median)


def arguments_of(example: Any) -> tuple:
    """The arguments of a call. Raises TypeError where there is no tensor among them."""
    arguments = example if isinstance(example, tuple) else (example,)
    if not any(isinstance(x, torch.Tensor) for x in tree_leaves(arguments)):
        raise TypeError(
            f"accelerate: example is {type(example).__name__}; expected a tensor, or a tuple of arguments with one"
        )
    return arguments


def keep_what_pays(module: nn.Module, arguments: tuple, pieces: list[Piece], report: PatchReport) -> list[Piece]:
    """The pieces that gain at least `LEAST` beyond chance, their rows with what they gain; the others are undone, and those that
    are not timed within `WITHIN` seconds."""
    end = time.monotonic() + WITHIN
    with _as_before(module):
        seen = _calls(module, arguments, [piece.module for piece in pieces])
        known: dict[tuple, dict[bool, Gain]] = {}
        kept = []
        for piece in pieces:
            if piece.module not in seen:
                _leave(piece, report, "the example does not reach it")
                continue
            args, kwargs = seen[piece.module]
            key = _key(piece, args)
            if key not in known and time.monotonic() > end:
                _leave(piece, report, f"not timed within {WITHIN:.0f} seconds")
                continue
            if key not in known:
                known[key] = _gains(piece, args, kwargs, training=module.training)
            gains = known[key]
            pays = frozenset(recorded for recorded, gain in gains.items() if gain.pays)
            if not (pays if _chooses(piece) else _pays(gains)):
                _leave(piece, report, _in_words(gains))
                continue
            if _chooses(piece):
                report.change(Assignment(vars(piece.module), PAYS, MISSING, pays))
            piece.rows = [Line(where, f"{what}: {_in_words(gains)}") for where, what in piece.rows]
            kept.append(piece)
    return kept


def keep_if_the_whole_pays(module: nn.Module, arguments: tuple, report: PatchReport) -> None:
    """Undoes everything unless the whole is faster by it: a piece that is timed alone finds its Python and its weights in the
    processor's cache, as it does not in the network."""
    if not report._changes:
        return
    with _as_before(module):
        gains = _gains_of(module, report._changes, arguments, {}, module.training, WHOLE)
    if _pays(gains):
        report.gain = _in_words(gains)
        return
    for change in reversed(report._changes):
        change.undo()
    report._changes.clear()
    why = f"the whole {_in_words(gains)}, left as it was"
    report.refused += [Line(where, f"{what}, {why}") for where, what in report.replaced]
    report.replaced.clear()


def _pays(gains: dict[bool, Gain]) -> bool:
    return any(gain.pays for gain in gains.values()) and all(gain.median >= 0.99 for gain in gains.values())


def try_channels_last(module: nn.Module, arguments: tuple, report: PatchReport) -> None:
    """In evaluation mode on the CPU: the whole network channels last, where that gains."""
    images = [x for x in arguments if isinstance(x, torch.Tensor)]
    plain = all(type(x) is torch.Tensor and x.is_contiguous() and x.device.type == "cpu" for x in images)
    if module.training or not plain or all(x.dim() != 4 for x in images) or isinstance(module, ChannelsLast):
        return
    base = type(module).made_of if isinstance(module, Accelerated) else type(module)
    cls = accelerated(ChannelsLast, base)
    changes = [
        Assignment(vars(module), SHAPES, MISSING, frozenset([shapes_of(arguments)])),
        Swap(module, type(module), cls),
    ]
    with _as_before(module), torch.no_grad():
        expected = tree_leaves(module(*_copied(arguments)))
        for change in changes:
            change.do()
        try:
            found = tree_leaves(module(*_copied(arguments)))
            gain = Gain.of(_ratios(module, changes, _calling(module, arguments, {}, False), WHOLE))
        except RuntimeError as error:  # a view of what is no longer in order
            pays, why = False, str(error).splitlines()[0]
        else:
            same = all(map(_close, found, expected))
            pays, why = same and gain.pays, str(gain) if same else "other numbers"
        for change in reversed(changes):
            change.undo()
    line = Line(original(module).__name__, f"the whole channels last, without gradients, for this shape: {why}")
    if not pays:
        report.refused.append(line)
        return
    for change in changes:
        report.change(change)
    report.replaced.append(line)


def _close(a, b) -> bool:
    return not _is_tensor(a) or torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max() + 1e-30))


def _chooses(piece: Piece) -> bool:
    """Whether the piece can run with gradients in one way, and without in another."""
    return hasattr(piece.module, "choose")


def _key(piece: Piece, args: tuple) -> tuple:
    shapes = tuple((x.shape, x.dtype, x.requires_grad) if isinstance(x, torch.Tensor) else None for x in args)
    return type(piece.module), repr(piece.module), shapes


def _leave(piece: Piece, report: PatchReport, why: str) -> None:
    for change in reversed(piece.changes):
        change.undo()
    report._changes[:] = [done for done in report._changes if not any(done is change for change in piece.changes)]
    report.refused += [Line(where, f"{what}: {why}, left as it was") for where, what in piece.rows]


def _in_words(gains: dict[bool, Gain]) -> str:
    return ", ".join(f"{gain}" + " with gradients" * recorded for recorded, gain in gains.items())


def _calls(module: nn.Module, arguments: tuple, wanted: list[nn.Module]) -> dict[nn.Module, tuple[tuple, dict]]:
    """The arguments of the first call of each module."""
    seen: dict[nn.Module, tuple[tuple, dict]] = {}

    def remember(m, args, kwargs):
        if m not in seen:
            seen[m] = _copied((args, kwargs))

    handles = [m.register_forward_pre_hook(remember, with_kwargs=True) for m in dict.fromkeys(wanted)]
    try:
        with torch.set_grad_enabled(module.training):
            module(*_copied(arguments))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _copied(tree):
    return tree_map(lambda x: x.detach().clone().requires_grad_(x.requires_grad) if _is_tensor(x) else x, tree)


def _is_tensor(x) -> bool:
    return isinstance(x, torch.Tensor)


def _gains(piece: Piece, args: tuple, kwargs: dict, training: bool) -> dict[bool, Gain]:
    """How many times as fast the piece is, by whether gradients are taken."""
    vars(piece.module)[PAYS] = frozenset((False, True))  # all that it can do
    try:
        return _gains_of(piece.module, piece.changes, args, kwargs, training, SECONDS)
    finally:
        vars(piece.module).pop(PAYS, None)
        vars(piece.module)[PLAN].clear()


def _gains_of(
    module: nn.Module, changes: list, args: tuple, kwargs: dict, training: bool, seconds: float
) -> dict[bool, Gain]:
    modes = (False, True) if training else (False,)
    return {
        recorded: Gain.of(_ratios(module, changes, _calling(module, args, kwargs, recorded), seconds))
        for recorded in modes
    }


def _calling(module: nn.Module, args: tuple, kwargs: dict, recorded: bool) -> Callable[[], Callable]:
    """What makes a call ready, with arguments that the module may write to."""

    def ready():
        given = [x for x in tree_leaves((args, kwargs)) if _is_tensor(x) and x.requires_grad and recorded]
        with torch.set_grad_enabled(recorded):
            inputs, options = tree_map(lambda x: x.clone() if _is_tensor(x) else x, (args, kwargs))
        wanted = [*given, *(p for p in module.parameters() if p.requires_grad)]

        def call():
            with torch.set_grad_enabled(recorded):
                results = module(*inputs, **options)
            results = [y for y in tree_leaves(results) if _is_tensor(y) and y.requires_grad]
            if results and wanted:
                torch.autograd.grad(results, wanted, [torch.ones_like(y) for y in results], allow_unused=True)

        return call

    return ready


def _ratios(module: nn.Module, changes: list, ready: Callable[[], Callable], least: float) -> list[float]:
    """How many times as fast a call is as it is than as it was, of each round; for `least` seconds, and `ROUNDS` rounds.

    The two of a round follow each other, so that other programs disturb them alike. Where one thread computes, its own time
    counts, without what they took."""
    on_gpu = any(p.device.type == "cuda" for p in module.parameters())
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    clock = time.perf_counter if on_gpu or torch.get_num_threads() > 1 else time.thread_time

    def as_it_is() -> float:
        call = ready()
        wait()
        start = clock()
        call()
        wait()
        return clock() - start

    def as_it_was() -> float:
        decided = {id(c.owner): (vars(c.owner), vars(c.owner)[PLAN]) for c in changes if isinstance(c, Swap)}
        for change in reversed(changes):
            change.undo()
        try:
            return as_it_is()
        finally:
            for attributes, plan in decided.values():  # else each round would decide anew
                attributes[PLAN] = plan
            for change in changes:
                change.do()

    as_it_is(), as_it_was()  # what a first call alone takes
    ratios, end = [], time.monotonic() + least
    while len(ratios) < ROUNDS or time.monotonic() < end:
        if len(ratios) % 2:  # whatever the second finds in the processor's cache, each is it as often
            old, new = as_it_was(), as_it_is()
        else:
            new, old = as_it_is(), as_it_was()
        ratios.append(old / new)
    return ratios


@contextlib.contextmanager
def _as_before(module: nn.Module) -> Iterator[None]:
    """Whatever calls do to buffers and random numbers is undone."""
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    devices = {b.device for b in module.parameters() if b.device.type == "cuda"}
    with torch.random.fork_rng([d.index for d in devices]):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
