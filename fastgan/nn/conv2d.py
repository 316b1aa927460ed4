"""torch's 2-D convolution modules over `fastgan.ops.conv2d`: same arguments, initial values and state_dict."""

import torch
from torch import nn

from fastgan.ops import conv2d, conv_transpose2d


def _check_padding(module: nn.Module) -> None:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise ValueError(
            f"{type(module).__name__}: padding={module.padding!r}, padding_mode={module.padding_mode!r}; expected numbers"
            " and 'zeros' (pad with torch.nn.ReflectionPad2d and the like before it)"
        )


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that honours `fastgan.ops.no_weight_gradients`. Arguments and state: those of torch's.

    Raises: ValueError for a padding given by name, or another padding than zeros.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        _check_padding(self)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, O, H', W']"""
        return conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` that honours `fastgan.ops.no_weight_gradients`. Arguments and state: those of torch's."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, O, H', W']"""
        options = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return conv_transpose2d(input, self.weight, self.bias, *options)
