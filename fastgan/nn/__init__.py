"""Modules over `fastgan.ops`."""

from fastgan.nn.bias_act import BiasAct, FusedLeakyReLU
from fastgan.nn.filtered_lrelu import FilteredLReLU
from fastgan.nn.upfirdn2d import Blur, Downsample, UpFirDn2d, Upsample

__all__ = ["BiasAct", "Blur", "Downsample", "FilteredLReLU", "FusedLeakyReLU", "UpFirDn2d", "Upsample"]
