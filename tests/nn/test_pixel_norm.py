import torch

from fastgan.nn import PixelNorm
from fastgan.ops import pixel_norm


def test_pixel_norm_is_the_op():
    module, x = PixelNorm(dim=2, eps=0.5), torch.randn(4, 6, 3)
    assert torch.equal(module(x), pixel_norm(x, 2, 0.5)) and not torch.equal(module(x), pixel_norm(x))
    assert not module.state_dict() and repr(module) == "PixelNorm(dim=2, eps=0.5)"
