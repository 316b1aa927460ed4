"""bias_act in every implementation that runs here: values, gradients of three orders, layouts, dtypes, refusals."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cpu_levels import LEVELS
from device import DEVICE, kernels, seeded
from golden import golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE, assert_close

from fastgan.ops import bias_act
from fastgan.ops.bias_act import ACTIVATIONS

ROOT = Path(__file__).resolve().parents[2]
ACTS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")
SMOOTH = ("tanh", "sigmoid", "softplus", "swish")
# Without a compiled kernel "auto" is the reference under the formulas of the derivatives.
KERNELS = kernels("bias_act") or ["auto"]
IMPLS = ["reference", *KERNELS]


def formula(x, b, dim, act, alpha, gain, clamp):
    """The table of the docstring, in float64 and independent of the package."""
    t = x.double()
    if b is not None:
        t = t + b.double().reshape([-1 if i == dim else 1 for i in range(x.dim())])
    zero = torch.zeros_like(t)
    y = {
        "linear": lambda: t,
        "relu": lambda: t.maximum(zero),
        "lrelu": lambda: torch.where(t > 0, t, (0.2 if alpha is None else alpha) * t),
        "tanh": lambda: (t.exp() - (-t).exp()) / (t.exp() + (-t).exp()),
        "sigmoid": lambda: 1 / (1 + (-t).exp()),
        "elu": lambda: torch.where(t > 0, t, t.minimum(zero).expm1()),
        "selu": lambda: 1.0507009873554805 * torch.where(t > 0, t, 1.6732632423543772 * t.minimum(zero).expm1()),
        "softplus": lambda: torch.where(t > 20, t, t.minimum(zero + 20).exp().log1p()),
        "swish": lambda: t / (1 + (-t).exp()),
    }[act]()
    y = y * ((math.sqrt(2) if act in ("relu", "lrelu", "swish") else 1.0) if gain is None else gain)
    return y if clamp is None else y.clamp(-clamp, clamp)


def away_from_kinks(shape, generator=None, dtype=torch.float64):
    """Values whose magnitude is between 0.05 and 1.5, so that a finite difference of 1e-6 meets no kink at 0."""
    magnitude = torch.rand(shape, generator=generator, dtype=torch.float64) * 1.45 + 0.05
    sign = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    return (magnitude * sign).to(dtype)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("case, t", golden_cases("bias_act"))
def test_golden(case, t, impl):
    x, b = t["x"].requires_grad_(), t["b"].requires_grad_() if "b" in t else None
    y = bias_act(x, b, **case["kwargs"], impl=impl)
    assert_close(y, t["y"])
    if "gy" not in t:
        return
    gy = t["gy"].requires_grad_()
    inputs = [x] if b is None else [x, b]
    first = torch.autograd.grad(y, inputs, gy, create_graph=True)
    for name, g in zip(("gx", "gb"), first, strict=False):
        assert_close(g, t[name])
    if "v" in t:
        s = (first[0] * t["v"]).sum()
        second = torch.autograd.grad(s, [*inputs, gy], allow_unused=True) if s.requires_grad else [None] * 3
        names = ["ds_x", "ds_gy"] if b is None else ["ds_x", "ds_b", "ds_gy"]
        for name, g, like in zip(names, second, [*inputs, gy], strict=True):
            assert_close(torch.zeros_like(like) if g is None else g, t[name])


def every_number(dtype):
    """All that a 16-bit type has and are finite."""
    t = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    return t[t.isfinite()]


@pytest.mark.parametrize(
    "impl, level", [(impl, level) for impl in IMPLS for level in (LEVELS if impl == "cpp" else [""])]
)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("clamp", [0.0, 0.7, 1.0, 1.0009765625, 3.0, 70144.0, 1e39])
def test_the_clamp_is_reached_where_the_stored_output_has_reached_it(clamp, dtype, act, impl, level, cpu_level):
    """At each number of a 16-bit type the gradient is 0 where |y| is the limit, and elsewhere what it is without a clamp."""
    if level:
        cpu_level(level)
    x = every_number(dtype).to(DEVICE).requires_grad_()
    b = torch.full((1,), 0.3, dtype=dtype, device=DEVICE)
    y = bias_act(x[:, None], b, act=act, clamp=clamp, impl=impl)
    free = bias_act(x[:, None], b, act=act, impl=impl)
    (found,), (wanted,) = (torch.autograd.grad(t.sum(), x) for t in (y, free))
    if impl == "reference":  # whose gradient is autograd's: the formula stands beside it
        saved, row = x[:, None] if act == "swish" else y, ACTIVATIONS[act]
        rest = (torch.ones_like(y), saved, b, 1, act, 0.2, row.gain)
        found, wanted = (torch.ops.fastgan.bias_act_backward_reference(*rest, c, False)[0][:, 0] for c in (clamp, -1.0))
    reached = (y.abs() >= torch.full((), clamp, dtype=dtype, device=DEVICE))[:, 0]
    assert torch.equal(found[reached], torch.zeros_like(found[reached]))
    assert torch.equal(found[~reached], wanted[~reached])
    assert reached.any() or clamp >= 1  # of a bounded activation, or of one whose gain is 1


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_values_and_gradients(act, dtype, impl):
    x = (torch.randn(2, 5, 7, 3) * 4).to(dtype).requires_grad_()
    b = torch.randn(5).to(dtype).requires_grad_()
    y = bias_act(x, b, act=act, clamp=2.0, impl=impl)
    assert y.dtype == dtype
    x64 = x.detach().double().requires_grad_()
    expected = formula(x64, b.detach(), 1, act, None, None, 2.0)
    assert_close(y, expected)
    dy = torch.randn(y.shape).to(dtype)
    dx, db = torch.autograd.grad(y, (x, b), dy)
    (dx64,) = torch.autograd.grad(expected, x64, dy.double())
    at_the_limit = (expected.abs() - 2).abs() < 4 * TOLERANCE[dtype]  # rounding decides the side
    dx64 = torch.where(at_the_limit, dx.double(), dx64)
    assert_close(dx, dx64, 2 * TOLERANCE[dtype])  # from the rounded output, then rounded
    assert_close(db, dx.double().sum((0, 2, 3)))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_gradcheck_of_both_orders(act, clamp, impl):
    generator = seeded(1)
    x, b = away_from_kinks((2, 3, 4), generator), torch.tensor([0.01, -0.02, 0.015], dtype=torch.float64)
    if clamp is not None:
        y = formula(x, b, 1, act, None, 1.3, None)
        x = torch.where((y.abs() - clamp).abs() < 1e-3, x * 1.1, x)
    x.requires_grad_(), b.requires_grad_()

    def f(x, b):
        return bias_act(x, b, act=act, gain=1.3, clamp=clamp, impl=impl)

    fast = impl == "triton"  # along random directions: the interpreter needs 3 ms for a call
    assert torch.autograd.gradcheck(f, (x, b), fast_mode=fast)
    assert torch.autograd.gradgradcheck(f, (x, b), fast_mode=fast)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("act", SMOOTH)
def test_third_order(act, impl):
    x, b = away_from_kinks((2, 3)).requires_grad_(), away_from_kinks((3,)).requires_grad_()
    v = torch.randn(2, 3, dtype=torch.float64)

    def gradient(x, b):
        y = bias_act(x, b, act=act, impl=impl)
        return torch.autograd.grad((y * v).sum(), (x, b), create_graph=True)

    assert torch.autograd.gradgradcheck(gradient, (x, b), fast_mode=impl == "triton")


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("act", ACTS)
def test_second_derivative_without_a_bias_equals_the_reference(act, impl):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def penalty(impl):
        (g,) = torch.autograd.grad(bias_act(x, act=act, clamp=1.0, impl=impl).square().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), x)[0]

    assert_close(penalty(impl), penalty("reference"))


@pytest.mark.parametrize("impl", IMPLS)
def test_kinks_and_limits(impl):
    x = torch.tensor([[0.0, -0.0, 1.0, -5.0, 0.5, math.nan, math.inf, -math.inf]], requires_grad=True)
    y = bias_act(x, act="lrelu", gain=1.0, clamp=1.0, impl=impl)
    assert torch.equal(y[0, :5], torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5]))
    assert y[0, 5].isnan() and y[0, 6] == 1 and y[0, 7] == -1
    (g,) = torch.autograd.grad(y.sum(), x)
    # the negative side at 0; no gradient where |y| has reached the clamp
    assert torch.equal(g[0, :5], torch.tensor([0.2, 0.2, 0.0, 0.0, 1.0]))
    (g,) = torch.autograd.grad(bias_act(x, act="relu", gain=3.0, impl=impl).sum(), x)
    assert torch.equal(g[0, [0, 1, 2, 3, 6, 7]], torch.tensor([0.0, 0.0, 3.0, 0.0, 3.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_nothing_changes_no_bit(impl, dtype):
    """A bias of 0, for none, would make 0 of -0."""
    x = torch.tensor([[0.0, -0.0, 1.0, -5.0, math.nan, math.inf, -math.inf, 1e-7] * 9], dtype=dtype)
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(bias_act(x, impl=impl).view(bits), x.view(bits))
    y = bias_act(x, act="lrelu", gain=1.0, impl=impl)
    assert torch.equal(y.signbit(), x.signbit())


@pytest.mark.parametrize("gain", [1.0, -1.0])
@pytest.mark.parametrize("impl", IMPLS)
def test_limit_beyond_float16(impl, gain):
    x = torch.tensor([[-2.0, 3.0, math.inf]], dtype=torch.float16)
    assert torch.equal(bias_act(x, gain=gain, clamp=1e5, impl=impl), gain * x)


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("act", ACTS)
def test_far_arguments(act, impl):
    x = torch.tensor([[-1e30, -200.0, -90.0, -88.0, -20.5, -1e-6, 1e-6, 19.9, 20.1, 88.0, 200.0, 1e30]])
    y = bias_act(x, act=act, gain=1.0, impl=impl)
    expected = bias_act(x.double(), act=act, gain=1.0, impl="reference")
    # float32 kernels take e^t as 0 below e^-87 = 1.6e-38, near the smallest normal number; swish multiplies that by t
    assert torch.allclose(y.double(), expected, rtol=1e-5, atol=2e-36), (y, expected)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape, dim", [((7,), 0), ((5, 1), 1), ((3, 5), 0), ((2, 3, 5), 2), ((2, 3, 5, 7, 2), 3)])
def test_any_rank_and_dim(shape, dim, impl):
    x, b = torch.randn(shape, requires_grad=True), torch.randn(shape[dim], requires_grad=True)
    y = bias_act(x, b, dim, act="swish", impl=impl)
    expected = bias_act(x.double(), b.double(), dim, act="swish", impl="reference")
    assert_close(y, expected)
    for g, e in zip(torch.autograd.grad(y.sum(), (x, b)), torch.autograd.grad(expected.sum(), (x, b)), strict=True):
        assert_close(g, e)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (0,)])
def test_empty(shape, impl):
    dim = min(1, len(shape) - 1)
    x, b = torch.randn(shape, requires_grad=True), torch.randn(shape[dim], requires_grad=True)
    y = bias_act(x, b, dim, act="lrelu", clamp=1, impl=impl)
    dx, db = torch.autograd.grad(y.sum(), (x, b))
    assert y.shape == dx.shape == shape and torch.equal(db, torch.zeros_like(b))


def layouts(shape):
    n, c, h, w = shape
    return {
        "contiguous": torch.randn(shape),
        "channels_last": torch.randn(shape).to(memory_format=torch.channels_last),
        "transposed": torch.randn(n, c, w, h).transpose(2, 3),
        "batch inside": torch.randn(c, h, w, n).permute(3, 0, 1, 2),
        "sliced": torch.randn(n, c, h, 2 * w)[..., ::2],
        "offset": torch.randn(n * c * h * w + 1)[1:].view(shape),
        "expanded": torch.randn(1, c, 1, w).expand(shape),
    }


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("layout", layouts((1, 1, 1, 1)))
def test_layouts(layout, impl):
    x, b = layouts((3, 5, 7, 11))[layout].requires_grad_(), torch.randn(5, requires_grad=True)
    y = bias_act(x, b, act="lrelu", clamp=1.5, impl=impl)
    expected = bias_act(x.double(), b.double(), act="lrelu", clamp=1.5, impl="reference")
    assert y.stride() == torch.empty_like(x).stride()
    assert_close(y, expected)
    for dy in layouts((3, 5, 7, 11)).values():
        got = torch.autograd.grad(y, (x, b), dy, retain_graph=True)
        wanted = torch.autograd.grad(expected, (x, b), dy.double(), retain_graph=True)
        assert got[0].stride() == y.stride()
        assert_close(got[0], wanted[0])
        assert_close(got[1], wanted[1])


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("size", [1, 15, 16, 17, 511, 513, 16383, 16385, 70001])
def test_sizes_around_every_block(size, impl):
    for shape, dim in (((1, 1, size), 1), ((size, 3), 1), ((2, 3, size), 1)):
        x, b = torch.randn(shape, requires_grad=True), torch.randn(shape[dim], requires_grad=True)
        y, expected = (bias_act(x, b, dim, "lrelu", impl=i) for i in (impl, "reference"))
        assert_close(y, expected)
        dy = torch.randn(shape)
        for g, e in zip(
            torch.autograd.grad(y, (x, b), dy),
            torch.autograd.grad(expected.double(), (x, b), dy.double()),
            strict=True,
        ):
            assert_close(g, e)


@st.composite
def arguments(draw):
    shape = draw(st.lists(st.integers(0, 7), min_size=1, max_size=5))
    dim = draw(st.integers(0, len(shape) - 1))
    return {
        "shape": shape,
        "order": draw(st.permutations(range(len(shape)))),
        "dim": dim,
        "bias": draw(st.booleans()),
        "act": draw(st.sampled_from(ACTS)),
        "alpha": draw(st.none() | st.floats(-1, 1)),
        "gain": draw(st.none() | st.floats(-2, 2).filter(lambda g: g == 0 or abs(g) > 0.05)),
        "clamp": draw(st.none() | st.integers(0, 24).map(lambda i: i / 8)),  # exact in every dtype
        "dtype": draw(st.sampled_from(list(TOLERANCE))),
        "seed": draw(st.integers(0, 99)),
    }


@pytest.mark.parametrize("impl", KERNELS)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(a=arguments())
def test_generated_arguments(impl, a):
    generator = seeded(a["seed"])
    order = a["order"]
    x = (torch.randn([a["shape"][i] for i in order], generator=generator) * 2).to(a["dtype"])
    x = x.permute([order.index(i) for i in range(len(order))]).requires_grad_()
    b = torch.randn(x.shape[a["dim"]], generator=generator).to(a["dtype"]).requires_grad_() if a["bias"] else None
    common = {k: a[k] for k in ("dim", "act", "alpha", "gain", "clamp")}
    y = bias_act(x, b, **common, impl=impl)
    expected = bias_act(x, b, **common, impl="reference")
    assert_close(y, expected)
    like = torch.empty_like(x)
    assert not x.numel() or all(y.stride(i) == like.stride(i) for i in range(x.dim()) if x.shape[i] > 1)
    dy = torch.randn(x.shape, generator=generator).to(a["dtype"])
    inputs = (x,) if b is None else (x, b)
    got, wanted = (torch.autograd.grad(out, inputs, dy) for out in (y, expected))
    limit = TOLERANCE[a["dtype"]]
    # swish compares its output before rounding to 16 bits
    same_side = ((expected == y) & (a["act"] != "swish")) | ((expected.abs() - (a["clamp"] or 0)).abs() > 8 * limit)
    assert_close(torch.where(same_side, got[0], wanted[0]), wanted[0], 4 * limit)
    if b is not None and bool(same_side.all()):
        assert_close(got[1], wanted[1], 4 * limit)


@pytest.mark.skipif("cpp" not in KERNELS, reason="no CPU kernel under test")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("act", ACTS)
def test_every_cpu_level(act, dtype, cpu_level):
    x, b = (torch.randn(3, 5, 173) * 3).to(dtype), torch.randn(5).to(dtype)
    y64 = bias_act(x.double(), b.double(), act=act, clamp=2.5, impl="reference")
    for level in LEVELS:
        assert cpu_level(level) == level
        for layout in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            leaf = layout.clone().requires_grad_()
            y = bias_act(leaf, b, act=act, clamp=2.5, impl="cpp")
            assert_close(y, y64)
            reference = layout.clone().requires_grad_()
            expected = bias_act(reference, b, act=act, clamp=2.5, impl="reference")
            (g,), (e,) = torch.autograd.grad(y.sum(), leaf), torch.autograd.grad(expected.sum(), reference)
            at_the_limit = (y64.abs() - 2.5).abs() < 2 * TOLERANCE[dtype]  # rounding decides the side
            assert_close(torch.where(at_the_limit, e, g), e, 4 * TOLERANCE[dtype])


@pytest.mark.skipif("cpp" not in KERNELS, reason="no CPU kernel under test")
def test_cpu_level_refuses_an_unknown_name():
    with pytest.raises(RuntimeError, match="none of portable, avx2, avx512"):
        torch.ops.fastgan.cpu_level("avx9000")


@pytest.mark.skipif("cpp" not in KERNELS, reason="no CPU kernel under test")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_same_bits_at_any_thread_count(layout):
    x, b = layouts((5, 24, 65, 33))[layout].requires_grad_(), torch.randn(24, requires_grad=True)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = bias_act(x, b, act="tanh", impl="cpp")
            results.append((y, *torch.autograd.grad(y.square().sum(), (x, b))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(t, u) for other in results[1:] for t, u in zip(results[0], other, strict=True))


@pytest.mark.skipif("cpp" not in KERNELS or not shutil.which("g++"), reason="needs g++")
def test_index_arithmetic_beyond_2_to_the_31(tmp_path):
    """Executes the kernel's own cutting into units for tensors of up to 2^33 elements, without their memory."""
    source = tmp_path / "units.cpp"
    source.write_text("""
#include <cstdio>
#include "cpu/bias_act_units.h"
bool last_sum_is_wrong(const fastgan::BiasUnits& units, int64_t u) {
  const int64_t sums = units.sums_per_unit(), last = units.vector_bias() ? units.piece : sums;
  return units.channel_of_sum(u * sums + last - 1) != (units.channel(u) + last - 1) % units.channels;
}
int main() {
  const int64_t cases[][3] = {{1, 1, 3ll << 30}, {3, 7, 1ll << 28}, {(1ll << 31) + 11, 3, 1}, {1ll << 33, 1, 1},
                              {2, (1ll << 31) + 5, 1}, {(1ll << 22) + 1, 4, 513}, {5, 1000003, 601},
                              {1ll << 28, 5, 16}};
  for (const auto& [outer, channels, inner] : cases) {
    const fastgan::BiasUnits units(outer * channels * inner, channels, inner);
    int64_t next = 0;
    for (int64_t u = 0; u < units.count; ++u) {
      const int64_t at = units.begin(u), n = units.size(u);
      const bool whole = n % units.piece == 0 || n < units.piece || (units.vector_bias() && n % channels == 0);
      if (at != next || n <= 0 || !whole || units.channel(u) != at / inner % channels || last_sum_is_wrong(units, u))
        return std::printf("unit %lld of rows of %lld", (long long)u, (long long)inner), 1;
      next = at + n;
    }
    if (next != outer * channels * inner) return std::printf("ends at %lld", (long long)next), 1;
  }
}
""")
    subprocess.run(["g++", "-std=c++20", "-O2", f"-I{ROOT / 'csrc'}", source, "-o", tmp_path / "units"], check=True)
    done = subprocess.run([tmp_path / "units"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif("cpp" not in KERNELS, reason="this is the run without kernels")
def test_without_compiled_kernels():
    """The same tests where nothing was compiled: the registered references of op and backward."""
    chosen = "golden or gradcheck or third or layouts or empty or rank or generated or autocast"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, __file__]
    done = subprocess.run(command, env={**os.environ, "FASTGAN_DISABLE_EXT": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize("act", ["linear", "lrelu", "swish"])
def test_opcheck(act):
    x, b = torch.randn(2, 3, 5, requires_grad=True), torch.randn(3, requires_grad=True)
    torch.library.opcheck(torch.ops.fastgan.bias_act, (x, b, 1, act, 0.2, 1.4, 0.7))
    saved = bias_act(x, b, act=act).detach().requires_grad_()
    dy = torch.randn(2, 3, 5, requires_grad=True)
    torch.library.opcheck(torch.ops.fastgan.bias_act_backward, (dy, saved, b, 1, act, 0.2, 1.4, 0.7, True))
    torch.library.opcheck(torch.ops.fastgan.bias_act_backward, (dy, None, None, 0, "linear", 0.0, 1.4, -1.0, False))


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiles_without_a_graph_break(layout, impl):
    x, b = layouts((2, 3, 5, 7))[layout].requires_grad_(), torch.randn(3, requires_grad=True)

    def f(x, b):
        return bias_act(x * 2, b, act="lrelu", clamp=0.8, impl=impl).sin()

    torch._dynamo.reset()
    y, expected = torch.compile(f, fullgraph=True)(x, b), f(x, b)
    assert_close(y, expected)
    assert y.stride() == expected.stride()
    for g, e in zip(torch.autograd.grad(y.sum(), (x, b)), torch.autograd.grad(expected.sum(), (x, b)), strict=True):
        assert_close(g, e)


def test_autocast_casts_the_bias_and_keeps_its_gradient():
    x, b = torch.randn(2, 3, dtype=torch.bfloat16), torch.randn(3, requires_grad=True)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        y = bias_act(x, b, act="lrelu")
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert b.grad.dtype == torch.float32


X = torch.zeros(2, 3)
BAD = {
    "x is no tensor": (([1.0],), {}, TypeError, "x is list"),
    "integer x": ((X.long(),), {}, TypeError, r"x has dtype torch.int64; expected float16, bfloat16, float32 or"),
    "complex x": ((X.to(torch.complex64),), {}, TypeError, "x has dtype torch.complex64"),
    "scalar x": ((torch.tensor(1.0),), {}, ValueError, "x has no dimensions; expected rank >= 1"),
    "b is no tensor": ((X, 3.0), {}, TypeError, "b is float"),
    "integer b": ((X, torch.zeros(3, dtype=torch.long)), {}, TypeError, "b has dtype torch.int64"),
    "b too long": ((X, torch.zeros(4)), {}, ValueError, r"b has shape \(4,\); expected \(3,\)"),
    "b of rank 2": ((X, torch.zeros(1, 3)), {}, ValueError, r"b has shape \(1, 3\); expected \(3,\)"),
    "b of another dtype": ((X, torch.zeros(3).double()), {}, TypeError, "b has dtype torch.float64; expected torch.fl"),
    "b elsewhere": ((X, torch.zeros(3, device="meta")), {}, ValueError, f"b is on meta; expected {DEVICE.type}"),
    "negative dim": ((X, torch.zeros(3), -1), {}, ValueError, r"dim=-1; expected 0 <= dim < 2"),
    "dim too large": ((X, torch.zeros(3), 2), {}, ValueError, r"dim=2; expected 0 <= dim < 2"),
    "unknown act": ((X,), {"act": "gelu"}, ValueError, r"act='gelu'; expected one of \['linear', 'relu'"),
    "negative clamp": ((X,), {"clamp": -1}, ValueError, "clamp=-1; expected None or a number >= 0"),
    "clamp is NaN": ((X,), {"clamp": math.nan}, ValueError, "clamp=nan; expected None or a number >= 0"),
    "alpha is no number": ((X,), {"act": "lrelu", "alpha": "x"}, TypeError, "alpha='x'; expected None or a number"),
    "gain is no number": ((X,), {"gain": [1]}, TypeError, r"gain=\[1\]; expected None or a number"),
    "clamp is no number": ((X,), {"clamp": "1"}, TypeError, "clamp='1'; expected None or a number"),
    "dim is no integer": ((X, torch.zeros(3), 1.0), {}, TypeError, "dim=1.0; expected an int"),
    "unknown impl": ((X,), {"impl": "opencl"}, ValueError, r"impl='opencl' is unknown; expected one of \('auto', 'ref"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    args, kwargs, error, match = BAD[name]
    with pytest.raises(error, match=match):
        bias_act(*args, **kwargs)


def test_an_unavailable_impl_names_those_that_are_here():
    impl = "triton" if "triton" not in KERNELS else "cpp"
    x = X if impl == "triton" else X.to("meta")
    with pytest.raises(RuntimeError, match=rf"impl='{impl}' is not available .*available here: \['auto', 'reference'"):
        bias_act(x, impl=impl)


def test_an_unknown_impl_is_refused_with_a_negative_slope_too():
    with pytest.raises(ValueError, match="impl='opencl' is unknown"):
        bias_act(X, act="lrelu", alpha=-0.3, impl="opencl")
