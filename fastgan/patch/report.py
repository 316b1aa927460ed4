"""What a patch did, what it refused, and how to take it back."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

MISSING = object()  # stands for "there was nothing": undoing removes the name


class Assignment(NamedTuple):
    """One name that was given another value: a key of a dictionary, or else an attribute of an object."""

    owner: Any
    name: str
    before: Any
    after: Any

    def _put(self, value: Any) -> None:
        if not isinstance(self.owner, dict):
            setattr(self.owner, self.name, value)
        elif value is MISSING:
            del self.owner[self.name]
        else:
            self.owner[self.name] = value

    def do(self) -> None:
        self._put(self.after)

    def undo(self) -> None:
        self._put(self.before)

    def holds(self) -> bool:
        if isinstance(self.owner, dict):
            return self.owner.get(self.name, MISSING) is self.after
        return getattr(self.owner, self.name) is self.after


class Layout(NamedTuple):
    """A parameter whose memory is laid out channels last; values, shape and identity stay. Whoever changed the layout since,
    undoing makes it contiguous, as it was."""

    parameter: torch.nn.Parameter

    def _put(self, memory_format: torch.memory_format) -> None:
        self.parameter.data = self.parameter.data.contiguous(memory_format=memory_format)

    def do(self) -> None:
        self._put(torch.channels_last)

    def undo(self) -> None:
        self._put(torch.contiguous_format)


class Line(NamedTuple):
    """A row of a report: where in the package or module, and what was done there or why nothing was."""

    where: str
    what: str


@dataclass
class PatchReport:
    """What `accelerate` or `patch_ops` did; `print` shows it, `fastgan.unpatch` takes it back.

    replaced: (where, what) of everything that runs on fastgan now (that would, in a dry run).
    refused: (where, why) of everything that was left as it is.
    inert: (module, why) of what cannot be imported and nothing replaces: importable now, an error when called.
    gain: how many times as fast the whole is for an example, in words; "" where nobody measured.
    """

    target: str
    dry_run: bool = False
    replaced: list[Line] = field(default_factory=list)
    refused: list[Line] = field(default_factory=list)
    inert: list[Line] = field(default_factory=list)
    gain: str = ""
    _changes: list[Assignment | Layout] = field(default_factory=list, repr=False)

    def change(self, change: Assignment | Layout) -> None:
        """Does it, unless this is a dry run, and remembers how to undo it."""
        if not self.dry_run:
            change.do()
            self._changes.append(change)

    def __str__(self) -> str:
        verb = "would replace" if self.dry_run else "replaced"
        rows = [f"fastgan: {self.target}: {verb} {len(self.replaced)}, refused {len(self.refused)}"]
        rows[0] += f", inert {len(self.inert)}" * bool(self.inert) + f", the whole {self.gain}" * bool(self.gain)
        for title, lines in ((verb, self.replaced), ("refused", self.refused), ("inert", self.inert)):
            width = max((len(line.where) for line in lines), default=0)
            rows += [f"  {title}"] * bool(lines) + [f"    {where:{width}}  {what}" for where, what in lines]
        return "\n".join(rows)

    __repr__ = __str__


def unpatch(report: PatchReport) -> None:
    """Takes back what `report` did: every name, class and module is the object it was before. Twice is once.

    Parameters keep the values they have by now. Nothing is undone unless everything can be.

    Raises: TypeError unless `report` is a PatchReport; RuntimeError where something else has been put in the place of what
    the patch had put there: undo that first.
    """
    if not isinstance(report, PatchReport):
        raise TypeError(
            f"unpatch: report is {type(report).__name__}; expected the PatchReport of accelerate or patch_ops"
        )
    seen = set()  # of several changes of one place the last is the one that is there
    for change in reversed(report._changes):
        if isinstance(change, Layout):
            continue
        place = id(change.owner), change.name
        if place not in seen and not change.holds():
            raise RuntimeError(
                f"unpatch: {change.name!r} of {_named(change.owner)} has been replaced again since {report.target} was"
                " patched; undo that first"
            )
        seen.add(place)
    for change in reversed(report._changes):
        change.undo()
    report._changes.clear()


def _named(owner: Any) -> str:
    return f"module {owner.get('__name__', 'sys.modules')}" if isinstance(owner, dict) else type(owner).__name__
