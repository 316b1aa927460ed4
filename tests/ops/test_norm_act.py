"""norm_act in every implementation that runs here: values, gradients of two orders, layouts, dtypes, refusals."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cpu_levels import LEVELS
from device import DEVICE, kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE, assert_close

from fastgan.ops import norm_act

ROOT = Path(__file__).resolve().parents[2]
ACTS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")
# Interpreted, norm_act is tested in test_triton_norm_act.py alone.
KERNELS = [k for k in kernels("norm_act") if k == "cpp" or DEVICE.type == "cuda"] or ["auto"]
IMPLS = ["reference", *KERNELS]
needs_kernel = pytest.mark.skipif("cpp" not in KERNELS, reason="no CPU kernel under test")


def formula(x, weight, bias, residual, act, alpha, eps):
    """torch's own instance normalisation and activations, in the dtype of x (float64 in these tests)."""
    y = (x - x.mean(list(range(2, x.dim())), keepdim=True)) / (
        x.var(list(range(2, x.dim())), correction=0, keepdim=True) + eps
    ).sqrt()
    shape = (1, -1, *[1] * (x.dim() - 2))
    y = y if weight is None else y * weight.reshape(shape)
    y = y if bias is None else y + bias.reshape(shape)
    y = {
        "linear": lambda t: t,
        "relu": F.relu,
        "lrelu": lambda t: F.leaky_relu(t, 0.2 if alpha is None else alpha),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "elu": F.elu,
        "selu": F.selu,
        "softplus": F.softplus,
        "swish": F.silu,
    }[act](y)
    return y if residual is None else y + residual


def in_layout(x, layout):
    return {
        "planes": lambda: x,
        "pixels": lambda: x.movedim(1, -1).contiguous().movedim(-1, 1),
        "batch inside": lambda: x.movedim(0, -1).contiguous().movedim(-1, 0),
        "transposed": lambda: x.transpose(-1, -2).contiguous().transpose(-1, -2),
        "sliced": lambda: torch.stack([x, x], -1)[..., 0],
        "expanded": lambda: x[:, :1].expand(x.shape),
    }[layout]()


LAYOUTS = ("planes", "pixels", "batch inside", "transposed", "sliced", "expanded")


def results(f, tensors, dy):
    """[y, gradients by the tensors that are there]"""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    y = f(*leaves)
    return [y, *torch.autograd.grad(y, [t for t in leaves if t is not None], dy.to(y.dtype))]


def compare(tensors, act, impl, alpha=None, eps=1e-5, tolerance=None):
    dy = torch.randn(tensors[0].shape, dtype=torch.float64).to(tensors[0].dtype)
    got = results(lambda *t: norm_act(*t, act, alpha, eps, impl=impl), tensors, dy)
    wide = [None if t is None else t.double() for t in tensors]
    wanted = results(lambda *t: formula(*t, act, alpha, eps), wide, dy)
    for g, w in zip(got, wanted, strict=True):
        assert g.dtype == tensors[0].dtype
        assert_close(g, w, tolerance)
    return got


def arguments_of(shape, dtype, affine=True, residual=True, offset=1.0):
    x = (torch.randn(shape, dtype=torch.float64) * 2 + offset).to(dtype)
    weight, bias = (torch.randn(2, shape[1], dtype=torch.float64) + 0.5).to(dtype) if affine else (None, None)
    return x, weight, bias, torch.randn(shape, dtype=torch.float64).to(dtype) if residual else None


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_values_and_gradients(act, dtype, affine, impl):
    compare(arguments_of((2, 5, 9, 7), dtype, affine, affine), act, impl, tolerance=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (1, 70, 9, 8), (3, 2, 2, 3, 5), (2, 1, 6, 1)])
def test_layouts(shape, layout, impl):
    x, weight, bias, residual = arguments_of(shape, torch.float64, offset=100.0)  # far from zero: digits to lose
    x = in_layout(x, layout)
    got = compare((x, weight, bias, residual), "swish", impl)
    kept = got[:1] if impl == "reference" else got[:2]  # autograd's own gradient has a layout of its own
    assert all(t.stride() == torch.empty_like(x).stride() for t in kept)


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("pixels", [1, 2, 15, 63, 64, 65, 4095, 4097, 16387])
@pytest.mark.parametrize("channels_last", [False, True])
def test_sizes_around_every_block(pixels, channels_last, impl):
    for channels in (1, 3, 257) if pixels < 100 else (2,):
        x, weight, bias, residual = arguments_of((2, channels, pixels), torch.float32)
        x = in_layout(x, "pixels" if channels_last else "planes")
        # two pixels apart by 1e-3 are amplified to +-1: eps of the size of the variance bounds that
        compare((x, weight, bias, residual), "lrelu", impl, eps=0.1, tolerance=5e-5)


