import torch
from tolerances import assert_close
from torch import nn

from fastgan.nn import Activation1d, Snake, SnakeBeta
from fastgan.ops import filtered_snake, snake


def test_state_names_and_first_values():
    assert Snake(3).alpha.tolist() == [1, 1, 1] and Snake(3, alpha_logscale=True).alpha.tolist() == [0, 0, 0]
    module = Activation1d(SnakeBeta(3, alpha=2.0, alpha_trainable=False))
    assert set(module.state_dict()) == {"act.alpha", "act.beta", "upsample.filter", "downsample.lowpass.filter"}
    assert module.upsample.filter.shape == module.downsample.lowpass.filter.shape == (1, 1, 12)
    assert module.act.beta.tolist() == [2, 2, 2] and not list(filter(lambda p: p.requires_grad, module.parameters()))


def test_modules_are_the_ops():
    x = torch.randn(2, 3, 19)
    act = SnakeBeta(3, alpha_logscale=True)
    nn.init.normal_(act.alpha)
    nn.init.normal_(act.beta)
    assert_close(act(x), snake(x, act.alpha, act.beta, logscale=True))
    module = Activation1d(act, up_ratio=4, down_ratio=2, up_kernel_size=None)
    fu, fd = module.upsample.filter, module.downsample.lowpass.filter
    assert_close(module(x), filtered_snake(x, act.alpha, act.beta, fu, fd, 4, 2, logscale=True))
    assert_close(module(x), module.downsample(act(module.upsample(x))))
    one = Snake(3)
    assert_close(Activation1d(one)(x), filtered_snake(x, one.alpha))


def test_another_activation():
    module = Activation1d(nn.Tanh())
    x = torch.randn(2, 3, 19)
    assert_close(module(x), module.downsample(torch.tanh(module.upsample(x))))
