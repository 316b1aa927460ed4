"""Convolutions with weights that stay: packed once, and what follows them folded in."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastgan import _torch_packed
from fastgan.ops import conv_packed
from fastgan.ops.conv_forms import is_fast
from fastgan.patch.frozen.tape import in_images, pixels

# In place, what the kernels do not do themselves.
ACTS = {
    "none": lambda y: y,
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
    "swish": lambda y: F.silu(y, inplace=True),
    "leaky_relu": F.leaky_relu_,
    "hardtanh": lambda y, low, high: y.clamp_(low, high),
}


# Winograd's form: at least so many channels of inputs, of outputs, and tiles of 4x4 outputs of all images. 512 channels of 8x8
# pixels, 4 tiles, took 1.3 times as long as oneDNN, of 16x16 0.7 times; from 64x64 on 0.42 to 0.5 times.
CHANNELS, LEAST, TILES = 16, 12, 12
# Outputs of a 4x4 convolution of stride 2 for `quarters`, at most: 0.65 times for 3, 0.85 to 1.3 for 64 to 256.
IMAGE = 4


# `conv_packed`: channels that it multiplies, and outputs, of a group, at least. With fewer its vectors are half empty, or the
# way to a pixel takes longer than the pixel: 64 outputs of 3 channels took 1.5 times as long as oneDNN.
DEPTH, WIDTH = 16, 12


class Act(NamedTuple):
    """An activation by the name that oneDNN has in torch, and its numbers; "prelu" has a vector of the outputs."""

    name: str
    numbers: tuple = ()


class Convolution:
    """act(scale * (x * weight + bias) + shift [+ other]) for inputs of one shape, packed at the first call.

    By `conv3x3_packed`, `conv_packed`, or oneDNN. `told`: whether it writes where it is told, images of `shape` and `strides`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, form, size: tuple[int, ...]):
        stride, padding, dilation, self.transposed, output_padding, self.groups = form
        self.signal = len(size) == 3
        if self.signal:
            weight = weight.unsqueeze(2)
            _, stride, padding, dilation, output_padding = in_images(
                weight[0], stride, padding, dilation, output_padding
            )
            size = (*size[:2], 1, size[2])
        self.stride, self.padding, self.dilation, self.output_padding = stride, padding, dilation, output_padding
        self.weight, self.bias, self.size = weight, bias, size
        self.act, self.packed = Act("none"), None
        self.outputs = weight.shape[1] * self.groups if self.transposed else weight.shape[0]
        form = [*self.stride, *self.padding, *self.dilation, *self.output_padding, self.groups, *weight.shape[2:]]
        self.doubles = self.outputs <= IMAGE and self.transposed and form == [2, 2, 1, 1, 1, 1, 0, 0, 1, 4, 4]
        plain = not self.transposed and form in ([1, 1, p, p, 1, 1, 0, 0, 1, 3, 3] for p in range(3))
        self.winograd = (plain or self.doubles) and self._is_winograd()
        # A latent that becomes an image: a 1x1 convolution to all of its pixels.
        self.spreads = self.transposed and (*size[2:], *form[2:9]) == (1, 1, 0, 0, 1, 1, 0, 0, 1)
        self.direct = not self.winograd and self._is_direct()
        self.told = (self.winograd and not self.doubles) or (self.direct and not self.spreads)
        self.adds = not self.transposed or (self.direct and not self.spreads)
        self.kernel = tuple(weight.shape[2:])
        self.shape = (size[0], self.outputs, *map(self._length, range(2)))
        _, c, h, w = self.shape
        self.strides = (c * h * w, 1, c * w, c)

    def _length(self, axis: int) -> int:
        """Of the output."""
        n, kernel, stride = self.size[2 + axis], self.kernel[axis], self.stride[axis]
        reach, border = self.dilation[axis] * (kernel - 1) + 1, 2 * self.padding[axis]
        if self.transposed:
            return (n - 1) * stride + reach - border + self.output_padding[axis]
        return (n + border - reach) // stride + 1

    def _is_direct(self) -> bool:
        known = not self.transposed or self.spreads or (max(self.stride) > 1 and max(self.dilation) == 1)
        deep = self.size[1] // self.groups >= DEPTH and self.outputs // self.groups >= WIDTH
        return known and deep and is_fast("conv_packed")

    def _is_winograd(self) -> bool:
        n, inputs, height, width = self.size
        border = 2 * self.padding[0] - 2
        tiles = n * -(-(height + border) // 4) * -(-(width + border) // 4)
        outputs = self.outputs * (4 if self.doubles else 1)
        return inputs >= CHANNELS and outputs >= LEAST and tiles >= TILES and is_fast("conv3x3_packed")

    def scale(self, factor, shift: torch.Tensor | None = None) -> None:
        """factor * (result + shift), factor a number or a vector of the outputs."""
        if shift is not None:
            self.shift(shift)
        if isinstance(factor, torch.Tensor):
            w = self.weight
            if self.transposed:
                by_output = factor.view(self.groups, 1, -1, 1, 1)
                self.weight = (w.unflatten(0, (self.groups, -1)) * by_output).flatten(0, 1)
            else:
                self.weight = w * factor.view(-1, 1, 1, 1)
        elif factor != 1:
            self.weight = self.weight * factor
        if self.bias is not None:
            self.bias = self.bias * factor

    def shift(self, by) -> None:
        if by is not None:
            zero = self.weight.new_zeros(self.outputs)
            self.bias = (zero if self.bias is None else self.bias) + by

    def activate(self, act: Act) -> bool:
        """Whether it applies `act` too, which is the last thing it does."""
        if not (self.winograd or self.direct):
            if act.name == "prelu":
                return False
        elif act.name in ("leaky_relu", "prelu") and (torch.as_tensor(act.numbers[0]) == 0).any():
            return False  # 0 stands for ReLU, which is another at -inf
        self.act = act
        return True

    def __call__(
        self, x: torch.Tensor, other: torch.Tensor | None = None, over: bool = False, out=None
    ) -> torch.Tensor:
        """over: written over `other`. out: where to, if `told`."""
        if self.signal:
            x, other = x.unsqueeze(2), None if other is None else other.unsqueeze(2)
        x, other = pixels(x), None if other is None else pixels(other)
        if self.packed is None:
            self._pack()
        y = self._run(x, other, other if over else out)
        return y.squeeze(2) if self.signal else y

    def _pack(self) -> None:
        """Chooses how it is computed, and brings the weight into the layout for it."""
        form = (self.stride, self.padding, self.dilation, self.groups)
        if self.winograd or self.direct:
            self.shift(0)
            self.slope = _slope(self.act, self.weight.new_ones(self.outputs))
        if self.winograd:
            self._run = self._doubled if self.doubles else self._winograd
            weight = quarters(self.weight) if self.doubles else self.weight
            self.packed = torch.ops.fastgan.conv3x3_pack(weight)
            if self.doubles:
                self.bias, self.slope = self.bias.repeat(4), self.slope.repeat(4)
        elif self.spreads and self.direct:
            self._run = self._spread
            weight = self.weight.permute(2, 3, 1, 0).reshape(-1, self.size[1], 1, 1)
            self.packed = conv_packed.pack(weight, (1, 1), (0, 0), 1, False)
            count = len(weight) // self.outputs
            self.bias, self.slope = self.bias.repeat(count), self.slope.repeat(count)
            self.form = (1, (1, 1), (1, 1), (0, 0), (1, 1), False)
        elif self.direct:
            self._run = self._direct
            self.packed = conv_packed.pack(self.weight, self.stride, self.padding, self.groups, self.transposed)
            self.form = (self.groups, self.kernel, self.stride, self.padding, self.dilation, self.transposed)
        else:
            self._run, self.packed, self.form = self._torch, self.weight, form
            # oneDNN has no packed form of some transposed convolutions with a dilation and output_padding; torch runs them.
            with contextlib.suppress(RuntimeError):
                if _torch_packed.has_packed():
                    packed = _torch_packed.pack(self.weight, self.output_padding, *form, self.transposed, self.size)
                    self._run, self.packed = self._onednn, packed
        self.weight = None

    def _winograd(self, x, other, out):
        y = self._place(x, out)
        torch.ops.fastgan.conv3x3_packed(y, x, self.packed, self.bias, self.slope, other, self.padding[0])
        return self._activated(y)

    def _direct(self, x, other, out):
        y = self._place(x, out)
        torch.ops.fastgan.conv_packed(y, x, self.packed, self.bias, self.slope, other, *self.form)
        return self._activated(y)

    def _spread(self, x, other, out):
        y = x.new_empty((len(x), len(self.bias), 1, 1))
        torch.ops.fastgan.conv_packed(y, x, self.packed, self.bias, self.slope, None, *self.form)
        return self._activated(y.view(len(x), *self.kernel, self.outputs).permute(0, 3, 1, 2))

    def _doubled(self, x, other, out):
        n, _, height, width = x.shape
        y = x.new_empty((n, height, width, 4 * self.outputs)).permute(0, 3, 1, 2)
        torch.ops.fastgan.conv3x3_packed(y, x, self.packed, self.bias, self.slope, None, 1)
        y = y.permute(0, 2, 3, 1).view(n, height, width, 2, 2, self.outputs).transpose(2, 3)
        return self._activated(y.reshape(n, 2 * height, 2 * width, self.outputs).permute(0, 3, 1, 2))

    def _place(self, x: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
        return x.new_empty_strided(self.shape, self.strides) if out is None else out

    def _activated(self, y: torch.Tensor) -> torch.Tensor:
        return y if self.act.name in SLOPES else ACTS[self.act.name](y, *self.act.numbers)

    def _onednn(self, x, other, out):
        rest = (self.packed, self.bias)
        if other is not None:
            y = pixels(_torch_packed.convolve_add(x, other, *rest, *self.form, out is not None))
            return ACTS[self.act.name](y, *self.act.numbers)
        inside, after = self.act, Act("none")
        if not _torch_packed.keeps_nan(*inside):
            inside, after = after, inside
        y = pixels(_torch_packed.convolve(x, *rest, self.output_padding, *self.form, self.transposed, *inside))
        return ACTS[after.name](y, *after.numbers)

    def _torch(self, x, other, out):
        form = (self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups)
        y = pixels(torch.ops.aten.convolution(x, self.packed, self.bias, *form))
        return ACTS[self.act.name](y if other is None else y + other, *self.act.numbers)


SLOPES = {"none": lambda: 1.0, "relu": lambda: 0.0, "leaky_relu": lambda slope: slope, "prelu": lambda slopes: slopes}


def _slope(act: Act, ones: torch.Tensor) -> torch.Tensor:
    """What numbers below zero are multiplied by, for each output."""
    return (ones * SLOPES[act.name](*act.numbers)).contiguous() if act.name in SLOPES else ones


def quarters(weight: torch.Tensor) -> torch.Tensor:
    """The transposed 4x4 convolution of stride 2, [I, O, 4, 4], as a 3x3 one to the four pixels that an input becomes,
    [4 O, I, 3, 3]: output 2i + a takes of input i + d the tap a + 1 - 2d. 9 products by Winograd's form where it takes 16."""
    inputs, outputs = weight.shape[:2]
    made = weight.new_zeros(2, 2, outputs, inputs, 3, 3)
    for a in range(2):
        for b in range(2):
            for dy in (a - 1, a):
                for dx in (b - 1, b):
                    made[a, b, :, :, dy + 1, dx + 1] = weight[:, :, a + 1 - 2 * dy, b + 1 - 2 * dx].t()
    return made.flatten(0, 2)
