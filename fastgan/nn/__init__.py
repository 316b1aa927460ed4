"""Modules over `fastgan.ops`."""

from fastgan.nn.bias_act import BiasAct, FusedLeakyReLU
from fastgan.nn.filtered_lrelu import FilteredLReLU

__all__ = ["BiasAct", "FilteredLReLU", "FusedLeakyReLU"]
