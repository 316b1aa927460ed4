import pytest
import torch
import torch.nn.functional as F
from cpu_levels import LEVELS
from device import DEVICE, kernels, seeded
from golden import golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_close

from fastgan.ops import _library, filtered_lrelu
from fastgan.ops._checks import FLOATS
from fastgan.ops.filtered_lrelu import _backward_reference, _reference

OPS = ("filtered_lrelu", "filtered_lrelu_backward")
PLAIN = "fastgan_filtered_lrelu_plain"  # the dispatcher ops with their references as kernels, whatever else is loaded
_library.twin(PLAIN, OPS)
for _name, _kernel in zip(OPS, (_reference, _backward_reference), strict=True):
    _library.implement(_name, _kernel, DEVICE.type.upper(), PLAIN)
KERNELS = kernels("filtered_lrelu")
IMPLS = ["reference", "plain", *KERNELS]


@pytest.fixture(params=IMPLS)
def impl(request, monkeypatch):
    if request.param != "plain":
        return request.param
    select = _library.select
    ops = getattr(torch.ops, PLAIN)
    monkeypatch.setattr(
        _library, "select", lambda name, *rest: getattr(ops, name) if name in OPS else select(name, *rest)
    )
    return "auto"


def tensor(*shape, dtype=torch.float64, seed=0, **kwargs):
    generator = seeded(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(**kwargs)


def fir(*shape, seed=7):
    generator = seeded(seed)
    return torch.rand(shape, generator=generator) / shape[0] + 0.02


def naive(
    x,
    fu=None,
    fd=None,
    b=None,
    up=1,
    down=1,
    padding=(0, 0, 0, 0),
    gain=2**0.5,
    slope=0.2,
    clamp=None,
    flip_filter=False,
):
    """The formula with conv2d alone, written apart from the package."""
    n, c, h, w = x.shape

    def filtered(t, f, stride):
        f = torch.ones(1, dtype=t.dtype) if f is None else f.to(t.dtype)
        f = torch.outer(f, f) if f.dim() == 1 else f
        f = f if flip_filter else f.flip([0, 1])
        return F.conv2d(t.flatten(0, 1)[:, None], f[None, None], stride=stride).unflatten(0, (n, c)).squeeze(2)

    t = x if b is None else x + b[:, None, None]
    z = t.new_zeros(n, c, h * up, w * up)
    z[:, :, ::up, ::up] = t
    t = filtered(F.pad(z, padding), fu, 1) * up**2
    t = gain * torch.where(t > 0, t, slope * t)
    return filtered(t if clamp is None else t.clamp(-clamp, clamp), fd, down)


CASES = {
    "up2 down2": (fir(12), fir(12, seed=8), dict(up=2, down=2, padding=[9, 8, 10, 9], clamp=0.9)),
    "up4 down2": (fir(24), fir(12, seed=8), dict(up=4, down=2, padding=[-2, 20, 17, -1])),
    "up2 down4": (fir(11), fir(23, seed=8), dict(up=2, down=4, padding=[20, 13, 12, 15], flip_filter=True)),
    "up1 down1": (None, None, dict(padding=[1, 0, 2, 0], gain=1.0, slope=0.0, clamp=1.0)),
    "up4 down1": (fir(7), None, dict(up=4, padding=[3, 2, 4, 3])),
    "up1 down4": (None, fir(9), dict(down=4, padding=[-1, 4, 5, 5], slope=1.0)),
    "up4 down4": (fir(15), fir(16, seed=8), dict(up=4, down=4, padding=[15, 14, 14, 17], clamp=0.5)),
    "radial down": (fir(12), fir(12, 12, seed=8), dict(up=2, down=2, padding=9)),
    "radial up": (fir(5, 6), fir(4, seed=8), dict(up=2, down=1, padding=[3, 1, 2, 4], flip_filter=True, clamp=0.7)),
    "oblong": (fir(3, 7), fir(5, 2, seed=8), dict(up=4, down=2, padding=[5, 6, 1, 3])),
    "up3 down2": (fir(9), fir(8, seed=8), dict(up=3, down=2, padding=[9, 8, 7, 6], clamp=0.8)),
    "long": (fir(40), fir(12, seed=8), dict(up=2, down=2, padding=[30, 31, 29, 30])),
    "negative gain": (fir(12), fir(12, seed=8), dict(up=2, down=2, padding=9, gain=-0.8, slope=-0.3, clamp=0.9)),
}
case = pytest.mark.parametrize("name", CASES)


@pytest.mark.parametrize("case, tensors", golden_cases("filtered_lrelu"))
def test_golden(impl, case, tensors):
    t = tensors
    x, v, gy = (t[k].requires_grad_() for k in ("x", "v", "gy"))
    b = t["b"].requires_grad_() if "b" in t else None
    tolerance = 1e-10 if case["filter_gain_exact_in_float32"] else 1e-6
    y = filtered_lrelu(x, t.get("fu"), t.get("fd"), b, **case["kwargs"], impl=impl)
    assert_close(y, t["y"], tolerance)
    gx, *gb = torch.autograd.grad(y, [x] if b is None else [x, b], gy, create_graph=True)
    assert_close(gx, t["gx"], tolerance)
    if b is not None:
        assert_close(gb[0], t["gb"], tolerance)
    # ds/dx and ds/db are zero by golden 2.3: only gy has a second derivative.
    ds_gy, *rest = torch.autograd.grad((gx * v).sum(), [gy, x] if b is None else [gy, x, b], allow_unused=True)
    assert_close(ds_gy, t["ds_gy"], tolerance)
    assert all(g is None or not g.any() for g in rest)


@case
def test_formula(impl, name):
    fu, fd, options = CASES[name]
    x, b = tensor(2, 3, 13, 11, requires_grad=True), tensor(3, seed=1, requires_grad=True)
    padding = options["padding"]
    expected = naive(x, fu, fd, b, **{**options, "padding": [padding] * 4 if isinstance(padding, int) else padding})
    y = filtered_lrelu(x, fu, fd, b, **options, impl=impl)
    assert_close(y, expected)
    gy = tensor(*y.shape, seed=2)
    for actual, wanted in zip(
        torch.autograd.grad(y, [x, b], gy), torch.autograd.grad(expected, [x, b], gy), strict=True
    ):
        assert_close(actual, wanted)


@pytest.mark.parametrize("name", ["up2 down2", "up4 down2", "radial down", "radial up", "up1 down4", "up3 down2"])
def test_any_order(impl, name):
    fu, fd, options = CASES[name]
    size = 5 if name != "up1 down4" else 9
    x, b = tensor(1, 2, size, size + 1, requires_grad=True), tensor(2, seed=1, requires_grad=True)

    def f(x, b):
        return filtered_lrelu(x, fu, fd, b, **options, impl=impl)

    assert torch.autograd.gradcheck(f, (x, b), fast_mode=True)
    assert torch.autograd.gradgradcheck(f, (x, b), fast_mode=True)
    y = f(x, b).tanh()  # gives the third derivative something to be
    third = y.sum()
    for _ in range(3):
        (third,) = torch.autograd.grad(third, x, torch.ones_like(third), create_graph=True)
        third = third.sin().sum()
    reference = filtered_lrelu(x, fu, fd, b, **options, impl="reference").tanh().sum()
    for _ in range(3):
        (reference,) = torch.autograd.grad(reference, x, torch.ones_like(reference), create_graph=True)
        reference = reference.sin().sum()
    assert_close(third, reference)


def test_gradient_in_the_filters(impl):
    fu, fd = (f.double().requires_grad_() for f in (fir(4), fir(3, 3)))
    x = tensor(1, 2, 3, 4, requires_grad=True)
    f = lambda x, fu, fd: filtered_lrelu(x, fu, fd, None, 2, 1, 3, impl=impl)  # noqa: E731
    assert torch.autograd.gradcheck(f, (x, fu, fd), fast_mode=True)
    assert torch.autograd.gradgradcheck(f, (x, fu, fd), fast_mode=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [18, 19])
@pytest.mark.parametrize("name", ["up2 down2", "up4 down2", "up2 down4", "radial down", "up3 down2"])
def test_dtypes(impl, dtype, width, name):
    fu, fd, options = CASES[name]
    x, b = tensor(2, 2, 17, width, dtype=dtype, requires_grad=True), tensor(2, dtype=dtype, seed=1, requires_grad=True)
    wide = [t.detach().double().requires_grad_() for t in (x, b)]
    y = filtered_lrelu(x, fu, fd, b, **options, impl=impl)
    expected = filtered_lrelu(wide[0], fu, fd, wide[1], **options, impl="reference")
    assert y.dtype == dtype
    assert_close(y, expected)
    gy = tensor(*y.shape, dtype=dtype, seed=2)
    grads = torch.autograd.grad(y, [x, b], gy)
    for actual, wanted in zip(grads, torch.autograd.grad(expected, wide, gy.double()), strict=True):
        assert actual.dtype == dtype
        assert_close(actual, wanted)


@pytest.mark.parametrize("name", ["up2 down2", "radial down", "up3 down2"])
def test_layouts(impl, name):
    fu, fd, options = CASES[name]
    x, b = tensor(2, 3, 13, 12), tensor(3, seed=1)
    expected = filtered_lrelu(x, fu, fd, b, **options, impl="reference")
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    y = filtered_lrelu(last, fu, fd, b, **options, impl=impl)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_close(y, expected)
    (gx,) = torch.autograd.grad(y.square().sum(), last)
    other = x.clone().requires_grad_()
    assert_close(
        gx, torch.autograd.grad(filtered_lrelu(other, fu, fd, b, **options, impl="reference").square().sum(), other)[0]
    )
    strided = tensor(2, 3, 26, 12).as_strided((2, 3, 13, 12), (936, 312, 24, 1))
    transposed = x.transpose(2, 3).contiguous().transpose(2, 3)
    for view in (strided, transposed, x[:, :1].expand(2, 3, 13, 12)):
        expected = filtered_lrelu(view.contiguous(), fu, fd, b, **options, impl="reference")
        assert_close(filtered_lrelu(view, fu, fd, b, **options, impl=impl), expected)


@pytest.mark.parametrize(
    "shape", [(0, 3, 8, 8), (2, 0, 8, 8), (1, 1, 1, 1), (1, 2, 1, 37), (3, 1, 31, 2), (1, 1, 0, 5)]
)
def test_sizes(impl, shape):
    fu, fd, options = fir(12), fir(12, seed=8), dict(up=2, down=2, padding=12)
    x, b = tensor(*shape, requires_grad=True), tensor(shape[1], seed=1, requires_grad=True)
    y = filtered_lrelu(x, fu, fd, b, **options, impl=impl)
    expected = filtered_lrelu(x, fu, fd, b, **options, impl="reference")
    assert_close(y, expected)
    for actual, wanted in zip(
        torch.autograd.grad(y.sum(), [x, b]), torch.autograd.grad(expected.sum(), [x, b]), strict=True
    ):
        assert_close(actual, wanted)


def test_kinks_and_special_values(impl):
    x = torch.tensor([0.0, -0.0, 2.0, -3.0, 1.0, float("nan"), float("inf")]).reshape(1, 1, 1, 7).requires_grad_()
    y = filtered_lrelu(x, gain=1.0, slope=0.5, clamp=1.0, impl=impl)
    assert y.flatten()[:5].tolist() == [0, 0, 1, -1, 1]
    assert y.flatten()[5].isnan() and y.flatten()[6] == 1
    # At 0 the slope of the negative side, at the limit itself 0.
    assert torch.autograd.grad(y.sum(), x)[0].flatten()[:5].tolist() == [0.5, 0.5, 0, 0, 0]
    assert filtered_lrelu(x.detach()[..., :5], clamp=0.0, impl=impl).eq(0).all()


def test_padding_stays_zero_under_a_bias(impl):
    y = filtered_lrelu(torch.zeros(1, 1, 1, 1), b=torch.ones(1), padding=1, gain=1.0, impl=impl)
    assert y.tolist() == [[[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]]


@pytest.mark.parametrize("kernel", ["auto", *KERNELS])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_arguments(kernel, data):
    draw = data.draw
    up, down = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 4]))
    filters = [
        draw(st.none() | st.tuples(st.integers(1, 13)) | st.tuples(st.integers(1, 5), st.integers(1, 6)))
        for _ in range(2)
    ]
    fu, fd = (None if s is None else fir(*s, seed=i) for i, s in enumerate(filters))
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 21), st.integers(1, 40)))
    taps = [sum(1 if s is None else s[axis if len(s) > 1 else 0] for s in filters) - 1 for axis in (1, 0)]
    padding = []
    for axis in range(2):
        before, rest = draw(st.integers(-3, 20)), draw(st.integers(0, 9))
        padding += [before, max(taps[axis] - shape[3 - axis] * up - before, rest - 4)]
    options = dict(
        up=up,
        down=down,
        padding=padding,
        clamp=draw(st.none() | st.just(0.6)),
        slope=draw(st.sampled_from([0.2, 1.0])),
        gain=draw(st.sampled_from([1.0, 2**0.5])),
        flip_filter=draw(st.booleans()),
    )
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    x = tensor(*shape, dtype=dtype, requires_grad=True)
    b = draw(st.none() | st.just(tensor(shape[1], dtype=dtype, seed=1)))
    wide, wide_b = x.detach().double().requires_grad_(), None if b is None else b.double()
    expected = filtered_lrelu(wide, fu, fd, wide_b, **options, impl="reference")
    gy = tensor(*expected.shape, dtype=dtype, seed=2)
    wanted = torch.autograd.grad(expected, wide, gy.double())[0]
    y = filtered_lrelu(x, fu, fd, b, **options, impl=kernel)
    assert_close(y, expected)
    assert_close(torch.autograd.grad(y, x, gy)[0], wanted, None if dtype == torch.float64 else 5e-5)


