import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close

from fastgan.nn import ModulatedConv2d


@pytest.mark.parametrize("demodulate", [True, False])
def test_is_a_convolution_per_sample(demodulate):
    module = ModulatedConv2d(4, 5, 3, style_dim=6, demodulate=demodulate).double()
    x, style = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 4, 7, 6), (3, 6)))
    noise = torch.randn(3, 1, 7, 6, dtype=torch.float64)
    styles = F.linear(style, module.affine.weight / 6**0.5, module.affine.bias)
    expected = []
    for n in range(3):
        w = module.weight * styles[n, None, :, None, None]
        w = w * (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt() if demodulate else w / 6  # sqrt(4 * 9)
        expected.append(F.conv2d(x[n : n + 1], w, padding=1))
    expected = torch.cat(expected) + noise
    y = module(x, style, noise)
    assert_close(y, expected)
    inputs = (x, style, *module.parameters())
    for g, e in zip(torch.autograd.grad(y.sin().sum(), inputs),
                    torch.autograd.grad(expected.sin().sum(), inputs), strict=True):  # fmt: skip
        assert_close(g, e)


def test_state_and_resampling():
    module = ModulatedConv2d(4, 5, 3, style_dim=6, up=2)
    assert list(module.state_dict()) == ["weight", "resample_filter", "affine.weight", "affine.bias"]
    assert torch.equal(module.affine.bias, torch.ones(4))
    assert list(ModulatedConv2d(4, 5, 1, 6).state_dict()) == ["weight", "affine.weight", "affine.bias"]
    x, style = torch.randn(2, 4, 8, 6), torch.randn(2, 6)
    assert module(x, style).shape == (2, 5, 16, 12)
    assert ModulatedConv2d(4, 5, 3, 6, down=2)(x, style).shape == (2, 5, 4, 3)
    assert "demodulate=True, up=2" in repr(module)
