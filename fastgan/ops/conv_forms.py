"""By which algorithm a convolution on the CPU is computed: torch's, or one of `ALGORITHMS`, faster and the same numbers to
rounding. An algorithm's fields are the limits within which it is faster.

Float32 alone, and not within torch.compile. Measured: bench/bench_conv3x3.py.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F

from fastgan._torch_private import has_turned_product, turned_product
from fastgan.ops import _library, conv3x3, conv3x3_packed, conv_packed, conv_to_image  # noqa: F401 - these define torch.ops.fastgan.*

aten = torch.ops.aten


class Form(NamedTuple):
    """All of a convolution but its tensors, in the order of `aten::convolution`."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @property
    def plain(self) -> bool:
        """Whether outputs lie as densely as inputs."""
        return (self.stride, self.dilation, self.output_padding, self.groups) == ((1, 1), (1, 1), (0, 0), 1)


class Algorithm:
    """One way to compute a convolution of x [N, C, h, w] with w, which is [O, C, kh, kw], of a transposed one [C, O, kh, kw]."""

    name: ClassVar[str]
    what: ClassVar[str]  # for the reports of fastgan.accelerate

    def serves(self, w: torch.Tensor, form: Form) -> bool:
        """Whether it may compute this layer: all that is known before an image comes."""
        raise NotImplementedError

    def takes(self, x: torch.Tensor, w: torch.Tensor, form: Form) -> bool:
        """Whether, of a layer that it serves, it computes x: float32 on the CPU, not empty."""
        raise NotImplementedError

    def convolve(self, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, form: Form) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Winograd(Algorithm):
    """`conv3x3`: 3x3, stride 1, 16 products where torch takes 36. Fewer channels or pixels do not repay its transforms."""

    channels: int = 64  # at least, of inputs and of outputs
    weight_channels: int = 128  # at least, for the gradient by the weight: 64 took up to 1.25 times as long as torch
    pixels: int = 256  # at least, of all images
    side: int = 4  # at least, of an image
    padding: int = 2  # at most, the same on all sides

    name = "conv3x3"
    what = "3x3 by Winograd's algorithm"

    def serves(self, w, form):
        if w.shape[2:] != (3, 3) or min(w.shape[:2]) < self.channels or not form.plain:
            return False
        return form.padding[0] == form.padding[1] <= self.padding and is_fast("conv3x3")

    def takes(self, x, w, form):
        n, _, height, width = x.shape
        return n * height * width >= self.pixels and min(height, width) >= self.side

    def convolve(self, x, w, bias, form):
        return torch.ops.fastgan.conv3x3(x, w, bias, form.padding[0], form.transposed)

    def gradients(self, dy, x, w, form, by_x: bool, by_w: bool):
        dy = _channels_last(dy, x)
        dx = torch.ops.fastgan.conv3x3(dy, w, None, form.padding[0], not form.transposed) if by_x else None
        if not by_w:
            return dx, None
        if min(w.shape[:2]) < self.weight_channels:
            return dx, aten.convolution_backward(dy, x, w, None, *form, [False, True, False])[1]
        return dx, torch.ops.fastgan.conv3x3_weight(*((x, dy) if form.transposed else (dy, x)), form.padding[0])


@dataclass(frozen=True)
class Columns(Algorithm):
    """Few outputs of a wide kernel (the last layer, 7x7 to 3 channels): torch's kernels fill their vectors with outputs. So each
    column of taps makes outputs of its own, kw O of them by kernels [kh, 1], which are then summed along the diagonal.
    """

    taps: int = 4  # at least, of a row
    outputs: int = 32  # at most, taps of a row times outputs: as many as two vectors hold
    inputs: int = 16  # at least
    pixels: int = 200  # at least, of all images: 4x4 from 512 channels took 1.6 times as long at 7x7, 0.89 at 15x15

    name = "columns"
    what = "column by column"

    def serves(self, w, form):
        outputs, inputs, _, kw = w.shape
        few = kw >= self.taps and outputs * kw <= self.outputs and inputs >= self.inputs
        return few and not form.transposed and form.plain

    def takes(self, x, w, form):
        # On narrow images most columns are of no output: a discriminator's last layer, 4x4 to 1x1, took 0.4 ms longer.
        wide = x.shape[3] + 2 * form.padding[1] >= 2 * w.shape[3]
        return wide and x.shape[0] * x.shape[2] * x.shape[3] >= self.pixels

    def convolve(self, x, w, bias, form):
        outputs, inputs, kh, kw = w.shape
        columns = w.permute(0, 3, 1, 2).reshape(outputs * kw, inputs, kh, 1)
        # Padded afterwards: torch passes over the padding around an image, whatever the weight (0 times infinity is NaN).
        rows = form._replace(padding=(form.padding[0], 0))
        z = aten.convolution(x, columns, None, *rows).contiguous()
        z = F.pad(z, [form.padding[1]] * 2) if form.padding[1] else z
        n, _, height, width = z.shape
        size = (n, outputs, height, width - kw + 1, kw)
        y = z.as_strided(size, (z.stride(0), kw * height * width, width, 1, height * width + 1)).sum(-1)
        return _finished(y, bias, x)


