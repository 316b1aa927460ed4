"""What an option may be: a range beside the type of a dataclass's field, checked before anything else happens.

width: Count = 32
beta2: Decay = 0.99
gamma: NonNegative | None = None
loss: Annotated[str, Names(LOSSES, ("hinge", "rpgan"))] = "hinge"
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from fastgan.fields import clip


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`; an end in `without` is not among them."""

    least: float = -math.inf
    most: float = math.inf
    without: tuple[float, ...] = ()

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and value not in self.without and abs(value) != math.inf

    def __str__(self) -> str:
        low = f"{'a number above' if self.least in self.without else 'at least'} {self.least:,}" * (
            self.least > -math.inf
        )
        high = f"{'below' if self.most in self.without else 'at most'} {self.most:,}" * (self.most < math.inf)
        return " and ".join(filter(None, (low, high)))


@dataclass(frozen=True, eq=False)
class Names:
    """Names of a `fastgan.registry.Registry`: those `offered` of fastgan's own, and all that users registered."""

    table: Any
    offered: tuple[str, ...]

    def __contains__(self, value: Any) -> bool:
        known = isinstance(value, str) and (value in self.offered or not self.table.owns(value))
        return known and value in self.table

    def __str__(self) -> str:
        return " or ".join(map(repr, [*self.offered, *self.table.added()]))


@dataclass(frozen=True)
class Choices:
    """The numbers of a Literal."""

    numbers: tuple[float, ...]

    def __contains__(self, value: float) -> bool:
        return value in self.numbers

    def __str__(self) -> str:
        return " or ".join(map(str, self.numbers))


EXACT = 2**53  # whole numbers up to here are exact as floats too, as logs and reports hold them
Count = Annotated[int, Range(1, EXACT)]
Batch = Annotated[int, Range(1, 65536)]
Depth = Annotated[int, Range(1, 1000)]  # of networks, which are built layer by layer
Side = Annotated[int, Range(1, 16384)]  # of an image, in pixels
Natural = Annotated[int, Range(0, EXACT)]
Positive = Annotated[float, Range(0, without=(0,))]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, without=(1,))]


def check_ranges(options: Any, within: str = "") -> None:
    """ValueError that names the first number of a dataclass that is out of its range, or no finite one; of a nested one by its
    path, "model.width"."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{within}{field.name}.")
        check_range(allowed(type(options))[field.name], value, within + field.name)


def check_range(bounds: Range | Names | Choices, value: Any, name: str) -> None:
    """ValueError where a number, or one of a tuple or list, is not within `bounds`, or not finite; or where a name is not among
    them."""
    if isinstance(bounds, Names):
        if value not in bounds:
            raise ValueError(f"{name} is {clip(value)}, expected {bounds}")
        return
    for number in value if isinstance(value, (tuple, list)) else [value]:
        if isinstance(number, numbers.Real) and not isinstance(number, bool) and number not in bounds:
            finite = "" if math.isfinite(number) else "a finite number"
            raise ValueError(f"{name} is {value}, expected {', '.join(filter(None, (finite, str(bounds))))}")


@functools.cache
def allowed(cls: type) -> dict[str, Range | Names | Choices]:
    """What the fields of a dataclass may be."""
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError:  # a class made in a function, whose annotations only that function understands
        hints = {}
    return {field.name: next(_ranges(hints.get(field.name)), Range()) for field in dataclasses.fields(cls)}


def _ranges(hint: Any) -> Iterator[Range | Names | Choices]:
    """All that occur in a type such as `tuple[Count, Count] | None`."""
    if get_origin(hint) is Literal and all(type(value) in (int, float) for value in get_args(hint)):
        yield Choices(get_args(hint))
    for part in get_args(hint):
        if isinstance(part, Range | Names):
            yield part
        else:
            yield from _ranges(part)
