"""The modules do what the ops do, with the filter in the state."""

import pytest
import torch
from tolerances import assert_close

from fastgan import nn, ops

TAPS = [1.0, 3.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("module", "op", "shape"),
    [
        (nn.Blur(), lambda x, f: ops.filter2d(x, f), (2, 3, 10, 12)),
        (nn.Blur(TAPS, padding=[1, 0]), lambda x, f: ops.filter2d(x, f, padding=[1, 0]), (2, 3, 10, 14)),
        (nn.Upsample(), lambda x, f: ops.upsample2d(x, f), (2, 3, 20, 24)),
        (nn.Upsample(TAPS, factor=[3, 1]), lambda x, f: ops.upsample2d(x, f, [3, 1]), (2, 3, 10, 36)),
        (nn.Downsample(), lambda x, f: ops.downsample2d(x, f), (2, 3, 5, 6)),
        (
            nn.UpFirDn2d(ops.setup_filter(TAPS), 2, 1, [2, 1, 2, 1], True, 4),
            lambda x, f: ops.upfirdn2d(x, f, 2, 1, [2, 1, 2, 1], True, 4),
            (2, 3, 20, 24),
        ),
    ],
)
def test_module_is_the_op(module, op, shape):
    x = torch.randn(2, 3, 10, 12, requires_grad=True)
    y = module(x)
    assert y.shape == shape
    assert torch.equal(y, op(x, ops.setup_filter(TAPS)))
    assert list(module.state_dict()) == ["filter"] and not list(module.parameters())
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_filter_moves_and_loads_with_the_module():
    first, second = nn.Upsample([1, 2, 1]).double(), nn.Upsample([1, 1, 1]).double()
    assert first.filter.dtype == torch.float64
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64)
    assert torch.equal(first(x), second(x))
    assert "factor=2" in repr(first)


def test_no_filter():
    x = torch.randn(1, 2, 3, 4)
    module = nn.UpFirDn2d(None, up=2, gain=3)
    assert list(module.state_dict()) == []
    y = module(x)
    assert_close(y[:, :, ::2, ::2], 3 * x)
    assert_close(y.sum(), 3 * x.sum(), 1e-5)
