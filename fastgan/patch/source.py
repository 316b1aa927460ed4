"""Forwards of others, rewritten where they apply a function of torch to a layer's result and drop that result.

    F.leaky_relu(self.conv(x), 0.2)      becomes    pair(F.leaky_relu, self.conv, x, 0.2)
    x = self.norm(x); x = self.act(x)               x = pair(self.act, self.norm, x)
    x + self.block(x)                               add(x, self.block, x, False)
    (1 + gamma) * self.norm(x) + beta               modulated(self.norm, x, 1 + gamma, beta, True)
    F.conv2d(x, self.weight * self.scale, b)        scaled(F.conv2d, x, self.weight, self.scale, b)
    F.conv2d(x, kernel, groups=x.shape[1])          filtered(F.conv2d, x, kernel, groups=x.shape[1])

What a name stands for is asked when the line runs (pairs.py): an unknown function or layer is called as ever. So loops, branches
and optional arguments need no proof, only that nothing else sees the value between, which the source shows.
"""

import __future__

import ast
import dis
import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import nn

from fastgan.patch import pairs, written
from fastgan.patch.swap import Accelerated, accelerated, original

ACTIVATIONS = {f.__name__ for f in pairs.FUNCTIONS}
LINEAR = {f.__name__ for f in pairs.SCALED}
DEPTHWISE = {f.__name__ for f in written.DEPTHWISE}
CALLS = {
    "_fastgan_pair": pairs.pair,
    "_fastgan_add": pairs.add,
    "_fastgan_scaled": pairs.scaled,
    "_fastgan_modulated": written.modulated,
    "_fastgan_filtered": written.filtered,
}
FUTURE = sum({getattr(__future__, name).compiler_flag for name in __future__.all_feature_names})


class Joint(NamedTuple):
    """Two neighbours: where, which call joins them, and the expressions of both ("self.conv")."""

    line: int
    call: str
    act: str
    layer: str


class Rewritten(Accelerated):
    """A module whose class has a forward of its own, rewritten."""

    @classmethod
    def members(cls, base: type, activations: frozenset[str] = frozenset()) -> dict:
        found = rewritten(base.forward, activations)
        return {} if isinstance(found, str) else {"forward": found}


@functools.cache
def rewritten(forward: Callable, activations: frozenset[str]) -> Callable | str:
    """`forward` with its neighbours joined (and `joints`, a list of them), or why it is left as it is.

    activations: the attributes of self that are modules of activations, or lists of these.
    """
    if not isinstance(forward, types.FunctionType):
        return "its forward is not a Python function"
    try:
        lines, first = inspect.getsourcelines(forward)
        tree = ast.parse("if True:\n" + "".join(lines) if lines[0][:1].isspace() else "".join(lines))
    except (OSError, TypeError, SyntaxError):
        return "the source of its forward is not at hand"
    function = tree.body[0].body[0] if isinstance(tree.body[0], ast.If) else tree.body[0]
    if not isinstance(function, ast.FunctionDef) or function.decorator_list:
        return "its forward is decorated, or no plain function"
    ast.increment_lineno(function, first - function.lineno)
    code, own = _compiled(function, forward), forward.__code__
    if code is None or list(_instructions(code)) != list(_instructions(own)):
        return "its forward is not what its source says"  # the file has changed since it was imported
    rewriter = _Rewriter(function, activations)
    rewriter.generic_visit(function)
    if not rewriter.joints:
        return "nothing in its forward has a neighbour to run with"
    code = _compiled(function, forward)
    cells = dict(zip(own.co_freevars, forward.__closure__ or (), strict=True))
    cells |= {name: types.CellType(call) for name, call in CALLS.items()}
    closure = tuple(cells[name] for name in code.co_freevars)
    made = types.FunctionType(code, forward.__globals__, forward.__name__, forward.__defaults__, closure)
    made.__kwdefaults__ = forward.__kwdefaults__
    functools.update_wrapper(made, forward)
    del made.__wrapped__
    made.joints = rewriter.joints
    return made


def _compiled(function: ast.FunctionDef, forward: types.FunctionType) -> types.CodeType | None:
    """The code of `function` as within the class and the closure of `forward`."""
    names = [name for name in (*forward.__code__.co_freevars, *CALLS) if name != "__class__"]
    owner = ([None, *forward.__qualname__.split(".")])[-2]
    inside = owner is not None and owner.isidentifier()
    frame = ast.parse(f"def made({', '.join(names)}):\n" + (f" class {owner}:\n  pass" if inside else " pass"))
    (frame.body[0].body[0] if inside else frame.body[0]).body = [function]
    ast.fix_missing_locations(frame)
    flags = forward.__code__.co_flags & FUTURE
    code = compile(frame, forward.__code__.co_filename, "exec", flags, dont_inherit=True)
    return next(_codes(code, forward.__code__.co_name), None)


