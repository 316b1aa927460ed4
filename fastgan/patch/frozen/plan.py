"""From a tape to a function that computes the same: what does not depend on the inputs is computed once, convolutions are packed
and take their bias, norm, activation and sum along, and the rest is torch's operations in their order, as Python source.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import torch

from fastgan._torch_packed import tree_map
from fastgan.patch.frozen.convolutions import Act, Convolution
from fastgan.patch.frozen.source import function
from fastgan.patch.frozen.tape import UNDEFINED, Node, Ref, Tape, refs

aten = torch.ops.aten
ALIASES = {aten.detach.default, aten.lift_fresh.default, aten.alias.default}
VIEWS = {aten.view.default, aten._unsafe_view.default}
RESHAPES = {*VIEWS, aten.expand.default}
# Activations that a packed convolution applies: their numbers, from the arguments after the tensor.
ACTS = {
    aten.relu.default: ("relu", ()),
    aten.tanh.default: ("tanh", ()),
    aten.sigmoid.default: ("sigmoid", ()),
    aten.silu.default: ("swish", ()),
    aten.leaky_relu.default: ("leaky_relu", (0.01,)),
    aten.hardtanh.default: ("hardtanh", (-1.0, 1.0)),
    aten.clamp.default: ("hardtanh", (None, None)),
}
# left + sign * alpha * right
SUMS = {aten.add.Tensor: 1, aten.add.Scalar: 1, aten.sub.Tensor: -1, aten.sub.Scalar: -1}
BIAS_ACTS = {
    "linear": "none",
    "relu": "relu",
    "lrelu": "leaky_relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "swish": "swish",
}


def compile(tape: Tape) -> Callable[..., Any]:
    """The function of the tape's inputs that returns its output; its `spreads`: whether it may have NaN where the network has a
    number, in a result that is not finite anyway."""
    plan = _Plan(tape)
    run = function(tape, plan.nodes, plan.output, {n: t for n, t in plan.constants.items() if n not in plan.live})
    run.spreads = any(isinstance(node.func, Convolution) and node.func.winograd for node in plan.nodes)
    return run


class _Plan:
    def __init__(self, tape: Tape):
        self.tape, self.facts = tape, tape.facts
        self.constants = dict(tape.held)
        self.live = set(tape.inputs)
        self.nodes: list[Node] = []
        alias: dict[int, int] = {}
        for node in tape.nodes:
            node.args, node.kwargs = tree_map(
                lambda a: Ref(alias.get(a.n, a.n)) if isinstance(a, Ref) else a, (node.args, node.kwargs)
            )
            if self._depends(node):
                self.live.update(node.outs)
                if self._is_alias(node):
                    alias[node.outs[0]] = node.args[0].n
                    continue
                if node.func in VIEWS and self.tape.base[node.outs[0]] not in self.tape.written:
                    node.func = aten.reshape.default  # a packed convolution may give another layout than was recorded
                self.nodes.append(node)
        output = tree_map(lambda a: Ref(alias.get(a.n, a.n)) if isinstance(a, Ref) else a, tape.output)
        fresh = {n: self._copy(n) for n in dict.fromkeys(refs(output)) if self._is_shared(n)}
        self.output = tree_map(lambda a: Ref(fresh.get(a.n, a.n)) if isinstance(a, Ref) else a, output)
        self._drop_unused()
        for node in [node for node in self.nodes if node.func is aten.convolution.default]:
            self._pack(node)
        self._drop_unused()

    def _depends(self, node: Node) -> bool:
        if node.writes or any(self.tape.base[n] in self.tape.written for n in node.outs):
            return True
        random = torch.Tag.nondeterministic_seeded in node.func.tags or node.func.overloadpacket in UNDEFINED
        return random or any(n in self.live for n in node.inputs())

    def _is_alias(self, node: Node) -> bool:
        if node.writes or len(node.outs) != 1 or self.tape.base[node.outs[0]] in self.tape.written:
            return False
        same = node.func in RESHAPES and self.facts[node.outs[0]] == self.facts[node.args[0].n]
        return node.func in ALIASES or same

    def _is_shared(self, n: int) -> bool:
        """Whether value n is made anew by every call of the network, and would be the same tensor here."""
        return n not in self.live and self.tape.base[n] not in self.tape.own

    def _copy(self, n: int) -> int:
        made = len(self.facts)
        self.facts[made], self.tape.base[made] = self.facts[n], made
        self.nodes.append(Node(aten.clone.default, (Ref(n),), {}, [made]))
        self.live.add(made)
        return made

    def _drop_unused(self) -> None:
        wanted, kept = set(refs(self.output)), []
        for node in reversed(self.nodes):
            if node.writes or any(n in wanted for n in node.outs):
                wanted.update(node.inputs())
                kept.append(node)
        self.nodes = kept[::-1]
        self.uses = Counter(n for node in self.nodes for n in set(node.inputs()))
        self.uses.update(refs(self.output))
        self.by: dict[int, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for n in set(node.inputs()):
                self.by[n].append(node)

    def constant(self, value) -> torch.Tensor | None:
        """The tensor that does not depend on the inputs; None for one that does."""
        return self.constants[value.n] if isinstance(value, Ref) and value.n not in self.live else None

    def _after(self, n: int, node: Node) -> Node | None:
        """The one node that uses value n, if the work of `node` can wait until there: nothing in between writes in place."""
        if self.uses[n] != 1 or not self.by[n] or self.tape.base[n] in self.tape.written:
            return None
        following = self.by[n][0]
        between = self.nodes[self.nodes.index(node) : self.nodes.index(following) + 1]
        return None if any(other.writes for other in between) else following

    def _pack(self, node: Node) -> None:
        """The convolution `node`, with what follows it; it takes the place of the last of these, behind what was in between."""
        x, weight, bias = node.args[0], self.constant(node.args[1]), node.args[2]
        shape, _, dtype = self.facts[x.n]
        fits = weight is not None and (bias is None or self.constant(bias) is not None)
        if not fits or dtype != torch.float32 or weight.dtype != dtype or len(shape) not in (3, 4) or 0 in shape:
            return
        made = Convolution(weight, self.constant(bias), node.args[3:], shape)
        last, added = node, None
        while True:
            following = self._after(last.outs[0], last)
            if following is None or following.writes:
                break
            taken, other = self._take(made, following, last.outs[0], added)
            if not taken:
                break
            added = added if other is None else other
            last = following
        self.nodes[self.nodes.index(last)] = Node(made, (x,) if added is None else (x, Ref(added)), {}, [last.outs[0]])
        self._drop_unused()

    def _take(self, made: Convolution, node: Node, n: int, added: int | None) -> tuple[bool, int | None]:
        """Whether `made` can do the work of `node`, which uses its result n, too; and the number of what it then adds."""
        no, func, args = (False, None), node.func, node.args
        if made.act.name != "none":
            return no
        mine = bool(args) and isinstance(args[0], Ref) and args[0].n == n
        if func in ACTS and mine:
            name, numbers = ACTS[func]
            given = (*args[1:], *numbers[len(args) - 1 :])
            if name == "hardtanh":
                given = tuple(sign * math.inf if v is None else v for v, sign in zip(given, (-1, 1), strict=True))
            if any(not isinstance(v, int | float) for v in given):
                return no
            return made.activate(Act(name, tuple(map(float, given)))), None
        if func is aten._prelu_kernel.default and mine:
            slopes = self._factor(args[1], made)
            if slopes is None:
                return no
            act = Act("prelu", (slopes,)) if isinstance(slopes, torch.Tensor) else Act("leaky_relu", (slopes,))
            return made.activate(act), None
        if func is torch.ops.fastgan.bias_act.default and mine:
            _, b, dim, act, alpha, gain, clamp = args
            constant = None if b is None else self.constant(b)
            if dim != 1 or act not in BIAS_ACTS or (b is not None and constant is None) or clamp >= 0:
                return no
            if gain != 1 and (act not in ("linear", "relu", "lrelu") or gain < 0):
                return no
            if added is not None and (gain != 1 or b is not None):
                return no
            if not made.activate(Act(BIAS_ACTS[act], (alpha,) if act == "lrelu" else ())):
                return no
            made.shift(constant)
            made.scale(gain)
            return True, None
        if added is not None:
            return no
        if func is aten.native_batch_norm.default and mine and not args[5]:
            w, b, mean, var = (None if a is None else self.constant(a) for a in args[1:5])
            if mean is None or var is None or node.inputs() != refs(args[:5]) or self._others(node):
                return no
            factor = (var + args[7]).rsqrt() * (1 if w is None else w)
            made.scale(factor, -mean)
            made.shift(b)
            return True, None
        if func in (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar) and mine:
            factor = self._factor(args[1], made)
            if factor is None:
                return no
            made.scale(factor if "mul" in func.__name__ else 1 / factor)
            return True, None
        if func in SUMS and len(args) == 2:
            of_right = SUMS[func] * node.kwargs.get("alpha", 1)
            (factor, of_other), other = ((1, of_right), args[1]) if mine else ((of_right, 1), args[0])
            if isinstance(other, Ref) and other.n == n:
                return no
            vector = self._factor(other, made)
            if vector is not None:
                made.scale(factor)
                made.shift(vector * of_other)
                return True, None
            if self.facts[other.n] == self.facts[node.outs[0]] and of_other == 1 and made.adds:
                made.scale(factor)
                return True, other.n
        return no

    def _others(self, node: Node) -> bool:
        return any(self.uses[n] for n in node.outs[1:])

    def _factor(self, value, made: Convolution):
        """A number, or a constant vector of the outputs [O]; None for anything else."""
        if isinstance(value, int | float):
            return value
        t = self.constant(value)
        if t is None or t.dtype != torch.float32:
            return None
        around = (1,) if made.signal else (1, 1)
        if t.numel() == 1 and t.dim() <= 2 + len(around):
            return t.item()
        return t.flatten() if t.shape in ((1, made.outputs, *around), (made.outputs, *around)) else None
