"""The dispatcher ops behind modulated_conv2d, kernel by kernel: the definition, gradients of any order, dtypes, sizes."""

import pytest
import torch
from device import kernels
from tolerances import assert_close

from fastgan.ops import _library
from fastgan.ops._checks import FLOATS
from fastgan.ops.modulated_conv2d import _backward_reference, _reference

KERNELS = ["auto", *kernels("modulated_conv2d_weight")]
kernel = pytest.mark.parametrize("kernel", KERNELS)
# samples, outputs, channels, kernel: rows of whole packs and not, several chunks of channels, kernels too large to stage
SIZES = [
    (2, 3, 5, 3, 3), (3, 4, 64, 1, 1), (1, 2, 300, 3, 3), (2, 1, 7, 2, 3), (1, 2, 3, 9, 9), (2, 2, 40, 5, 5), (2, 2, 1100, 1, 1),
    (0, 3, 4, 3, 3), (2, 0, 4, 3, 3), (2, 3, 0, 3, 3), (2, 3, 4, 0, 3),
]  # fmt: skip


def arguments(size, dtype, with_gain, **kwargs):
    samples, out, channels, height, width = size
    torch.manual_seed(0)
    weight, styles, gain = (
        torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_(**kwargs)
        for shape in ((out, channels, height, width), (samples, channels), (samples, channels))
    )
    return weight, styles, gain if with_gain else None


def by_definition(weight, styles, gain, demodulate):
    w = weight * styles[:, None, :, None, None]
    d = (w.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt() if demodulate else w.new_ones(*w.shape[:2], 1, 1, 1)
    w = w * d
    return (w if gain is None else w * gain[:, None, :, None, None]), d.reshape(len(styles), len(weight))


@kernel
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("with_gain", [True, False])
def test_definition_and_gradients(kernel, size, demodulate, with_gain):
    weight, styles, gain = arguments(size, torch.float64, with_gain, requires_grad=True)
    w, d = _library.select("modulated_conv2d_weight", kernel, weight)(weight, styles, gain, demodulate)
    expected, expected_d = by_definition(weight, styles, gain, demodulate)
    assert w.is_contiguous()
    assert_close(w, expected)
    assert_close(d, expected_d)
    inputs = [t for t in (weight, styles, gain) if t is not None]
    dw = torch.randn_like(w)
    for actual, wanted in zip(
        torch.autograd.grad(w, inputs, dw), torch.autograd.grad(expected, inputs, dw), strict=True
    ):
        assert_close(actual, wanted)


@kernel
@pytest.mark.parametrize("size", SIZES[:6])
@pytest.mark.parametrize("dtype", FLOATS)
def test_dtypes(kernel, size, dtype):
    weight, styles, gain = arguments(size, dtype, True)
    w, d = _library.select("modulated_conv2d_weight", kernel, weight)(weight, styles, gain, True)
    assert w.dtype == dtype and d.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected, expected_d = _reference(weight.double(), styles.double(), gain.double(), True)
    assert_close(w, expected)
    assert_close(d, expected_d, None if dtype == torch.float64 else 2e-5)
    dw = torch.randn(w.shape, dtype=torch.float64).to(dtype)
    grads = _library.select("modulated_conv2d_weight_backward", kernel, weight)(dw, weight, styles, gain, d, True)
    wide = (t.double() for t in (dw, weight, styles, gain, d))
    for actual, wanted in zip(grads, _backward_reference(*wide, True), strict=True):
        assert actual.dtype == dtype
        assert_close(actual, wanted)


@kernel
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("with_gain", [True, False])
def test_any_order(kernel, demodulate, with_gain):
    inputs = [t for t in arguments((2, 2, 3, 1, 2), torch.float64, with_gain, requires_grad=True) if t is not None]

    def f(weight, styles, gain=None):
        return _library.select("modulated_conv2d_weight", kernel, weight)(weight, styles, gain, demodulate)[0]

    assert torch.autograd.gradcheck(f, inputs)
    assert torch.autograd.gradgradcheck(f, inputs)


@kernel
def test_strided_arguments(kernel):
    weight, styles, gain = arguments((2, 3, 8, 3, 3), torch.float32, True)
    strided = weight.contiguous(memory_format=torch.channels_last), styles.t().contiguous().t(), gain[:1].expand(2, 8)
    op = _library.select("modulated_conv2d_weight", kernel, weight)
    w, d = op(*strided, True)
    assert_close(w, _reference(*strided, True)[0])
    dw = torch.randn(2, 3, 8, 3, 3).transpose(3, 4)
    backward = _library.select("modulated_conv2d_weight_backward", kernel, weight)
    for actual, wanted in zip(backward(dw, *strided, d, True), _backward_reference(dw, *strided, d, True), strict=True):
        assert_close(actual, wanted)


@kernel
def test_opcheck(kernel, monkeypatch):
    monkeypatch.setattr(_library, "eager", lambda: False)  # the registered op
    weight, styles, gain = arguments((2, 3, 4, 3, 3), torch.float64, True, requires_grad=True)
    op = _library.select("modulated_conv2d_weight", kernel, weight)
    torch.library.opcheck(op, (weight, styles, gain, True))
    w, d = op(weight, styles, gain, True)
    backward = _library.select("modulated_conv2d_weight_backward", kernel, weight)
    torch.library.opcheck(backward, (w.detach().requires_grad_(), weight, styles, gain, d.detach(), True))