class Spread(Algorithm):
    """Transposed convolutions with a stride: all taps of an input at once, then each is added where it belongs."""

    def serves(self, w, form):
        return form.transposed and min(form.stride) > 1 and form.dilation == (1, 1) and form.groups == 1

    def takes(self, x, w, form):
        return min(transposed_size(x, w, form)) >= 1

    def convolve(self, x, w, bias, form):
        return _finished(self.spread(x, w, form, transposed_size(x, w, form)), bias, x)

    def spread(self, x: torch.Tensor, w: torch.Tensor, form: Form, size) -> torch.Tensor:
        """The outputs [N, O, *size]; size says what output_padding does."""
        raise NotImplementedError


@dataclass(frozen=True)
class Fold(Spread):
    """To an image (a generator's last layer; the gradient by an image of a discriminator's first): `conv_to_image` for stride 2
    and 2 or 4 columns of taps; else one matrix product for all taps, then `fold`.
    """

    channels: int = 4  # of outputs, at most
    taps: int = 64  # at most, times channels: each is written, read and added
    inputs: int = 16  # at least
    pixels: int = 256  # at least, of all images

    name = "fold"
    what = "all taps to few channels at once"

    def serves(self, w, form):
        inputs, outputs, kh, kw = w.shape
        few = outputs <= self.channels and outputs * kh * kw <= self.taps and inputs >= self.inputs
        return few and super().serves(w, form)

    def takes(self, x, w, form):
        return x.shape[0] * x.shape[2] * x.shape[3] >= self.pixels and super().takes(x, w, form)

    def spread(self, x, w, form, size):
        if form.stride == (2, 2) and w.shape[3] in (2, 4) and is_fast("conv_to_image"):
            return torch.ops.fastgan.conv_to_image(x, w, form.padding, size)
        # bmm, as matmul copies x and the product, 4 times the work, where w requires gradients. A transposed w cost 1.6 times.
        taps = torch.bmm(w.flatten(1).t().contiguous().expand(len(x), -1, -1), x.flatten(2))
        return F.fold(taps, size, w.shape[2:], padding=form.padding, stride=form.stride)


@dataclass(frozen=True)
class Rows(Spread):
    """Of images of up to 4x4, with weights in channels_last (a generator's first layer of stride 2): one matrix product for all
    taps ("rows": one per pixel and tap), then `embedding_bag` adds the rows of each output's pixel. 1024 to
    512 channels take 0.17 of torch's time for one image and 0.5 for 16; 512 to 256 0.5 to 0.8; 128 to 64 0.8 to 1.05.
    """

    pixels: int = 16  # of an image, at most
    all_pixels: int = 1024  # of all images, at most
    inputs: int = 256  # at least
    weights: int = 1 << 19  # numbers, at least

    name = "rows"
    what = "a matrix product where its input is 4x4 or smaller"

    def serves(self, w, form):
        large = w.shape[0] >= self.inputs and w.numel() >= self.weights and w.shape[1] > FOLD.channels
        return large and _in_pixels(w) and w.shape[2:] != (1, 1) and super().serves(w, form) and has_turned_product()

    def takes(self, x, w, form):
        pixels = x.shape[2] * x.shape[3]
        small = pixels <= self.pixels and len(x) * pixels <= self.all_pixels
        # Real numbers: the places of rows are remembered.
        return small and type(x) is torch.Tensor and super().takes(x, w, form)

    def spread(self, x, w, form, size):
        pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        taps = w.permute(0, 2, 3, 1).reshape(len(w), -1)
        table = turned_product(pixels, taps.t()).view(-1, w.shape[1])
        rows, begins = _places(len(x), x.shape[2:], w.shape[2:], form.stride, form.padding, tuple(size))
        y = F.embedding_bag(rows, table, begins, mode="sum")
        return y.view(len(x), *size, w.shape[1]).permute(0, 3, 1, 2)


ALGORITHMS = WINOGRAD, COLUMNS, FOLD, ROWS = Winograd(), Columns(), Fold(), Rows()


