import pytest
import torch
from device import kernels
from tolerances import assert_close
from torch import nn

from fastgan.nn import Activation1d, Activation1dStream, Snake, SnakeBeta
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


def test_a_snake_of_the_users_own_runs_its_own_forward():
    class Louder(Snake):
        def forward(self, x):
            return 2 * super().forward(x)

    x, alpha = torch.randn(1, 2, 30), torch.rand(2) + 0.5
    plain, own = Activation1d(Snake(2)), Activation1d(Louder(2))
    for module in (plain, own):
        module.act.alpha.data.copy_(alpha)
    assert_close(own(x), 2 * plain(x))


@pytest.mark.parametrize(
    "up, down, taps_u, taps_d", [(2, 2, 12, 12), (2, 4, 12, 24), (4, 2, 5, 1), (1, 4, 3, 8), (3, 2, 7, 6)]
)
def test_a_stream_is_the_whole(up, down, taps_u, taps_d):
    module = Activation1d(SnakeBeta(3), up, down, taps_u, taps_d)
    stream = Activation1dStream(module)
    for pieces in ([40, 1, 0, 7, 1, 100, 3], [1], [2, 1, 1], [5003]):
        x = torch.randn(2, 3, sum(pieces))
        expected = module(x)
        found = [stream.push(piece) for piece in x.split(pieces, -1)]
        assert stream._kept.shape[2] <= 24 + down
        found = torch.cat([*found, stream.finish()], -1)
        assert_close(found, expected)
        if "cpp" in kernels("filtered_snake") and up != 3:
            assert torch.equal(found, expected)


def test_a_stream_refuses():
    stream = Activation1dStream(Activation1d(Snake(3)))
    with pytest.raises(ValueError, match=r"finish\(\) before push\(\)"):
        stream.finish()
    stream.push(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 4\); expected \[1, 3\] first"):
        stream.push(torch.zeros(2, 3, 4))
    assert stream.finish().shape == (1, 3, 4)
