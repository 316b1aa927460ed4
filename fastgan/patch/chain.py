"""The two accelerated forms of a module: a `nn.Sequential`, and a module with a straight-line forward.

Only the class of the container changes. Its children stay the objects they are, with their parameters, names and hooks, and
compute what they always did for anybody who calls them one by one.
"""

import functools

import torch
from torch import nn

from fastgan.patch import rules
from fastgan.patch.straight import Plan, make_plan

# Attributes of an accelerated module: its plan, and whether weights inside it have been laid out.
PLAN, LAID_OUT = "_fastgan_plan", "_fastgan_laid_out"


class Steps:
    """A chain's plan: where `rules.rule` found a step among its modules; found anew where these have changed."""

    def __init__(self):
        self.modules, self.places = [], set()

    def of(self, modules: list[nn.Module]) -> set[int]:
        if self.modules != modules:
            self.modules, self.places = modules, rules.candidates(modules)
        return self.places


class Accelerated:
    """What both forms share: one class per original class, found again by pickle and deepcopy."""

    form: type

    def __reduce_ex__(self, protocol):
        state = {name: value for name, value in vars(self).items() if name != PLAN}
        return _rebuild, (self.form, type(self).__bases__[1]), state


@functools.cache
def accelerated(form: type, base: type) -> type:
    """The class `base` with the forward of `form`."""
    return type(f"Fused{base.__name__}", (form, base), {"__module__": __name__})


def _rebuild(form: type, base: type) -> nn.Module:
    cls = accelerated(form, base)
    return cls.__new__(cls)


class Chain(Accelerated):
    """A Sequential that runs neighbours as one step where `rules.rule` allows it, asked anew at every call of those that
    allowed it when they were first called together."""

    runs_in_order = True

    def forward(self, input):
        plan = vars(self).get(PLAN)
        if plan is None:  # a copy
            plan = vars(self)[PLAN] = Steps()
        modules = rules.flat(self._modules.values())
        y = rules.run(modules, input, steps=plan.of(modules))
        # Weights that are laid out pass their layout on; whoever looks at the result finds it in that of the input.
        plain = vars(self).get(LAID_OUT) and isinstance(input, torch.Tensor) and input.is_contiguous()
        return y.contiguous() if plain else y


class Straight(Accelerated):
    """A module whose forward was traced: it runs the steps of its plan while the attributes its forward reads are those of
    the trace, and its own forward otherwise. The compiler gets the original."""

    def forward(self, *args, **kwargs):
        plan = vars(self).get(PLAN)
        if plan is None:  # a copy: plans hold functions, which are not pickled
            plan = make_plan(self, type(self).__bases__[1])
            vars(self)[PLAN] = plan
        usable = isinstance(plan, Plan) and not torch.compiler.is_compiling() and not kwargs
        if usable and all(isinstance(x, torch.Tensor) for x in args) and plan.holds(self, len(args)):
            return plan.run(self, args)
        return super().forward(*args, **kwargs)


Chain.form, Straight.form = Chain, Straight
