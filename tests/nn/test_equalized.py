import pytest
import torch
import torch.nn.functional as F
from derivatives import derivatives
from golden import golden_cases
from tolerances import assert_close

from fastgan.nn import EqualConv2d, EqualLinear


def compare(case, tensors, module, tolerance=1e-10):
    """Against the recorded arrays, with the module's parameters as inputs."""
    names = [n for n in ("x", "weight", "bias") if n in tensors]

    def f(x, **parameters):
        gain = (case["forward_gain"],) if "forward_gain" in case else ()
        return torch.func.functional_call(module.double(), parameters, (x, *gain))

    found = derivatives(f, {n: tensors[n] for n in names}, tensors["gy"], tensors["v"], "x")
    for name, value in found.items():
        assert_close(value, tensors[name], tolerance)


@pytest.mark.parametrize(("case", "tensors"), golden_cases("stylegan_misc", "fc_sg2", "fc_sg3"))
def test_linear_golden(case, tensors):
    options = dict(case["kwargs"])
    compare(case, tensors, EqualLinear(**{"act" if k == "activation" else k: v for k, v in options.items()}))


@pytest.mark.parametrize(("case", "tensors"), golden_cases("stylegan_misc", "conv2d_layer_sg2"))
def test_convolution_golden(case, tensors):
    names = {"activation": "act", "resample_filter": "taps", "conv_clamp": "clamp"}
    module = EqualConv2d(**{names.get(k, k): v for k, v in case["kwargs"].items()})
    compare(case, tensors, module, 1e-6)  # the filter is float32 by definition


def test_linear_is_its_formula_in_any_rank():
    module = EqualLinear(5, 3, act="lrelu", lr_multiplier=0.1, bias_init=0.5)
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == {"weight": (3, 5), "bias": (3,)}
    assert 5 < module.weight.std() < 20 and torch.equal(module.bias, torch.full((3,), 0.5))
    x = torch.randn(2, 7, 5)
    expected = F.linear(x, module.weight * 0.1 / 5**0.5, module.bias * 0.1)
    assert_close(module(x), F.leaky_relu(expected, 0.2) * 2**0.5)
    assert_close(module(x[0, 0]), module(x)[0, 0])
    assert list(EqualLinear(2, 2, bias=False).state_dict()) == ["weight"]
    assert repr(module) == "EqualLinear(5, 3, act='lrelu', lr_multiplier=0.1)"


def test_convolution_is_its_formula():
    module = EqualConv2d(4, 6, 3, act="lrelu", clamp=0.8)
    torch.nn.init.normal_(module.bias)
    assert list(module.state_dict()) == ["weight", "bias"]
    x = torch.randn(2, 4, 7, 5)
    y = F.leaky_relu(F.conv2d(x, module.weight / 6, module.bias, padding=1), 0.2) * 2**0.5
    assert_close(module(x), y.clamp(-0.8, 0.8))
    assert_close(module(x, gain=0.5), (0.5 * y).clamp(-0.4, 0.4))
    assert EqualConv2d(4, 6, 3, up=2)(x).shape == (2, 6, 14, 10)
    assert list(EqualConv2d(4, 6, 1, bias=False, down=2).state_dict()) == ["weight", "resample_filter"]
    assert "clamp=0.8" in repr(module)


def test_16_bit_inputs_with_float32_parameters():
    assert EqualConv2d(3, 4, 3, act="lrelu")(torch.randn(1, 3, 5, 5).bfloat16()).dtype == torch.bfloat16