@needs_kernel
@pytest.mark.parametrize("side", [97, 263])  # two planes fit in a cache; they do not
def test_statistics_of_planes_that_are_no_noise(side):
    """Constant, far from zero, in steps, rising, and one pixel apart from all others: block by block no digit is lost."""
    n = side * side
    rising = torch.arange(n, dtype=torch.float64)
    noise = torch.randn(n, dtype=torch.float64)
    steps = 1000.0 * (rising > n / 3) + 0.1 * noise
    lonely = noise.clone()
    lonely[0] = 1e5
    x = torch.stack([noise + 3000, steps, rising, lonely, -steps, noise, 5 + 0 * noise]).view(1, 7, side, side).float()
    y, mean, rstd = torch.ops.fastgan.norm_act(x, None, None, None, "linear", 0.0, 1e-5)
    var, wanted = torch.var_mean(x.double(), (2, 3), correction=0)
    assert_close(mean, wanted, 1e-6)
    torch.testing.assert_close(rstd.double(), (var + 1e-5).rsqrt(), rtol=1e-5, atol=0)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(norm_act(x, act="linear", impl="cpp"), y)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("act", ACTS)
def test_gradcheck_of_both_orders(act, impl):
    x = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.rand(2, dtype=torch.float64) + 0.5 for _ in range(2))
    residual = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)

    def f(x, weight, bias, residual):
        return norm_act(x, weight, bias, residual, act, impl=impl)

    inputs = (x, weight.requires_grad_(), bias.requires_grad_(), residual)
    assert formula(*inputs[:3], None, "linear", None, 1e-5).abs().min() > 1e-3  # no finite difference meets a kink
    assert torch.autograd.gradcheck(f, inputs)
    assert torch.autograd.gradgradcheck(f, inputs)


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("act", ["linear", "relu", "swish"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_second_and_third_derivative_equal_those_of_the_formula(act, channels_last, impl):
    x = in_layout(torch.randn(2, 3, 4, 5, dtype=torch.float64), "pixels" if channels_last else "planes")
    weight, v = torch.rand(3, dtype=torch.float64) + 0.5, torch.randn(2, 3, 4, 5, dtype=torch.float64)

    def orders(f):
        a, w = x.detach().requires_grad_(), weight.detach().requires_grad_()
        (g,) = torch.autograd.grad(f(a, w).square().sum(), a, create_graph=True)
        second = torch.autograd.grad((g * v).sum(), (a, w), create_graph=True)
        return [g, *second, *torch.autograd.grad(second[0].square().sum(), (a, w))]

    wanted = orders(lambda a, w: formula(a, w, None, None, act, None, 1e-5))
    for g, w in zip(orders(lambda a, w: norm_act(a, w, act=act, impl=impl)), wanted, strict=True):
        assert_close(g, w)


@pytest.mark.parametrize("impl", IMPLS)
def test_edges(impl):
    one = norm_act(torch.tensor([[[5.0], [-3.0]]]), bias=torch.tensor([2.0, -1.0]), act="linear", impl=impl)
    assert torch.equal(one, torch.tensor([[[2.0], [-1.0]]]))  # a single pixel is its own mean
    assert torch.equal(norm_act(torch.full((2, 3, 7, 5), 1e4), impl=impl), torch.zeros(2, 3, 7, 5))
    x = torch.randn(1, 2, 4, 4)
    x[0, 0, 0, 0] = math.nan
    y = norm_act(x, impl=impl)
    assert y[0, 0].isnan().all() and not y[0, 1].isnan().any()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)])
def test_empty(shape, impl):
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(shape[1], requires_grad=True)
    y = norm_act(x, weight, residual=x, impl=impl)
    dx, dweight = torch.autograd.grad(y.sum(), (x, weight))
    assert y.shape == dx.shape == shape and torch.equal(dweight, torch.zeros_like(weight))


@st.composite
def arguments(draw):
    shape = draw(st.lists(st.integers(1, 6), min_size=3, max_size=5))
    return {
        "shape": shape,
        "order": draw(st.permutations(range(len(shape)))),
        "weight": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "residual": draw(st.booleans()),
        "act": draw(st.sampled_from(ACTS)),
        "alpha": draw(st.none() | st.floats(0, 1)),
        "eps": draw(st.sampled_from([1e-5, 1e-3, 0.1])),
        "dtype": draw(st.sampled_from(list(TOLERANCE))),
        "seed": draw(st.integers(0, 99)),
    }


