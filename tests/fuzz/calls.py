"""Random calls of every public op of fastgan.ops, right ones with their definition in float64, wrong ones beside them."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from fastgan import ops
from fastgan.ops.bias_act import ACTIVATIONS
from fastgan.ops.gumbel_softmax import _uniform

DTYPES = [torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16]
SIZES = [0, 1, 1, 2, 2, 3, 4, 4, 5, 7, 8, 11, 13, 16, 17]
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, 1e-30]


@dataclass
class Call:
    """`definition` takes the arguments in float64; `differentiable`: the names of those with a gradient."""

    function: Callable
    arguments: dict[str, Any]
    definition: Callable
    differentiable: tuple[str, ...]
    wrong: list[tuple[str, Any]] = field(default_factory=list)  # (argument, a value it refuses)
    seed: int = 0  # of torch's generator, where the op draws


class Draw:
    """Random sizes, options and tensors of one call."""

    def __init__(self, key: str) -> None:
        self.random = random.Random(key)
        self.generator = torch.Generator().manual_seed(self.random.getrandbits(60))
        self.dtype = self.random.choice(DTYPES)
        self.special = self.random.random() < 0.15

    def of(self, *options):
        return self.random.choice(options)

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def size(self, least: int = 0) -> int:
        return self.random.choice([s for s in SIZES if s >= least])

    def number(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def tensor(self, *shape: int, dtype: torch.dtype | None = None, scale: float = 1.0, special: bool = True):
        """In any layout: contiguous, channels_last, permuted, strided, an offset view, expanded."""
        dtype = dtype or self.dtype
        layout = self.of("plain", "plain", "last", "permuted", "strided", "offset", "expanded")
        order = list(range(len(shape)))
        if layout == "permuted":
            self.random.shuffle(order)
        elif layout == "last" and len(shape) > 2:
            order = [0, *order[2:], 1]
        stored = [shape[i] for i in order]
        if layout == "strided" and stored:
            stored[-1] *= 2
        if layout == "expanded" and stored:
            stored[self.random.randrange(len(stored))] = 1
        extra = self.random.randrange(1, 4) if layout == "offset" else 0
        flat = torch.randn(math.prod(stored) + extra, generator=self.generator, dtype=torch.float64) * scale
        if special and self.special and flat.numel():
            for _ in range(self.random.randrange(1, 3)):
                flat[self.random.randrange(flat.numel())] = self.random.choice(SPECIAL)
        t = flat.to(dtype)[extra:].view(stored)
        if layout == "strided" and stored:
            t = t[..., ::2]
        t = t.permute([order.index(i) for i in range(len(order))])
        return t.expand(shape) if layout == "expanded" else t

    def image(self, least: int = 0):
        return self.tensor(self.of(0, 1, 2, 3), self.of(1, 2, 3, 5, 8), self.size(least), self.size(least))

    def filter(self, most: int = 6):
        taps = self.random.randrange(1, most + 1)
        shape = (taps,) if self.chance(0.6) else (self.random.randrange(1, 5), self.random.randrange(1, 5))
        return None if self.chance(0.1) else self.tensor(*shape, dtype=torch.float32, special=False)


def not_a_tensor(name, x):
    """What every op refuses as its tensor `name`."""
    wrong = [[1.0], None, "x", x.to(torch.int64), x.to(torch.complex64), x.to(torch.bool)]
    return [(name, w) for w in wrong]


def other_dtype(name, x):
    return (name, x.to(torch.float64 if x.dtype != torch.float64 else torch.float32))


IMPL = ("impl", "opencl")


def bias_act(d: Draw) -> Call:
    shape = [d.size() for _ in range(d.of(1, 2, 3, 4, 4))]
    x, dim = d.tensor(*shape, scale=3), d.random.randrange(len(shape))
    b = d.tensor(shape[dim]) if d.chance(0.7) else None
    act = d.of(*ACTIVATIONS)
    arguments = dict(
        x=x, b=b, dim=dim, act=act, alpha=d.of(None, 0.0, 0.2, 1.5, -0.3), gain=d.of(None, 1, 0.5, 3.0, -1.0, 0)
    )
    arguments["clamp"] = d.of(None, None, 0, 0.7, 256)
    wrong = [
        *not_a_tensor("x", x),
        ("x", x.sum() if x.dim() else x),
        ("act", "gelu"),
        ("act", None),
        ("clamp", -1),
        ("clamp", math.nan),
    ]
    wrong += [("gain", "2"), ("clamp", "1"), ("b", torch.zeros(shape[dim] + 1, dtype=x.dtype)), ("b", 1.0), IMPL]
    if b is not None:
        wrong += [
            ("dim", len(shape)),
            ("dim", -1),
            ("dim", 0.5),
            other_dtype("b", b),
            ("b", b.to("meta")),
            ("b", b[None]),
        ]
    if act == "lrelu":
        wrong += [("alpha", "0.2")]

    def definition(**a):
        return ops.bias_act(**a, impl="reference")

    return Call(ops.bias_act, arguments, definition, ("x", "b"), wrong)


def norm_act(d: Draw) -> Call:
    shape = [d.of(0, 1, 2, 3), d.of(1, 2, 3, 7), *(d.size() for _ in range(d.of(1, 2, 2, 3)))]
    x = d.tensor(*shape, scale=2)
    w, b = (d.tensor(shape[1]) if d.chance(0.7) else None for _ in range(2))
    residual = d.tensor(*shape) if d.chance(0.3) else None
    act = d.of(*ACTIVATIONS)
    arguments = dict(
        x=x, weight=w, bias=b, residual=residual, act=act, alpha=d.of(None, 0.0, 0.3), eps=d.of(1e-5, 1e-2)
    )
    wrong = [
        *not_a_tensor("x", x),
        ("x", torch.zeros(2, 3, dtype=x.dtype)),
        ("act", "gelu"),
        ("eps", -1.0),
        ("eps", "x"),
        ("eps", math.nan),
    ]
    wrong += [
        ("weight", torch.zeros(shape[1] + 1, dtype=x.dtype)),
        ("bias", [1.0]),
        other_dtype("weight", torch.zeros(shape[1], dtype=x.dtype)),
        IMPL,
    ]
    wrong += [
        ("residual", torch.zeros(*shape, 1, dtype=x.dtype)),
        ("bias", torch.zeros(shape[1], device="meta", dtype=x.dtype)),
    ]
    if act == "lrelu":
        wrong += [("alpha", -0.1), ("alpha", "x")]
    return Call(
        ops.norm_act,
        arguments,
        lambda **a: ops.norm_act(**a, impl="reference"),
        ("x", "weight", "bias", "residual"),
        wrong,
    )


def grad_penalty(d: Draw) -> Call:
    grad = d.tensor(*(d.size() for _ in range(d.of(1, 2, 3, 4))))
    arguments = dict(grad=grad, kind=d.of("r1", "wgan-gp", "one-sided"), target=d.of(0.0, 0.5, 1.0, 3))
    wrong = [
        *not_a_tensor("grad", grad),
        ("grad", torch.zeros((), dtype=grad.dtype)),
        ("kind", "r2"),
        ("kind", None),
        IMPL,
    ]
    if arguments["kind"] != "r1":
        wrong += [("target", -1), ("target", math.inf), ("target", "1")]
    impl = d.of("auto", "auto", "cpp") if ops.available()["grad_penalty"]["cpp"] else "auto"
    return Call(
        lambda impl=impl, **a: ops.grad_penalty(**a, impl=impl), arguments,
        lambda **a: ops.grad_penalty(**a, impl="reference"), ("grad",), wrong,
    )  # fmt: skip


def gumbel_softmax(d: Draw) -> Call:
    logits = d.tensor(*(d.size() for _ in range(d.of(1, 2, 3))), scale=2)
    arguments = dict(logits=logits, temperature=d.of(0.3, 1.0, 2), seed=d.random.randrange(2**63))
    wrong = [
        *not_a_tensor("logits", logits),
        ("logits", torch.zeros((), dtype=logits.dtype)),
        ("temperature", 0),
        ("temperature", -1.0),
    ]
    wrong += [
        ("temperature", math.nan),
        ("temperature", "x"),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 0.5),
        ("seed", "1"),
        ("seed", torch.zeros(2)),
        IMPL,
    ]

    def definition(logits, temperature, seed):
        rows = logits[..., 0].numel() if logits.shape[-1] else 0
        u = _uniform(rows, logits.shape[-1], torch.tensor([seed]), torch.device("cpu"))
        return ((logits - (-u.log()).log().view(logits.shape)) / temperature).softmax(-1)

    return Call(ops.gumbel_softmax, arguments, definition, ("logits",), wrong)


def grid_sample(d: Draw) -> Call:
    n, c = d.of(0, 1, 2), d.of(0, 1, 3)
    input, grid = d.tensor(n, c, d.size(1), d.size(1)), d.tensor(n, d.size(), d.size(), 2, special=False)
    wrong = [
        *not_a_tensor("input", input),
        *not_a_tensor("grid", grid),
        ("input", input[0] if n else input.sum()),
        other_dtype("grid", grid),
    ]
    wrong += [
        ("grid", grid[..., :1]),
        ("grid", torch.cat([grid, grid[:1], torch.zeros(1, *grid.shape[1:], dtype=grid.dtype)])),
        ("input", input[:, :, :0]),
        ("grid", grid.to("meta")),
    ]

    def definition(input, grid):
        if 0 in (*input.shape, *grid.shape):
            return input.new_zeros(n, c, *grid.shape[1:3]) + 0 * (input.sum() + grid.sum())
        return F.grid_sample(input, grid, align_corners=False)

    return Call(ops.grid_sample, dict(input=input, grid=grid), definition, ("input", "grid"), wrong)


def minibatch_stddev(d: Draw) -> Call:
    group, factor, channels = d.of(1, 2, 3, 4, None), d.of(0, 1, 2), d.of(1, 2)
    n = (group or 2) * factor
    x = d.tensor(n, channels * d.of(1, 2, 3), d.size(1), d.size(1))
    wrong = [
        *not_a_tensor("x", x),
        ("x", x[0] if n else x.sum()),
        ("num_channels", 0),
        ("num_channels", x.shape[1] + 1),
        ("num_channels", 1.0),
        ("group_size", 0.5),
        ("group_size", -1),
    ]
    wrong += [
        ("group_size", "4"),
        ("num_channels", "1"),
        *([("group_size", 0), ("group_size", n - 1)] if n > 2 else []),
    ]

    def definition(x, group_size, num_channels):
        g = n if group_size is None else min(group_size, n)
        if not n:
            return x.new_zeros(0, x.shape[1] + num_channels, *x.shape[2:]) + 0 * x.sum()
        y = x.reshape(g, n // g, num_channels, -1, *x.shape[2:])
        s = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((2, 3, 4))
        return torch.cat([x, s.repeat(g, 1)[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)

    return Call(ops.minibatch_stddev, dict(x=x, group_size=group, num_channels=channels), definition, ("x",), wrong)


def _snake(d: Draw, op, shape: list[int], **more) -> Call:
    x, channels = d.tensor(*shape, scale=2), shape[1]
    logscale = d.chance(0.5)

    def parameter():
        v = d.tensor(channels, scale=0.5)
        v = v if logscale else v.abs() + 0.5  # a beta about 0 makes any number
        return v if d.chance(0.7) else v[None, :, None]

    alpha, beta = parameter(), parameter() if d.chance(0.7) else None
    arguments = dict(x=x, alpha=alpha, beta=beta, logscale=logscale, eps=d.of(1e-9, 1e-3), **more)
    wrong = [
        *not_a_tensor("x", x),
        ("x", x.sum()),
        *not_a_tensor("alpha", alpha),
        ("alpha", alpha.flatten()[None]),
    ]
    wrong += [("alpha", torch.zeros(channels + 1, dtype=x.dtype)), ("beta", torch.zeros(channels + 1, dtype=x.dtype))]
    wrong += [("eps", "1"), ("eps", math.nan), ("alpha", alpha.to("meta")), IMPL]

    def definition(**a):
        return op(**a, impl="reference")

    return Call(op, arguments, definition, ("x", "alpha", "beta"), wrong)


def snake(d: Draw) -> Call:
    return _snake(d, ops.snake, [d.of(0, 1, 2, 3), d.of(1, 2, 5, 16), *(d.size() for _ in range(d.of(0, 1, 2)))])


def filtered_snake(d: Draw) -> Call:
    up, down = d.of(1, 2, 4, 3), d.of(1, 2, 4, 3)
    taps = {"fu": up + d.random.randrange(20), "fd": 1 + d.random.randrange(20)}
    filters = {
        k: d.tensor(n, dtype=torch.float32, special=False, scale=0.4) if d.chance(0.7) else None
        for k, n in taps.items()
    }
    call = _snake(
        d, ops.filtered_snake, [d.of(0, 1, 2), d.of(1, 2, 5), d.size(1) * d.of(1, 8)], up=up, down=down, **filters
    )
    call.wrong += [
        ("up", 0),
        ("up", 2.0),
        ("down", 0),
        ("down", "2"),
        ("fu", torch.zeros(0)),
        ("fd", torch.zeros(2, 3)),
        ("fd", [1.0]),
    ]
    return call


def pixel_norm(d: Draw) -> Call:
    shape = [d.size() for _ in range(d.of(1, 2, 4))]
    x, dim = d.tensor(*shape), d.random.randrange(-len(shape), len(shape))
    wrong = [
        *not_a_tensor("x", x),
        ("dim", len(shape)),
        ("dim", -len(shape) - 1),
        ("dim", 0.5),
        ("dim", "1"),
        ("eps", 0),
        ("eps", -1.0),
        ("eps", math.nan),
        ("eps", "x"),
    ]

    def definition(x, dim, eps):
        return x / (x.square().mean(dim, keepdim=True) + eps).sqrt()

    return Call(ops.pixel_norm, dict(x=x, dim=dim, eps=d.of(1e-8, 1e-4)), definition, ("x",), wrong)


def fma(d: Draw) -> Call:
    shape = [d.size() for _ in range(d.of(0, 1, 2, 3))]
    a, b, c = (
        d.tensor(*(1 if d.chance(0.2) else s for s in shape[d.random.randrange(len(shape) + 1) :])) for _ in range(3)
    )
    wrong = [*not_a_tensor("a", a), *not_a_tensor("c", c), other_dtype("b", b), ("b", 2), ("c", c.to("meta"))]

    def clashes(shape):
        try:
            torch.broadcast_shapes(a.shape, shape, c.shape)
        except RuntimeError:
            return True
        return False

    wrong += [("b", torch.zeros(shape, dtype=a.dtype)) for shape in ((6, 6), (19,)) if clashes(shape)]
    return Call(ops.fma, dict(a=a, b=b, c=c), lambda a, b, c: a * b + c, ("a", "b", "c"), wrong)
