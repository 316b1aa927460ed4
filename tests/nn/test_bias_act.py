import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close

from fastgan.nn import BiasAct, FusedLeakyReLU


def test_bias_act_is_the_op_with_a_parameter():
    module = BiasAct(5, act="softplus", gain=0.5, clamp=0.6, dim=2)
    with torch.no_grad():
        module.bias.copy_(torch.randn(5))
    x = torch.randn(2, 3, 5)
    assert_close(module(x), (F.softplus(x.double() + module.bias.double()) * 0.5).clamp(-0.6, 0.6))
    module(x).sum().backward()
    assert module.bias.grad.shape == (5,) and module.bias.grad.any()
    assert repr(module) == "BiasAct(act='softplus', gain=0.5, clamp=0.6, dim=2)"


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 3), (2, 4, 3, 5)])
def test_fused_leaky_relu(shape):
    module = FusedLeakyReLU(4, negative_slope=0.1, scale=1.5)
    module.load_state_dict({"bias": torch.tensor([0.0, 1.0, -1.0, 0.5])})
    x = torch.randn(shape)
    shifted = x.double() + module.bias.detach().double().reshape(1, 4, *[1] * (len(shape) - 2))
    assert_close(module(x), F.leaky_relu(shifted, 0.1) * 1.5)


@pytest.mark.parametrize("module", [BiasAct(3, "lrelu", bias=False), FusedLeakyReLU(3, bias=False)])
def test_without_a_bias(module):
    x = torch.randn(2, 3)
    assert not module.state_dict()
    assert_close(module(x), F.leaky_relu(x.double(), 0.2) * 2**0.5)


def test_first_parameter_names():
    assert list(BiasAct(2).state_dict()) == list(FusedLeakyReLU(2).state_dict()) == ["bias"]
