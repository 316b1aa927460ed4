"""Updates as CUDA graphs (`--graphs`): what an update launches is recorded once and replayed from then on by one call.

Of each kind of update (its optimiser, its loss, the recipe's plain attributes) the first `WARM_UP` run as ever, on a stream of
their own: kernels are compiled and chosen, optimisers make their state. The next is captured: loss, penalties, gradients,
their norm and the optimiser's step. A replay works on memory that stays where it is, so before it the batch, the draws of
`Batch.randn` and `rand` and the learning rates are copied there. Draws on the device (`Batch.noise`, dropout) follow torch's
generator, which the engine seeds before each update: a graph takes its seed when it is replayed. So a replay computes what
the update would have computed without a graph.

What the host decides within a step is decided once, when the step is captured. Plain attributes (numbers, strings, truth
values) make a graph of their own for each value; whatever else changes from step to step must be a tensor on the device.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from fastgan._torch_private import copy_
from fastgan.cuda_graph import Cuda
from fastgan.training.batch import Batch
from fastgan.training.distributed import World
from fastgan.training.recipe import Recipe, Update
from fastgan.training.run import RunOptions

WARM_UP = 2
MOST = 16  # kinds of updates; a step that makes more has a number in it that never stays
ALIGNED = 64  # draws begin at multiples of this many numbers, 256 bytes, as memory of their own would
PLAIN = (bool, int, float, str, type(None))

# What an update leaves: logged values, and tensors for later updates on the same items.
Result = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]


class CannotCapture(RuntimeError):
    """An update does something that a graph cannot repeat."""


Backend = Cuda  # what captures; tests put one in its place that records on the CPU


def check(recipe: Recipe, run: RunOptions, world: World) -> None:
    """ValueError where `recipe` cannot be trained by graphs, with the reason."""
    here, dynamic = Backend.why_not(world.device), recipe.dynamic
    reasons = (
        (here, here),
        (dynamic, dynamic),
        (world.size > 1, "a graph over several processes was never tried"),
        (
            run.precision == "fp16",
            "with --precision fp16 the host decides whether a step is made; bf16 has no loss scale",
        ),
        (run.grad_accum > 1, "the pieces of --grad-accum are computed one after the other"),
        (run.compile, "a compiled update is not captured; choose one of --compile and --graphs"),
    )
    if reason := next((why for holds, why in reasons if holds), ""):
        raise ValueError(f"--graphs: {recipe.name} cannot be trained by CUDA graphs here: {reason}")


class _Recorded(Batch):
    """A batch that keeps what was drawn, and gives draws that lie ready where there are any.

    Attributes: `drawn`, (shape, normal) of each draw.
    """

    given: Sequence[torch.Tensor] | None = None

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.drawn: list[tuple[tuple[int, ...], bool]] = []

    def _next(self, shape: tuple[int, ...], normal: bool) -> torch.Tensor:
        self.drawn.append((shape, normal))
        if self.given is None:
            return super()._next(shape, normal)
        if len(self.drawn) > len(self.given) or self.given[len(self.drawn) - 1].shape[1:] != shape:
            raise CannotCapture("it draws other numbers from one update to the next")
        return self.given[len(self.drawn) - 1]


class _Draws:
    """Memory for what a batch of `size` images draws, filled by one copy."""

    def __init__(self, drawn: list[tuple[tuple[int, ...], bool]], size: int, device: torch.device):
        self._drawn, self._size = drawn, size
        counts = [size * math.prod(shape) for shape, _ in drawn]
        starts = list(itertools.accumulate((-(-n // ALIGNED) * ALIGNED for n in counts), initial=0))
        self._places = [slice(start, start + n) for start, n in zip(starts, counts, strict=False)]
        self._memory = torch.zeros(starts[-1], device=device)
        self.views = [self._memory[p].view(size, *shape) for p, (shape, _) in zip(self._places, drawn, strict=True)]

    def fill(self, batch: Batch) -> None:
        if not self._drawn:
            return
        # New each time: the copy of the last update may not have begun yet.
        numbers = torch.empty(self._memory.shape, device="cpu", pin_memory=self._memory.is_cuda)
        for i, (place, (shape, normal)) in enumerate(zip(self._places, self._drawn, strict=True)):
            numbers[place] = batch.draw(i, shape, normal).flatten()
        self._memory.copy_(numbers, non_blocking=True)


class _Kind:
    """Updates of one kind: a graph once there were enough of them."""

    def __init__(self):
        self.seen = 0
        self.replay: Callable[[], None] | None = None

    def look(self, result: Result, drawn: list[tuple[tuple[int, ...], bool]]) -> None:
        """What one of them left and drew."""
        self.seen += 1
        self._drawn = drawn
        # Where replays leave theirs: the memory of graphs is one, and what the next one needs is written there.
        self._result = tuple({name: torch.empty_like(tensor) for name, tensor in part.items()} for part in result)

    def capture(self, backend: Cuda, make: Callable[[Batch], Result], batch: _Recorded, arguments: tuple) -> None:
        items, *rest, carried = arguments
        self._items = [item.clone() for item in items]
        self._carried = {name: tensor.clone() for name, tensor in carried.items()}
        self._draws = _Draws(self._drawn, batch.size, batch.real.device)
        fixed = _Recorded(tuple(self._items), *rest, self._carried)
        fixed.given = self._draws.views

        def whole() -> None:
            for places, made in zip(self._result, make(fixed), strict=True):
                if places.keys() != made.keys():
                    raise CannotCapture("it returns or keeps other names from one update to the next")
                if places:
                    copy_(list(places.values()), [made[name] for name in places])

        self.replay, _ = backend.capture(whole)

    def run(self, batch: _Recorded, items: Sequence[torch.Tensor], carried: dict[str, torch.Tensor]) -> Result:
        if [(x.shape, x.dtype) for x in items] != [(x.shape, x.dtype) for x in self._items]:
            raise CannotCapture("its batches are not of one shape")
        copy_([*self._items, *self._carried.values()], [*items, *(carried[name] for name in self._carried)])
        self._draws.fill(batch)
        self.replay()
        return self._result


class Graphs:
    """Runs the updates of `recipe` by graphs.

    Adam's step is taken in one kernel (`fused`), with its counters on the device: the same numbers to rounding.
    """

    def __init__(self, recipe: Recipe, world: World, run: RunOptions):
        self.recipe, self.world, self.run = recipe, world, run
        self._backend = Backend(world.device)
        self._kinds: dict[tuple, _Kind] = {}
        self._rates: dict[tuple[str, int], torch.Tensor] = {}
        for optimizer in recipe.optimizers.values():
            on_device(optimizer, world.device)

    def __call__(
        self,
        update: Update,
        make: Callable[[Batch], Result],
        items: tuple[torch.Tensor, ...],
        number: int,
        carried: dict[str, torch.Tensor],
    ) -> Result:
        """make(batch of `items`), whose result the next call may overwrite. Raises CannotCapture."""
        arguments = items, self.world, self.run.seed, number, 0, 1, carried
        batch, kind = _Recorded(*arguments), self._kind(update)
        with self._rates_on_device(update.optimizer):
            if kind.seen < WARM_UP:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message=".*capturable=True")  # and not captured: it will be
                    result = self._backend.aside(lambda: make(batch))
                kind.look(result, batch.drawn)
                return result
            with _explained(self.recipe, update):
                if kind.replay is None:
                    kind.capture(self._backend, make, batch, arguments)
                return kind.run(batch, items, carried)

    def _kind(self, update: Update) -> _Kind:
        plain = tuple((name, value) for name, value in vars(self.recipe).items() if _is_plain(value))
        groups = self.recipe.optimizers[update.optimizer].param_groups
        options = tuple(tuple((k, v) for k, v in group.items() if _is_plain(v) and k != "lr") for group in groups)
        key = update.optimizer, update.loss, plain, options
        if key not in self._kinds and len(self._kinds) == MOST:
            raise CannotCapture(
                f"{self.recipe.name}: its updates are of more than {MOST} kinds, as a loss, an attribute of the recipe or an"
                " option of an optimiser changes from step to step; keep it in a buffer"
            )
        return self._kinds.setdefault(key, _Kind())

    @contextlib.contextmanager
    def _rates_on_device(self, name: str) -> Iterator[None]:
        """The learning rates of the optimiser `name` where a graph reads them; numbers again afterwards."""
        groups = self.recipe.optimizers[name].param_groups
        rates = [group["lr"] for group in groups]
        for i, (group, rate) in enumerate(zip(groups, rates, strict=True)):
            held = self._rates.setdefault((name, i), torch.zeros((), device=self.world.device))
            group["lr"] = held.fill_(rate)
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let `optimizer` step without the host: its counters on the device and, of Adam and AdamW, one kernel for all."""
    one_kernel = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
    for group in optimizer.param_groups:
        group |= {"fused": True, "foreach": False} if one_kernel else {}
        group |= {"capturable": device.type == "cuda"} if "capturable" in group else {}


@contextlib.contextmanager
def _explained(recipe: Recipe, update: Update) -> Iterator[None]:
    """Whatever fails while an update is captured or replayed, as CannotCapture; memory that is too small stays what it is."""
    what = f"{recipe.name}: the {update.optimizer}'s {getattr(update.loss, '__name__', 'update')}"
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CannotCapture(f"{what} cannot be captured as a CUDA graph ({why})") from error
