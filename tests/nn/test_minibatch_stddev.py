import torch

from fastgan.nn import MinibatchStdDev
from fastgan.ops import minibatch_stddev


def test_minibatch_stddev_is_the_op():
    module, x = MinibatchStdDev(group_size=2, num_channels=3), torch.randn(4, 6, 3, 5)
    assert torch.equal(module(x), minibatch_stddev(x, 2, 3)) and not torch.equal(module(x), minibatch_stddev(x, 4, 3))
    assert not module.state_dict() and repr(module) == "MinibatchStdDev(group_size=2, num_channels=3)"
    assert MinibatchStdDev()(x).shape == (4, 7, 3, 5)
