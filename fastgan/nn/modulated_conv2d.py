"""The style-based convolution as a module over `fastgan.ops.modulated_conv2d`."""

from collections.abc import Sequence

import torch
from torch import nn

from fastgan.nn.equalized import EqualLinear
from fastgan.ops import modulated_conv2d, setup_filter
from fastgan.ops._autocast import autocast


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled per sample by an affine map of a style vector (StyleGAN2's form).

    Args:
        in_channels, out_channels, kernel_size: k, square; the padding is floor(k / 2).
        style_dim: size of the style vectors.
        demodulate: False for the last convolution before an image, whose styles are then divided by sqrt(in_channels k^2).
        up, down: factors of `fastgan.ops.conv2d_resample`; an upsampling layer uses its kernel as a true convolution.
        taps: resampling filter as `setup_filter` takes it.

    state_dict: `weight` [out_channels, in_channels, k, k], `affine.weight`, `affine.bias` (starts at 1), `resample_filter`
    (absent without resampling).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        style_dim: int,
        demodulate: bool = True,
        up: int = 1,
        down: int = 1,
        taps: torch.Tensor | Sequence = (1, 3, 3, 1),
    ) -> None:
        super().__init__()
        self.demodulate, self.up, self.down = demodulate, up, down
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.affine = EqualLinear(style_dim, in_channels, bias_init=1)
        self.register_buffer("resample_filter", setup_filter(taps) if up > 1 or down > 1 else None)

    def forward(self, x: torch.Tensor, style: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """x [N, in_channels, H, W], style [N, style_dim] -> [N, out_channels, H up / down, W up / down], plus noise."""
        styles = self.affine(style)
        if not self.demodulate:
            styles = styles * self.weight[0].numel() ** -0.5
        return modulated_conv2d(
            autocast(x),
            self.weight,
            styles,
            noise,
            self.up,
            self.down,
            self.weight.shape[-1] // 2,
            self.resample_filter,
            self.demodulate,
            flip_weight=self.up == 1,
        )

    def extra_repr(self) -> str:
        out, channels, k, _ = self.weight.shape
        return f"{channels}, {out}, {k}, demodulate={self.demodulate}, up={self.up}, down={self.down}"
