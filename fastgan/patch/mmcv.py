"""The GAN functions of `mmcv.ops`, with the names and arguments of MMCV's public documentation: those of the other families
under other names.

`use_custom_op` chose a backend there and chooses nothing here. Of `upfirdn2d` there are two signatures, that of MMCV 2 and
the older one of rosinality's shape.
"""

from fastgan.nn import FusedLeakyReLU
from fastgan.patch import rosinality, stylegan


def fused_bias_leakyrelu(input, bias, negative_slope=0.2, scale=2**0.5):
    return rosinality.fused_leaky_relu(input, bias, negative_slope, scale)


class FusedBiasLeakyReLU(FusedLeakyReLU):
    """`fastgan.nn.FusedLeakyReLU` with MMCV's arguments."""

    def __init__(self, num_channels: int, negative_slope: float = 0.2, scale: float = 2**0.5):
        super().__init__(num_channels, True, negative_slope, scale)


def bias_act(input, bias=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, use_custom_op=True):
    return stylegan.bias_act(input, bias, dim, act, alpha, gain, clamp)


def upfirdn2d(input, filter, up=1, down=1, padding=0, flip_filter=False, gain=1, use_custom_op=True):
    return stylegan.upfirdn2d(input, filter, up, down, padding, flip_filter, gain)


def filter2d(input, filter, padding=0, flip_filter=False, gain=1, use_custom_op=True):
    return stylegan.filter2d(input, filter, padding, flip_filter, gain)


def upsample2d(input, filter, up=2, padding=0, flip_filter=False, gain=1, use_custom_op=True):
    return stylegan.upsample2d(input, filter, up, padding, flip_filter, gain)


def downsample2d(input, filter, down=2, padding=0, flip_filter=False, gain=1, use_custom_op=True):
    return stylegan.downsample2d(input, filter, down, padding, flip_filter, gain)


def filtered_lrelu(
    input,
    filter_up=None,
    filter_down=None,
    bias=None,
    up=1,
    down=1,
    padding=0,
    gain=2**0.5,
    slope=0.2,
    clamp=None,
    flip_filter=False,
    use_custom_op=True,
):
    filters = filter_up, filter_down
    return stylegan.filtered_lrelu(input, *filters, bias, up, down, padding, gain, slope, clamp, flip_filter)


MODULES = {
    "fused_bias_leakyrelu": {
        "fused_bias_leakyrelu": fused_bias_leakyrelu,
        "FusedBiasLeakyReLU": FusedBiasLeakyReLU,
    },
    "bias_act": {"bias_act": bias_act},
    "upfirdn2d": {
        "upfirdn2d": (upfirdn2d, rosinality.upfirdn2d),
        "filter2d": filter2d,
        "upsample2d": upsample2d,
        "downsample2d": downsample2d,
    },
    "filtered_lrelu": {"filtered_lrelu": filtered_lrelu},
    "conv2d_gradfix": {name: stylegan.CONV2D_GRADFIX[name] for name in ("conv2d", "conv_transpose2d")},
}
