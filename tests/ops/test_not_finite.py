"""NaN and infinities lie where the definition has them: a kernel that mixes neighbours (tiles of Winograd's algorithm, columns,
rows, folds, filters) neither spreads nor hides them, in what it computes and in its gradients, whichever operand holds them."""

import functools

import pytest
import torch
import torch.nn.functional as F
from cpu_levels import LEVELS
from device import DEVICE
from tolerances import assert_close

from fastgan.ops import (
    _library,
    conv2d,
    conv2d_resample,
    conv_forms,
    conv_transpose2d,
    modulated_conv2d,
)
from fastgan.ops.upfirdn2d import four_paddings, upfirdn2d

pytestmark = pytest.mark.skipif(DEVICE.type != "cpu", reason="the kernels of the CPU")
HUGE = 3e38  # finite itself, not so its sums with others in a transform
VALUES = [torch.nan, torch.inf, -torch.inf, HUGE]
layouts = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
values = pytest.mark.parametrize("value", VALUES)


def assert_same(found, wanted):
    """NaN and each infinity in the same places; elsewhere the same numbers."""
    for a, b in zip(found, wanted, strict=True):
        b = b.to(a.dtype)
        assert torch.equal(a.isnan(), b.isnan())
        assert torch.equal(a.isposinf(), b.isposinf()) and torch.equal(a.isneginf(), b.isneginf())
        small = b.isfinite() & (b.abs() < 1e30)
        assert_close(torch.where(small, a, 0), torch.where(small, b, 0))


