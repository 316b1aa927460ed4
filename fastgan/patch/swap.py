"""Another class for a module that stays the object it is: found again by pickle and deepcopy, taken back by `unpatch`."""

import functools
from typing import NamedTuple

from torch import nn

# Attributes of an accelerated module. PLAN: what it decided, which a copy decides anew; PAYS: where it was measured to pay, with
# gradients, without, or both; LAID_OUT: whether its weight, or weights inside, are laid out; SHAPES: the inputs' that run
# channels last.
PLAN, PAYS, LAID_OUT, SHAPES = "_fastgan_plan", "_fastgan_pays", "_fastgan_laid_out", "_fastgan_shapes"


class Plan(dict):
    """What a module decided. A copy decides anew."""

    def __reduce_ex__(self, protocol):
        return type(self), ()


class Accelerated:
    """What all forms share: one class per original class. `form` is the class that derives from this one."""

    def __init__(self, *arguments, **options):
        """Of a new object of the class: a slice of a Sequential is one."""
        super().__init__(*arguments, **options)
        vars(self)[PLAN] = type(self).plan()

    @classmethod
    def members(cls, base: type, *how) -> dict:
        """Attributes of the class that `base` becomes in this form."""
        return {}

    @classmethod
    def plan(cls):
        """What a module in this form begins with as `PLAN`; it is filled, and never another object."""
        return Plan()

    def __reduce_ex__(self, protocol):
        own = original(self)
        if own.__reduce__ is object.__reduce__ and own.__reduce_ex__ is object.__reduce_ex__:
            state = self.__getstate__() if hasattr(self, "__getstate__") else vars(self)  # Python 3.10 has none
            return _rebuild, type(self).made_of, state
        # What says itself what it is made of becomes that: its classes may be rebuilt from their source, without fastgan.
        cls, self.__class__ = type(self), own
        try:
            return self.__reduce_ex__(protocol)
        finally:
            self.__class__ = cls


@functools.cache
def accelerated(form: type, base: type | tuple, *how) -> type:
    """The class `base` with the forward of `form`; `how`: what else decides about it, to be pickled with it.

    An accelerated `base` is given as its `made_of`: pickle finds no class that was made here.
    """
    base_class = accelerated(*base) if isinstance(base, tuple) else base
    # torch.fx does not look into what is torch's.
    members = {"__module__": base_class.__module__, "made_of": (form, base, *how), **form.members(base_class, *how)}
    return type(f"Fused{base_class.__name__}", (form, base_class), members)


def _rebuild(*made_of) -> nn.Module:
    cls = accelerated(*made_of)
    module = cls.__new__(cls)
    vars(module)[PLAN] = cls.plan()
    return module


def original(module: nn.Module) -> type:
    """The class that the module had before."""
    kind = type(module)
    while issubclass(kind, Accelerated):
        kind = kind.__bases__[-1]  # of what torch derives again, for a parametrization, the only one
    return kind


class Swap(NamedTuple):
    """A module that gets another class; what it remembers as that class goes with it."""

    owner: nn.Module
    before: type
    after: type
    name = "the class"

    def do(self) -> None:
        self.owner.__class__ = self.after
        vars(self.owner).setdefault(PLAN, self.after.plan())

    def undo(self) -> None:
        self.owner.__class__ = self.before
        if not issubclass(self.before, Accelerated):
            vars(self.owner).pop(PLAN, None)

    def holds(self) -> bool:
        return type(self.owner) is self.after
