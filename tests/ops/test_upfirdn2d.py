"""upfirdn2d and its relatives: golden vectors, the definition, gradients of any order, layouts, wrong arguments."""

import pytest
import torch
from cpu_levels import LEVELS
from device import DEVICE, kernels
from golden import golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE, assert_close

from fastgan import ops
from fastgan.ops import _library, setup_filter, upfirdn2d

COMPILED = "cpp" in kernels("upfirdn2d")
KERNELS = ["auto", *(["cuda"] if "cuda" in kernels("upfirdn2d") else [])]
IMPLS = ["reference", *KERNELS[0 if COMPILED else 1 :]]

OTHER_DEVICES = "cuda" if DEVICE.type == "cpu" else "cpp"  # kernels that do not run on the tests' tensors


@pytest.fixture(params=[*LEVELS, *(impl for impl in IMPLS if impl != "auto")])
def level(request, cpu_level):
    """The kernel at each CPU level of this machine, then the others; gives the impl."""
    if request.param in LEVELS:
        cpu_level(request.param)
    return "cpp" if request.param in LEVELS else request.param


def by_definition(x, f, up, down, padding, flip, gain):
    """The sum in the docstring, one output at a time, in float64."""
    x, f = x.double(), f.double()
    f = torch.outer(f, f) if f.dim() == 1 else f
    h = (f if flip else f.flip([0, 1])) * gain
    n, c, height, width = x.shape
    u = x.new_zeros(
        n, c, max(0, height * up[1] + padding[2] + padding[3]), max(0, width * up[0] + padding[0] + padding[1])
    )
    for i in range(height):
        for j in range(width):
            p, q = i * up[1] + padding[2], j * up[0] + padding[0]
            if 0 <= p < u.shape[2] and 0 <= q < u.shape[3]:
                u[:, :, p, q] = x[:, :, i, j]
    rows, columns = (u.shape[2] - h.shape[0]) // down[1] + 1, (u.shape[3] - h.shape[1]) // down[0] + 1
    y = x.new_zeros(n, c, rows, columns)
    for i in range(rows):
        for j in range(columns):
            p, q = i * down[1], j * down[0]
            y[:, :, i, j] = (u[:, :, p : p + h.shape[0], q : q + h.shape[1]] * h).sum((2, 3))
    return y


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("case", "t"), golden_cases("upfirdn2d"))
def test_golden(case, t, impl):
    tolerance = 1e-10 if case["filter_gain_exact_in_float32"] else 1e-6
    x, gy = t["x"].requires_grad_(), t["gy"].requires_grad_()
    y = getattr(ops, case["op"])(x, t.get("f"), impl=impl, **case["kwargs"])
    assert_close(y, t["y"], tolerance)
    (gx,) = torch.autograd.grad(y, x, gy, create_graph=True)
    assert_close(gx, t["gx"], tolerance)
    if "v" in t:
        (ds_gy,) = torch.autograd.grad((gx * t["v"]).sum(), gy)
        assert_close(ds_gy, t["ds_gy"], tolerance)


