"""Convolutions on the CPU with weights that stay, for networks that are served (fastgan/patch/frozen). No gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastgan.ops import _library
from fastgan.ops.conv3x3_packed import sloped

PANEL = 16  # outputs that lie side by side in a packed weight


def pack(weight: torch.Tensor, stride, padding, groups: int, transposed: bool) -> torch.Tensor:
    """The numbers of a weight [O, I / groups, kh, kw], transposed [I, O / groups, kh, kw], in the order in which `conv_packed`
    uses them: of each plain convolution that it is made of, [groups][panel of outputs][tap][input][PANEL]."""
    if not transposed:
        return _pack(weight.unflatten(0, (groups, -1)))
    by_group = weight.unflatten(0, (groups, -1)).transpose(1, 2)
    parts = []
    for a in range(stride[0]):
        for b in range(stride[1]):
            taps = by_group[..., (a + padding[0]) % stride[0] :: stride[0], (b + padding[1]) % stride[1] :: stride[1]]
            parts.append(_pack(taps.flip(-2, -1)))
    return torch.cat(parts)


def _pack(weight: torch.Tensor) -> torch.Tensor:
    """[groups, O, I, kh, kw], in that order."""
    weight = F.pad(weight, (0, 0) * 3 + (0, -weight.shape[1] % PANEL))
    return weight.unflatten(1, (-1, PANEL)).permute(0, 1, 4, 5, 3, 2).flatten()


def _unpacked(weight, outputs, inputs, kernel, stride, padding, groups, transposed):
    """The weight that was packed."""
    if not transposed:
        stride = (1, 1)
    wide = outputs + -outputs % PANEL
    full, at = weight.new_zeros(groups, outputs, inputs, *kernel), 0
    for a in range(stride[0]):
        for b in range(stride[1]):
            first = [(i + p) % s if transposed else 0 for i, p, s in zip((a, b), padding, stride, strict=True)]
            part = full[..., first[0] :: stride[0], first[1] :: stride[1]]
            count = groups * wide * inputs * part.shape[-2] * part.shape[-1]
            found = weight[at : at + count].view(groups, wide // PANEL, *part.shape[-2:], inputs, PANEL)
            found = found.permute(0, 1, 5, 4, 2, 3).flatten(1, 2)[:, :outputs]
            part.copy_(found.flip(-2, -1) if transposed else found)
            at += count
    return full.transpose(1, 2).flatten(0, 1) if transposed else full.flatten(0, 1)


def _convolve(y, x, weight, bias, slope, other, groups, kernel, stride, padding, dilation, transposed):
    sizes = y.shape[1] // groups, x.shape[1] // groups
    full = _unpacked(weight, *sizes, kernel, stride, padding, groups, transposed)
    more = [0, 0]
    if transposed:
        least = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(x.shape[2:], stride, padding, kernel, strict=True)]
        more = [size - n for size, n in zip(y.shape[2:], least, strict=True)]
    z = torch.ops.aten.convolution(x, full, bias, stride, padding, dilation, transposed, more, groups)
    return y.copy_(sloped(z if other is None else z + other, slope))


# y = act(convolution of x + bias + other); act: `sloped`. y, x and other [N, C, H, W] have the channels
# of a pixel side by side; they may be channels of wider images. weight: `pack` of it.
_library.define(
    "conv_packed(Tensor(a!) y, Tensor x, Tensor weight, Tensor bias, Tensor slope, Tensor? other, int groups, int[] kernel, "
    "int[] stride, int[] padding, int[] dilation, bool transposed) -> Tensor(a!)",
    reference=_convolve,
    fake=lambda y, *_: y,
    kernels=("cpp",),
)
