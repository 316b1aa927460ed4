"""Fused GAN operations, differentiable to any order; `available()` says which kernels are loaded, and why not."""

from fastgan.ops import _library
from fastgan.ops._library import available
from fastgan.ops.bias_act import bias_act
from fastgan.ops.filtered_lrelu import filtered_lrelu
from fastgan.ops.fma import fma
from fastgan.ops.grad_penalty import grad_penalty
from fastgan.ops.gumbel_softmax import gumbel_softmax
from fastgan.ops.minibatch_stddev import minibatch_stddev
from fastgan.ops.pixel_norm import pixel_norm
from fastgan.ops.resample import downsample2d, filter2d, setup_filter, upsample2d
from fastgan.ops.upfirdn2d import upfirdn2d

_library.load_kernels()

__all__ = [
    "available",
    "bias_act",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "fma",
    "grad_penalty",
    "gumbel_softmax",
    "minibatch_stddev",
    "pixel_norm",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