def _codes(code: types.CodeType, name: str) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if constant.co_name == name:
                yield constant
            yield from _codes(constant, name)


def _instructions(code: types.CodeType) -> Iterator[tuple[str, object]]:
    """What the code does, whatever it knows of a name: an attribute of an imported one is read by another instruction."""
    for instruction in dis.get_instructions(code):
        name = instruction.opname.replace("LOAD_METHOD", "LOAD_ATTR")
        if name not in ("CACHE", "PRECALL", "PUSH_NULL"):
            jumps = instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs
            value = instruction.argval
            yield name, None if jumps else list(_instructions(value)) if isinstance(value, types.CodeType) else value


class _Rewriter(ast.NodeTransformer):
    def __init__(self, function: ast.FunctionDef, activations: frozenset[str]):
        self.joints: list[Joint] = []
        self.activations = activations
        self.self = function.args.args[0].arg if function.args.args else ""
        nodes = list(ast.walk(function))
        self.names = [node for node in nodes if isinstance(node, ast.Name)]
        loops = [node.target for node in nodes if isinstance(node, ast.For)]
        # b, c, h, w = x.shape
        sizes = {f"{arg.arg}.{of}" for arg in function.args.args for of in ("shape", "size()")}
        unpacked = [node for node in nodes if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)]
        self.batches = {ast.unparse(a.targets[0].elts[0]) for a in unpacked if ast.unparse(a.value) in sizes}
        self.batches |= {f"{arg.arg}.{of}" for arg in function.args.args for of in ("shape[0]", "size(0)")}
        self.looped = {node.id for loop in loops for node in ast.walk(loop) if isinstance(node, ast.Name)}
        # What handles an exception, a function within, and who asks for all names, may look at any value.
        lookers = ast.Try | ast.Lambda | ast.FunctionDef | ast.Global | ast.Nonlocal
        self.watched = any(isinstance(node, lookers) for node in nodes if node is not function)
        self.watched |= any(node.id in ("locals", "vars", "eval", "exec") for node in self.names)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list) and not self.watched:
                setattr(node, name, self.merged(statements))
        return node

    def visit_FunctionDef(self, node):
        return node

    visit_Lambda = visit_ClassDef = visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if self.is_activation(node) and (layer := self.layer(node.args[0])):
            super().generic_visit(layer)  # not the call of `layer`: what a loop goes over may be either of a pair
            return self.pair(node, layer)
        super().generic_visit(node)
        weight = node.args[1] if len(node.args) > 1 else None
        product = isinstance(weight, ast.BinOp) and isinstance(weight.op, ast.Mult)
        product = product and not any(isinstance(arg, ast.Starred) for arg in node.args[:2])
        if _name(node.func) in LINEAR and product and (self.is_lookup(weight.left) or self.is_lookup(weight.right)):
            self.note(node, "scaled", node.func, weight.left)
            arguments = [node.func, node.args[0], weight.left, weight.right, *node.args[2:]]
            return self.call("_fastgan_scaled", arguments, node)
        groups = next((keyword.value for keyword in node.keywords if keyword.arg == "groups"), None)
        if _name(node.func) in DEPTHWISE and groups is not None and not self.is_of_batch(groups):
            self.note(node, "filtered", node.func, None)
            return self.call("_fastgan_filtered", [node.func, *node.args], node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        super().generic_visit(node)
        if not isinstance(node.op, ast.Add):
            return node
        if (joined := self.modulated(node)) is not None:
            return joined
        for other, call, first in ((node.left, node.right, False), (node.right, node.left, True)):
            if isinstance(other, ast.Name) and (layer := self.layer(call)):
                self.note(node, "add", None, layer.func)
                arguments = [other, layer.func, layer.args[0], ast.Constant(first)]
                return self.call("_fastgan_add", arguments, node)
        return node

    def modulated(self, node: ast.expr, name: str = "", layer: ast.Call | None = None) -> ast.Call | None:
        """layer(x) * scale + shift, or scale * layer(x) + shift, as one call; `name`: what holds the result of `layer`."""
        sums = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and isinstance(node.left, ast.BinOp)
        if not sums or not isinstance(node.left.op, ast.Mult):
            return None
        left, right, shift = node.left.left, node.left.right, node.right
        for value, scale, first in ((left, right, False), (right, left, True)):
            found = layer if isinstance(value, ast.Name) and value.id == name else self.layer(value)
            if found is None or not _is_plain(scale, name) or not _is_plain(shift, name):
                continue
            # A layer that writes over its input is to have done so before arithmetic on that.
            after = (shift,) if first else (scale, shift)
            if not any(isinstance(part, ast.BinOp) and _names(part) & _names(found.args[0]) for part in after):
                self.note(node, "modulated", None, found.func)
                arguments = [found.func, found.args[0], scale, shift, ast.Constant(first)]
                return self.call("_fastgan_modulated", arguments, found)
        return None

    def merged(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """y = layer(x); z = act(y)   ->   z = act(layer(x)), where nothing else reads y."""
        done: list[ast.stmt] = []  # the last first: of layer, norm, activation the norm has the activation
        for statement in reversed(statements):
            after, layer = done[-1] if done else None, self.assigned_layer(statement)
            if layer is not None and isinstance(after, ast.Assign | ast.Return) and after.value is not None:
                name = statement.targets[0].id
                joined = self.joined(after.value, name, layer) if self.is_dropped(name, after) else None
                if joined is not None:
                    after.value = joined
                    continue
            done.append(statement)
        return done[::-1]

    def joined(self, value: ast.expr, name: str, layer: ast.Call) -> ast.Call | None:
        """`value` with what is called `name` in it computed by the way; None where it is no neighbour of `layer`."""
        if not isinstance(value, ast.Call):
            return self.modulated(value, name, layer)
        if not self.is_activation(value) or not isinstance(value.args[0], ast.Name) or value.args[0].id != name:
            return None
        others = [*value.args[1:], *value.keywords]
        again = any(isinstance(n, ast.Name) and n.id == name for other in others for n in ast.walk(other))
        return None if again else self.pair(value, layer)

    def assigned_layer(self, statement: ast.stmt) -> ast.Call | None:
        plain = isinstance(statement, ast.Assign) and len(statement.targets) == 1
        return self.layer(statement.value) if plain and isinstance(statement.targets[0], ast.Name) else None

    def is_dropped(self, name: str, statement: ast.stmt) -> bool:
        """Whether the value of `name` is gone after `statement`, which reads it."""
        if isinstance(statement, ast.Return):
            return True
        target = statement.targets[0] if len(statement.targets) == 1 else None
        if isinstance(target, ast.Name) and target.id == name:
            return True
        return sum(node.id == name for node in self.names) == 2  # written once, read once

    def is_activation(self, node: ast.Call) -> bool:
        """Whether the call may be of an activation, of its first argument; the others are computed before that in a pair."""
        if not node.args or isinstance(node.args[0], ast.Starred):
            return False
        if any(keyword.arg is None for keyword in node.keywords):
            return False
        if not all(_is_plain(other) for other in (*node.args[1:], *(keyword.value for keyword in node.keywords))):
            return False
        func = node.func
        if (name := self.own(func)) is not None:
            return name in self.activations
        return _name(func) in ACTIVATIONS or (isinstance(func, ast.Name) and func.id in self.looped)

    def is_of_batch(self, groups: ast.expr) -> bool:
        """Whether there are as many groups as images, each with a weight of its own, or a fixed number."""
        return isinstance(groups, ast.Constant) or ast.unparse(groups) in self.batches

    def own(self, node: ast.expr) -> str | None:
        """The a of self.a and self.a[i]."""
        node = node.value if isinstance(node, ast.Subscript) and self.is_lookup(node) else node
        mine = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self.self
        return node.attr if mine else None

    def layer(self, node: ast.AST) -> ast.Call | None:
        """The node, where it may be the call of a layer with one argument."""
        if not isinstance(node, ast.Call) or len(node.args) != 1 or node.keywords:
            return None
        if isinstance(node.args[0], ast.Starred) or self.own(node.func) in self.activations:
            return None
        return node if self.is_lookup(node.func) else None

    def is_lookup(self, node: ast.AST) -> bool:
        """self.a.b, self.a[0] or what a loop goes over: something that is only looked up."""
        if isinstance(node, ast.Attribute):
            return self.is_lookup(node.value)
        if isinstance(node, ast.Subscript):
            return isinstance(node.slice, ast.Constant | ast.Name) and self.is_lookup(node.value)
        return isinstance(node, ast.Name) and (node.id == self.self or node.id in self.looped)

    def pair(self, act: ast.Call, layer: ast.Call) -> ast.Call:
        self.note(layer, "pair", act.func, layer.func)
        return self.call("_fastgan_pair", [act.func, layer.func, layer.args[0], *act.args[1:]], act)

    def note(self, node: ast.expr, call: str, act: ast.expr | None, layer: ast.expr | None) -> None:
        act_name, layer_name = (
            "" if part is None else re.sub(rf"^{self.self}\b", "self", ast.unparse(part)) for part in (act, layer)
        )
        self.joints.append(Joint(node.lineno, call, act_name, layer_name))

    def call(self, name: str, arguments: list[ast.expr], like: ast.Call) -> ast.Call:
        made = ast.Call(ast.Name(name, ast.Load()), arguments, getattr(like, "keywords", []))
        return ast.copy_location(made, like)


def _is_plain(node: ast.expr, name: str = "") -> bool:
    """Whether to compute it before the layer instead of after is the same: names and arithmetic, without `name`."""
    plain = ast.Name | ast.Attribute | ast.Constant | ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop
    return all(isinstance(n, plain | ast.expr_context) for n in ast.walk(node)) and name not in _names(node)


def _names(node: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _name(func: ast.expr) -> str | None:
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", None)


def plan(module: nn.Module) -> tuple[type, list[tuple[str, str]]] | str:
    """The class that a module with a forward of its own gets, with the rows of its report; or why it stays."""
    kind = type(module)
    acts = frozenset(name for name, child in module._modules.items() if _activates(child))
    found = rewritten(kind.forward, acts)
    if isinstance(found, str):
        return found
    rows = [row for joint in found.joints if (row := _row(module, joint)) is not None]
    if not rows:
        return "nothing in its forward gains by its neighbour"
    return accelerated(Rewritten, kind, acts), rows


def _activates(module: nn.Module | None) -> bool:
    if isinstance(module, nn.ModuleList):
        return len(module) > 0 and all(map(_activates, module))
    return module is not None and original(module) in pairs.MODULES


def _row(module: nn.Module, joint: Joint) -> tuple[str, str] | None:
    """What a joint does in this module, as far as can be told before it runs; None where it does nothing."""
    if joint.call == "filtered":
        name = joint.act.rsplit(".")[-1]
        return "", f"{name} with a fixed filter for all channels -> upfirdn2d, line {joint.line}"
    layer = _resolved(module, joint.layer)
    where = joint.layer.removeprefix("self.")
    if joint.call == "scaled":
        return where, f"equalised {joint.act.rsplit('.')[-1]}: the factor goes to the smaller of image and weight"
    known = isinstance(layer, nn.Module)
    if layer is not None and not known:
        return None
    if joint.call == "modulated":
        plain = known and not isinstance(layer, nn.Sequential) and pairs.ends_in_norm(layer)
        return (where, "instance norm, scaled and shifted for each image -> norm_act") if plain else None
    if joint.call == "add":
        return (where, "residual, with instance norm") if known and pairs.ends_in_norm(layer) else None
    kind = pairs.fresh(layer) if known else None
    if known and kind is None:
        return None
    act = _resolved(module, joint.act) if joint.act.startswith("self.") else joint.act
    if kind is not None and not issubclass(kind, pairs.Norm) and not pairs.has_one_kernel(layer):
        done = pairs.is_inplace(act) if isinstance(act, nn.Module) else act.endswith("_")
        unknown = isinstance(act, nn.Module) and pairs.served(act) is None
        if done or unknown or pairs.is_small(layer):
            return None
    name = original(act).__name__ if isinstance(act, nn.Module) else joint.act.rsplit(".")[-1]
    first = original(layer).__name__ if known else "a layer"
    norm = kind is not None and issubclass(kind, pairs.Norm)
    if norm and isinstance(act, nn.Module) and pairs.served(act) is None:
        return None
    return where, f"{first} + {name} {'-> norm_act' if norm else 'in place'}, line {joint.line}"


def _resolved(module: nn.Module, expression: str):
    """What self.a.b is in `module`; None where it cannot be told."""
    parts = expression.replace("[", ".").replace("]", "").split(".")
    if parts[0] != "self":
        return None
    for part in parts[1:]:
        children = module._modules if isinstance(module, nn.Module) else {}
        module = children.get(part) if part in children else vars(module).get(part)
        if module is None:
            return None
    return module
