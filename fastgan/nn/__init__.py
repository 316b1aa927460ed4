"""Modules over `fastgan.ops`."""

from fastgan.nn.filtered_lrelu import FilteredLReLU

__all__ = ["FilteredLReLU"]