@pytest.mark.parametrize("impl", KERNELS)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(a=arguments())
def test_generated_arguments(impl, a):
    torch.manual_seed(a["seed"])
    order = a["order"]
    x = torch.randn([a["shape"][i] for i in order], dtype=torch.float64).to(a["dtype"])
    x = x.permute([order.index(i) for i in range(len(order))])
    vectors = [torch.randn(x.shape[1]).to(a["dtype"]) if a[name] else None for name in ("weight", "bias")]
    residual = torch.randn(x.shape).to(a["dtype"]) if a["residual"] else None
    dy = torch.randn(x.shape).to(a["dtype"])

    def by(impl):
        f = lambda *t: norm_act(*t, a["act"], a["alpha"], a["eps"], impl=impl)  # noqa: E731
        return results(f, (x, *vectors, residual), dy)

    # Planes of few pixels have gradients up to rstd <= 316 times the terms whose rounding they carry.
    for g, w in zip(by(impl), by("reference"), strict=True):
        assert_close(g, w, 50 * TOLERANCE[a["dtype"]] if a["dtype"] in (torch.float32, torch.float64) else 0.1)


@needs_kernel
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("act", ["relu", "softplus", "swish"])
def test_every_cpu_level(act, dtype, cpu_level):
    for level in LEVELS:
        assert cpu_level(level) == level
        for layout in ("planes", "pixels"):
            x, *rest = arguments_of((2, 5, 13, 11), dtype)
            compare((in_layout(x, layout), *rest), act, "cpp", tolerance=4 * TOLERANCE[dtype])


