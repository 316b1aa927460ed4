import torch
from tolerances import assert_close

from fastgan.nn import FilteredLReLU
from fastgan.ops import filtered_lrelu, setup_filter


def test_module_is_the_op():
    fu, fd = setup_filter([1, 2, 3, 4, 4, 3, 2, 1]), setup_filter([1.0, 3, 3, 1])
    module = FilteredLReLU(
        3, fu, fd, up=2, down=2, padding=[4, 3, 5, 4], gain=1.1, slope=0.3, clamp=0.5, flip_filter=True
    )
    assert set(module.state_dict()) == {"bias", "up_filter", "down_filter"}
    torch.nn.init.normal_(module.bias)
    x = torch.randn(2, 3, 7, 9)
    expected = filtered_lrelu(x, fu, fd, module.bias, 2, 2, [4, 3, 5, 4], 1.1, 0.3, 0.5, True)
    y = module(x)
    assert_close(y, expected)
    y.sum().backward()
    assert module.bias.grad.abs().min() > 0


def test_without_bias_and_filters():
    module = FilteredLReLU(gain=1.0, slope=0.5)
    assert not module.state_dict()
    x = torch.tensor([[[[-2.0, 3.0]]]])
    assert module(x).tolist() == [[[[-1.0, 3.0]]]]
    assert "slope=0.5" in repr(module)
