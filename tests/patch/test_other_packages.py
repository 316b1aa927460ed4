"""patch_ops("op") and patch_ops("mmcv.ops") on stand-ins."""

import importlib
import sys

import pytest
import torch
from tolerances import assert_close

import fastgan
from fastgan import ops

BUILD = "raise RuntimeError('importing would compile a plugin')"
ROSINALITY = {
    "op/__init__.py": "from .fused_act import FusedLeakyReLU, fused_leaky_relu\nfrom .upfirdn2d import upfirdn2d",
    "op/fused_act.py": BUILD,
    "op/upfirdn2d.py": BUILD,
    "op/conv2d_gradfix.py": "enabled = True\ndef conv2d(input, weight, bias=None, stride=1): pass",
    "model.py": "from op import FusedLeakyReLU, conv2d_gradfix, fused_leaky_relu, upfirdn2d",
}
UPFIRDN2D = "def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)): 1 / 0"
FUSED_ACT = """
    import torch

    class FusedLeakyReLU(torch.nn.Module):
        def __init__(self, channel, bias=True, negative_slope=0.2, scale=2 ** 0.5):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(channel))

        def forward(self, input):
            return fused_leaky_relu(input, self.bias)

    def fused_leaky_relu(input, bias=None, negative_slope=0.2, scale=2 ** 0.5):
        raise RuntimeError("a plugin would be called")
"""


def check_rosinality(model):
    x, kernel = torch.randn(2, 3, 6, 5), ops.setup_filter([1, 3, 3, 1]) * torch.rand(4, 4)
    layer = model.FusedLeakyReLU(3)
    assert list(layer.state_dict()) == ["bias"]
    assert torch.equal(layer(x), ops.bias_act(x, layer.bias, act="lrelu"))
    assert torch.equal(model.fused_leaky_relu(x), ops.bias_act(x, act="lrelu"))
    vector = torch.randn(5, 3)
    assert_close(
        model.fused_leaky_relu(vector, torch.ones(3), 0.1, 2.0), ops.bias_act(vector + 1, None, 1, "lrelu", 0.1, 2)
    )
    # Two paddings are before and after on both axes, not x and y.
    y = model.upfirdn2d(x, kernel, up=2, pad=(2, 1))
    assert y.shape == (2, 3, 12, 10) and torch.equal(y, ops.upfirdn2d(x, kernel, 2, 1, [2, 1, 2, 1]))
    assert torch.equal(model.upfirdn2d(x, kernel, 1, 2, (2, 1, 1, 1)), ops.upfirdn2d(x, kernel, 1, 2, [2, 1, 1, 1]))


def test_rosinality_before_the_import(project):
    project(ROSINALITY)
    report = fastgan.patch_ops("op")
    model = importlib.import_module("model")
    check_rosinality(model)
    assert model.conv2d_gradfix.conv2d is ops.conv2d and model.conv2d_gradfix.enabled is True
    assert dict(report.replaced)["op.fused_act.fused_leaky_relu"] == "provided (importing it would compile a plugin)"
    assert dict(report.refused)["op.conv2d_gradfix.conv_transpose2d"] == "the module has no such name"
    fastgan.unpatch(report)
    assert "op.fused_act" not in sys.modules and "op.upfirdn2d" not in sys.modules


def test_rosinality_after_the_import(project):
    project(
        {
            **ROSINALITY,
            "op/fused_act.py": FUSED_ACT,
            "op/upfirdn2d.py": "def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)): 1 / 0",
        }
    )
    model = importlib.import_module("model")
    before = dict(vars(model))
    built = model.FusedLeakyReLU(3)
    with fastgan.patched("op") as report:
        check_rosinality(model)
        assert model.FusedLeakyReLU is before["FusedLeakyReLU"] and isinstance(built, model.FusedLeakyReLU)
        x = torch.randn(1, 3, 4, 4)
        assert torch.equal(built(x), ops.bias_act(x, act="lrelu"))
        assert "calls fused_leaky_relu" in dict(report.replaced)["op.fused_act.FusedLeakyReLU"]
    assert all(vars(model)[name] is value for name, value in before.items())


