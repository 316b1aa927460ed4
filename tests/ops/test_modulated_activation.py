"""modulated_activation in every implementation that runs here: values, gradients of three orders, layouts, dtypes."""

import pytest
import torch
from cpu_levels import LEVELS
from device import DEVICE, kernels, seeded
from layouts import LAYOUTS
from tolerances import TOLERANCE, assert_close

from fastgan.ops import bias_act, modulated_activation, modulated_conv2d

# Without a compiled kernel "auto" is the reference under the formulas of the derivatives.
KERNELS = kernels("modulated_activation") or ["auto"]
IMPLS = ["reference", *KERNELS]
# Pixels and channels: one, odd, prime, more than a row of the CPU kernel has (2048), none.
SHAPES = [
    (2, 3, 5, 7),
    (3, 5, 1, 1),
    (2, 1, 8, 8),
    (1, 67, 3, 3),
    (1, 2, 67, 67),
    (1, 2051, 1, 2),
    (0, 3, 4, 4),
    (2, 3, 0, 4),
]


def tensors(shape, dtype=torch.float64, noise="per sample", layout="NCHW"):
    """x, scale, noise, bias; without a kink, or a limit of 0.9, within 0.01 in float64"""
    n, c, h, w = shape
    generator = seeded(1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scale = 0.5 + torch.rand(n, c, generator=generator, dtype=torch.float64, device=DEVICE)
    shapes = {"none": None, "per sample": (n, 1, h, w), "shared": (1, 1, h, w), "image": (h, w)}[noise]
    z = None if shapes is None else torch.randn(shapes, generator=generator, dtype=torch.float64, device=DEVICE)
    b = torch.randn(c, generator=generator, dtype=torch.float64, device=DEVICE)
    t = torch.randn(shape, generator=generator, dtype=torch.float64, device=DEVICE)
    t = torch.where(t.abs() < 0.05, t + 0.2, t)
    y = t.where(t > 0, 0.2 * t) * 2**0.5
    t = torch.where((y.abs() - 0.9).abs() < 0.05, 1.2 * t, t)
    x = (t - (0 if z is None else z) - b[:, None, None]) / scale[:, :, None, None]
    return LAYOUTS[layout](x.to(dtype)), scale.to(wide), z if z is None else z.to(dtype), b.to(dtype)


def formula(x, scale, noise, bias, clamp):
    """In float64 and independent of the package."""
    t = x.double() * scale.double()[:, :, None, None] + bias.double()[:, None, None]
    t = t if noise is None else t + noise.double()
    y = 2**0.5 * torch.where(t > 0, t, 0.2 * t)
    return y if clamp is None else y.clamp(-clamp, clamp)


def apply(impl, x, scale, noise, bias, clamp=0.9):
    return modulated_activation.apply(x, scale, noise, bias, "lrelu", None, clamp, impl)


def every_output(impl, given, clamp=0.9, order=2):
    """y, its gradients, and theirs along a fixed direction"""
    leaves = [v.detach().requires_grad_() for v in given if v is not None]
    y = apply(impl, *(leaves if given[2] is not None else [*leaves[:2], None, leaves[2]]), clamp)
    dy = torch.randn(y.shape, generator=seeded(2), dtype=torch.float64, device=DEVICE).to(y).requires_grad_()
    first = torch.autograd.grad(y, leaves, dy, create_graph=True)
    if order == 1:
        return y, *first
    directions = [torch.randn(g.shape, generator=seeded(3), dtype=torch.float64, device=DEVICE).to(g) for g in first]
    second = torch.autograd.grad(first, [*leaves, dy], directions, allow_unused=True)
    second = [torch.zeros_like(v) if g is None else g for g, v in zip(second, [*leaves, dy], strict=True)]
    return y, *first, *second


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_values_and_gradients(impl, dtype, layout):
    given = tensors((2, 5, 7, 9), dtype, layout=layout)
    y, *first = every_output(impl, given, order=1)
    leaves = [v.detach().double().requires_grad_() for v in given]
    expected = formula(*leaves, 0.9)
    assert y.dtype == dtype and y.stride() == torch.empty_like(given[0]).stride()
    assert_close(y, expected, 2 * TOLERANCE[dtype])
    dy = torch.randn(y.shape, generator=seeded(2), dtype=torch.float64, device=DEVICE).to(y)
    for g, like, wanted in zip(first, given, torch.autograd.grad(expected, leaves, dy.double()), strict=True):
        assert g.dtype == like.dtype and g.shape == like.shape
        assert_close(g, wanted, 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("noise", ["none", "per sample", "shared", "image"])
@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("impl", IMPLS)
def test_gradcheck_of_both_orders(impl, clamp, noise):
    x, scale, z, b = (v if v is None else v.requires_grad_() for v in tensors((2, 3, 2, 3), noise=noise))
    f = lambda x, scale, b, z=None: apply(impl, x, scale, z, b, clamp)  # noqa: E731
    inputs = (x, scale, b) if z is None else (x, scale, b, z)
    fast = impl == "triton"  # along random directions: the interpreter needs 3 ms for a call
    assert torch.autograd.gradcheck(f, inputs, fast_mode=fast)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=fast)


@pytest.mark.parametrize("impl", IMPLS)
def test_third_order(impl):
    x, scale, z, b = (v.requires_grad_() for v in tensors((2, 2, 2, 2)))
    weights = torch.randn(2, 2, 2, 2, dtype=torch.float64, device=DEVICE)

    def gradient(*given):
        y = apply(impl, *given)
        return torch.autograd.grad((y.square() * weights).sum(), given, create_graph=True)

    assert torch.autograd.gradgradcheck(gradient, (x, scale, z, b), fast_mode=True)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (0, 1), (1, 3)], ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_of_some(impl, wanted):
    """Each alone, and of the second order along some alone, as where a network's weights are frozen."""
    given = tensors((2, 3, 4, 5))
    leaves = [v.requires_grad_(i in wanted) for i, v in enumerate(given)]
    chosen = [leaves[i] for i in wanted]

    def both(f):
        dy = torch.ones_like(leaves[0]).requires_grad_()
        first = torch.autograd.grad(f(*leaves), chosen, dy, create_graph=True)
        return first, torch.autograd.grad([g.square().sum() for g in first], dy)

    found, expected = both(lambda *v: apply(impl, *v)), both(lambda *v: formula(*v, 0.9))
    for g, e in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        assert_close(g, e)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("impl", KERNELS)
