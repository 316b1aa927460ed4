"""Modules over `fastgan.ops`."""

from fastgan.nn.bias_act import BiasAct, FusedLeakyReLU
from fastgan.nn.conv2d import Conv2d, ConvTranspose2d
from fastgan.nn.equalized import EqualConv2d, EqualLinear
from fastgan.nn.filtered_lrelu import FilteredLReLU
from fastgan.nn.mel import MelSpectrogram, mel_filterbank
from fastgan.nn.minibatch_stddev import MinibatchStdDev
from fastgan.nn.modulated_conv2d import ModulatedConv2d
from fastgan.nn.norm_act import InstanceNormAct2d
from fastgan.nn.pixel_norm import PixelNorm
from fastgan.nn.snake import Activation1d, DownSample1d, LowPassFilter1d, Snake, SnakeBeta, UpSample1d
from fastgan.nn.snake_stream import Activation1dStream
from fastgan.nn.upfirdn2d import Blur, Downsample, UpFirDn2d, Upsample
from fastgan.nn.weight_norm import (
    WeightNormConv1d,
    WeightNormConv2d,
    WeightNormConvTranspose1d,
    fold_weight_norm,
    unfold_weight_norm,
)

__all__ = [
    "Activation1d",
    "Activation1dStream",
    "BiasAct",
    "Blur",
    "Conv2d",
    "ConvTranspose2d",
    "DownSample1d",
    "Downsample",
    "EqualConv2d",
    "EqualLinear",
    "FilteredLReLU",
    "FusedLeakyReLU",
    "InstanceNormAct2d",
    "LowPassFilter1d",
    "MelSpectrogram",
    "MinibatchStdDev",
    "ModulatedConv2d",
    "PixelNorm",
    "Snake",
    "SnakeBeta",
    "UpFirDn2d",
    "UpSample1d",
    "Upsample",
    "WeightNormConv1d",
    "WeightNormConv2d",
    "WeightNormConvTranspose1d",
    "fold_weight_norm",
    "mel_filterbank",
    "unfold_weight_norm",
]