def _op_arguments(name, save_mask=True, dtype=torch.float64, width=37):
    fu, fd, options = CASES[name]
    accumulated = torch.float64 if dtype == torch.float64 else torch.float32
    one = torch.ones(1)
    fu, fd = (one if f is None else f for f in (fu, fd))
    padding = options["padding"]
    return (
        tensor(2, 3, 14, width, dtype=dtype), tensor(3, dtype=dtype, seed=1), fu.to(accumulated), fd.to(accumulated),
        options.get("up", 1), options.get("down", 1), [padding] * 4 if isinstance(padding, int) else padding,
        options.get("gain", 2**0.5), options.get("slope", 0.2), options.get("clamp", -1.0) or -1.0,
        options.get("flip_filter", False), save_mask,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["up2 down2", "up4 down2", "up2 down4", "up1 down1", "radial up", "up4 down4"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [37, 40])
@pytest.mark.parametrize("kernel", ["auto", *KERNELS])
def test_mask_is_the_contract(name, dtype, width, kernel):
    arguments = _op_arguments(name, dtype=dtype, width=width)
    _, expected = _reference(*arguments)
    op = _library.select("filtered_lrelu", kernel, arguments[0])
    _, mask = op(*arguments)
    assert mask.shape == expected.shape and mask.dtype == torch.uint8
    # A bit differs only where rounding moves an element over a kink.
    different = (mask ^ expected).ne(0).float().mean().item()
    assert different <= (0 if dtype == torch.float64 else 1e-3)
    assert not op(*arguments[:-1], False)[1].numel()


def test_mask_of_known_signs():
    x = torch.tensor([1.0, -1.0, 3.0, 0.0] * 9).reshape(1, 1, 1, 36)
    one = torch.ones(1)
    _, mask = torch.ops.fastgan.filtered_lrelu(x, None, one, one, 1, 1, [0] * 4, 1.0, 0.2, 2.0, False, True)
    assert mask.tolist() == [[[[[0b10101010] * 4 + [0b1010, 0, 0, 0], [0b01000100] * 4 + [0b0100, 0, 0, 0]]]]]


@pytest.mark.parametrize("level", LEVELS or [""])
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 2), (2, 4), (1, 4), (4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clamped_elements_are_exact(level, up, down, dtype, cpu_level):
    """Numbers of few bits, of which every sum is exact: the mask and the gradient are the definition's, bit by bit.

    Where no number of x is large enough for the limit of 4, the CPU kernels look at no element of t. In rows 7 to 9 some t
    are just 4, the most that such numbers give; one number of row 29 gives less by 1 / 64.
    """
    cpu_level(level)
    x = torch.randint(-2, 3, (1, 3, 41, 83), generator=seeded(3)).to(dtype) / 16
    b = torch.tensor([0.0, 0.0625, -0.0625], dtype=dtype)
    fu = torch.tensor([1, 2, 3, 4, 3, 2, 1] if up == 4 else [1, -2, 1], dtype=dtype) / 4
    fd = torch.tensor([0.5, 0.25, -0.25], dtype=dtype)
    gain, most = {1: (4.0, 1.0), 2: (1.0, 4.0), 4: (1.0, 0.25)}[up]  # `most` of x makes a t of 4
    x[0, 0, 7:10] = most * (1 - 2 * (torch.arange(3)[:, None] + torch.arange(83)).remainder(2).to(dtype))
    x[0, 0, 29, 60] = most * 63 / 64
    x[0, 1, 20, 41], x[0, 2, 30, 5] = 64.0, -64.0
    arguments = (up, down, [6, 5, 7, 4], gain, 0.25, 4.0, False)
    y, mask = torch.ops.fastgan.filtered_lrelu(x, b, fu, fd, *arguments, True)
    expected, bits = _reference(x, b, fu, fd, *arguments, True)
    assert 0 < bits[:, :, :, 1].count_nonzero() < bits[:, :, :, 1].numel() / 4
    assert torch.equal(mask, bits) and torch.equal(y, expected)
    assert torch.equal(torch.ops.fastgan.filtered_lrelu(x, b, fu, fd, *arguments, False)[0], y)
    gy = torch.randint(-4, 5, y.shape, generator=seeded(4)).to(dtype) / 4
    width, height = (x.shape[d] * up + 11 - len(fu) + 1 for d in (3, 2))
    offset = [len(fd) - 1] * 2 + [len(fu) - 1 - 6, len(fu) - 1 - 7]
    back = (fd, fu, down, up, offset, [width, height, 83, 41], gain * up**2, 0.25, True)
    assert torch.equal(torch.ops.fastgan.filtered_lrelu_backward(gy, mask, *back), _backward_reference(gy, bits, *back))


@pytest.mark.parametrize("name", ["up2 down2", "radial down"])
def test_opcheck(name):
    arguments = _op_arguments(name)
    x = arguments[0].clone().requires_grad_()
    torch.library.opcheck(torch.ops.fastgan.filtered_lrelu, (x, *arguments[1:]))
    shapes = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.fastgan.filtered_lrelu, (*arguments[:-1], False), test_utils=shapes)
    y, mask = torch.ops.fastgan.filtered_lrelu(*arguments)
    size, m = [arguments[0].shape[3], arguments[0].shape[2]], mask.shape
    taps = [arguments[i].shape[0] - 1 for i in (3, 2)]
    width = size[0] * 2 + arguments[6][0] + arguments[6][1] - taps[1]
    gy = tensor(*y.shape, requires_grad=True)
    backward = (
        gy,
        mask,
        arguments[3],
        arguments[2],
        2,
        2,
        [taps[0], taps[0], 3, 2],
        [width, m[2], *size],
        1.3,
        0.2,
        True,
    )
    torch.library.opcheck(torch.ops.fastgan.filtered_lrelu_backward, backward)


