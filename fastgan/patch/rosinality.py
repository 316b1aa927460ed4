"""The functions of an `op` package in the shape of rosinality's "stylegan2-pytorch", on `fastgan.ops`."""

from fastgan import ops
from fastgan.nn import FusedLeakyReLU
from fastgan.patch.stylegan import CONV2D_GRADFIX, integers

COMPILED_AT_IMPORT = ("fused_act", "upfirdn2d")  # provided instead; first in MODULES, since importing `op` imports them


def fused_leaky_relu(input, bias=None, negative_slope=0.2, scale=2**0.5):
    return ops.bias_act(input, bias, act="lrelu", alpha=negative_slope, gain=scale)


def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)):
    """pad: (before, after) of both axes, or (x_before, x_after, y_before, y_after)."""
    pad = integers(pad)
    return ops.upfirdn2d(input, kernel, integers(up), integers(down), pad * 2 if len(pad) == 2 else pad)


MODULES = {
    "fused_act": {"fused_leaky_relu": fused_leaky_relu, "FusedLeakyReLU": FusedLeakyReLU},
    "upfirdn2d": {"upfirdn2d": upfirdn2d},
    "conv2d_gradfix": CONV2D_GRADFIX,
}
PROVIDED = {"conv2d_gradfix": {"enabled": True}}