@pytest.mark.parametrize(("case", "t"), golden_cases("setup_filter"))
def test_golden_setup_filter(case, t):
    if case.get("raises"):
        with pytest.raises((TypeError, ValueError)):
            setup_filter(**case["kwargs"])
    else:
        f = setup_filter(**case["kwargs"])
        assert f.dtype == torch.float32
        assert_close(f, t["y"], 1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("shape", "taps", "up", "down", "padding"),
    [
        ((2, 3, 5, 7), (4,), [1, 1], [1, 1], [2, 1, 2, 1]),
        ((1, 2, 17, 33), (4,), [2, 2], [1, 1], [2, 1, 2, 1]),
        ((1, 2, 18, 35), (4, 4), [1, 1], [2, 2], [1, 1, 1, 1]),
        ((1, 3, 9, 11), (12,), [4, 2], [2, 4], [7, 5, 8, 6]),
        ((2, 3, 3, 1), (4,), [2, 2], [1, 1], [2, 1, 2, 1]),
        ((1, 3, 5, 23), (4,), [2, 2], [1, 1], [2, 2, 2, 1]),
        ((1, 3, 4, 40), (12,), [2, 1], [1, 1], [-3, 8, 6, 5]),
        ((1, 3, 4, 17), (2,), [2, 2], [1, 1], [0, 1, 1, 0]),
        ((1, 1, 11, 13), (3, 5), [3, 2], [2, 5], [4, -1, -2, 6]),
        ((1, 2, 40, 7), (24,), [4, 4], [1, 3], [12, 12, 11, 11]),
        ((1, 37, 6, 5), (3, 4), [1, 2], [2, 1], [1, 2, 0, 3]),
        ((1, 40, 4, 6), (5,), [2, 3], [3, 1], [1, 2, 0, 3]),
        ((2, 2, 1, 1), (2, 2), [1, 1], [1, 1], [5, 4, -1, 3]),
        ((1, 2, 5, 5), (1, 1), [1, 1], [3, 3], [-1, -2, -2, -1]),
        ((1, 1, 3, 3), (2,), [4, 5], [1, 1], [0, 0, 0, 0]),
    ],
)
def test_definition(shape, taps, up, down, padding, channels_last, level):
    torch.manual_seed(0)
    x, f = torch.randn(shape, dtype=torch.float64), torch.randn(taps, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for flip in (False, True):
        expected = by_definition(x, f, up, down, padding, flip, 1.5)
        for dtype in (torch.float64, torch.float32):
            y = upfirdn2d(x.to(dtype), f, up, down, padding, flip, 1.5, impl=level)
            assert y.dtype == dtype
            assert_close(y, expected)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [2, 3, 48])
@pytest.mark.parametrize("taps", [(4,), (3, 5)])
def test_half_precision_accumulates_in_float32(dtype, channels, taps, impl):
    torch.manual_seed(1)
    x, f = torch.randn(2, channels, 19, 37).to(dtype), torch.rand(taps, requires_grad=True)
    expected = upfirdn2d(x.float(), f, 2, 1, [2, 1, 2, 1], impl="reference")
    dy = torch.randn(expected.shape).to(dtype)
    (wanted,) = torch.autograd.grad(expected, f, dy.float())
    for layout in (torch.contiguous_format, torch.channels_last):
        y = upfirdn2d(x.contiguous(memory_format=layout), f, 2, 1, [2, 1, 2, 1], impl=impl)
        assert y.dtype == dtype and y.is_contiguous(memory_format=layout)
        assert_close(y, expected, torch.finfo(dtype).eps)  # one rounding, of the result: accumulation adds nothing
        assert_close(torch.autograd.grad(y, f, dy)[0], wanted, 10 * TOLERANCE[torch.float32])  # sums of up to 1e5 terms


@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl == "cuda"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_places_beyond_32_bits(layout, dtype, impl):
    """Of a factor that leaves one column, as any that is large enough does. The CPU kernel has buffers of its size."""
    x, f = torch.randn(2, 3, 9, 8).to(dtype).contiguous(memory_format=layout).requires_grad_(), torch.rand(3, 4)
    results = []
    for factor in (2**31, 8):
        y = upfirdn2d(x, f, 1, [factor, 2], 0, impl=impl)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), x)))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected, 2 * torch.finfo(dtype).eps)


ARGUMENTS = st.fixed_dictionaries(
    {
        "shape": st.tuples(*[st.sampled_from([1, 2, 3])] * 2, *[st.integers(1, 19)] * 2),
        "taps": st.one_of(st.tuples(st.integers(1, 14)), st.tuples(st.integers(1, 7), st.integers(1, 7))),
        "up": st.lists(st.integers(1, 5), min_size=2, max_size=2),
        "down": st.lists(st.integers(1, 5), min_size=2, max_size=2),
        "padding": st.lists(st.integers(-4, 9), min_size=4, max_size=4),
        "flip": st.booleans(),
        "rank_one": st.booleans(),
        "channels_last": st.booleans(),
        "dtype": st.sampled_from([torch.float64, torch.float32]),
    }
)