def test_compiled():
    fu, fd, options = CASES["up2 down2"]
    x, b = tensor(1, 2, 9, 8, requires_grad=True), tensor(2, seed=1, requires_grad=True)

    def step(x, b):
        return filtered_lrelu(x, fu, fd, b, **options).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for actual, wanted in zip(
        torch.autograd.grad(compiled(x, b), [x, b]), torch.autograd.grad(step(x, b), [x, b]), strict=True
    ):
        assert_close(actual, wanted)


def test_autocast():
    x, b = tensor(1, 2, 9, 9, dtype=torch.bfloat16), tensor(2, dtype=torch.float32, seed=1, requires_grad=True)
    fu, fd, options = CASES["up2 down2"]
    with torch.autocast(DEVICE.type, torch.bfloat16):
        y = filtered_lrelu(x, fu, fd, b, **options)
    assert y.dtype == torch.bfloat16
    assert_close(y, naive(x.double(), fu, fd, b.double(), **options))
    y.sum().backward()
    assert b.grad.dtype == torch.float32


x4 = torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    "arguments, options, error, text",
    [
        ((x4.int(),), {}, TypeError, "x has dtype"),
        ((x4[0],), {}, ValueError, "4 dimensions"),
        (([1.0],), {}, TypeError, "x is list"),
        ((x4, [1.0]), {}, TypeError, "fu is list"),
        ((x4, torch.ones(1, 1, 1)), {}, ValueError, "fu has shape"),
        ((x4, None, torch.ones(0)), {}, ValueError, "fd has shape"),
        ((x4, None, None, torch.ones(3)), {}, ValueError, r"b has shape \(3,\); expected \(2,\)"),
        ((x4, None, None, torch.ones(2).double()), {}, TypeError, "b has dtype"),
        ((x4,), {"up": 0}, ValueError, "up=0; expected >= 1"),
        ((x4,), {"down": 1.5}, TypeError, "down=1.5"),
        ((x4,), {"up": [2, 2]}, TypeError, "up="),
        ((x4,), {"padding": [1, 2, 3]}, ValueError, "padding"),
        ((x4,), {"padding": 1.0}, TypeError, "padding"),
        ((x4,), {"clamp": -1}, ValueError, "clamp=-1"),
        ((x4,), {"clamp": float("nan")}, ValueError, "clamp=nan"),
        ((x4, torch.ones(4), torch.ones(3)), {"padding": [9, 9, 0, 0]}, ValueError, "height of x is 4 .*at least 6"),
        ((x4,), {"impl": "triton"}, ValueError, "impl='triton'"),
    ],
)
def test_bad_input(arguments, options, error, text):
    with pytest.raises(error, match=text):
        filtered_lrelu(*arguments, **options)


def test_direct_calls_do_not_lose_a_gradient():
    arguments = _op_arguments("up2 down2", save_mask=False)
    y, _ = torch.ops.fastgan.filtered_lrelu(arguments[0].clone().requires_grad_(), *arguments[1:])
    with pytest.raises(RuntimeError, match="save_mask"):
        y.sum().backward()
    y, _ = torch.ops.fastgan.filtered_lrelu(*arguments[:2], arguments[2].requires_grad_(), *arguments[3:-1], True)
    with pytest.raises(RuntimeError, match="no gradient in its filters"):
        y.sum().backward()
