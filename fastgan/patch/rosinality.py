"""The functions of an `op` package in the shape of rosinality's "stylegan2-pytorch", on `fastgan.ops`.

pSp, e4e, ReStyle, HyperStyle, StyleCLIP and HairFastGAN hold it as `models.stylegan2.op`.
"""

from fastgan import nn, ops
from fastgan.patch.stylegan import CONV2D_GRADFIX, integers


def fused_leaky_relu(input, bias=None, negative_slope=0.2, scale=2**0.5):
    """bias runs along axis 1, or, where only that fits an input [N, L, C], along its last, as forks for the CPU have it."""
    last = bias is not None and input.dim() == 3 and input.shape[1] != len(bias) == input.shape[2]
    return ops.bias_act(input, bias, 2 if last else 1, "lrelu", negative_slope, scale)


class FusedLeakyReLU(nn.FusedLeakyReLU):
    """`fastgan.nn.FusedLeakyReLU`, also with the arguments that older versions have: (channel, negative_slope, scale)."""

    def __init__(self, channel, *args, **kwargs):
        older = args and not isinstance(args[0], bool)
        super().__init__(channel, *((True, *args) if older else args), **kwargs)

    def forward(self, input):
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)


def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)):
    """pad: (before, after) of both axes, or (x_before, x_after, y_before, y_after)."""
    pad = integers(pad)
    return ops.upfirdn2d(input, kernel, integers(up), integers(down), pad * 2 if len(pad) == 2 else pad)


MODULES = {
    "fused_act": {"fused_leaky_relu": fused_leaky_relu, "FusedLeakyReLU": FusedLeakyReLU},
    "upfirdn2d": {"upfirdn2d": upfirdn2d},
    "conv2d_gradfix": CONV2D_GRADFIX,
}
