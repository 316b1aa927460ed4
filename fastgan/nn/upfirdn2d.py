"""FIR filtering, upsampling and downsampling as modules; the filter is a buffer named `filter`."""

from collections.abc import Callable, Sequence

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


class _Filter(nn.Module):
    """`op(x, filter, setting)`, the setting kept as the attribute that the class names."""

    op: Callable
    setting: str

    def __init__(self, taps: torch.Tensor | Sequence, value: int | Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("filter", setup_filter(taps))
        setattr(self, self.setting, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x, self.filter, getattr(self, self.setting))

    def extra_repr(self) -> str:
        return f"{self.setting}={getattr(self, self.setting)}"


class Blur(_Filter):
    """Low-pass filter of the same size: [N, C, H, W] -> [N, C, H, W], larger by `padding` samples per side.

    Args: taps: filter as `setup_filter` takes it, normalised to sum 1; padding: see `fastgan.ops.filter2d`.
    State: filter.
    """

    op, setting = staticmethod(filter2d), "padding"

    def __init__(self, taps: torch.Tensor | Sequence = (1, 3, 3, 1), padding: int | Sequence[int] = 0) -> None:
        super().__init__(taps, padding)


class Upsample(_Filter):
    """[N, C, H, W] -> [N, C, factor H, factor W], filtered; a constant image keeps its value away from the borders.

    Args: taps: filter as `setup_filter` takes it, normalised to sum 1; factor: one number, or [x, y]. State: filter.
    """

    op, setting = staticmethod(upsample2d), "factor"

    def __init__(self, taps: torch.Tensor | Sequence = (1, 3, 3, 1), factor: int | Sequence[int] = 2) -> None:
        super().__init__(taps, factor)


class Downsample(_Filter):
    """[N, C, H, W] -> [N, C, H / factor, W / factor]: filtered, then every factor-th sample.

    Args: taps: filter as `setup_filter` takes it, normalised to sum 1; factor: one number, or [x, y]. State: filter.
    """

    op, setting = staticmethod(downsample2d), "factor"

    def __init__(self, taps: torch.Tensor | Sequence = (1, 3, 3, 1), factor: int | Sequence[int] = 2) -> None:
        super().__init__(taps, factor)
