import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close

from fastgan.nn import InstanceNormAct2d


@pytest.mark.parametrize("affine", [False, True])
def test_stands_in_for_torchs_module(affine):
    original = torch.nn.InstanceNorm2d(3, affine=affine)
    for p in original.parameters():
        torch.nn.init.normal_(p)
    module = InstanceNormAct2d(3, affine=affine)
    module.load_state_dict(original.state_dict())
    x, residual = torch.randn(2, 2, 3, 7, 5)
    assert_close(module(x), F.relu(original(x)))
    assert_close(module(x, residual), F.relu(original(x)) + residual)


def test_options():
    module = InstanceNormAct2d(3, act="lrelu", alpha=0.1, eps=0.5)
    x = torch.randn(2, 3, 4, 4)
    assert_close(module(x), F.leaky_relu(F.instance_norm(x, eps=0.5), 0.1))
    assert not module.state_dict() and repr(module) == "InstanceNormAct2d(act='lrelu', eps=0.5, affine=False)"


def test_an_image_without_a_batch_is_refused():
    """Its rows would be taken for channels."""
    with pytest.raises(ValueError, match=r"InstanceNormAct2d: x has shape \(4, 6, 7\); expected 4"):
        InstanceNormAct2d(4)(torch.randn(4, 6, 7))
