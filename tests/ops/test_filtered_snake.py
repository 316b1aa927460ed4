import itertools
import sys

import pytest
import torch
from cpu_levels import LEVELS
from derivatives import derivatives
from device import DEVICE, kernels, seeded
from golden import golden_cases
from tolerances import TOLERANCE, assert_close
from torch._subclasses.fake_tensor import FakeTensorMode

from fastgan.ops import _library, filtered_snake, kaiser_sinc_filter, snake
from fastgan.ops.filtered_snake import _downsample1d_adjoint, _upsample1d_adjoint, downsample1d, upsample1d

IMPLS = ["reference", *kernels("filtered_snake")]
DEFAULT_TAPS = next(  # as recorded: ours are within 3e-7 of them
    (p.values[1]["filter"] for p in golden_cases("audio", "kaiser_sinc_filter1d") if p.id == "c095"), None
)


def tensor(*shape, dtype=torch.float64, seed=0, requires_grad=False):
    t = torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)
    return t.requires_grad_(requires_grad)


def fir(taps, seed=7, dtype=torch.float64):
    return torch.rand(taps, generator=seeded(seed), dtype=torch.float64).to(dtype) / taps + 0.02


def naive(x, alpha, beta, fu, fd, up, down):
    """The definition of a sum per output, written apart from the package."""
    taps, size = len(fu), x.shape[2]
    held = taps // up - 1
    first = held * up + (taps - up) // 2
    t = []
    for m in range(size * up):
        total = torch.zeros_like(x[..., 0])
        for k in range(taps):
            i, rest = divmod(m + first - k, up)
            if rest == 0 and 0 <= i < size + 2 * held:
                total = total + up * fu[k] * x[..., min(max(i - held, 0), size - 1)]
        t.append(total)
    t = torch.stack(t, -1)
    v = t + (alpha[:, None] * t).sin() ** 2 / (beta[:, None] + 1e-9)
    taps, size = len(fd), v.shape[2]
    return torch.stack(
        [
            sum(fd[k] * v[..., min(max(o * down + k - (taps - 1) // 2, 0), size - 1)] for k in range(taps))
            for o in range(-(-size // down))
        ],
        -1,
    )


SHAPES = [  # up, down, taps_u, taps_d
    (2, 2, 12, 12),
    (2, 2, 8, 8),
    (2, 2, 13, 13),
    (2, 2, 3, 2),
    (2, 1, 12, 12),
    (1, 2, 5, 12),
    (2, 4, 12, 24),
    (4, 2, 7, 1),
    (4, 4, 24, 24),
    (1, 1, 1, 1),
    (1, 1, 12, 40),
]


@pytest.mark.parametrize("up, down, taps_u, taps_d", [*SHAPES, (3, 3, 18, 18), (3, 2, 4, 6)])
@pytest.mark.parametrize("impl", IMPLS)
def test_definition(impl, up, down, taps_u, taps_d):
    for size in (1, 2, 5, 31):
        x, alpha, beta = tensor(2, 3, size), tensor(3, seed=1), tensor(3, seed=2).abs() + 0.5
        fu, fd = fir(taps_u), fir(taps_d, seed=8)
        expected = naive(x, alpha, beta, fu, fd, up, down)
        assert_close(filtered_snake(x, alpha, beta, fu, fd, up, down, impl=impl), expected)


@pytest.mark.parametrize("up, down, taps_u, taps_d", [*SHAPES, (3, 2, 6, 5)])
@pytest.mark.parametrize("impl", IMPLS)
def test_gradients(impl, up, down, taps_u, taps_d):
    for size in (1, 4):
        inputs = tensor(2, 2, size, requires_grad=True), tensor(2, seed=1, requires_grad=True), tensor(2, seed=2) + 3
        inputs[2].requires_grad_()

        def f(x, alpha, beta):
            return filtered_snake(x, alpha, beta, fir(taps_u), fir(taps_d), up, down, impl=impl)

        assert torch.autograd.gradcheck(f, inputs)
        assert torch.autograd.gradgradcheck(f, inputs)


@pytest.mark.parametrize("case, arrays", golden_cases("audio", "activation1d"))
@pytest.mark.parametrize("impl", IMPLS)
def test_golden(impl, case, arrays):
    kwargs = case["kwargs"]
    up, down = kwargs.get("up_ratio", 2), kwargs.get("down_ratio", 2)
    fu, fd = (arrays.get(n, DEFAULT_TAPS).double().flatten() for n in ("up_filter", "down_filter"))

    def f(x, alpha, beta=None):
        return filtered_snake(x, alpha, beta, fu, fd, up, down, kwargs["alpha_logscale"], impl=impl)

    inputs = {n: arrays[n] for n in ("x", "alpha", "beta") if n in arrays}
    for name, found in derivatives(f, inputs, arrays["gy"], arrays["v"], by="x").items():
        assert_close(found, arrays[name], 1e-11)


@pytest.mark.parametrize("case, arrays", golden_cases("audio", "snake", "snakebeta", "snake1d_dac"))
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_snake(impl, case, arrays):
    def f(x, alpha, beta=None):
        return snake(x, alpha, beta, case["kwargs"].get("alpha_logscale", False), impl=impl)

    inputs = {n: arrays[n] for n in ("x", "alpha", "beta") if n in arrays}
    for name, found in derivatives(f, inputs, arrays["gy"], arrays["v"], by="x").items():
        assert_close(found, arrays[name], 1e-9)


@pytest.mark.parametrize("case, arrays", golden_cases("audio", "upsample1d", "downsample1d"))
def test_golden_resampling(case, arrays):
    resample = upsample1d if case["op"] == "upsample1d" else downsample1d
    x = arrays["x"].clone().requires_grad_()
    y = resample(x, arrays["filter"].double().flatten(), case["kwargs"]["ratio"])
    assert_close(y, arrays["y"])
    assert_close(torch.autograd.grad(y, x, arrays["gy"])[0], arrays["gx"])


@pytest.mark.parametrize("case, arrays", golden_cases("audio", "kaiser_sinc_filter1d"))
def test_golden_filter(case, arrays):
    kwargs = case["kwargs"]
    f = kaiser_sinc_filter(kwargs["cutoff"], kwargs["half_width"], kwargs["kernel_size"])
    assert_close(f, arrays["filter"].flatten().cpu(), 1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_dtypes(impl, dtype):
    x, alpha, beta = (tensor(*s, dtype=dtype, seed=i) for i, s in enumerate([(2, 3, 101), (3,), (3,)]))
    inputs = [t.requires_grad_() for t in (x, alpha, beta)]
    y = filtered_snake(*inputs, logscale=True, impl=impl)
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = filtered_snake(*wide, logscale=True, impl="reference")
    assert y.dtype == dtype
    assert_close(y, expected)
    dy = tensor(2, 3, 101, dtype=dtype, seed=5)
    for found, right in zip(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, wide, dy.double()), strict=True
    ):
        assert found.dtype == dtype
        assert_close(found, right)


def results(x, alpha, beta, dy, **options):
    """y and the gradients."""
    inputs = [t.detach().clone().requires_grad_() for t in (x, alpha, beta)]
    y = filtered_snake(*inputs, **options)
    return [y.detach(), *torch.autograd.grad(y, inputs, dy)]


@pytest.mark.parametrize("up, down", [(2, 2), (4, 4), (4, 2), (1, 4), (1, 1)])
@pytest.mark.parametrize("level", LEVELS)
def test_rows_of_many_units(cpu_level, level, up, down):
    cpu_level(level)
    options = {"up": up, "down": down, "fu": fir(12 if up < 4 else 24), "fd": fir(13, seed=8)}
    for size in (1023, 1025, 4099):
        x, alpha, beta = tensor(1, 2, size), tensor(2, seed=1), tensor(2, seed=2).abs() + 0.5
        dy = tensor(1, 2, -(-size * up // down), seed=3)
        for dtype in (torch.float64, torch.float32):
            given = [t.to(dtype) for t in (x, alpha, beta, dy)]
            expected = results(*(t.double() for t in given), impl="reference", **options)
            for found, right in zip(results(*given, impl="cpp", **options), expected, strict=True):
                assert_close(found, right, TOLERANCE[dtype] * (5 if dtype == torch.float32 else 1))


@pytest.mark.parametrize("level", LEVELS)
def test_error_of_the_sine(cpu_level, level):
    """2.2e-8 of the polynomial, a few roundings of 6e-8, and 1.2e-7 of the phase; beyond 2^23 turns it is bounded."""
    cpu_level(level)
    x = torch.cat([torch.linspace(-700, 700, 99991), torch.logspace(-20, 30, 4001), -torch.logspace(3, 30, 401)])[
        None, None
    ]
    one = torch.ones(1)
    y = snake(x, one, one, impl="cpp").double() - x.double()
    right = x.double().sin().square()
    near = x.double().abs()
    small = near < 4e3
    error = ((y - right).abs() - near * 2**-24)[small]  # of the sum, rounded
    assert (error <= 2e-7 + 2.5e-7 * near[small]).all()
    assert ((y >= -1 - near * 2**-23) & (y <= 1 + near * 2**-23)).all()
    gradient = torch.autograd.grad(snake(x.requires_grad_(), one, one, impl="cpp").sum(), x)[0].double() - 1
    right = (2 * x.detach().double()).sin()
    assert ((gradient - right).abs() <= 4e-7 + 5e-7 * near)[small].all() and (gradient.abs() <= 1.0001).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_packs_of_8(impl):
    """Ratio 2 with 12 taps, whose kernels on a GPU take packs of 8: each end alone, both in one pack, several blocks of a row;
    in 16 bits pieces of rows that overlap, of several samples and channels in one warp (multiples of 32: backward, too)."""
    fu, fd = fir(12), fir(12, seed=8) * torch.linspace(-1, 2, 12, dtype=torch.float64)
    sizes = ((2, 3, 8), (1, 2, 24), (1, 1, 32), (2, 3, 40), (2, 3, 96), (3, 5, 136), (3, 1, 608), (3, 1, 2032))
    for shape in (*sizes, (1, 1, 2040), (1, 2, 4096)):
        given = tensor(*shape), tensor(shape[1], seed=1), tensor(shape[1], seed=2).abs() + 0.5, tensor(*shape, seed=3)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            given = [t.to(dtype) for t in given]
            options = {"fu": fu.float(), "fd": fd.float()}
            expected = results(
                *(t.double() for t in given), **{k: f.double() for k, f in options.items()}, impl="reference"
            )
            for found, right in zip(results(*given, **options, impl=impl), expected, strict=True):
                assert found.dtype == dtype
                assert_close(found, right, TOLERANCE[dtype] * (5 if dtype == torch.float32 else 1))


@pytest.mark.parametrize("dtype, error", [(torch.bfloat16, 1.2e-4), (torch.float16, 2e-5)])
@pytest.mark.parametrize("impl", IMPLS)
def test_16_bit_signals_are_rounded_once(impl, dtype, error):
    """Beside the rounding of the result little is lost, whatever the frequency and the amplitude are: of t and of c sin^2 a part
    that is far below it (1 / 30 and less), and of the phase what float32 loses."""
    usual = kaiser_sinc_filter(0.25, 0.3, 12).to(DEVICE)
    signals = (
        (1e-3, 1.0, 1e6),
        (1.0, 0.01, 1e9),
        (1.0, 1.0, 1.0),
        (3.0, -7.0, 300.0),
        (8.0, 50.0, 1e-3),
        (1.0, 0.0, 1.0),
    )
    for fu, (size, frequency, amplitude) in itertools.product(
        (usual, 100 * tensor(12, dtype=torch.float32, seed=4)), signals
    ):
        x, fd = (size * tensor(3, 2, 520)).to(dtype), fu.flip(0)
        alpha = frequency * tensor(2, dtype=torch.float32, seed=1).abs()
        beta = torch.tensor([1 / amplitude, 1.0], device=DEVICE)
        y = filtered_snake(x, alpha, beta, fu, fd, eps=0.0, impl=impl).double()
        x, fu, fd, a, c = x.double(), fu.double(), fd.double(), alpha.double()[:, None], 1 / beta.double()[:, None]
        t = upsample1d(x, fu, 2)
        bent = c * (a * t).sin().square()
        right = downsample1d(t + bent, fd, 2)
        phase = 5e-7 * a.abs() * upsample1d(x.abs(), fu.abs(), 2)
        room = downsample1d(
            error * (t.abs() + bent) + c * (2 * a * t).sin().abs() * phase + c * phase.square(), fd.abs(), 2
        )
        excess = (y - right).abs() - (right.to(dtype).double() - right).abs() - room
        finite = right.abs() < torch.finfo(dtype).max
        assert finite.any() and (excess[finite] <= 0).all(), (size, frequency, amplitude)


@pytest.mark.parametrize("dtype, error", [(torch.bfloat16, 1.2e-4), (torch.float16, 2e-5)])
@pytest.mark.parametrize("impl", IMPLS)
def test_16_bit_gradients_are_rounded_once(impl, dtype, error):
    """As forward: beside the rounding of dx little is lost; of da and dc, sums in float32, as little of their terms."""
    usual = kaiser_sinc_filter(0.25, 0.3, 12).to(DEVICE)
    signals = (
        (1e-3, 1.0, 1e6),
        (1.0, 0.01, 1e7),
        (1.0, 1.0, 1.0),
        (3.0, -7.0, 300.0),
        (8.0, 50.0, 1e-3),
        (1.0, 1.0, 0.0),
    )
    for fu, (size, frequency, amplitude) in itertools.product(
        (usual, 100 * tensor(12, dtype=torch.float32, seed=4)), signals
    ):
        dy, x, fd = tensor(3, 2, 544, seed=5).to(dtype), (size * tensor(3, 2, 544)).to(dtype), fu.flip(0) / 100
        a = frequency * tensor(2, dtype=torch.float32, seed=1).abs()
        c = torch.tensor([amplitude, 1.0], device=DEVICE)
        op = _library.select("filtered_snake_backward", impl, x)
        dx, da, dc = (result.double() for result in op(dy, x, a, c, fu, fd, 2, 2))
        dy, x, a, c, fu, fd = (v.double() for v in (dy, x, a[:, None], c[:, None], fu, fd))
        t, g = upsample1d(x, fu, 2), _downsample1d_adjoint(dy, fd, 2, 1088)
        t_terms, g_terms = upsample1d(x.abs(), fu.abs(), 2), _downsample1d_adjoint(dy.abs(), fd.abs(), 2, 1088)
        sine, square, phase = (2 * a * t).sin(), (a * t).sin().square(), 5e-7 * a.abs() * t_terms
        right = _upsample1d_adjoint(g * (1 + a * c * sine), fu, 2)
        room = g_terms * (error * (1 + (a * c * sine).abs()) + 2 * (a * c).abs() * phase)
        excess = (dx - right).abs() - (right.to(dtype).double() - right).abs() - _upsample1d_adjoint(room, fu.abs(), 2)
        finite = right.abs() < torch.finfo(dtype).max
        assert finite.any() and (excess[finite] <= 0).all(), (size, frequency, amplitude)
        by_a = error * (c * t * sine).abs() + 2 * c * t_terms * phase
        by_c = error * square + sine.abs() * phase + phase.square()
        for found, terms, lost in ((da, c * t * sine, by_a), (dc, square, by_c)):
            assert ((found - (g * terms).sum([0, 2])).abs() <= (g_terms * lost).sum([0, 2])).all(), (size, frequency)


@pytest.mark.parametrize("impl", IMPLS)
def test_what_is_not_finite_stays_near(impl):
    """In 16 bits a GPU's products have zeros beside the taps: a NaN comes at most a pack of 8 further than the one it lies in."""
    f, alpha = kaiser_sinc_filter(0.25, 0.3, 12).to(DEVICE), tensor(2, dtype=torch.bfloat16)
    x, dy = tensor(1, 2, 544, dtype=torch.bfloat16), tensor(1, 2, 544, dtype=torch.bfloat16, seed=3)
    clean = results(x, alpha, alpha, dy, fu=f, fd=f, impl=impl)
    near = torch.zeros(544, dtype=torch.bool, device=DEVICE)
    near[288:312] = True  # packs 36 to 38; 300 lies in 37
    for spoiled, value in ((x, torch.nan), (x, torch.inf), (dy, torch.nan), (dy, -torch.inf)):
        before = spoiled[0, 1, 300].item()
        spoiled[0, 1, 300] = value
        found = results(x, alpha, alpha, dy, fu=f, fd=f, impl=impl)
        spoiled[0, 1, 300] = before
        for result, right in zip(found[:2], clean, strict=False):
            assert (result is found[0] and spoiled is dy) or not result[0, 1, 297:304].isfinite().any()
            assert torch.equal(result[0, 1, ~near], right[0, 1, ~near]) and torch.equal(result[0, 0], right[0, 0])
        for result, right in zip(found[2:], clean[2:], strict=True):
            assert not result[1].isfinite() and result[0] == right[0]


@pytest.mark.parametrize("impl", IMPLS)
def test_not_finite(impl):
    """A NaN or an infinity reaches the outputs whose sums have it, and the gradients of them."""
    for dtype in (torch.float64, torch.float32):
        x, alpha, beta = tensor(1, 2, 40, dtype=dtype), tensor(2, dtype=dtype), tensor(2, dtype=dtype).abs() + 0.5
        x[0, 0, 20], x[0, 1, 0] = torch.inf, torch.nan
        dy = tensor(1, 2, 40, dtype=dtype, seed=3)
        expected = results(x, alpha, beta, dy, impl="reference")
        for found, right in zip(results(x, alpha, beta, dy, impl=impl), expected, strict=True):
            assert torch.equal(found.isnan(), right.isnan())


@pytest.mark.skipif("cpp" not in IMPLS, reason="no CPU kernel under test")
def test_threads_change_nothing():
    x, alpha, beta, dy = tensor(2, 3, 5003), tensor(3, seed=1), tensor(3, seed=2) + 4, tensor(2, 3, 5003, seed=3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results(x, alpha, beta, dy, impl="cpp")
        torch.set_num_threads(3)
        assert all(map(torch.equal, one, results(x, alpha, beta, dy, impl="cpp")))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("impl", IMPLS)
def test_parameters_in_float32_of_a_16_bit_signal(impl):
    x, alpha = tensor(1, 3, 9, dtype=torch.bfloat16), tensor(3, dtype=torch.float32)
    y = filtered_snake(x, alpha, impl=impl)
    assert y.dtype == torch.bfloat16
    assert_close(y, filtered_snake(x.double(), alpha.double(), impl="reference"))


@pytest.mark.parametrize("impl", IMPLS)
def test_no_elements(impl):
    for shape in ((0, 3, 5), (2, 0, 5), (2, 3, 0)):
        x, alpha = torch.zeros(shape, requires_grad=True), torch.ones(shape[1], requires_grad=True)
        y = filtered_snake(x, alpha, up=2, down=4, fu=fir(4).float(), impl=impl)
        assert y.shape == (*shape[:2], -(-shape[2] // 2))
        dx, dalpha = torch.autograd.grad(y.sum(), (x, alpha))
        assert dx.shape == shape and not dalpha.any()
        assert snake(x, alpha, impl=impl).shape == shape


@pytest.mark.parametrize("impl", IMPLS)
def test_strides(impl):
    x, alpha = tensor(3, 22, 4).permute(2, 0, 1), tensor(3)
    expected = filtered_snake(x.contiguous(), alpha, impl="reference")
    assert_close(filtered_snake(x, alpha, impl=impl), expected)


@pytest.mark.parametrize("f", [None, fir(12)], ids=["plain", "filtered"])
def test_reference_leaves_the_layout_that_its_fake_promises(f):
    """torch.compile relies on it where no kernel is compiled."""
    x, v = tensor(2, 10, 3).transpose(1, 2), tensor(3)
    factors = (1, 1) if f is None else (2, 2)
    assert torch.ops.fastgan.filtered_snake_reference(x, v, v, f, f, *factors).is_contiguous()
    assert torch.ops.fastgan.filtered_snake_backward_reference(x, x, v, v, f, f, *factors)[0].is_contiguous()


@pytest.mark.parametrize("impl", IMPLS)
def test_zero_and_negative_alpha(impl):
    x, alpha = tensor(1, 3, 11), torch.tensor([0.0, -1.5, 2.0], dtype=torch.float64, requires_grad=True)
    y = filtered_snake(x, alpha, impl=impl)
    none = torch.tensor([1e-30] * 3, dtype=torch.float64)
    assert_close(y[:, 0], filtered_snake(x, none, torch.ones_like(none), impl="reference")[:, 0])
    assert torch.autograd.grad(y.sum(), alpha)[0].isfinite().all()


def test_gradient_of_filters():
    fu, fd = fir(4).requires_grad_(), fir(5).requires_grad_()
    x, alpha = tensor(1, 2, 5, requires_grad=True), tensor(2, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *t: filtered_snake(t[0], t[1], None, t[2], t[3]), (x, alpha, fu, fd))


def test_snake_of_any_rank():
    for shape in ((2, 3), (2, 3, 4, 5)):
        x, alpha = tensor(*shape), tensor(3).abs()
        wide = alpha.reshape(3, *[1] * (x.dim() - 2))
        assert_close(snake(x, alpha), x + (wide * x).sin() ** 2 / (wide + 1e-9))
        assert_close(snake(x, alpha[None, :, None]), snake(x, alpha))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles(dynamic):
    def f(x, alpha, beta):
        return filtered_snake(x, alpha, beta, logscale=True)

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (9, 12):
        inputs = [tensor(2, 3, size, requires_grad=True), tensor(3, requires_grad=True), tensor(3, requires_grad=True)]
        found = torch.autograd.grad(compiled(*inputs).square().sum(), inputs)
        for one, other in zip(found, torch.autograd.grad(f(*inputs).square().sum(), inputs), strict=True):
            assert_close(one, other)


def test_the_usual_filter_is_made_once(monkeypatch):
    """A copy from the host would keep the op out of CUDA graphs."""
    x, alpha = tensor(1, 2, 9).to(DEVICE), tensor(2).to(DEVICE)
    module = sys.modules["fastgan.ops.filtered_snake"]
    monkeypatch.setattr(module, "_usual", {})
    with FakeTensorMode(allow_non_fake_inputs=True):
        filtered_snake(x, alpha)  # whose filters are of no use outside
    expected = filtered_snake(x, alpha)
    monkeypatch.setattr(module, "kaiser_sinc_filter", None)
    assert torch.equal(filtered_snake(x, alpha), expected)


def test_opcheck():
    x, a, c = (t.requires_grad_() for t in (tensor(2, 3, 7), tensor(3), tensor(3)))
    torch.library.opcheck(torch.ops.fastgan.filtered_snake.default, (x, a, c, fir(4), fir(5), 2, 4))
    torch.library.opcheck(torch.ops.fastgan.filtered_snake.default, (x, a, c, None, None, 1, 1))
    dy = tensor(2, 3, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.fastgan.filtered_snake_backward.default, (dy, x, a, c, fir(4), fir(5), 2, 4))


def test_autocast():
    x, alpha = tensor(2, 3, 9, dtype=torch.bfloat16), tensor(3, dtype=torch.float32)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        assert filtered_snake(x, alpha).dtype == torch.bfloat16
        assert filtered_snake(x.float(), alpha).dtype == torch.float32


@pytest.mark.parametrize(
    "error, message, call",
    [
        (TypeError, "x has dtype torch.int64", lambda x, a: filtered_snake(x.long(), a)),
        (ValueError, "x has shape .* expected 3 dimensions", lambda x, a: filtered_snake(x[0], a)),
        (ValueError, r"alpha has shape \(2,\); expected \(3,\) or \(1, 3, 1\)", lambda x, a: filtered_snake(x, a[:2])),
        (ValueError, "beta has shape", lambda x, a: snake(x, a, a[None])),
        (TypeError, "alpha has dtype torch.float16", lambda x, a: snake(x, a.half())),
        (ValueError, "up=0; expected >= 1", lambda x, a: filtered_snake(x, a, up=0)),
        (TypeError, "down=1.5; expected an integer", lambda x, a: filtered_snake(x, a, down=1.5)),
        (ValueError, "fu has 1 taps; expected at least up=2", lambda x, a: filtered_snake(x, a, fu=torch.ones(1))),
        (ValueError, r"fd has shape \(2, 3\)", lambda x, a: filtered_snake(x, a, fd=torch.ones(2, 3))),
        (TypeError, "eps=None; expected a number", lambda x, a: snake(x, a, eps=None)),
        (ValueError, "impl='fast' is unknown", lambda x, a: snake(x, a, impl="fast")),
        (ValueError, "cutoff=0.7; expected 0 to 0.5", lambda x, a: kaiser_sinc_filter(0.7, 0.1, 12)),
    ],
)
def test_wrong_arguments(error, message, call):
    with pytest.raises(error, match=message):
        call(torch.zeros(2, 3, 5), torch.zeros(3))
