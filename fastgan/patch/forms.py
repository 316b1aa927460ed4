"""Convolutions of plain modules in another form of the same numbers: which have one, and the forms themselves."""

import torch
import torch.nn.functional as F
from torch import nn

from fastgan import ops
from fastgan.ops import conv_forms
from fastgan.ops.conv2d import Form

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = {
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}

# Of a transposed convolution: up to here its convolution form wins (64 -> 3 at 32x32, batch 8: 1.7x).
IMAGE_CHANNELS = 4
OTHER_FORMS = {"": "", "conv3x3": "3x3 by Winograd's algorithm", "columns": "column by column"}


def other_form(module: nn.Module) -> str:
    """How a convolution is computed on the CPU (a transposed one without gradients); "" for as ever."""
    if type(module) is nn.Conv2d:
        ours = module.weight.dtype == torch.float32 and module.weight.device.type == "cpu"
        if not ours or module.padding_mode != "zeros" or isinstance(module.padding, str):
            return ""
        other = conv_forms.other_form(module.weight, _form(module))
        # 4x4 without padding is the last layer of a discriminator, over all of a 4x4 input: "columns" does not take it, and
        # to ask that at each call costs the network 3% of its time for one image.
        over_all = other == "columns" and module.kernel_size == (4, 4) and module.padding == (0, 0)
        return "" if over_all else OTHER_FORMS[other]
    if type(module) is not nn.ConvTranspose2d or module.groups > 1 or tuple(module.dilation) != (1, 1):
        return ""
    (sy, sx), (ky, kx) = module.stride, module.kernel_size
    if module.padding == (0, 0) and module.output_padding == (0, 0):
        return "a matrix product where its input is 1x1"
    whole = sy == sx > 1 and ky == kx and ky % sy == 0 and max(module.output_padding) <= min(module.padding)
    return "a convolution and a pixel shuffle" if whole and module.out_channels <= IMAGE_CHANNELS else ""


def run(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """module(x), in its other form where x allows it."""
    convolution = type(module) is nn.Conv2d
    if (not convolution and recorded(module, x)) or torch.compiler.is_compiling():
        return module(x)
    if x.dim() != 4 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not other_form(module):
        return module(x)
    if convolution:
        return _conv2d(module, x, module.bias) if _takes_other_form(module, x) else module(x)
    weight, bias = module.weight, module.bias
    outputs, (ky, kx) = module.out_channels, module.kernel_size
    if module.padding == (0, 0):
        if x.shape[2:] != (1, 1) or not weight.is_contiguous():
            return module(x)
        bias = None if bias is None else bias.repeat_interleave(ky * kx)
        return F.linear(x.flatten(1), weight.flatten(1).t(), bias).view(-1, outputs, ky, kx)
    # With k = s q + r, the full result y[s m + r] = sum_q w[s q + r] x[m - q]: a convolution per r, shuffled, then cropped.
    (s, _), (py, px), (oy, ox) = module.stride, module.padding, module.output_padding
    q = ky // s
    weight = (
        weight.view(-1, outputs, q, s, q, s).flip(2, 4).permute(1, 3, 5, 0, 2, 4).reshape(outputs * s * s, -1, q, q)
    )
    bias = None if bias is None else bias.repeat_interleave(s * s)
    y = F.pixel_shuffle(F.conv2d(x, weight, bias, padding=q - 1), s)
    return y[:, :, py : y.shape[2] - py + oy, px : y.shape[3] - px + ox].contiguous()


def recorded(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether autograd records module(x)."""
    own = module.parameters() if module._modules else module._parameters.values()  # the former takes 10 us
    return torch.is_grad_enabled() and (x.requires_grad or any(p is not None and p.requires_grad for p in own))


def without_bias(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a linear layer or a convolution adds its bias to."""
    if type(module) is nn.Linear:
        return F.linear(x, module.weight)
    if type(module) is nn.Conv2d and other_form(module) and _takes_other_form(module, x):
        return _conv2d(module, x, None)
    if type(module) in CONVOLUTIONS:
        return module._conv_forward(x, module.weight, None)
    options = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
    return TRANSPOSED[type(module)](x, module.weight, None, *options)


def _form(module: nn.Conv2d) -> Form:
    return Form(module.stride, module.padding, module.dilation, False, (0, 0), module.groups)


def _takes_other_form(module: nn.Conv2d, x: torch.Tensor) -> bool:
    fits = x.dim() == 4 and x.shape[1] == module.in_channels and x.dtype == module.weight.dtype
    return fits and conv_forms.form_of(x, module.weight, _form(module)) != ""


def _conv2d(module, x, bias):
    return ops.conv2d(x, module.weight, bias, module.stride, module.padding, module.dilation, module.groups)
