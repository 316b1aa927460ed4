"""torch's 2-D convolution modules over `fastgan.ops.conv2d`: same arguments, initial values and state_dict."""

from collections.abc import Sequence

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

    def forward(self, input: torch.Tensor, output_size: Sequence[int] | None = None) -> torch.Tensor:
        """[N, C, H, W] -> [N, O, H', W'], of `output_size` where it is given, [H', W'] or [N, O, H', W'].

        Raises: ValueError for a size that none of the stride's `output_padding` reaches.
        """
        more = self.output_padding if output_size is None else self._padding_to(output_size, input)
        options = (self.stride, self.padding, more, self.groups, self.dilation)
        return conv_transpose2d(input, self.weight, self.bias, *options)

    def _padding_to(self, size: Sequence[int], input: torch.Tensor) -> list[int]:
        """The output_padding that makes outputs of this size; the module's own does not count, as in torch's."""
        form = zip(input.shape[-2:], self.stride, self.padding, self.kernel_size, self.dilation, strict=True)
        least = [(n - 1) * stride - 2 * padding + dilation * (k - 1) + 1 for n, stride, padding, k, dilation in form]
        asked = list(size)[2:] if len(size) == 4 else list(size)
        if len(asked) != 2 or not all(n <= m < n + s for m, n, s in zip(asked, least, self.stride, strict=True)):
            most = [n + s - 1 for n, s in zip(least, self.stride, strict=True)]
            raise ValueError(
                f"ConvTranspose2d: output_size={tuple(size)} for an input {tuple(input.shape)}; expected [H, W] from {least}"
                f" to {most}"
            )
        return [m - n for m, n in zip(asked, least, strict=True)]