def with_gradients(f, inputs, dy=None, spoil=None):
    """f's result and its gradients; spoil: a value somewhere in what comes back."""
    inputs = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in inputs]
    y = f(*inputs)
    dy = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y.dtype) if dy is None else dy
    if spoil is not None:
        dy = dy.clone()
        dy[-1, -1, y.shape[2] // 2, y.shape[3] // 3] = spoil
    return [t.detach() for t in (y, *torch.autograd.grad(y, inputs, dy))]


def spoiled(t, value):
    """t with two of this value, in the second of two samples if there are as many."""
    t = t.clone(memory_format=torch.preserve_format)
    at = [n // 2 for n in t.shape]
    t[tuple(at)] = value
    t[(at[0], *(n // 3 for n in t.shape[1:]))] = value
    return t


def check(cpu_level, f, wanted, inputs, value, operands):
    """At every level, with `value` in one operand after the other, then in the gradient that comes back."""
    for i in (*operands, None):
        if i == 1 and value == HUGE:  # overflows, and where depends on the order of a sum
            continue
        parts = [spoiled(t, value) if j == i else t for j, t in enumerate(inputs)]
        expected = with_gradients(wanted, parts, spoil=value if i is None else None)
        assert value == HUGE or not all(t.isfinite().all() for t in expected)
        for level in LEVELS:
            cpu_level(level)
            assert_same(with_gradients(f, parts, spoil=value if i is None else None), expected)


CONVOLUTIONS = {  # its form, and that of its gradient by x; function, x, weight, options
    "3x3": ("conv3x3", "", conv2d, (2, 64, 17, 16), (65, 64, 3, 3), dict(padding=1)),
    "3x3, by weight too": ("conv3x3", "", conv2d, (2, 128, 16, 17), (130, 128, 3, 3), {}),
    "3x3 transposed": ("conv3x3", "", conv_transpose2d, (2, 130, 16, 17), (130, 128, 3, 3), dict(padding=1)),
    "columns": ("columns", "", conv2d, (2, 16, 18, 19), (3, 16, 7, 7), dict(padding=3)),
    "to an image": ("fold", "", conv_transpose2d, (2, 17, 13, 11), (17, 3, 4, 4), dict(stride=2, padding=1)),
    "fold": ("fold", "", conv_transpose2d, (2, 17, 16, 17), (17, 2, 5, 3), dict(stride=(2, 3), padding=(1, 0))),
    "rows": ("rows", "", conv_transpose2d, (2, 256, 4, 4), (256, 128, 4, 4), dict(stride=2, padding=1)),
    "from an image": ("", "fold", conv2d, (2, 3, 34, 35), (16, 3, 4, 4), dict(stride=2, padding=1)),
}


@layouts
@values
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(cpu_level, case, value, layout, monkeypatch):
    form, by_x, f, shape, weight, options = CONVOLUTIONS[case]
    monkeypatch.setattr(conv_forms, "is_fast", lambda op: _library.availability(op, "cpp").loaded)  # portable too
    taken, choose = set(), conv_forms.choose
    monkeypatch.setattr(conv_forms, "choose", lambda *a: taken.add(getattr(choose(*a), "name", "")) or choose(*a))
    torchs = F.conv2d if f is conv2d else F.conv_transpose2d
    x, w = torch.randn(shape).contiguous(memory_format=layout), torch.randn(weight) * 0.1
    w = w.contiguous(memory_format=torch.channels_last if form == "rows" else layout)
    check(cpu_level, functools.partial(f, **options), functools.partial(torchs, **options), (x, w), value, (0, 1))
    assert {form, by_x} - {""} <= taken


def test_what_is_not_finite_changes_no_number_of_another_image():
    x, w = torch.randn(3, 64, 18, 18), torch.randn(64, 64, 3, 3)
    y = torch.ops.fastgan.conv3x3(x, w, None, 1, False)
    x[1, 5, 7, 7] = torch.inf
    found = torch.ops.fastgan.conv3x3(x, w, None, 1, False)
    assert torch.equal(found[::2], y[::2]) and not found[1].isfinite().all()


FIR = {  # filter, options: of every loop, with taps of 0, with crops
    "blur": ([[1.0, 3, 3, 1]] * 4, dict(padding=(2, 1))),
    "up": ([1.0, 3, 3, 1], dict(up=2, padding=(2, 1), gain=4)),
    "down": ([1.0, 0, -3, 1, 2], dict(down=2, padding=(2, 2, 1, 3))),
    "2-D": ([[1.0, 0, 2], [0.5, 5, -2]], dict(up=(2, 1), down=(1, 2), padding=(1, -1, 2, 1))),
    "3 to 2": ([1.0, 2, 3, -4, 5, 6, 7], dict(up=3, down=2, padding=(3, 2))),
    "4 up": ([0.25] * 16, dict(up=4, padding=8, flip_filter=True)),
}


@layouts
@values
@pytest.mark.parametrize("channels", [3, 33])
@pytest.mark.parametrize("case", FIR)
def test_fir(cpu_level, case, channels, value, layout):
    taps, options = FIR[case]
    x = torch.randn(2, channels, 9, 11).contiguous(memory_format=layout)
    f = torch.tensor(taps) / torch.tensor(taps).abs().sum()
    op = functools.partial(upfirdn2d, f=f, **options)

    def reference(x, f=f):
        y = upfirdn2d(x.double(), f.double(), **options, impl="reference").float()
        return y.contiguous(memory_format=layout)

    check(cpu_level, op, reference, (x,), value, (0,))
    for level in LEVELS if value != HUGE else ():
        cpu_level(level)
        bad = f.clone()
        bad.view(-1)[1] = value
        assert_same([upfirdn2d(x, bad, **options)], [reference(x, bad)])
        dy = torch.randn_like(reference(x))
        for parts in ((spoiled(x, value), dy), (x, spoiled(dy, value))):
            pair = [
                list(v) if isinstance(v, tuple) else [v] * 2 for v in (options.get("up", 1), options.get("down", 1))
            ]
            padding = four_paddings("test", options["padding"])
            rest = ([f.shape[-1], f.shape[0]], *pair, padding, bool(options.get("flip_filter")), options.get("gain", 1))
            wanted = torch.ops.fastgan.upfirdn2d_filter_backward_reference(*(t.double() for t in parts), *rest)
            assert_same([torch.ops.fastgan.upfirdn2d_filter_backward(*parts, *rest)], [wanted])


@layouts
@pytest.mark.parametrize("level", LEVELS)
def test_fir_of_huge_numbers_overflows_nowhere(cpu_level, level, layout):
    """The sums along one axis are no larger than what they sum, however the filter's two factors are chosen."""
    cpu_level(level)
    x = torch.full((1, 3, 8, 8), HUGE).contiguous(memory_format=layout)
    taps = torch.tensor([1.0, 3, 3, 1])
    for f in (taps.outer(taps) / 64, torch.full((4, 4), 1 / 16)):
        assert_close(upfirdn2d(x, f) / HUGE, torch.ones(1, 3, 5, 5))


LRELU = {  # taps up, taps down, up, down, padding, gain, slope, clamp
    "2 and 2": ((12,), (12,), 2, 2, [11, 10, 11, 10], 1.4, 0.2, -1.0),
    "4 and 2": ((9,), (3,), 4, 2, [4, 4, 5, 3], 1.0, 0.0, -1.0),
    "1 and 4": ((3,), (5, 7), 1, 4, [6, 6, 6, 6], -1.0, 0.2, -1.0),
    "clamped": ((5, 6), (5,), 2, 1, [5, 5, 5, 4], 1.0, 0.2, 0.5),
}


@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("value", VALUES[:3])
@pytest.mark.parametrize("case", LRELU)
def test_filtered_lrelu(cpu_level, case, value, dtype, layout):
    up_taps, down_taps, up, down, padding, *act = LRELU[case]
    fu, fd = torch.rand(up_taps) + 0.1, torch.rand(down_taps) - 0.5
    inputs = [torch.randn(2, 3, 10, 11).to(dtype).contiguous(memory_format=layout), torch.randn(3).to(dtype), fu, fd]
    ops = torch.ops.fastgan
    for i in range(4):
        parts = [spoiled(t, value) if j == i else t for j, t in enumerate(inputs)]
        forward = (*parts, up, down, padding, *act, False, True)
        y, mask = ops.filtered_lrelu_reference(*forward)
        offset = [fd.shape[-1] - 1, fd.shape[0] - 1, fu.shape[-1] - 1 - padding[0], fu.shape[0] - 1 - padding[2]]
        size = [inputs[0].shape[3] * up + sum(padding[:2]) - fu.shape[-1] + 1, mask.shape[2], 11, 10]
        dy = torch.randn_like(y.nan_to_num())
        backward = (mask, parts[3], parts[2], down, up, offset, size, act[0] * up**2, act[1], True)
        for level in LEVELS:
            cpu_level(level)
            assert_same(ops.filtered_lrelu(*forward)[:1], [y])
            for g in (dy, spoiled(dy, value)):
                wanted = ops.filtered_lrelu_backward_reference(g, *backward)
                assert_same([ops.filtered_lrelu_backward(g, *backward)], [wanted])


@values
def test_resampled_and_modulated_convolutions(cpu_level, value):
    x, w, styles = torch.randn(2, 64, 16, 16), torch.randn(64, 64, 3, 3) * 0.1, torch.rand(2, 64) + 0.5
    for level in LEVELS:
        cpu_level(level)
        for bad in (spoiled(x, value), x):
            wanted = F.conv2d(bad, w, padding=1)
            assert_same([conv2d_resample(bad, w, padding=1)], [wanted])
        y = modulated_conv2d(spoiled(x, torch.nan), w, styles, padding=1)
        wanted = F.conv2d(spoiled(x, torch.nan), w, padding=1).isnan()
        assert torch.equal(y.isnan(), wanted)


@pytest.mark.parametrize("value", VALUES[:3])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("demodulate", [True, False])
def test_a_modulated_weight_that_is_not_finite_shows_in_every_form(demodulate, kernel, value):
    """Where it meets a pixel; beside padding the forms differ, and so does what is not finite."""
    shapes = (2, 8, 6, 6), (5, 8, kernel, kernel), (2, 8), (2, 8)
    for i in (1, 2, 3):
        parts = [torch.rand(s, generator=torch.Generator().manual_seed(j)) + 0.5 for j, s in enumerate(shapes)]
        parts[i].view(-1)[parts[i].numel() // 3] = value
        x, w, styles, gain = (t.double() for t in parts)
        each = w[None] * (styles * gain)[:, None, :, None, None]
        taken = torch.stack([F.conv2d(x[n : n + 1], each[n])[0] for n in range(2)])  # demodulated too: by 0, or by NaN
        assert taken.isfinite().any() and not taken.isfinite().all()
        for impl in ("auto", "reference"):
            for recorded in (False, True):  # the form depends on it
                given = [t.clone().requires_grad_(recorded) for t in parts]
                y = modulated_conv2d(*given[:3], demodulate=demodulate, input_gain=given[3], impl=impl)
                assert torch.equal(y.isfinite(), taken.isfinite())


@pytest.mark.parametrize("value", VALUES[:3])
@pytest.mark.parametrize("case", FIR)
def test_the_gradient_by_x_hides_no_tap_that_is_not_finite(case, value):
    """It is NaN in more places than the sum that defines it: in the adjoint's inserted zeros and padding too."""
    taps, options = FIR[case]
    f = torch.tensor(taps)
    f.view(-1)[1] = value
    x = torch.randn(2, 3, 9, 11)
    wanted = with_gradients(lambda x: upfirdn2d(x, f.double(), **options, impl="reference"), [x.double()])[1]
    found = with_gradients(lambda x: upfirdn2d(x, f, **options), [x])[1]
    assert not wanted.isfinite().all() and not (found.isfinite() & ~wanted.isfinite()).any()
