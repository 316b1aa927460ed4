"""Autocast changes no op's result nor its dtype, with gradients and without; conv2d and conv_transpose2d do as torch's."""

import pytest
import torch
from device import DEVICE
from op_cases import CASES
from tolerances import TOLERANCE, assert_close

from fastgan import ops

TORCHS = ("conv2d", "conv_transpose2d")
every_op = pytest.mark.parametrize("name", [name for name in CASES if name not in TORCHS])


def results(case, tensors, recorded, autocast=None):
    """The result and, taken outside of autocast as torch asks for, its first gradients."""
    tensors = [t.clone().requires_grad_(recorded and i < case.differentiable) for i, t in enumerate(tensors)]
    with torch.autocast(DEVICE.type, autocast, enabled=autocast is not None):
        y = case.function(*tensors)
    return [y, *torch.autograd.grad(y, tensors[: case.differentiable], torch.ones_like(y))] if recorded else [y]


@every_op
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_it_changes_nothing(name, dtype, autocast, recorded):
    case = CASES[name]
    tensors = [t.to(dtype) for t in case.tensors]
    expected = results(case, tensors, recorded)
    for a, b in zip(results(case, tensors, recorded, autocast), expected, strict=True):
        assert a.dtype == b.dtype
        assert_close(a, b)


@pytest.mark.parametrize("form", ["auto", "reference"])
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_large_styles_and_parameters_of_float32(dtype, recorded, form):
    """Squares of styles of 100 do not overflow in the demodulation, whatever autocast's dtype."""
    x, weight, styles = CASES["modulated_conv2d"].tensors
    x, weight, styles = x.to(dtype), weight.float(), 100 * styles.float()
    expected = ops.modulated_conv2d(x.double(), weight.double(), styles.double(), padding=1)
    for autocast in (torch.bfloat16, torch.float16):
        with torch.autocast(DEVICE.type, autocast), torch.set_grad_enabled(recorded):
            y = ops.modulated_conv2d(x, weight.clone().requires_grad_(recorded), styles, padding=1, impl=form)
        assert y.dtype == dtype
        assert_close(y, expected)


def test_zeros_and_large_styles_in_float16():
    x, weight, styles = (t.half() for t in CASES["modulated_conv2d"].tensors)
    weight[1], styles[0] = 0, 0
    y = ops.modulated_conv2d(x, weight, styles, padding=1)
    assert not y[0].any() and not y[:, 1].any() and y.isfinite().all()
    large = 300 * CASES["modulated_conv2d"].tensors[2].half()
    y = ops.modulated_conv2d(x, weight + 0.1, large, padding=1, prenormalize=True)
    expected = ops.modulated_conv2d(x.double(), (weight + 0.1).double(), large.double(), padding=1, prenormalize=True)
    assert_close(y, expected)


@pytest.mark.parametrize("name", TORCHS)
@pytest.mark.parametrize("recorded", [False, True])
def test_convolutions_cast_as_torchs_do(name, recorded):
    tensors = [t.float().requires_grad_(recorded) for t in CASES[name].tensors]
    with torch.autocast(DEVICE.type, torch.bfloat16):
        y = CASES[name].function(*tensors)
    assert y.dtype == torch.bfloat16
    assert_close(y, CASES[name].function(*tensors))


def test_the_layers_that_convolve_cast_too():
    from fastgan import nn

    x, w = torch.randn(2, 3, 4, 4), torch.randn(2, 8)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        for y in (nn.EqualConv2d(3, 4, 3)(x), nn.ModulatedConv2d(3, 4, 3, style_dim=8)(x, w)):
            assert y.dtype == torch.bfloat16


def test_on_a_device_without_autocast():
    x, b = torch.empty(2, 3, device="meta"), torch.empty(3, device="meta", dtype=torch.float64)
    assert ops.pixel_norm(x).shape == (2, 3)
    with pytest.raises(TypeError, match=r"b has dtype torch\.float64"):
        ops.bias_act(x, b)
