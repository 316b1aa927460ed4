"""grad_penalty in every implementation that runs here: values, gradients of three orders, layouts, dtypes, refusals."""

import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from cpu_levels import LEVELS
from device import DEVICE, kernels, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE, assert_close

from fastgan.ops import grad_penalty

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("r1", "wgan-gp", "one-sided")
KERNELS = kernels("grad_penalty")
IMPLS = ["auto", "reference", *KERNELS]
needs_cpp = pytest.mark.skipif("cpp" not in KERNELS, reason="no CPU kernel under test")


def formula(g, kind, target):
    """The table of the docstring, in float64 and independent of the package; no gradient at norm 0."""
    squares = [(row.double() * row.double()).sum() for row in g]
    if kind == "r1":
        return torch.stack(squares) if squares else g.new_zeros(0, dtype=torch.float64)
    excess = [s.sqrt() - target for s in squares]
    if kind == "one-sided":
        excess = [e.clamp(min=0) for e in excess]
    return torch.stack([e * e for e in excess]) if excess else g.new_zeros(0, dtype=torch.float64)


def of_norms(norms, shape, dtype=torch.float64, seed=0):
    """Samples of the given norms, in random directions."""
    g = torch.randn(len(norms), *shape, dtype=torch.float64, generator=seeded(seed))
    scale = torch.tensor(norms, dtype=torch.float64) / g.flatten(1).norm(dim=1)
    return (g * scale.reshape([-1] + [1] * len(shape))).to(dtype)


def layouts(shape):
    n, c, h, w = shape
    return {
        "contiguous": torch.randn(shape),
        "channels_last": torch.randn(shape).to(memory_format=torch.channels_last),
        "transposed": torch.randn(n, c, w, h).transpose(2, 3),
        "samples interleaved": torch.randn(c, h, w, n).permute(3, 0, 1, 2),
        "sliced": torch.randn(n, c, h, 2 * w)[..., ::2],
        "every other sample": torch.randn(2 * n, c, h, w)[::2],
        "offset": torch.randn(n * c * h * w + 1)[1:].view(shape),
        "expanded": torch.randn(1, c, 1, w).expand(shape),
    }


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_values_and_gradients(dtype, kind, impl):
    g = of_norms([0.25, 1.5, 3.0, 0.9], (3, 5, 7), dtype).requires_grad_()
    p = grad_penalty(g, kind, 1.0, impl=impl)
    assert p.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    g64 = g.detach().double().requires_grad_()
    expected = formula(g64, kind, 1.0)
    exact = TOLERANCE[p.dtype]
    assert_close(p, expected, exact)
    weights = torch.tensor([0.3, -2.0, 1.0, 0.5], dtype=p.dtype)
    (dg,), (dg64,) = torch.autograd.grad(p, g, weights), torch.autograd.grad(expected, g64, weights.double())
    assert dg.dtype == dtype
    assert_close(dg, dg64)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5,), (3,), (2, 2), ()])
