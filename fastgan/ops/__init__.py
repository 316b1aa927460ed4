"""Fused GAN operations, differentiable to any order. `available()` says which kernels are loaded, and why others are not."""

from fastgan.ops import _library
from fastgan.ops._library import available
from fastgan.ops.bias_act import bias_act
from fastgan.ops.fma import fma
from fastgan.ops.minibatch_stddev import minibatch_stddev
from fastgan.ops.pixel_norm import pixel_norm

_library.load_kernels()

__all__ = ["available", "bias_act", "fma", "minibatch_stddev", "pixel_norm"]