@pytest.mark.parametrize("impl", KERNELS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(a=ARGUMENTS)
def test_kernel_equals_reference(impl, a):
    torch.manual_seed(2)
    x, f = torch.randn(a["shape"], dtype=a["dtype"]), torch.randn(a["taps"], dtype=torch.float64)
    if a["rank_one"] and f.dim() == 2:
        f = torch.outer(f[:, 0], f[0]).contiguous()
    if a["channels_last"]:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_(), f.requires_grad_()
    arguments = (a["up"], a["down"], a["padding"], a["flip"], 0.7)
    try:
        expected = upfirdn2d(x, f, *arguments, impl="reference")
    except ValueError:
        with pytest.raises(ValueError, match="expected at least"):
            upfirdn2d(x, f, *arguments, impl=impl)
        return
    y = upfirdn2d(x, f, *arguments, impl=impl)
    assert y.stride() == expected.stride() and y.dtype == expected.dtype
    assert_close(y, expected)
    dy = torch.randn_like(y)
    actual = torch.autograd.grad(y, (x, f), dy)
    expected = torch.autograd.grad(expected, (x, f), dy)  # of the torch operations, by torch
    assert_close(actual[0], expected[0])
    assert_close(actual[1], expected[1], 10 * TOLERANCE[x.dtype])  # sums of up to 1e4 terms


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("taps", [(3,), (2, 3)])
@pytest.mark.parametrize(
    ("up", "down", "padding", "flip"), [(2, 1, [1, 2, 0, -1], False), ([1, 3], 2, [2, 0, 1, 1], True), (1, 1, 1, False)]
)
def test_gradients_of_first_and_second_order(taps, up, down, padding, flip, impl):
    torch.manual_seed(3)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    f = torch.randn(taps, dtype=torch.float64, requires_grad=True)

    def function(x, f):
        return upfirdn2d(x, f, up, down, padding, flip, 1.7, impl=impl)

    assert torch.autograd.gradcheck(function, (x, f))
    assert torch.autograd.gradgradcheck(function, (x, f))


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_of_third_order(impl):
    torch.manual_seed(4)
    x = torch.randn(1, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    f = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def gradients(x, f):
        y = upfirdn2d(x, f, 2, 1, 1, impl=impl)
        return torch.autograd.grad((y**3).sum(), (x, f), create_graph=True)

    assert torch.autograd.gradgradcheck(gradients, (x, f))


@pytest.mark.parametrize("taps", [(3,), (2, 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_opcheck(taps, channels_last):
    x, f = torch.randn(2, 3, 5, 4), torch.randn(taps)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    f.requires_grad_()
    arguments = (
        x,
        f,
        f.detach().clone().requires_grad_() if f.dim() == 1 else None,
        [2, 1],
        [1, 2],
        [1, 2, 0, 1],
        False,
        2.0,
    )
    torch.library.opcheck(torch.ops.fastgan.upfirdn2d.default, arguments)
    y = torch.ops.fastgan.upfirdn2d(*arguments).detach().requires_grad_()
    arguments = (x, y, [f.shape[-1], f.shape[0]], [2, 1], [1, 2], [1, 2, 0, 1], False, 2.0)
    torch.library.opcheck(torch.ops.fastgan.upfirdn2d_filter_backward.default, arguments)


def test_compiles_whole_forward_and_backward():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    f = setup_filter([1, 3, 3, 1]).requires_grad_()

    def function(x, f):
        return ops.downsample2d(ops.upsample2d(x, f), f).square().sum()

    expected = torch.autograd.grad(function(x, f), (x, f))
    compiled = torch.compile(function, fullgraph=True)
    actual = torch.autograd.grad(compiled(x, f), (x, f))
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8), (2, 3, 0, 8), (2, 3, 8, 0)])
def test_empty_images(shape, impl):
    x, f = torch.randn(shape, requires_grad=True), torch.ones(4, requires_grad=True)
    y = upfirdn2d(x, f, 2, 1, 3, impl=impl)
    assert y.shape == (*shape[:2], shape[2] * 2 + 3, shape[3] * 2 + 3)
    assert not y.any()
    gx, gf = torch.autograd.grad(y.sum(), (x, f))
    assert gx.shape == x.shape and not gf.any()


@pytest.mark.parametrize("impl", IMPLS)
def test_any_strides(impl):
    torch.manual_seed(5)
    f = setup_filter([1, 2, 1])
    base = torch.randn(3, 40, 14, 12)
    last = base.contiguous(memory_format=torch.channels_last)
    views = {
        "crop": base[:, :, 2:-1, 1:-2],
        "cropped channels_last": last[:, :, 2:-1, 1:-2],
        "some channels of channels_last": last[:, 1:38],
        "transposed": base.transpose(2, 3),
        "every other column": base[:, :, :, ::2],
        "expanded": base[:1, :1].expand(3, 5, 14, 12),
        "one column, expanded": base[..., :1].expand(3, 40, 14, 6),
        "one pixel, channels_last": last[:, :, :1, :1],
    }
    for name, x in views.items():
        y = upfirdn2d(x, f, 2, 1, 2, impl=impl)
        assert_close(y, upfirdn2d(x.clone(memory_format=torch.contiguous_format), f, 2, 1, 2, impl="reference"))
        assert y.is_contiguous(
            memory_format=torch.channels_last if "channels_last" in name else torch.contiguous_format
        )


@pytest.mark.skipif(not COMPILED, reason="no CPU kernel under test")
@pytest.mark.parametrize("channels", [3, 64])
def test_same_result_at_any_thread_count(channels):
    torch.manual_seed(6)
    x = torch.randn(4, channels, 65, 63).contiguous(memory_format=torch.channels_last)
    f = torch.rand(4, 4, requires_grad=True)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            y = ops.upsample2d(x, f)
            results.append((y, *torch.autograd.grad(y.square().sum(), f)))
    finally:
        torch.set_num_threads(threads)
    for y, gf in results[1:]:
        assert torch.equal(y, results[0][0]) and torch.equal(gf, results[0][1])


def test_autocast_keeps_the_type_of_x():
    x, f = torch.randn(1, 2, 8, 8), setup_filter([1, 3, 3, 1])
    for impl in IMPLS:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            assert torch.equal(ops.upsample2d(x, f, impl=impl), ops.upsample2d(x, f, impl=impl).float())
            assert ops.upsample2d(x.bfloat16(), f, impl=impl).dtype == torch.bfloat16


def test_resampling_keeps_a_constant():
    f, ones = setup_filter([1, 3, 3, 1]), torch.ones(1, 1, 16, 16)
    assert_close(ops.upsample2d(ones, f)[:, :, 4:-4, 4:-4], torch.ones(1, 1, 24, 24))
    assert_close(ops.downsample2d(ones, f)[:, :, 2:-2, 2:-2], torch.ones(1, 1, 4, 4))
    assert ops.filter2d(ones, f, padding=[1, 0]).shape == (1, 1, 16, 18)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (TypeError, "x is list", {"x": [1.0]}),
        (TypeError, "x has dtype torch.int64", {"x": torch.zeros(1, 1, 4, 4, dtype=torch.int64)}),
        (TypeError, "x has dtype torch.complex64", {"x": torch.zeros(1, 1, 4, 4, dtype=torch.complex64)}),
        (ValueError, "x has shape", {"x": torch.zeros(4, 4)}),
        (TypeError, "f is list", {"f": [1.0, 2.0]}),
        (ValueError, "f has shape", {"f": torch.zeros(1, 1, 2)}),
        (ValueError, "f has shape", {"f": torch.zeros(0)}),
        (ValueError, "f is on meta", {"f": torch.zeros(2, device="meta")}),
        (ValueError, "up=0", {"up": 0}),
        (TypeError, "up=1.5", {"up": 1.5}),
        (ValueError, "down=", {"down": [1, 2, 3]}),
        (TypeError, "padding=", {"padding": "same"}),
        (ValueError, "padding=", {"padding": [1, 2, 3]}),
        (ValueError, "height of x is 3", {"padding": [0, 0, 0, -1]}),
        (ValueError, "impl='gpu' is unknown", {"impl": "gpu"}),
        (RuntimeError, f"impl='{OTHER_DEVICES}' is not available", {"impl": OTHER_DEVICES}),
    ],
)
def test_wrong_arguments_name_themselves(error, message, change, monkeypatch):
    monkeypatch.delitem(_library._STATE.libraries, "fastgan_cuda", raising=False)  # the emulated kernels of tests/cuda
    monkeypatch.setattr(_library._STATE, "chosen", {})
    arguments = {"x": torch.zeros(1, 1, 4, 4), "f": torch.ones(4), **change}
    with pytest.raises(error, match=message.replace("[", r"\[")):
        upfirdn2d(**arguments)