def test_class_that_computes_by_itself_is_refused(project):
    source = FUSED_ACT.replace("return fused_leaky_relu(input, self.bias)", "return input * 2")
    project({**ROSINALITY, "op/fused_act.py": source, "op/upfirdn2d.py": UPFIRDN2D})
    model = importlib.import_module("op.fused_act")
    report = fastgan.patch_ops("op")
    assert "calls no function that is replaced" in dict(report.refused)["op.fused_act.FusedLeakyReLU"]
    assert model.FusedLeakyReLU(3)(torch.ones(1, 3)).sum() == 6


MMCV = {
    "mmcv/__init__.py": "__version__ = '2.1.0'",
    "mmcv/ops/__init__.py": "from .roi import RoI\nfrom .fused_bias_leakyrelu import FusedBiasLeakyReLU, fused_bias_leakyrelu\n"
    "from .upfirdn2d import upfirdn2d\nfrom .bias_act import bias_act",
    "mmcv/ops/roi.py": "from .. import _ext\nclass RoI: pass",
    "mmcv/ops/fused_bias_leakyrelu.py": "from .. import _ext",
    "mmcv/ops/bias_act.py": "from .. import _ext",
    "mmcv/ops/upfirdn2d.py": UPFIRDN2D,
}


def test_mmcv_without_its_extension(project):
    project(MMCV)
    with pytest.raises(ImportError):
        importlib.import_module("mmcv.ops")
    fastgan.patch_ops("mmcv.ops")
    from mmcv.ops import FusedBiasLeakyReLU, bias_act, fused_bias_leakyrelu, upfirdn2d

    x, b = torch.randn(2, 3, 6, 5), torch.randn(3)
    assert torch.equal(fused_bias_leakyrelu(x, b), ops.bias_act(x, b, act="lrelu"))
    assert torch.equal(FusedBiasLeakyReLU(3)(x), ops.bias_act(x, act="lrelu"))
    assert torch.equal(bias_act(x, b, act="relu", use_custom_op=False), ops.bias_act(x, b, act="relu"))
    f = ops.setup_filter([1, 3, 3, 1])
    assert torch.equal(upfirdn2d(x, f, up=2, pad=(2, 1)), ops.upfirdn2d(x, f, 2, 1, [2, 1, 2, 1]))


def test_mmcv_of_version_2(project):
    signature = "input, filter, up=1, down=1, padding=0, flip_filter=False, gain=1, use_custom_op=True"
    project({**MMCV, "mmcv/_ext.py": "", "mmcv/ops/upfirdn2d.py": f"def upfirdn2d({signature}): 1 / 0"})
    names = "def fused_bias_leakyrelu(input, bias, negative_slope=0.2, scale=1.4): 1 / 0\n"
    project(
        {
            "mmcv/ops/fused_bias_leakyrelu.py": names
            + "class FusedBiasLeakyReLU: forward = lambda x: fused_bias_leakyrelu(x, x)"
        }
    )
    project({"mmcv/ops/bias_act.py": "def bias_act(input, bias=None, dim=1): 1 / 0"})
    mmcv_ops = importlib.import_module("mmcv.ops")
    fastgan.patch_ops("mmcv.ops")
    x, f = torch.randn(2, 3, 6, 5), ops.setup_filter([1, 3, 3, 1])
    assert torch.equal(mmcv_ops.upfirdn2d(x, f, 2, 1, [2, 1], gain=4), ops.upfirdn2d(x, f, 2, 1, [2, 1], gain=4))
    assert mmcv_ops.upfirdn2d is sys.modules["mmcv.ops.upfirdn2d"].upfirdn2d
