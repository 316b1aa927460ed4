"""Keras 3 layers over `fastgan.ops`, for Keras on its torch backend (extra `keras`).

Arguments, weights, shapes and saved files of `Conv2D` and `Conv2DTranspose` are those of Keras' layers of the same names.
"""

import os
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")  # the only one on which these layers can run

import keras

from fastgan import ops
from fastgan.losses import penalty
from fastgan.ops.bias_act import ACTIVATIONS

if keras.backend.backend() != "torch":
    raise ImportError(
        f"fastgan.nn.keras: Keras runs on {keras.backend.backend()!r}; expected 'torch'. Import fastgan.nn.keras before keras,"
        " or set KERAS_BACKEND=torch"
    )

__all__ = ["BiasAct", "Conv2D", "Conv2DTranspose", "gradient_penalty"]
registered = keras.saving.register_keras_serializable(package="fastgan")

# Keras' activations that run in one pass with the bias; any other runs after it. leaky_relu has a slope of 0.2 there too.
FUSED = {
    getattr(keras.activations, theirs): ours
    for theirs, ours in {
        "linear": "linear",
        "relu": "relu",
        "leaky_relu": "lrelu",
        "tanh": "tanh",
        "sigmoid": "sigmoid",
        "elu": "elu",
        "selu": "selu",
        "softplus": "softplus",
        "silu": "swish",
    }.items()
}


@registered
class BiasAct(keras.layers.Layer):
    """A bias along `axis`, an activation, a gain and a clamp in one pass: any shape of rank >= 2 -> the same.

    Args: act, alpha, gain, clamp: as of `fastgan.ops.bias_act`; use_bias: False for an activation without one; axis: of the
    channels, -1 as Keras has them by default, 1 for channels_first.

    Weights: `bias` [channels], initially 0.
    """

    def __init__(
        self,
        act: str = "lrelu",
        alpha: float | None = None,
        gain: float | None = None,
        clamp: float | None = None,
        use_bias: bool = True,
        axis: int = -1,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if act not in ACTIVATIONS:
            raise ValueError(f"BiasAct: act={act!r}; expected one of {list(ACTIVATIONS)}")
        self.act, self.alpha, self.gain, self.clamp, self.use_bias, self.axis = act, alpha, gain, clamp, use_bias, axis

    def build(self, input_shape) -> None:
        if not -len(input_shape) <= self.axis < len(input_shape):
            raise ValueError(f"BiasAct: axis={self.axis}; expected an axis of the input, {list(input_shape)}")
        if self.use_bias and input_shape[self.axis] is None:
            raise ValueError(f"BiasAct: axis={self.axis}, whose size the input {list(input_shape)} leaves open")
        self.bias = (
            self.add_weight(name="bias", shape=(input_shape[self.axis],), initializer="zeros")
            if self.use_bias
            else None
        )

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else keras.ops.convert_to_tensor(self.bias)
        return ops.bias_act(inputs, bias, self.axis % inputs.dim(), self.act, self.alpha, self.gain, self.clamp)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        own = ("act", "alpha", "gain", "clamp", "use_bias", "axis")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


class _Convolution:
    """What both convolutions do around theirs: channels to the front and back, bias and activation in one pass."""

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        last = self.data_format == "channels_last"
        y = self.convolve(inputs.permute(0, 3, 1, 2) if last else inputs, keras.ops.convert_to_tensor(self.kernel))
        act = FUSED.get(self.activation)
        if self.use_bias or act != "linear":
            y = ops.bias_act(
                y, keras.ops.convert_to_tensor(self.bias) if self.use_bias else None, 1, act or "linear", gain=1
            )
        y = y.permute(0, 2, 3, 1) if last else y
        return self.activation(y) if act is None else y


@registered
class Conv2D(_Convolution, keras.layers.Conv2D):
    """`keras.layers.Conv2D` over `fastgan.ops.conv2d` and `bias_act`: same arguments, weights and results, differentiable to any
    order."""

    def convolve(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        pads = [0, 0, 0, 0]
        if self.padding == "same":  # as TensorFlow: what is odd comes after
            reach = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation_rate, strict=True)]
            total = [
                max(0, (-(-n // s) - 1) * s + r + 1 - n)
                for n, s, r in zip(x.shape[2:], self.strides, reach, strict=True)
            ]
            pads = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
        symmetric = pads[0] == pads[1] and pads[2] == pads[3]
        padding = (pads[2], pads[0]) if symmetric else (0, 0)
        x = x if symmetric else F.pad(x, pads)
        return ops.conv2d(x, kernel.permute(3, 2, 0, 1), None, self.strides, padding, self.dilation_rate, self.groups)


@registered
class Conv2DTranspose(_Convolution, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` over `fastgan.ops.conv_transpose2d` and `bias_act`: same arguments but `output_padding`,
    same weights and results, differentiable to any order.

    Raises: ValueError for output_padding.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.output_padding is not None:
            raise ValueError(f"Conv2DTranspose: output_padding={self.output_padding}; expected None")

    def convolve(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation_rate, strict=True)]
        # What one input reaches past its stride.
        beyond = [max(k - s, 0) for k, s in zip(spans, self.strides, strict=True)]
        same = self.padding == "same"
        size = [n * s + b * (not same) for n, s, b in zip(x.shape[2:], self.strides, beyond, strict=True)]
        options = (
            self.strides,
            [b // 2 for b in beyond] if same else (0, 0),
            [max(s - k, 0) for k, s in zip(spans, self.strides, strict=True)],
            1,
            self.dilation_rate,
        )
        y = ops.conv_transpose2d(x, kernel.permute(3, 2, 0, 1), None, *options)
        return y[:, :, : size[0], : size[1]]


def gradient_penalty(
    discriminator: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    fake: torch.Tensor | None = None,
    kind: str = "wgan-gp",
    weight: float = 10.0,
) -> torch.Tensor:
    """The mean penalty of a discriminator's gradient, to be added to its loss.

    Args:
        discriminator: a Keras model or function, images -> logits.
        real, fake: [N, ...]; only "wgan-gp" uses `fake`.
        kind: "wgan-gp": weight (|grad D| - 1)^2 between real and generated images; "r1": weight/2 |grad D|^2 at real ones.
        weight: of the penalty; 10 as in Gulrajani et al. 2017.

    Returns: a scalar. Raises: TypeError, ValueError for wrong arguments; RuntimeError where D has no graph.
    """
    if kind == "wgan-gp":
        if fake is None:
            raise ValueError("gradient_penalty: fake=None; expected generated images for kind='wgan-gp'")
        return penalty.wgan_gp(discriminator, real, fake, weight).mean()
    if kind == "r1":
        points = real.detach().requires_grad_(True)
        return penalty.r1(discriminator(points), points, weight).mean()
    raise ValueError(f"gradient_penalty: kind={kind!r}; expected 'wgan-gp' or 'r1'")
