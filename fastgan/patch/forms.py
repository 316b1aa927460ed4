"""Convolutions of plain modules in another form of the same numbers: which have one, and the forms themselves."""

import torch
import torch.nn.functional as F
from torch import nn

from fastgan import ops
from fastgan.ops import conv_forms
from fastgan.ops.conv_forms import COLUMNS, Form

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = {
    nn.ConvTranspose1d: F.conv_transpose1d,
    nn.ConvTranspose2d: F.conv_transpose2d,
    nn.ConvTranspose3d: F.conv_transpose3d,
}


def other_form(module: nn.Module) -> str:
    """How a convolution is computed on the CPU (a transposed one without gradients); "" for as ever."""
    transposed = type(module) is nn.ConvTranspose2d
    if not transposed and type(module) is not nn.Conv2d:
        return ""
    if transposed and _over_one_pixel(module):
        return "a matrix product where its input is 1x1"
    ours = module.weight.dtype == torch.float32 and module.weight.device.type == "cpu"
    if not ours or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return ""
    other = conv_forms.serving(module.weight, _form(module))
    # 4x4 without padding is the last layer of a discriminator, over all of a 4x4 input: "columns" does not take it, and
    # to ask that at each call costs the network 3% of its time for one image.
    over_all = other is COLUMNS and module.kernel_size == (4, 4) and module.padding == (0, 0)
    return "" if other is None or over_all else other.what


def run(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """module(x), in its other form where x allows it."""
    transposed = type(module) is nn.ConvTranspose2d
    if (transposed and recorded(module, x)) or torch.compiler.is_compiling():
        return module(x)
    if (
        x.dim() != 4
        or x.device.type != "cpu"
        or conv_forms.plain()
        or torch.is_autocast_enabled("cpu")
        or not other_form(module)
    ):
        return module(x)
    if not transposed or not _over_one_pixel(module):
        return _convolution(module, x, module.bias) if _takes_other_form(module, x) else module(x)
    weight, bias, (ky, kx) = module.weight, module.bias, module.kernel_size
    if x.shape[2:] != (1, 1) or not weight.is_contiguous():
        return module(x)
    bias = None if bias is None else bias.repeat_interleave(ky * kx)
    return F.linear(x.flatten(1), weight.flatten(1).t(), bias).view(-1, module.out_channels, ky, kx)


def _over_one_pixel(module: nn.ConvTranspose2d) -> bool:
    """Whether it may be a generator's first layer, over a 1x1 input."""
    plain = module.groups == 1 and module.dilation == (1, 1)
    return plain and module.padding == (0, 0) and module.output_padding == (0, 0)


def recorded(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether autograd records module(x)."""
    own = module.parameters() if module._modules else module._parameters.values()  # the former takes 10 us
    return torch.is_grad_enabled() and (x.requires_grad or any(p is not None and p.requires_grad for p in own))


def without_bias(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a linear layer or a convolution adds its bias to."""
    if type(module) is nn.Linear:
        return F.linear(x, module.weight)
    if type(module) is nn.Conv2d and other_form(module) and _takes_other_form(module, x):
        return _convolution(module, x, None)
    if type(module) in CONVOLUTIONS:
        return module._conv_forward(x, module.weight, None)
    options = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
    return TRANSPOSED[type(module)](x, module.weight, None, *options)


def _form(module: nn.Conv2d | nn.ConvTranspose2d) -> Form:
    transposed = type(module) is nn.ConvTranspose2d
    return Form(module.stride, module.padding, module.dilation, transposed, module.output_padding, module.groups)


def _takes_other_form(module: nn.Conv2d | nn.ConvTranspose2d, x: torch.Tensor) -> bool:
    fits = x.dim() == 4 and x.shape[1] == module.in_channels and x.dtype == module.weight.dtype
    return fits and conv_forms.choose(x, module.weight, _form(module)) is not None


def _convolution(module, x, bias):
    form = _form(module)
    if form.transposed:
        options = (form.stride, form.padding, form.output_padding, form.groups, form.dilation)
        return ops.conv_transpose2d(x, module.weight, bias, *options)
    return ops.conv2d(x, module.weight, bias, form.stride, form.padding, form.dilation, form.groups)
