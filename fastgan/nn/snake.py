"""Snake activations and the anti-aliased activation of BigVGAN as modules; state names are the original's."""

import torch
from torch import nn

from fastgan.ops.filtered_snake import downsample1d, filtered_snake, kaiser_sinc_filter, upsample1d
from fastgan.ops.snake import snake


class Snake(nn.Module):
    """`fastgan.ops.snake` with a trained alpha [in_features].

    Args: in_features: channels; alpha: its first value; alpha_trainable: whether it takes a gradient; alpha_logscale: the
    parameter is a logarithm, and starts at 0 whatever alpha says.
    """

    def __init__(
        self, in_features: int, alpha: float = 1.0, alpha_trainable: bool = True, alpha_logscale: bool = False
    ) -> None:
        super().__init__()
        self.alpha_logscale = alpha_logscale
        self.alpha = nn.Parameter(
            torch.zeros(in_features) if alpha_logscale else torch.full((in_features,), float(alpha)),
            requires_grad=alpha_trainable,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, ...] -> the same shape"""
        return snake(x, self.alpha, None, self.alpha_logscale)

    def extra_repr(self) -> str:
        return f"{self.alpha.numel()}, alpha_logscale={self.alpha_logscale}"


class SnakeBeta(Snake):
    """`fastgan.ops.snake` with a trained alpha (frequency) and beta (inverse amplitude), [in_features] each; as `Snake`."""

    def __init__(
        self, in_features: int, alpha: float = 1.0, alpha_trainable: bool = True, alpha_logscale: bool = False
    ) -> None:
        super().__init__(in_features, alpha, alpha_trainable, alpha_logscale)
        self.beta = nn.Parameter(self.alpha.detach().clone(), requires_grad=alpha_trainable)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, ...] -> the same shape"""
        return snake(x, self.alpha, self.beta, self.alpha_logscale)


class UpSample1d(nn.Module):
    """x [N, C, T] -> [N, C, T ratio] by a Kaiser low-pass of `kernel_size` taps. State: filter [1, 1, taps]."""

    def __init__(self, ratio: int = 2, kernel_size: int | None = None) -> None:
        super().__init__()
        self.ratio = ratio
        self.register_buffer(
            "filter",
            kaiser_sinc_filter(0.5 / ratio, 0.6 / ratio, kernel_size)[None, None].to(torch.get_default_device()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, T] -> [N, C, T ratio]"""
        return upsample1d(x, self.filter.flatten().to(x.dtype), self.ratio)


class LowPassFilter1d(nn.Module):
    """x [N, C, T] -> [N, C, ceil(T / stride)] by a Kaiser low-pass. State: filter [1, 1, taps]."""

    def __init__(
        self, cutoff: float = 0.5, half_width: float = 0.6, stride: int = 1, kernel_size: int | None = 12
    ) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer(
            "filter", kaiser_sinc_filter(cutoff, half_width, kernel_size)[None, None].to(torch.get_default_device())
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, T] -> [N, C, ceil(T / stride)]"""
        return downsample1d(x, self.filter.flatten().to(x.dtype), self.stride)


class DownSample1d(nn.Module):
    """x [N, C, T] -> [N, C, ceil(T / ratio)]. State: lowpass.filter [1, 1, taps]."""

    def __init__(self, ratio: int = 2, kernel_size: int | None = None) -> None:
        super().__init__()
        self.lowpass = LowPassFilter1d(0.5 / ratio, 0.6 / ratio, ratio, kernel_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, T] -> [N, C, ceil(T / ratio)]"""
        return self.lowpass(x)


class Activation1d(nn.Module):
    """An activation between an upsampler and a downsampler; with `Snake` or `SnakeBeta` one `fastgan.ops.filtered_snake`.

    Args: activation: any pointwise module; the others as in `UpSample1d` and `DownSample1d`. State: act.*, upsample.filter,
    downsample.lowpass.filter: those of BigVGAN's module of this name.
    """

    def __init__(
        self,
        activation: nn.Module,
        up_ratio: int = 2,
        down_ratio: int = 2,
        up_kernel_size: int | None = 12,
        down_kernel_size: int | None = 12,
    ) -> None:
        super().__init__()
        self.act = activation
        self.upsample = UpSample1d(up_ratio, up_kernel_size)
        self.downsample = DownSample1d(down_ratio, down_kernel_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, C, T] -> [N, C, ceil(T up_ratio / down_ratio)]"""
        act, lowpass = self.act, self.downsample.lowpass
        if type(act) not in (Snake, SnakeBeta):  # one derived from these has a forward of its own
            return self.downsample(act(self.upsample(x)))
        factors = self.upsample.ratio, lowpass.stride
        beta = getattr(act, "beta", None)
        return filtered_snake(x, act.alpha, beta, self.upsample.filter, lowpass.filter, *factors, act.alpha_logscale)
