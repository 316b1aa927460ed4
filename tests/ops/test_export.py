import onnxruntime
import pytest
import torch
from exported import check_export
from tolerances import assert_close

from fastgan import models, ops

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


MODELS = {
    "dcgan": ({}, (2, 64)),
    "cyclegan.generator": ({"width": 4, "blocks": 1}, (1, 3, 32, 32)),
    "stylegan2.discriminator": ({"resolution": 8, "channel_base": 32, "num_fp16_res": 0}, (4, 3, 8, 8)),
    "stylegan3.generator": ({"resolution": 8, "channel_base": 32, "num_fp16_res": 0, "num_layers": 3}, (2, 512)),
}


@pytest.mark.parametrize("name", MODELS)
def test_torchs_onnx_export_as_it_stands(name):
    torch.manual_seed(0)
    options, shape = MODELS[name]
    network, x = models.build(name, **options).eval().requires_grad_(False), torch.randn(shape)
    model = torch.onnx.export(network, (x,), verbose=False).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: x.cpu().numpy()})
    assert_close(torch.from_numpy(actual), network(x).cpu(), 1e-4)


def test_every_op_has_a_decomposition():
    names = {op.name() for op in ops.decompositions()}
    assert {f"fastgan::{name}" for name in ops.available()} <= names