@pytest.mark.parametrize("f", ["taps", torch.zeros(0), torch.zeros(1, 1, 1), torch.zeros(2, dtype=torch.complex64)])
def test_setup_filter_refuses(f):
    with pytest.raises((TypeError, ValueError), match="setup_filter: f"):
        setup_filter(f)


@pytest.mark.parametrize("f", [[1, -1], [[1.0, 2], [-2, -1]], [0.1, 0.2, -0.3], 0.0, [1, torch.nan], [torch.inf, 1]])
def test_a_filter_whose_sum_nothing_can_be_divided_by_is_not_normalised(f):
    for taps in (f, torch.tensor(f, device="cpu")):
        with pytest.raises(ValueError, match=r"setup_filter: f sums to .*normalize=False"):
            setup_filter(taps)
        setup_filter(taps, normalize=False)
    assert torch.equal(setup_filter([1, -1], normalize=False), torch.tensor([[1.0, -1], [-1, 1]]))
    assert setup_filter(torch.tensor(f, device="meta")).device.type == "meta"  # no values to sum


@pytest.mark.parametrize("default, own", [("cpu", "meta"), ("meta", "cpu")])
def test_a_filter_stays_where_it_is_whatever_the_default_device(default, own):
    f = torch.ones(4, device=own)
    with torch.device(default):
        assert setup_filter(f).device.type == own
        assert setup_filter([1, 3, 3, 1]).device.type == default