def test_gradcheck_of_three_orders(shape, kind, impl):
    g = of_norms([0.4, 1.6, 0.8, 2.0], shape).requires_grad_() if shape else torch.tensor([0.4, -1.6, 2.0]).double()
    g.requires_grad_()

    def f(g):
        return grad_penalty(g, kind, 1.0, impl=impl)

    def gradient(g, weights):
        return torch.autograd.grad(f(g), g, weights, create_graph=True)[0]

    weights = torch.linspace(-1, 2, len(g), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(f, (g,))
    assert torch.autograd.gradgradcheck(f, (g,))
    assert torch.autograd.gradcheck(gradient, (g, weights))
    assert torch.autograd.gradgradcheck(gradient, (g, weights))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_gradient_has_zero_derivatives_of_every_order(kind, impl):
    g = torch.zeros(2, 3, 2, requires_grad=True)
    p = grad_penalty(g, kind, 0.7, impl=impl)
    assert_close(p, torch.full((2,), 0.7**2 if kind == "wgan-gp" else 0.0))
    (first,) = torch.autograd.grad(p.sum(), g, create_graph=True)
    v = torch.randn(2, 3, 2, requires_grad=True)
    (second,) = torch.autograd.grad((first * v).sum(), g, create_graph=True)
    (third,) = torch.autograd.grad((second * torch.randn(2, 3, 2)).sum(), v)
    assert torch.equal(first, torch.zeros_like(g))
    assert torch.equal(second, 2 * v if kind == "r1" else torch.zeros_like(g))
    assert third.isfinite().all() and (kind == "r1" or not third.any())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_derivative_through_a_network_is_finite_and_right_where_a_sample_has_no_gradient(kind, impl):
    w = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    x = torch.rand(5, 4, dtype=torch.float64) + 0.1
    x[2] = -100.0  # all units are off: this sample's gradient is exactly zero

    def trained(penalty):
        leaf = x.clone().requires_grad_()
        logits = torch.relu(leaf @ w.abs() + 0.1).square().sum(1)
        (g,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
        assert not g[2].any() and g[[0, 1, 3, 4]].flatten(1).any(1).all()
        return torch.autograd.grad(penalty(g).sum(), w)[0]

    got = trained(lambda g: grad_penalty(g, kind, 1.0, impl=impl))
    assert_close(got, trained(lambda g: formula(g[[0, 1, 3, 4]], kind, 1.0)))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_gradient_is_not_hidden(value, kind, impl):
    g = torch.ones(2, 3)
    g[1, 1] = value
    p = grad_penalty(g.requires_grad_(), kind, impl=impl)
    (dg,) = torch.autograd.grad(p.sum(), g)
    assert p[0].isfinite() and not p[1].isfinite()
    assert dg[0].isfinite().all() and not dg[1].isfinite().all()


@pytest.mark.parametrize("impl", IMPLS)
def test_norms_far_from_one(impl):
    g = torch.tensor([[1e-18, 0.0], [3e-18, 4e-18], [3e15, 4e15]], requires_grad=True)
    assert_close(grad_penalty(g, "wgan-gp", impl=impl)[:2], torch.ones(2))
    (first,) = torch.autograd.grad(grad_penalty(g, "wgan-gp", impl=impl)[:2].sum(), g, create_graph=True)
    assert_close(first[:2], torch.tensor([[-2.0, 0.0], [-1.2, -1.6]]))
    (second,) = torch.autograd.grad(first[:2].sum(), g)  # -2 (v - <v, u> u) / r
    assert torch.allclose(second[:2], torch.tensor([[0.0, -2e18], [-2 / 5e-18 * 0.16, 2 / 5e-18 * 0.12]]), rtol=1e-4)
    assert grad_penalty(g, "r1", impl=impl)[2].item() == pytest.approx(25e30)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (0,), (3, 0), (1, 1, 1, 1), (7,), (13, 1), (2, 3, 5, 7, 11)])
def test_empty_and_any_rank(shape, impl):
    g = torch.randn(shape, requires_grad=True)
    for kind in KINDS:
        p = grad_penalty(g, kind, 0.5, impl=impl)
        (dg,) = torch.autograd.grad(p.sum(), g, create_graph=True)
        (ddg,) = torch.autograd.grad(dg.sum(), g)
        assert_close(p, formula(g, kind, 0.5), TOLERANCE[torch.float32])
        assert dg.shape == ddg.shape == shape


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("layout", layouts((1, 1, 1, 1)))
def test_layouts(layout, impl):
    g = layouts((3, 5, 7, 11))[layout].requires_grad_()
    for kind in KINDS:
        p = grad_penalty(g, kind, 2.0, impl=impl)
        g64 = g.detach().double().requires_grad_()
        expected = formula(g64, kind, 2.0)
        assert_close(p, expected)
        weights = torch.randn(3)
        (dg,), (dg64,) = torch.autograd.grad(p, g, weights), torch.autograd.grad(expected, g64, weights.double())
        assert dg.stride() == torch.empty_like(g).stride()
        assert_close(dg, dg64)


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 127, 511, 512, 513, 16383, 16384, 16385, 32771, 70001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sizes_around_every_block(size, dtype, impl):
    for rows in (1, 3):
        g = torch.randn(rows, size).to(dtype).requires_grad_()
        p = grad_penalty(g, "wgan-gp", size**0.5 / 2, impl=impl)
        g64 = g.detach().double().requires_grad_()
        expected = formula(g64, "wgan-gp", size**0.5 / 2)
        assert_close(p, expected, TOLERANCE[torch.float32])
        weights = torch.randn(rows)
        (dg,), (dg64,) = torch.autograd.grad(p, g, weights), torch.autograd.grad(expected, g64, weights.double())
        assert_close(dg, dg64)


