"""Which form a convolution on the CPU is computed in: torch's, or a faster one of the same numbers to rounding.

- 3x3, stride 1, many channels: `conv3x3`, 16 products where torch takes 36.
- Few outputs of a wide kernel (the last layer, 7x7 to 3 channels): torch's kernels fill their vectors with outputs. So each
  column of taps makes outputs of its own, kw O of them by kernels [kh, 1], which are then summed along the diagonal.
- Transposed, with a stride, to an image (a generator's last layer; the gradient by an image of a discriminator's first):
  `conv_to_image` for stride 2 and 2 or 4 columns of taps; else one matrix product for all taps, then `fold` adds each where it
  belongs.
- Transposed, with a stride and channels_last weights, of images of up to 4x4 (a generator's first layer of stride 2): one
  matrix product for all taps ("rows": one per pixel and tap), then `embedding_bag` adds the rows of each output's pixel.

Float32 alone, and not within torch.compile. Measured: bench/bench_conv3x3.py.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from fastgan.ops import _library, conv3x3, conv_to_image  # noqa: F401 - these define torch.ops.fastgan.*

aten = torch.ops.aten

CHANNELS, PIXELS = 64, 256  # at least: fewer do not repay conv3x3's transforms
WEIGHT_CHANNELS = 128  # at least, for its gradient by weight: 64 took up to 1.25 times as long as torch
FEW = 32  # outputs at most, taps of a row times outputs: as many as two vectors hold
IMAGE_CHANNELS, TAPS = 4, 64  # at most, to fold: channels, and taps times channels; each is written, read and added
# For rows: pixels of an image and of all images at most, inputs and numbers of the weight at least. On two Zen 5 cores
# 1024 to 512 channels take 0.17 of torch's time for one image and 0.5 for 16; 512 to 256 0.5 to 0.8; 128 to 64 0.8 to 1.05.
SMALL_IMAGE, ALL_IMAGES, ROW_INPUTS, ROW_WEIGHTS = 16, 1024, 256, 1 << 19


@functools.cache
def is_fast(op: str) -> bool:
    # The portable builds take 1.4 to 1.8 times as long as oneDNN (conv3x3) or the fold (conv_to_image), the AVX2 builds 0.6 to 1.
    return _library.availability(op, "cpp").loaded and torch.ops.fastgan.cpu_level("") != "portable"


LINEAR = (None, "none", [], "")  # no bias, nothing after it


@functools.cache
def _has_linear() -> bool:
    """Whether torch's oneDNN multiplies by a matrix that lies turned in memory: torch.mm (MKL) takes 2.1 times as long on AMD's
    processors. What the compiler calls for nn.Linear is the one way to it, and no public one: so it is tried first."""
    x, w = torch.ones(1, 2, device="cpu"), torch.ones(2, 3, device="cpu")
    try:
        return torch.ops.mkldnn._linear_pointwise(x, w.t(), *LINEAR).sum().item() == 6
    except (AttributeError, RuntimeError, TypeError):
        return False


def _plain_stride(form) -> bool:
    return (form.stride, form.dilation, form.output_padding, form.groups) == ((1, 1), (1, 1), (0, 0), 1)


def other_form(w, form) -> str:
    """What such a convolution on the CPU may be computed by instead; "" where torch's form is as good."""
    outputs, inputs, kh, kw = w.shape
    if form.transposed and min(form.stride) > 1 and form.dilation == (1, 1) and form.groups == 1:
        if inputs <= IMAGE_CHANNELS:
            return "fold" if inputs * kh * kw <= TAPS and outputs >= 16 else ""
        # Of a transposed convolution w is [inputs, outputs, kh, kw].
        large = outputs >= ROW_INPUTS and w.numel() >= ROW_WEIGHTS
        return "rows" if large and _in_pixels(w) and kh * kw > 1 and _has_linear() else ""
    if not _plain_stride(form):
        return ""
    if (kh, kw) == (3, 3) and form.padding[0] == form.padding[1] <= 2 and min(outputs, inputs) >= CHANNELS:
        return "conv3x3" if is_fast("conv3x3") else ""
    return "columns" if not form.transposed and kw >= 4 and outputs * kw <= FEW and inputs >= 16 else ""


