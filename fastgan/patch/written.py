"""What blocks of others write out in their forwards, as one operation: what rewritten forwards (source.py) call."""

import torch
import torch.nn.functional as F
from torch import nn

from fastgan import ops
from fastgan._torch_private import hooks, tracing, transforming
from fastgan.ops._checks import FLOATS
from fastgan.patch.layers import Norm, has_kernel, is_one_filter, norm

DEPTHWISE = {F.conv2d, F.conv_transpose2d}


def modulated(layer, x, scale, shift, first: bool):
    """layer(x) * scale + shift, or scale * layer(x) + shift where the scale comes `first`.

    Of AdaIN (Huang and Belongie 2017): instance norm with a scale and a shift [N, C, 1, 1] of each image. Images and channels
    are then the channels of one image.
    """
    pair = (scale, shift)
    fused = isinstance(layer, Norm) and layer.weight is None and not torch.compiler.is_compiling() and not hooks(layer)
    if fused and layer.way(x) is norm:
        each = (*x.shape[:2], *(1 for _ in x.shape[2:]))
        if x.is_contiguous() and all(type(t) is torch.Tensor and t.shape == each and t.dtype == x.dtype for t in pair):
            images = x.view(1, -1, *x.shape[2:])
            return ops.norm_act(images, scale.reshape(-1), shift.reshape(-1), act="linear", eps=layer.eps).view_as(x)
    y = layer(x)
    return (scale * y if first else y * scale) + shift


def filtered(function, x, weight, *rest, **options):
    """function(x, weight, ...), a convolution in as many groups as channels, where every channel has the same fixed filter."""
    plain = type(x) is torch.Tensor and not rest and not torch.compiler.is_compiling() and function in DEPTHWISE
    f = _filter(x, weight, options) if plain and options["groups"] == len(weight) > 1 else None
    if f is None:
        return function(x, weight, *rest, **options)
    (sy, sx), (py, px) = _two(options.get("stride", 1)), _two(options.get("padding", 0))
    if function is F.conv2d:
        return ops.upfirdn2d(x, f, down=[sx, sy], padding=[px, px, py, py], flip_filter=True)
    (ky, kx), (oy, ox) = f.shape, _two(options.get("output_padding", 0))
    padding = [kx - 1 - px, kx - px - sx + ox, ky - 1 - py, ky - py - sy + oy]
    return ops.upfirdn2d(x, f, up=[sx, sy], padding=padding)


def _filter(x, weight, options: dict) -> torch.Tensor | None:
    """The filter of all channels; None where there is none, or the options are not known."""
    if type(weight) not in (torch.Tensor, nn.Parameter) or weight.requires_grad:
        return None
    if x.dim() != 4 or x.dtype not in FLOATS or x.dtype != weight.dtype or torch.is_autocast_enabled(x.device.type):
        return None
    if transforming() or tracing():
        return None
    plain = options.keys() <= {"groups", "stride", "padding", "output_padding", "bias"} and options.get("bias") is None
    channels = x.shape[1]
    if not plain or weight.shape[:2] != (channels, 1):
        return None
    if isinstance(options.get("padding"), str) or not has_kernel("upfirdn2d", x.device):
        return None
    return weight[0, 0] if is_one_filter(weight) else None


def _two(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))
