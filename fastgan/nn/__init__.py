"""Modules over `fastgan.ops`."""

from fastgan.nn.bias_act import BiasAct, FusedLeakyReLU
from fastgan.nn.conv2d import Conv2d, ConvTranspose2d
from fastgan.nn.equalized import EqualConv2d, EqualLinear
from fastgan.nn.filtered_lrelu import FilteredLReLU
from fastgan.nn.minibatch_stddev import MinibatchStdDev
from fastgan.nn.modulated_conv2d import ModulatedConv2d
from fastgan.nn.norm_act import InstanceNormAct2d
from fastgan.nn.pixel_norm import PixelNorm
from fastgan.nn.upfirdn2d import Blur, Downsample, UpFirDn2d, Upsample

__all__ = [
    "BiasAct",
    "Blur",
    "Conv2d",
    "ConvTranspose2d",
    "Downsample",
    "EqualConv2d",
    "EqualLinear",
    "FilteredLReLU",
    "FusedLeakyReLU",
    "InstanceNormAct2d",
    "MinibatchStdDev",
    "ModulatedConv2d",
    "PixelNorm",
    "UpFirDn2d",
    "Upsample",
]