def form_of(x, w, form) -> str:
    """What `convolution(x, w, bias, form)` is computed by: "conv3x3", "columns", or "" for torch's form."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or 0 in x.shape or 0 in w.shape:
        return ""
    other = other_form(w, form)
    if other in ("fold", "rows") and min(_transposed_size(x, w, form)) < 1:
        return ""
    n, _, height, width = x.shape
    if other == "columns":
        # On narrow images most columns are of no output: a discriminator's last layer, 4x4 to 1x1, took 0.4 ms longer.
        return other if width + 2 * form.padding[1] >= 2 * w.shape[3] else ""
    if other == "rows":
        small = height * width <= SMALL_IMAGE and n * height * width <= ALL_IMAGES
        return other if small and type(x) is torch.Tensor else ""  # real numbers: the places of rows are remembered
    return other if n * height * width >= PIXELS and (other == "fold" or min(height, width) >= 4) else ""


def _transposed_size(x, w, form) -> list[int]:
    parts = zip(x.shape[2:], form.stride, form.padding, w.shape[2:], form.output_padding, strict=True)
    return [(n - 1) * stride - 2 * pad + k + more for n, stride, pad, k, more in parts]


def _in_pixels(x) -> bool:
    return x.stride(1) == 1


def _channels_last(x, if_so):
    return x.contiguous(memory_format=torch.channels_last) if _in_pixels(if_so) else x


def _fold(x, w, form, size):
    """The transposed convolution [N, C, *size] of x [N, O, h, w'] with w [O, C, kh, kw], C <= IMAGE_CHANNELS."""
    if form.stride == (2, 2) and w.shape[3] in (2, 4) and is_fast("conv_to_image"):
        return torch.ops.fastgan.conv_to_image(x, w, form.padding, size)
    # bmm, as matmul copies x and the product, 4 times the work, where w requires gradients. A transposed w cost 1.6 times.
    taps = torch.bmm(w.flatten(1).t().contiguous().expand(len(x), -1, -1), x.flatten(2))
    return F.fold(taps, size, w.shape[2:], padding=form.padding, stride=form.stride)


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


def _rows(x, w, form, size):
    """The transposed convolution [N, O, *size] of x [N, C, h, w'] with w [C, O, kh, kw], both channels_last."""
    pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    taps = w.permute(0, 2, 3, 1).reshape(len(w), -1)
    table = torch.ops.mkldnn._linear_pointwise(pixels, taps.t(), *LINEAR).view(-1, w.shape[1])
    rows, begins = _places(len(x), x.shape[2:], w.shape[2:], form.stride, form.padding, tuple(size))
    y = F.embedding_bag(rows, table, begins, mode="sum")
    return y.view(len(x), *size, w.shape[1]).permute(0, 3, 1, 2)


def _columns(x, w, form):
    outputs, inputs, kh, kw = w.shape
    columns = w.permute(0, 3, 1, 2).reshape(outputs * kw, inputs, kh, 1)
    # Padded afterwards: torch passes over the padding around an image, whatever the weight (0 times infinity is NaN).
    rows = form._replace(padding=(form.padding[0], 0))
    z = aten.convolution(x, columns, None, *rows).contiguous()
    z = F.pad(z, [form.padding[1]] * 2) if form.padding[1] else z
    n, _, height, width = z.shape
    size = (n, outputs, height, width - kw + 1, kw)
    return z.as_strided(size, (z.stride(0), kw * height * width, width, 1, height * width + 1)).sum(-1)


def convolution(x, w, bias, form):
    """aten::convolution(x, w, bias, *form); nothing of it is recorded for autograd."""
    taken = form_of(x, w, form)
    if not taken:
        return aten.convolution(x, w, bias, *form)
    x = _channels_last(x, w)
    if taken == "conv3x3":
        return torch.ops.fastgan.conv3x3(x, w, bias, form.padding[0], form.transposed)
    if taken == "columns":
        y = _columns(x, w, form)
    else:
        y = (_fold if taken == "fold" else _rows)(x, w, form, _transposed_size(x, w, form))
    return _channels_last(y if bias is None else y + bias[:, None, None], x)


def convolution_backward(dy, x, w, form, by_x: bool, by_w: bool):
    """Of aten::convolution: dx or None, dw or None."""
    turned = form._replace(transposed=not form.transposed)
    if by_x and (taken := form_of(dy, w, turned)) in ("fold", "rows"):
        dx = _channels_last((_fold if taken == "fold" else _rows)(dy, w, turned, x.shape[2:]), _channels_last(x, w))
        return dx, convolution_backward(dy, x, w, form, False, True)[1] if by_w else None
    if form_of(x, w, form) != "conv3x3":
        return aten.convolution_backward(dy, x, w, None, *form, [by_x, by_w, False])[:2]
    x = _channels_last(x, w)
    dy = _channels_last(dy, x)
    dx = dw = None
    if by_x:
        dx = torch.ops.fastgan.conv3x3(dy, w, None, form.padding[0], not form.transposed)
    if by_w and min(w.shape[:2]) < WEIGHT_CHANNELS:
        dw = aten.convolution_backward(dy, x, w, None, *form, [False, True, False])[1]
    elif by_w:
        dw = torch.ops.fastgan.conv3x3_weight(*((x, dy) if form.transposed else (dy, x)), form.padding[0])
    return dx, dw
