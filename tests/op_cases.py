"""Every public op on small inputs, for the tests that ask the same of all of them. Values keep clear of kinks."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from device import seeded

from fastgan import ops


class Case(NamedTuple):
    """function(*tensors); `differentiable`: how many of the tensors, from the first on, have a gradient. In float64."""

    function: Callable
    tensors: tuple[torch.Tensor, ...]
    differentiable: int


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def _points(n: int, size: int) -> torch.Tensor:
    """Fractions of 1/4, exact in 8 bits: half a pixel's quarter from every centre line of an image of size^2 = 16 pixels."""
    at = torch.randint(-2 * size, 2 * size, (n, 3, 2, 2), generator=seeded(3), dtype=torch.int64)
    return (2 * at + 1).double() / (4 * size)


def _upsampled(function, **options):
    return lambda x, f: function(x, f, **options)


def _modulated(**options):
    return lambda x, weight, styles: ops.modulated_conv2d(x, weight, styles, padding=1, **options)


def _modulated_all(x, weight, styles, noise, gain, f):
    return ops.modulated_conv2d(x, weight, styles, noise, up=2, padding=1, resample_filter=f, input_gain=gain)


IMAGE, KERNEL, STYLES = _randn(2, 3, 4, 4), _randn(4, 3, 3, 3, seed=1), 1 + 0.3 * _randn(2, 3, seed=2)
FILTER = torch.tensor([0.125, 0.375, 0.375, 0.125], dtype=torch.float64)
VECTOR = _randn(3, seed=5)

CASES: dict[str, Case] = {
    **{
        f"bias_act {act}": Case(partial(ops.bias_act, act=act), (IMAGE, VECTOR), 2)
        for act in ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")
    },
    "bias_act clamp": Case(partial(ops.bias_act, act="swish", gain=1.5, clamp=0.7), (IMAGE, VECTOR), 2),
    "norm_act": Case(partial(ops.norm_act, act="lrelu"), (IMAGE, VECTOR, 0.1 + VECTOR, IMAGE + 1), 4),
    "norm_act tanh": Case(partial(ops.norm_act, act="tanh"), (IMAGE, VECTOR, 0.1 + VECTOR), 3),
    **{
        f"grad_penalty {kind}": Case(partial(ops.grad_penalty, kind=kind, target=0.7), (IMAGE,), 1)
        for kind in ("r1", "wgan-gp", "one-sided")
    },
    "gumbel_softmax": Case(partial(ops.gumbel_softmax, temperature=0.7, seed=3), (_randn(3, 7),), 1),
    "grid_sample": Case(ops.grid_sample, (IMAGE, _points(2, 4)), 2),
    "minibatch_stddev": Case(partial(ops.minibatch_stddev, group_size=2), (_randn(4, 3, 2, 2),), 1),
    "pixel_norm": Case(ops.pixel_norm, (IMAGE,), 1),
    "fma": Case(ops.fma, (IMAGE, _randn(3, 1, 1, seed=4), VECTOR[:, None, None]), 3),
    "conv2d": Case(partial(ops.conv2d, padding=1), (IMAGE, KERNEL, _randn(4)), 3),
    "conv_transpose2d": Case(partial(ops.conv_transpose2d, stride=2), (IMAGE, _randn(3, 2, 4, 4), _randn(2)), 3),
    "conv2d_resample up": Case(
        lambda x, w, f: ops.conv2d_resample(x, w, f, up=2, padding=1), (IMAGE, KERNEL, FILTER), 3
    ),
    "conv2d_resample down": Case(
        lambda x, w, f: ops.conv2d_resample(x, w, f, down=2, padding=1), (IMAGE, KERNEL, FILTER), 3
    ),
    "modulated_conv2d": Case(_modulated(), (IMAGE, KERNEL, STYLES), 3),
    "modulated_conv2d prenormalized": Case(_modulated(prenormalize=True), (IMAGE, KERNEL, STYLES), 3),
    "modulated_conv2d without demodulation": Case(_modulated(demodulate=False), (IMAGE, KERNEL, STYLES), 3),
    "modulated_conv2d lrelu": Case(
        lambda x, w, s, n, b: ops.modulated_conv2d(x, w, s, n, padding=1, bias=b, act="lrelu", clamp=0.9),
        (IMAGE, KERNEL, STYLES, _randn(4, 4, seed=8), _randn(4, seed=9)),
        5,
    ),
    "modulated_conv2d grouped": Case(_modulated(impl="reference"), (IMAGE, KERNEL, STYLES), 3),
    "modulated_conv2d 1x1": Case(
        partial(ops.modulated_conv2d, demodulate=False), (IMAGE, KERNEL[..., :1, :1], STYLES), 3
    ),
    "modulated_conv2d up": Case(
        _modulated_all, (IMAGE, KERNEL, STYLES, _randn(8, 8, seed=6), 1 + 0.1 * VECTOR, FILTER), 6
    ),
    "upfirdn2d": Case(_upsampled(ops.upfirdn2d, up=2, down=[1, 2], padding=[1, 2, 0, 3]), (IMAGE, FILTER), 2),
    "upfirdn2d 2-D": Case(_upsampled(ops.upfirdn2d, padding=1), (IMAGE, _randn(3, 2, seed=7)), 2),
    "filter2d": Case(_upsampled(ops.filter2d), (IMAGE, FILTER), 2),
    "upsample2d": Case(_upsampled(ops.upsample2d), (IMAGE, FILTER), 2),
    "downsample2d": Case(_upsampled(ops.downsample2d), (IMAGE, FILTER), 2),
    "filtered_lrelu": Case(
        lambda x, b, fu, fd: ops.filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=3, clamp=0.9),
        (IMAGE, VECTOR, FILTER, FILTER),
        4,
    ),
    "filtered_snake": Case(
        lambda x, a, b, fu, fd: ops.filtered_snake(x, a, b, fu, fd, logscale=True),
        (IMAGE[..., 0], VECTOR, VECTOR + 0.1, FILTER, FILTER),
        5,
    ),
    "snake": Case(ops.snake, (IMAGE, 1.5 + 0.1 * VECTOR, 1 + VECTOR.abs()), 3),
}
LEFT_OUT = {
    "available",
    "decompositions",
    "kaiser_sinc_filter",
    "no_weight_gradients",
    "setup_filter",
}  # no ops of tensors that are trained