@needs_kernel
@pytest.mark.parametrize("layout", ["planes", "pixels"])
def test_same_bits_at_any_thread_count(layout):
    x, *rest = arguments_of((3, 24, 65, 33), torch.float32)
    before, runs = torch.get_num_threads(), []
    dy = torch.randn(x.shape)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(results(lambda *t: norm_act(*t, impl="cpp"), (in_layout(x, layout), *rest), dy))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(t, u) for other in runs[1:] for t, u in zip(runs[0], other, strict=True))


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_index_arithmetic_beyond_2_to_the_31(tmp_path):
    """Executes the kernel's own cutting into units for tensors of up to 2^33 elements, without their memory."""
    source = tmp_path / "units.cpp"
    source.write_text("""
#include <cstdio>
#include "cpu/norm_act_units.h"
int main() {
  const int64_t cases[][3] = {{3, 1, 1ll << 30}, {3, 7, 1ll << 29}, {1ll << 22, 64, 16}, {2, 2048, (1ll << 20) + 1},
                              {5, 100003, 601}, {1ll << 24, 3, 5}};
  for (const auto& [samples, channels, pixels] : cases) {
    const fastgan::PixelUnits units(samples, channels, pixels);
    int64_t next = 0;
    for (int64_t u = 0; u < units.count; ++u) {
      const int64_t at = units.begin(u), n = units.size(u);
      if (at != next || n <= 0 || n % channels || (n % units.piece && at + n != (units.row(u) + 1) * units.length))
        return std::printf("unit %lld of %lld channels", (long long)u, (long long)channels), 1;
      next = at + n;
    }
    if (next != samples * channels * pixels) return std::printf("ends at %lld", (long long)next), 1;
  }
}
""")
    subprocess.run(["g++", "-std=c++20", "-O2", f"-I{ROOT / 'csrc'}", source, "-o", tmp_path / "units"], check=True)
    done = subprocess.run([tmp_path / "units"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@needs_kernel
def test_without_compiled_kernels():
    """The same tests where nothing was compiled: the registered references of op and backward."""
    chosen = "gradcheck or layouts or empty or edges or derivative"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, __file__]
    done = subprocess.run(command, env={**os.environ, "FASTGAN_DISABLE_EXT": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize("affine", [False, True])
def test_opcheck(affine):
    x, weight, bias, residual = arguments_of((2, 3, 4, 5), torch.float32, affine, affine)
    leaves = [None if t is None else t.requires_grad_() for t in (x, weight, bias, residual)]
    torch.library.opcheck(torch.ops.fastgan.norm_act, (*leaves, "swish", 0.0, 1e-5))
    _, mean, rstd = torch.ops.fastgan.norm_act(*leaves, "swish", 0.0, 1e-5)
    dy = torch.randn(x.shape, requires_grad=True)
    arguments = (dy, *leaves[:3], mean.detach(), rstd.detach(), "swish", 0.0, 1e-5)
    torch.library.opcheck(torch.ops.fastgan.norm_act_backward, arguments)


@pytest.mark.parametrize(
    ("layout", "impl", "backend"),
    [("planes", "auto", "inductor"), ("pixels", "auto", "aot_eager"), ("planes", "reference", "aot_eager")],
)
def test_compiles_without_a_graph_break(layout, impl, backend):
    x, *rest = arguments_of((2, 3, 5, 7), torch.float32)
    x = in_layout(x, layout)

    def f(*t):
        return norm_act(t[0] * 2, *t[1:], impl=impl).sin()

    torch._dynamo.reset()
    dy = torch.randn(x.shape)
    got, wanted = results(torch.compile(f, fullgraph=True, backend=backend), (x, *rest), dy), results(f, (x, *rest), dy)
    assert got[0].stride() == wanted[0].stride()
    for g, w in zip(got, wanted, strict=True):
        assert_close(g, w)


def test_autocast_casts_the_parameters_and_keeps_their_gradient():
    x, weight = torch.randn(2, 3, 4, dtype=torch.bfloat16), torch.randn(3, requires_grad=True)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        y = norm_act(x, weight)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert weight.grad.dtype == torch.float32


X, C = torch.zeros(2, 3, 4), torch.zeros(3)
BAD = {
    "x is no tensor": (([1.0],), {}, TypeError, "x is list"),
    "integer x": ((X.long(),), {}, TypeError, "x has dtype torch.int64; expected float16, bfloat16, float32 or"),
    "x without pixels": ((X[0],), {}, ValueError, r"x has shape \(3, 4\); expected \[N, C, ...\] with a spatial"),
    "weight is no tensor": ((X, 1.0), {}, TypeError, "weight is float"),
    "weight too long": ((X, torch.zeros(4)), {}, ValueError, r"weight has shape \(4,\); expected \(3,\)"),
    "bias of another dtype": ((X, None, C.double()), {}, TypeError, "bias has dtype torch.float64; expected torch.fl"),
    "bias elsewhere": ((X, None, C.to("meta")), {}, ValueError, f"bias is on meta; expected {DEVICE.type}"),
    "residual of another shape": ((X, None, None, X[:1]), {}, ValueError, r"residual has shape \(1, 3, 4\); expected"),
    "residual of another dtype": ((X, None, None, X.half()), {}, TypeError, "residual has dtype torch.float16"),
    "unknown act": ((X,), {"act": "gelu"}, ValueError, r"act='gelu'; expected one of \['linear'"),
    "negative slope": ((X,), {"act": "lrelu", "alpha": -0.1}, ValueError, "alpha=-0.1; expected a slope >= 0"),
    "negative eps": ((X,), {"eps": -1e-5}, ValueError, "eps=-1e-05; expected a number >= 0"),
    "unknown impl": ((X,), {"impl": "opencl"}, ValueError, "impl='opencl' is unknown; expected one of"),
}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("layout", ["planes", "pixels"])
def test_variances_to_the_end_of_the_range(layout, impl):
    """The squares of 90x90 deviations sum up to 3e38; at 1e20 one of them is infinite, and xhat is 0 then."""
    x = torch.randn(2, 3, 90, 90)
    x = x * (3e38**0.5 / (x - x.mean((2, 3), keepdim=True)).flatten(2).norm(dim=2))[:, :, None, None] * 0.99
    bias, dy = torch.tensor([0.5, -1.0, 0.0]), torch.randn(x.shape)

    def run(x, bias, impl):
        x = in_layout(x, layout).requires_grad_()
        y = norm_act(x, None, bias, act="tanh", impl=impl)
        return y, torch.autograd.grad(y, x, dy.to(x.dtype))[0]

    (y, dx), (wanted, slope) = run(x, bias, impl), run(x.double(), bias.double(), "reference")
    assert_close(y, wanted)
    if impl != "reference":  # whose gradient is autograd's: it cubes 1e-17, which float32 does not have
        assert_close(dx * 1e18, slope * 1e18)
    y, dx = run(1e20 * torch.randn(x.shape), bias, impl)
    assert_close(y, bias.tanh()[:, None, None].expand(y.shape))
    assert not dx.any()


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    args, kwargs, error, match = BAD[name]
    with pytest.raises(error, match=match):
        norm_act(*args, **kwargs)


@needs_kernel
def test_a_direct_call_reads_no_memory_that_it_does_not_own():
    op, x = torch.ops.fastgan.norm_act, torch.zeros(2, 3, 4)
    for wrong in ((x[0], None, None, None), (x, torch.zeros(2), None, None), (x, None, None, x[:1])):
        with pytest.raises(RuntimeError, match="fastgan: "):
            op(*wrong, "relu", 0.0, 1e-5)
    with pytest.raises(RuntimeError, match="unknown activation 'gelu'"):
        op(x, None, None, None, "gelu", 0.0, 1e-5)
    mean = torch.zeros(2, 3)
    with pytest.raises(RuntimeError, match="mean and rstd must be"):
        torch.ops.fastgan.norm_act_backward(x, x, None, None, mean[:1], mean, "relu", 0.0, 1e-5)