@st.composite
def arguments(draw):
    shape = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    return {
        "shape": shape,
        "order": draw(st.permutations(range(len(shape)))),
        "kind": draw(st.sampled_from(KINDS)),
        "target": draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
        "dtype": draw(st.sampled_from(list(TOLERANCE))),
        "seed": draw(st.integers(0, 99)),
    }


@pytest.mark.parametrize("impl", KERNELS)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(a=arguments())
def test_generated_arguments(impl, a):
    generator, order = seeded(a["seed"]), a["order"]
    g = torch.randn([a["shape"][i] for i in order], generator=generator).to(a["dtype"])
    g = g.permute([order.index(i) for i in range(len(order))]).requires_grad_()
    results = []
    for i in (impl, "reference"):
        p = grad_penalty(g, a["kind"], a["target"], impl=i)
        (dg,) = torch.autograd.grad(p.sum(), g, create_graph=True)
        (ddg,) = torch.autograd.grad(dg.float().square().sum(), g)
        results.append((p, dg, ddg))
    for got, expected in zip(*results, strict=True):
        assert_close(got, expected, 4 * TOLERANCE[got.dtype])  # two roundings to the gradient's type
    assert results[0][1].stride() == torch.empty_like(g).stride()


@needs_cpp
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_cpu_level(dtype, cpu_level):
    g = (torch.randn(3, 1173) / 10).to(dtype)
    g64 = g.double().requires_grad_()
    expected = formula(g64, "wgan-gp", 2.0)
    (dg64,) = torch.autograd.grad(expected.sum(), g64)
    for level in LEVELS:
        assert cpu_level(level) == level
        leaf = g.clone().requires_grad_()
        p = grad_penalty(leaf, "wgan-gp", 2.0, impl="cpp")
        assert_close(p, expected)
        assert_close(torch.autograd.grad(p.sum(), leaf)[0], dg64)


