import pytest
import torch
from exported import check_export

from fastgan import ops

torch.manual_seed(0)
W = torch.randn(4, 3, 3, 3)
S = torch.randn(2, 3)
F4, F12 = ops.setup_filter([1, 3, 3, 1]), ops.setup_filter(torch.arange(1.0, 13.0))

CASES = {
    "bias_act": lambda x: ops.bias_act(x, torch.ones(3), act="lrelu", clamp=0.8),
    "upsample2d": lambda x: ops.upsample2d(x, F4),
    "downsample2d": lambda x: ops.downsample2d(x, F12),
    "filtered_lrelu": lambda x: ops.filtered_lrelu(x, F12, F12, torch.ones(3), 2, 2, [9, 8, 9, 8], clamp=1.0),
    "conv2d_resample": lambda x: ops.conv2d_resample(x, W, F4, up=2, padding=1, flip_weight=False),
    "modulated_conv2d": lambda x: ops.modulated_conv2d(x, W, S, padding=1),
    "norm_act": lambda x: ops.norm_act(x, residual=x),
}


class Op(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("case", CASES)
def test_runs_without_fastgan(case):
    check_export(Op(CASES[case]), torch.randn(2, 3, 8, 10))


def test_every_op_has_a_decomposition():
    names = {op.name() for op in ops.decompositions()}
    assert {f"fastgan::{name}" for name in ops.available()} <= names