def test_sizes(impl, shape, layout):
    given = tensors(shape, torch.float32, "shared", layout)
    for f, e in zip(every_output(impl, given), every_output("reference", given), strict=True):
        assert f.shape == e.shape and f.dtype == e.dtype
        assert_close(f, e.double(), 1e-4)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("level", LEVELS)
def test_levels(level, dtype, layout, cpu_level):
    cpu_level(level)
    given = tensors((2, 5, 7, 9), dtype, layout=layout)
    for f, e in zip(every_output("cpp", given), every_output("reference", given), strict=True):
        assert_close(f, e.double(), 4 * TOLERANCE[dtype])


@pytest.mark.skipif("cpp" not in KERNELS, reason="no compiled kernel")
def test_the_same_at_any_thread_count():
    given = tensors((3, 70, 64, 64), torch.float32)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(every_output("cpp", given, order=1))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("impl", IMPLS)
def test_not_finite(impl):
    """NaN and Inf lie where the definition has them, and stay in their channel or pixel."""
    given = tensors((2, 3, 4, 5), torch.float32)
    given[0][0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    for clamp in (None, 0.9):
        found, expected = (every_output(i, given, clamp, order=1) for i in (impl, "reference"))
        for f, e in zip(found, expected, strict=True):
            assert torch.equal(f.isnan(), e.isnan()) and torch.equal(f.isposinf(), e.isposinf())


def test_opcheck():
    for noise, layout in (("per sample", "NCHW"), ("none", "NHWC"), ("shared", "samples last")):
        x, scale, z, b = tensors((2, 3, 4, 5), noise=noise, layout=layout)
        given = [v if v is None else v.requires_grad_() for v in (x, scale, z, b)]
        torch.library.opcheck(torch.ops.fastgan.modulated_activation.default, (*given, 0.2, 1.4, 0.9))
        y = apply("auto", x, scale, z, b).detach().requires_grad_()
        torch.library.opcheck(
            torch.ops.fastgan.modulated_activation_backward.default,
            (torch.ones_like(y).requires_grad_(), y, x, scale, b, 0.2, 1.4, 0.9),
        )


def test_compiles_without_a_graph_break():
    given = [v.requires_grad_() for v in tensors((2, 3, 4, 5))]
    f = lambda *v: apply("auto", *v)  # noqa: E731
    y = torch.compile(f, fullgraph=True, backend="aot_eager")(*given)
    for g, e in zip(torch.autograd.grad(y.sum(), given), torch.autograd.grad(f(*given).sum(), given), strict=True):
        assert_close(g, e)


@pytest.mark.parametrize("noise", ["none", "per sample", "image"])
@pytest.mark.parametrize(
    "act, gain, clamp", [("lrelu", None, 0.7), ("lrelu", -1.0, None), ("swish", 2.0, 0.7), ("linear", None, None)]
)
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("form", ["shared", "grouped", "product"])
def test_modulated_conv2d_with_what_follows(form, demodulate, act, gain, clamp, noise):
    """Whatever computes it: modulated_conv2d and then bias_act."""
    k = 1 if form == "product" else 3
    weight = torch.randn(4, 3, k, k, generator=seeded(4), dtype=torch.float64, device=DEVICE)
    styles = torch.randn(2, 3, generator=seeded(5), dtype=torch.float64, device=DEVICE)
    x, _, z, _ = tensors((2, 3, 6, 7), noise=noise)
    bias = torch.randn(4, generator=seeded(6), dtype=torch.float64, device=DEVICE)
    options = dict(demodulate=demodulate, padding=k // 2, impl="reference" if form == "grouped" else "auto")
    after = dict(act=act, gain=gain, clamp=clamp)
    leaves = [v.requires_grad_(form == "shared") for v in (x, weight, styles, bias)]
    y = modulated_conv2d(x, weight, styles, z, **options, bias=bias, **after)
    expected = bias_act(modulated_conv2d(x, weight, styles, z, **options), bias, **after)
    assert_close(y, expected)
    if form == "shared":
        for g, e in zip(*(torch.autograd.grad(v.square().sum(), leaves) for v in (y, expected)), strict=True):
            assert_close(g, e)


def test_modulated_conv2d_keeps_its_dtype_under_autocast():
    x, _, z, _ = tensors((2, 3, 6, 7), torch.float32)
    weight, styles, bias = (torch.randn(s, device=DEVICE) for s in ((4, 3, 3, 3), (2, 3), (4,)))
    f = lambda x: modulated_conv2d(x, weight, styles, z, padding=1, bias=bias, act="lrelu")  # noqa: E731
    with torch.autocast(torch.device(DEVICE).type, torch.bfloat16):
        assert f(x).dtype == torch.float32 and f(x.bfloat16()).dtype == torch.bfloat16


def test_modulated_conv2d_refuses_what_bias_act_refuses():
    x, weight, styles = torch.zeros(1, 2, 3, 3), torch.zeros(4, 2, 3, 3), torch.zeros(1, 2)
    for wrong in (
        dict(bias=torch.zeros(3)),
        dict(bias=torch.zeros(4), act="gelu"),
        dict(bias=torch.zeros(4), clamp=-1.0),
    ):
        with pytest.raises(ValueError):
            modulated_conv2d(x, weight, styles, padding=1, act=wrong.pop("act", "lrelu"), **wrong)
    with pytest.raises(TypeError):
        modulated_conv2d(x, weight, styles, padding=1, bias=torch.zeros(4, dtype=torch.int64))
