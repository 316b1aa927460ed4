"""Convolutions with weights that stay: packed once, and what follows them folded in."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from fastgan import _torch_packed
from fastgan.patch.frozen.tape import in_images, pixels

ACTS = {
    "none": lambda y: y,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "swish": F.silu,
    "leaky_relu": F.leaky_relu,
    "hardtanh": F.hardtanh,
}


class Act(NamedTuple):
    """An activation by the name that oneDNN has in torch, and its numbers."""

    name: str
    numbers: tuple[float, ...] = ()


class Convolution:
    """act(scale * (x * weight + bias) + shift [+ other]) for inputs of one shape, packed at the first call."""

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
        self.act, self.clamped, self.packed = Act("none"), False, None
        self.outputs = weight.shape[1] * self.groups if self.transposed else weight.shape[0]
        self.adds = not self.transposed

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
        self.act = act
        return True

    def _pack(self) -> None:
        self.form = (self.stride, self.padding, self.dilation, self.groups)
        self.packed = _torch_packed.pack(self.weight, self.output_padding, *self.form, self.transposed, self.size)
        self.weight = None

    def __call__(self, x: torch.Tensor, other: torch.Tensor | None = None, over: bool = False) -> torch.Tensor:
        if self.signal:
            x, other = x.unsqueeze(2), None if other is None else other.unsqueeze(2)
        y = self._images(pixels(x), other, over)
        return y.squeeze(2) if self.signal else y

    def _images(self, x, other, over):
        if not _torch_packed.has_packed():
            form = (self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups)
            y = pixels(torch.ops.aten.convolution(x, self.weight, self.bias, *form))
            return ACTS[self.act.name](y if other is None else y + other, *self.act.numbers)
        if self.packed is None:
            self._pack()
        if other is None:
            y = _torch_packed.convolve(
                x, self.packed, self.bias, self.output_padding, *self.form, self.transposed, *self.act
            )
        else:
            y = _torch_packed.convolve_add(x, pixels(other), self.packed, self.bias, *self.form, *self.act, over)
        return pixels(y)