@needs_cpp
@pytest.mark.parametrize("shape", [(7, 3, 65, 64), (1, 300007), (1000, 61)])
def test_same_bits_at_any_thread_count(shape):
    g, before, results = torch.randn(shape, requires_grad=True), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            p = grad_penalty(g, "wgan-gp", impl="cpp")
            results.append((p, *torch.autograd.grad(p.sum(), g)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(t, u) for other in results[1:] for t, u in zip(results[0], other, strict=True))


@needs_cpp
@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_index_arithmetic_beyond_2_to_the_31(tmp_path):
    """Executes the kernel's own cutting into units for tensors of up to 2^33 elements, without their memory."""
    source = tmp_path / "units.cpp"
    source.write_text("""
#include <cstdio>
#include "cpu/units.h"
int main() {
  const int64_t cases[][2] = {{1, 3ll << 31},
                              {3, (1ll << 31) + 11}, {(1ll << 22) + 1, 2053}, {1 << 20, 1 << 13}, {5, 1}};
  for (const auto& [rows, length] : cases) {
    const fastgan::Units units(rows, length);
    int64_t next = 0;
    for (int64_t u = 0; u < units.count; ++u) {
      const int64_t at = units.begin(u), n = units.size(u);
      if (at != next || n <= 0 || units.row(u) != at / length || (at + n - 1) / length != at / length)
        return std::printf("unit %lld of length %lld", (long long)u, (long long)length), 1;
      next = at + n;
    }
    if (next != rows * length) return std::printf("ends at %lld", (long long)next), 1;
  }
  for (const auto& [rows, length] : {std::pair{0ll, 5ll}, {5ll, 0ll}})
    if (fastgan::Units(rows, length).count != 0) return std::printf("units of nothing"), 1;
}
""")
    subprocess.run(["g++", "-std=c++20", "-O2", f"-I{ROOT / 'csrc'}", source, "-o", tmp_path / "units"], check=True)
    done = subprocess.run([tmp_path / "units"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(kind):
    for g in (torch.randn(3, 4, 5, requires_grad=True), torch.randn(2, 5, 4, 3).permute(0, 3, 1, 2).requires_grad_()):
        torch.library.opcheck(torch.ops.fastgan.grad_penalty, (g, kind, 0.5))
        dp, sumsq = torch.randn(len(g), requires_grad=True), g.detach().square().flatten(1).sum(1)
        torch.library.opcheck(torch.ops.fastgan.grad_penalty_backward, (dp, g, sumsq, kind, 0.5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [5, 300])  # of which the kernel takes the larger
def test_compiles_without_a_graph_break(size, kind):
    g = layouts((3, 2, size, 7 * size))["channels_last"].requires_grad_()

    def f(g):
        return grad_penalty(g * 2, kind, 3.0).log1p()

    torch._dynamo.reset()
    p, expected = torch.compile(f, fullgraph=True)(g), f(g)
    assert_close(p, expected)
    (dg,), (wanted,) = torch.autograd.grad(p.sum(), g), torch.autograd.grad(expected.sum(), g)
    assert_close(dg, wanted)


def test_autocast_leaves_it_in_float32():
    g = torch.full((2, 70000), 3.0, dtype=torch.float16)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        p = grad_penalty(g)
    assert p.dtype == torch.float32 and torch.equal(p, torch.full((2,), 630000.0))  # float16 ends at 65504


@needs_cpp
@pytest.mark.parametrize(
    "dp, sumsq, kind, match",
    [
        (torch.ones(2), torch.ones(3), "r1", "an element per sample"),
        (torch.ones(3), torch.ones(3, 1), "r1", "an element per sample"),
        (torch.ones(3).double(), torch.ones(3).double(), "r1", "dp must be float64 for a float64 gradient"),
        (torch.ones(3).double(), torch.ones(3), "r1", "differ in dtype"),
        (torch.ones(3), torch.ones(3), "r3", "kind 'r3' is none of"),
    ],
)
def test_the_kernel_refuses_what_it_would_misread(dp, sumsq, kind, match):
    with pytest.raises(RuntimeError, match=match):
        torch.ops.fastgan.grad_penalty_backward(dp, torch.ones(3, 4), sumsq, kind, 1.0)


G = torch.zeros(2, 3)
BAD = {
    "no tensor": (([1.0],), {}, TypeError, "grad is list; expected a torch.Tensor"),
    "integer": (
        (G.long(),),
        {},
        TypeError,
        "grad has dtype torch.int64; expected float16, bfloat16, float32 or float64",
    ),
    "complex": ((G.to(torch.complex64),), {}, TypeError, "grad has dtype torch.complex64"),
    "scalar": ((torch.tensor(1.0),), {}, ValueError, r"grad has no dimensions; expected \[N, ...\]"),
    "unknown kind": ((G, "r2"), {}, ValueError, r"kind='r2'; expected one of \['r1', 'wgan-gp', 'one-sided'\]"),
    "negative target": ((G, "wgan-gp", -1), {}, ValueError, "target=-1.0; expected a finite number >= 0"),
    "NaN target": ((G, "wgan-gp", math.nan), {}, ValueError, "target=nan; expected a finite number >= 0"),
    "infinite target": ((G, "one-sided", math.inf), {}, ValueError, "target=inf; expected a finite number >= 0"),
    "unknown impl": ((G,), {"impl": "opencl"}, ValueError, r"impl='opencl' is unknown; expected one of \('auto', 'ref"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    args, kwargs, error, match = BAD[name]
    with pytest.raises(error, match=match):
        grad_penalty(*args, **kwargs)


def test_an_unavailable_impl_names_those_that_are_here():
    impl = "triton" if "triton" not in KERNELS else "cpp"
    g = G if impl == "triton" else G.to("meta")
    with pytest.raises(RuntimeError, match=rf"impl='{impl}' is not available .*available here: \['auto', 'reference'"):
        grad_penalty(g, impl=impl)
