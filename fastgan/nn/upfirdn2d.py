"""FIR filtering, upsampling and downsampling as modules; the filter is a buffer named `filter`."""

from collections.abc import Sequence

import torch
from torch import nn

from fastgan.ops.resample import downsample2d, filter2d, setup_filter, upsample2d
from fastgan.ops.upfirdn2d import upfirdn2d


class UpFirDn2d(nn.Module):
    """`fastgan.ops.upfirdn2d` with a fixed filter.

    Args: f: filter of `setup_filter`, or None; the others as in `fastgan.ops.upfirdn2d`. State: filter.
    """

    def __init__(
        self,
        f: torch.Tensor | None,
        up: int | Sequence[int] = 1,
        down: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        flip_filter: bool = False,
        gain: float = 1,
    ) -> None:
        super().__init__()
        self.register_buffer("filter", f)
        self.up, self.down, self.padding, self.flip_filter, self.gain = up, down, padding, flip_filter, gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, H, W] -> [N, C, H_out, W_out]"""
        return upfirdn2d(x, self.filter, self.up, self.down, self.padding, self.flip_filter, self.gain)

    def extra_repr(self) -> str:
        return f"up={self.up}, down={self.down}, padding={self.padding}, gain={self.gain}"


class Blur(nn.Module):
    """Low-pass filter of the same size: [N, C, H, W] -> [N, C, H, W], larger by `padding` samples per side.

    Args: taps: filter as `setup_filter` takes it, normalised to sum 1; padding: see `fastgan.ops.filter2d`.
    State: filter.
    """

    def __init__(self, taps: torch.Tensor | Sequence = (1, 3, 3, 1), padding: int | Sequence[int] = 0) -> None:
        super().__init__()
        self.register_buffer("filter", setup_filter(taps))
        self.padding = padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return filter2d(x, self.filter, self.padding)

    def extra_repr(self) -> str:
        return f"padding={self.padding}"


class Upsample(nn.Module):
    """[N, C, H, W] -> [N, C, factor H, factor W], filtered; a constant image keeps its value away from the borders.

    Args: taps: filter as `setup_filter` takes it, normalised to sum 1; factor: one number, or [x, y]. State: filter.
    """

    def __init__(self, taps: torch.Tensor | Sequence = (1, 3, 3, 1), factor: int | Sequence[int] = 2) -> None:
        super().__init__()
        self.register_buffer("filter", setup_filter(taps))
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return upsample2d(x, self.filter, self.factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class Downsample(nn.Module):
    """[N, C, H, W] -> [N, C, H / factor, W / factor]: filtered, then every factor-th sample.

    Args: taps: filter as `setup_filter` takes it, normalised to sum 1; factor: one number, or [x, y]. State: filter.
    """

    def __init__(self, taps: torch.Tensor | Sequence = (1, 3, 3, 1), factor: int | Sequence[int] = 2) -> None:
        super().__init__()
        self.register_buffer("filter", setup_filter(taps))
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return downsample2d(x, self.filter, self.factor)

    def extra_repr(self) -> str:
        return f"factor={self.factor}"
