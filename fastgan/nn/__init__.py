"""Modules over `fastgan.ops`."""

from fastgan.nn.filtered_lrelu import FilteredLReLU
from fastgan.nn.upfirdn2d import Blur, Downsample, UpFirDn2d, Upsample

__all__ = ["Blur", "Downsample", "FilteredLReLU", "UpFirDn2d", "Upsample"]
