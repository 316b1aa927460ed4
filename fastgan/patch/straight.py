"""Modules with a forward of their own: its trace, where that is all there is to it, in steps that fuse.

`torch.fx` traces; its rewriter (`replace_pattern`) does not serve here. It matches functions, and what fuses depends on modules:
on their options, hooks and dtypes, asked at every call. It puts a GraphModule in the module's place, with generated code: another
class, other pickles, no way back; and it freezes whatever the forward did not compute from tensors, which `purity` guards.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from fastgan.patch import rules
from fastgan.patch.purity import guards_of

CONVOLUTIONS = (F.conv2d, F.conv_transpose2d, F.linear)
ACTIVATIONS = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), nn.ReLU),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), nn.LeakyReLU),
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_"), nn.Tanh),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, torch.sigmoid_, "sigmoid", "sigmoid_"), nn.Sigmoid),
    F.elu: nn.ELU,
    F.selu: nn.SELU,
    F.softplus: nn.Softplus,
    F.silu: nn.SiLU,
}


class Plan(NamedTuple):
    """The steps of a traced forward; `lines` says what they fuse (where, what)."""

    inputs: list[fx.Node]
    steps: list[tuple[fx.Node, Callable]]
    result: Any
    guards: dict[str, Any]
    lines: list[tuple[str, str]]

    def holds(self, module: nn.Module, arguments: int) -> bool:
        same = (
            type(getattr(module, name, None)) is type(value) and getattr(module, name) == value
            for name, value in self.guards.items()
        )
        return arguments == len(self.inputs) and all(same)

    def run(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
        values = dict(zip(self.inputs, args, strict=True))
        for node, step in self.steps:
            values[node] = step(module, values)
        return _values(self.result, values)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # else what is computed from buffers alone would be frozen

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def make_plan(module: nn.Module, base: type) -> Plan | str:
    """The plan of a module whose class is, or was, `base`; or the reason why there is none."""
    guards = guards_of(module, base.forward)
    if isinstance(guards, str):
        return guards
    accelerated, module.__class__ = type(module), base
    try:
        graph = _Tracer().trace(module)
    except Exception as error:
        return f"its forward cannot be traced: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    finally:
        module.__class__ = accelerated
    plan = _Planner(module, graph, guards).plan()
    return plan if plan.lines else "nothing in its forward is fused"


def _values(argument, values):
    return fx.node.map_arg(argument, lambda node: values[node])


class _Planner:
    def __init__(self, module: nn.Module, graph: fx.Graph, guards: dict[str, Any]):
        self.module, self.nodes, self.guards = module, list(graph.nodes), guards
        self.steps: dict[fx.Node, Callable] = {}
        self.lines: list[tuple[str, str]] = []

    def plan(self) -> Plan:
        inputs = [node for node in self.nodes if node.op == "placeholder"]
        for node in self.nodes:
            if node not in self.steps and node.op not in ("placeholder", "output"):
                self.add(node)
        order = [(node, self.steps[node]) for node in self.nodes if self.steps.get(node) is not None]
        return Plan(inputs, order, self.nodes[-1].args[0], self.guards, self.lines)

    def add(self, node: fx.Node) -> None:
        """The step of `node`, with those of its consumers that it takes in: they share its value."""
        if node.op == "call_module" and len(node.args) == 1 and not node.kwargs and self.fuse_children(node):
            return
        if node.op == "call_function" and node.target in CONVOLUTIONS and self.fuse_equalised(node):
            return
        target, args, kwargs = node.target, node.args, node.kwargs
        if node.op == "get_attr":
            step = lambda module, values: operator.attrgetter(target)(module)  # noqa: E731
        elif node.op == "call_module":
            step = lambda m, v: m.get_submodule(target)(*_values(args, v), **_values(kwargs, v))  # noqa: E731
        elif node.op == "call_method":
            step = lambda _, v: getattr(_values(args[0], v), target)(*_values(args[1:], v), **_values(kwargs, v))  # noqa: E731
        else:
            step = lambda _, v: target(*_values(args, v), **_values(kwargs, v))  # noqa: E731
        self.steps[node] = step

    def only_user(self, node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    def activation(self, node: fx.Node | None) -> str | nn.Module | None:
        """The name of the child, or a module of the planner's own, that the node applies; None for another node."""
        if node is None:
            return None
        if node.op == "call_module" and len(node.args) == 1:
            found = rules.activation(self.module.get_submodule(node.target))
            return node.target if isinstance(found, rules.Act) else None
        kind = ACTIVATIONS.get(node.target) if node.op in ("call_function", "call_method") else None
        numbers = (*node.args[1:], *(v for k, v in node.kwargs.items() if k != "inplace"))
        if kind is None or any(not isinstance(v, int | float) for v in numbers):
            return None
        names = {nn.LeakyReLU: ("negative_slope",), nn.ELU: ("alpha",), nn.Softplus: ("beta", "threshold")}.get(
            kind, ()
        )
        given = dict(zip(names, node.args[1:], strict=False)) | {k: v for k, v in node.kwargs.items() if k in names}
        return kind(**given)

    def fuse_children(self, node: fx.Node) -> bool:
        parts: list[str | nn.Module] = [node.target]
        taken = [node]
        following = self.only_user(node)
        act = self.activation(following) if self.adjacent([node], following) else None
        if act is not None and rules.rule(_children(self.module, [*parts, act]), 0).count == 2:
            parts.append(act)
            taken.append(following)
            following = self.only_user(following)
        other = None
        # Nothing may run between, which might write to what is read here.
        if (
            self.is_addition(following)
            and _ends_in_norm(_children(self.module, parts))
            and self.adjacent(taken, following)
        ):
            left, right = following.args
            other = right if left is taken[-1] else left
            taken.append(following)
        fused = rules.rule(_children(self.module, parts), 0)
        if fused.step is None and other is None:
            return False
        x = node.args[0]
        what = fused.what or "Sequential"
        self.lines.append((node.target, f"{what} + residual" if other is not None else what))

        def step(module, values):
            residual = None if other is None else values[other]
            y = rules.run(rules.flat(_children(module, parts)), values[x], residual)
            return y.contiguous() if values[x].is_contiguous() else y

        self.take(taken, step)
        return True

    def is_addition(self, node: fx.Node | None) -> bool:
        added = (operator.add, torch.add)
        plain = node is not None and node.target in added and len(node.args) == 2 and not node.kwargs
        return plain and all(isinstance(arg, fx.Node) for arg in node.args) and node.args[0] is not node.args[1]

    def adjacent(self, taken: list[fx.Node], following: fx.Node | None) -> bool:
        if following is None:
            return False
        between = self.nodes[self.nodes.index(taken[0]) : self.nodes.index(following)]
        return all(node in taken for node in between)

    def fuse_equalised(self, node: fx.Node) -> bool:
        if len(node.args) < 2 or not isinstance(node.args[1], fx.Node):
            return False
        product = node.args[1]
        if product.target not in (operator.mul, torch.mul) or self.only_user(product) is not node:
            return False
        weight, scale = sorted(product.args, key=lambda a: not isinstance(a, fx.Node))
        if not isinstance(weight, fx.Node) or weight.op != "get_attr" or not isinstance(scale, int | float):
            return False
        function, rest, kwargs, x = node.target, node.args[2:], node.kwargs, node.args[0]
        following = self.only_user(node)
        act = self.activation(following) if self.adjacent([node], following) else None
        taken = [node] if act is None else [node, following]
        self.steps[product] = None

        def step(module, values):
            y = scaled(function, values[x], values[weight], scale, *_values(rest, values), **_values(kwargs, values))
            return y if act is None else rules.activated(_children(module, [act])[0], y)

        what = f"equalised {function.__name__}" + ("" if act is None else " + activation, in place without gradients")
        self.lines.append((weight.target, what))
        self.take(taken, step)
        return True

    def take(self, taken: list[fx.Node], step: Callable) -> None:
        """`step` computes the last of `taken`, at its place; the others have no value."""
        self.steps.update(dict.fromkeys(taken))
        self.steps[taken[-1]] = step


def scaled(function: Callable, x: torch.Tensor, weight: torch.Tensor, scale: float, *args, **kwargs) -> torch.Tensor:
    """function(x, scale * weight): the factor goes to the smaller of the two, in 16 bits to the weight as written."""
    if x.numel() < weight.numel() and x.dtype in (torch.float32, torch.float64):
        return function(x * scale, weight, *args, **kwargs)
    return function(x, weight * scale, *args, **kwargs)


def _children(module: nn.Module, parts: list[str | nn.Module]) -> list[nn.Module]:
    return [module.get_submodule(part) if isinstance(part, str) else part for part in parts]


def _ends_in_norm(modules: list[nn.Module]) -> bool:
    """Whether a residual can be added in the last step of `modules`."""
    modules = rules.flat(modules)
    i, step = 0, None
    while i < len(modules):
        step, count, _ = rules.rule(modules, i)
        i += count
    return step is rules.norm