def serving(w: torch.Tensor, form: Form) -> Algorithm | None:
    """What such a convolution on the CPU may be computed by; None where torch's own is as good. At most one serves."""
    for algorithm in ALGORITHMS:
        if algorithm.serves(w, form):
            return algorithm
    return None


class _Plainly(threading.local):
    on = False  # see `plainly`


_plainly = _Plainly()


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Within, in this thread, convolutions are torch's, and modulated ones share their weight: what a frozen network is recorded
    as."""
    before, _plainly.on = _plainly.on, True
    try:
        yield
    finally:
        _plainly.on = before


def plain() -> bool:
    return _plainly.on


def choose(x: torch.Tensor, w: torch.Tensor, form: Form) -> Algorithm | None:
    """What `convolution(x, w, bias, form)` is computed by; None: by torch."""
    if _plainly.on or x.dtype != torch.float32 or x.device.type != "cpu" or 0 in x.shape or 0 in w.shape:
        return None
    algorithm = serving(w, form)
    return algorithm if algorithm is not None and algorithm.takes(x, w, form) else None


def convolution(x, w, bias, form):
    """aten::convolution(x, w, bias, *form); nothing of it is recorded for autograd."""
    algorithm = choose(x, w, form)
    if algorithm is None:
        return aten.convolution(x, _readable(w, form), bias, *form)
    return algorithm.convolve(_channels_last(x, w), w, bias, form)


def convolution_backward(dy, x, w, form, by_x: bool, by_w: bool):
    """Of aten::convolution: dx or None, dw or None."""
    turned = form._replace(transposed=not form.transposed)
    if by_x and isinstance(algorithm := choose(dy, w, turned), Spread):
        dx = _channels_last(algorithm.spread(dy, w, turned, x.shape[2:]), _channels_last(x, w))
        return dx, convolution_backward(dy, x, w, form, False, True)[1] if by_w else None
    if choose(x, w, form) is WINOGRAD:
        return WINOGRAD.gradients(dy, _channels_last(x, w), w, form, by_x, by_w)
    return aten.convolution_backward(dy, x, _readable(w, form), None, *form, [by_x, by_w, False])[:2]


def _readable(w, form):
    """w in strides that torch reads rightly. On the CPU it misreads those of a transposed weight's sides of 1: with wrong
    numbers where there are groups, with an error in the gradient where not. In float64 its gradient refuses a weight to one
    channel in channels_last."""
    misread = form.transposed and 1 in w.shape
    return w.contiguous() if misread or (w.dtype == torch.float64 and len(w) == 1) else w


@functools.cache
def is_fast(op: str) -> bool:
    # The portable builds take 1.4 to 1.8 times as long as oneDNN (conv3x3) or the fold (conv_to_image), the AVX2 builds 0.6 to 1.
    return _library.availability(op, "cpp").loaded and torch.ops.fastgan.cpu_level("") != "portable"


def transposed_size(x, w, form) -> list[int]:
    parts = zip(x.shape[2:], form.stride, form.padding, w.shape[2:], form.output_padding, strict=True)
    return [(n - 1) * stride - 2 * pad + k + more for n, stride, pad, k, more in parts]


def _in_pixels(x) -> bool:
    return x.stride(1) == 1


def _channels_last(x, if_so):
    return x.contiguous(memory_format=torch.channels_last) if _in_pixels(if_so) else x


def _finished(y, bias, x):
    """y + bias in the layout of x."""
    return _channels_last(y if bias is None else y + bias[:, None, None], x)


@functools.lru_cache(maxsize=64)
def _places(images: int, size, kernel, stride, padding, out):
    """For each pixel of the outputs the rows to add, and where each pixel's begin; row: (image, y, x, ky, kx)."""
    axes = zip(size, kernel, stride, padding, out, strict=True)
    ys, xs = (
        [[(i, o + pad - i * step) for i in range(n) if 0 <= o + pad - i * step < k] for o in range(outputs)]
        for n, k, step, pad, outputs in axes
    )
    bags = [
        [((i * size[1] + j) * kernel[0] + ky) * kernel[1] + kx for i, ky in by_y for j, kx in by_x]
        for by_y in ys
        for by_x in xs
    ]
    with torch.inference_mode(False):
        rows = torch.tensor([row for bag in bags for row in bag], device="cpu")
        counts = torch.tensor([len(bag) for bag in bags], device="cpu").repeat(images)
        of_image = torch.arange(images, device="cpu")[:, None] * (size[0] * size[1] * kernel[0] * kernel[1])
        return (of_image + rows).flatten(), counts.cumsum(0) - counts