def test_a_negative_gain_is_of_a_two_dimensional_filter_alone():
    assert torch.equal(setup_filter([1, 1], gain=-4), torch.full((2, 2), -1.0))
    with pytest.raises(ValueError, match=r"setup_filter: gain=-4.0 with a 1-D filter"):
        setup_filter([1, 1], gain=-4, separable=True)


def test_setup_filter_leaves_its_argument():
    f = torch.tensor([1.0, 3.0, 3.0, 1.0])
    setup_filter(f, gain=4, flip_filter=True)
    assert torch.equal(f, torch.tensor([1.0, 3.0, 3.0, 1.0]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("impl", KERNELS)
def test_the_filters_gradient_at_a_dy_that_is_not_finite(impl, value):
    """0 times it is NaN: the zeros that are inserted, and those around the image, count."""
    backward = _library.select("upfirdn2d_filter_backward", impl, torch.empty(0, device=DEVICE))
    for up, down, padding in (
        ([1, 1], [1, 1], [2, 1, 0, 3]),
        ([2, 1], [1, 3], [1, -1, 2, 2]),
        ([3, 2], [2, 2], [4, 0, 0, 4]),
    ):
        x = torch.randn(2, 3, 5, 7, device=DEVICE)
        taps = torch.randn(3, 4, device=DEVICE)
        dy = torch.randn_like(upfirdn2d(x, taps, up, down, padding))
        for place in ((0, 0, 0, 0), (1, 2, -1, -1), (1, 1, 0, -1)):
            spoilt = dy.clone()
            spoilt[place] = value
            arguments = (x, spoilt, [4, 3], up, down, padding, False, 1.0)
            found = backward(*arguments)
            wanted = torch.ops.fastgan.upfirdn2d_filter_backward_reference(*arguments)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)
