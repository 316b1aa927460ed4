"""Fused GAN operations, differentiable to any order; `available()` says which kernels are loaded, and why not."""

from fastgan.ops import _library, prelu, triton  # noqa: F401 - prelu defines torch.ops.fastgan.prelu
from fastgan.ops._library import available, decompositions
from fastgan.ops.bias_act import bias_act
from fastgan.ops.conv2d import conv2d, conv_transpose2d, no_weight_gradients
from fastgan.ops.conv2d_resample import conv2d_resample
from fastgan.ops.filtered_lrelu import filtered_lrelu
from fastgan.ops.filtered_snake import filtered_snake, kaiser_sinc_filter
from fastgan.ops.fma import fma
from fastgan.ops.grad_penalty import grad_penalty
from fastgan.ops.grid_sample import grid_sample
from fastgan.ops.gumbel_softmax import gumbel_softmax
from fastgan.ops.minibatch_stddev import minibatch_stddev
from fastgan.ops.modulated_conv2d import modulated_conv2d
from fastgan.ops.norm_act import norm_act
from fastgan.ops.pixel_norm import pixel_norm
from fastgan.ops.resample import downsample2d, filter2d, setup_filter, upsample2d
from fastgan.ops.snake import snake
from fastgan.ops.upfirdn2d import upfirdn2d

_library.load_kernels()
triton.load()

__all__ = [
    "available",
    "bias_act",
    "conv2d",
    "conv2d_resample",
    "conv_transpose2d",
    "decompositions",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "filtered_snake",
    "fma",
    "grad_penalty",
    "grid_sample",
    "gumbel_softmax",
    "kaiser_sinc_filter",
    "minibatch_stddev",
    "modulated_conv2d",
    "no_weight_gradients",
    "norm_act",
    "pixel_norm",
    "setup_filter",
    "snake",
    "upfirdn2d",
    "upsample2d",
]
