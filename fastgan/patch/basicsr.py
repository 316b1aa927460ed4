"""The functions of a `basicsr.ops`, on `fastgan.ops` and torchvision's deformable convolution.

Its modules lie one level deeper than rosinality's, whose functions they hold. `im2col_step` cut a batch into parts for a
kernel, and chooses nothing here.
"""

from fastgan.patch import rosinality


def deform_conv(input, offset, weight, stride=1, padding=0, dilation=1, groups=1, deformable_groups=1, im2col_step=64):
    """input [N, C, H, W], offset [N, 2 deformable_groups kh kw, H', W'] as (y, x) pairs, weight [O, C / groups, kh, kw].
    Groups follow from the shapes."""
    from torchvision.ops import deform_conv2d

    return deform_conv2d(input, offset, weight, None, _pair(stride), _pair(padding), _pair(dilation))


def modulated_deform_conv(
    input, offset, mask, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, deformable_groups=1
):
    """mask [N, deformable_groups kh kw, H', W']; the rest as of `deform_conv`."""
    from torchvision.ops import deform_conv2d

    return deform_conv2d(input, offset, weight, bias, _pair(stride), _pair(padding), _pair(dilation), mask)


def _pair(value):
    return value if isinstance(value, int) else tuple(value)


MODULES = {
    "fused_act.fused_act": rosinality.MODULES["fused_act"],
    "upfirdn2d.upfirdn2d": rosinality.MODULES["upfirdn2d"],
    "dcn.deform_conv": {"deform_conv": deform_conv, "modulated_deform_conv": modulated_deform_conv},
}
