"""What the StyleGAN networks share: fully connected and convolution layers with run-time scaled weights, the mapping network.

Weights are stored at unit variance and multiplied by 1/sqrt(fan_in) when used, so that Adam moves every layer at the same
relative speed (Karras et al., 2018, section 4.1).
"""

from collections.abc import Sequence

import torch
from torch import nn

from fastgan.ops import bias_act, conv2d_resample, pixel_norm, setup_filter
from fastgan.ops.bias_act import ACTIVATIONS

RESAMPLE_FILTER = (1, 3, 3, 1)


class FullyConnected(nn.Module):
    """[N, in_features] -> [N, out_features]: act(weight x + bias), both times `lr_multiplier`, weight / sqrt(in_features)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ):
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init))) if bias else None
        self.weight_gain, self.bias_gain = lr_multiplier / in_features**0.5, lr_multiplier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.bias
        if bias is not None and self.bias_gain != 1:
            bias = bias * self.bias_gain
        # Scaling the result instead of the weight is a pass over N rows instead of in_features.
        x = nn.functional.linear(x, self.weight) * self.weight_gain
        return bias_act(x, bias, act=self.activation)


class Conv2d(nn.Module):
    """[N, in_channels, H, W] -> [N, out_channels, H up / down, W up / down]: resampling convolution, bias, activation, clamp.

    An upsampling layer convolves where the others correlate. `trainable=False` keeps weight and bias as buffers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] = RESAMPLE_FILTER,
        conv_clamp: float | None = None,
        trainable: bool = True,
    ):
        super().__init__()
        self.up, self.down, self.activation, self.conv_clamp = up, down, activation, conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = (in_channels * kernel_size**2) ** -0.5
        self.register_buffer("resample_filter", setup_filter(resample_filter))
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        for name, value in (("weight", weight), ("bias", torch.zeros(out_channels) if bias else None)):
            if trainable and value is not None:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        resampling = dict(up=self.up, down=self.down, padding=self.padding, flip_weight=self.up == 1)
        x = conv2d_resample(x, weight, self.resample_filter, **resampling)
        return activate(x, bias, self.activation, gain, self.conv_clamp)


def activate(
    x: torch.Tensor, bias: torch.Tensor | None, activation: str, gain: float, conv_clamp: float | None
) -> torch.Tensor:
    """Bias, activation, its default gain times `gain`; the clamp is scaled by `gain` too."""
    clamp = None if conv_clamp is None else conv_clamp * gain
    return bias_act(x, bias, act=activation, gain=ACTIVATIONS[activation].gain * gain, clamp=clamp)


class Mapping(nn.Module):
    """Latents z (and class vectors c) -> intermediate latents w.

    Args:
        z_dim, c_dim, w_dim: sizes of z, c and w; 0 where there is no z or no c.
        num_ws: copies of w, or None for none.
        num_layers, layer_features, activation, lr_multiplier: of the layers fc0, fc1, ...; hidden width default w_dim.
        embed_features: width of the linear embedding of c; default w_dim.
        w_avg_beta: decay of the running mean of w, the buffer `w_avg` that truncation moves towards; None: no mean.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.998,
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws, self.num_layers, self.w_avg_beta = (
            z_dim,
            c_dim,
            num_ws,
            num_layers,
            w_avg_beta,
        )
        embed_features = embed_features or w_dim if c_dim else 0
        hidden = layer_features or w_dim
        if c_dim:
            self.embed = FullyConnected(c_dim, embed_features)
        widths = [z_dim + embed_features, *[hidden] * (num_layers - 1), w_dim]
        for i in range(num_layers):
            options = dict(activation=activation, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", FullyConnected(widths[i], widths[i + 1], **options))
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> torch.Tensor:
        """z [N, z_dim], c [N, c_dim] -> w [N, num_ws, w_dim], or [N, w_dim] without num_ws.

        w_avg + truncation_psi (w - w_avg) for the first `truncation_cutoff` copies (None: all). `update_emas` moves w_avg
        by this batch first. Raises ValueError for missing or misshaped z or c.
        """
        dtype, inputs = self.fc0.weight.dtype, []
        for name, t, width in (("z", z, self.z_dim), ("c", c, self.c_dim)):
            if width and (t is None or t.dim() != 2 or t.shape[1] != width):
                got = None if t is None else tuple(t.shape)
                raise ValueError(f"mapping: {name} has shape {got}; expected (N, {width})")
        if self.z_dim:
            inputs.append(pixel_norm(z.to(dtype)))
        if self.c_dim:
            inputs.append(pixel_norm(self.embed(c.to(dtype))))
        w = torch.cat(inputs, 1) if len(inputs) > 1 else inputs[0]
        for i in range(self.num_layers):
            w = getattr(self, f"fc{i}")(w)
        if update_emas and self.w_avg_beta is not None:
            self.w_avg.copy_(torch.lerp(w.detach().mean(0), self.w_avg, self.w_avg_beta))
        if self.num_ws is not None:
            w = w[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return w
        if self.w_avg_beta is None:
            raise ValueError("mapping: truncation_psi needs the running mean of w, which this network does not keep")
        near = torch.lerp(self.w_avg, w[:, :truncation_cutoff], truncation_psi)
        return near if truncation_cutoff is None else torch.cat([near, w[:, truncation_cutoff:]], 1)


def check_sizes(family: str, config) -> None:
    """ValueError unless the resolution is a power of two from 8 on and the sizes every StyleGAN config has are positive."""
    r = config.resolution
    if r < 8 or r & (r - 1):
        raise ValueError(f"{family}: resolution is {r}, expected a power of two from 8 on")
    for name in ("channels", "channel_base", "channel_max", "mapping_layers"):
        if getattr(config, name) < 1:
            raise ValueError(f"{family}: {name} is {getattr(config, name)}, expected at least 1")
    if config.precision not in ("float16", "bfloat16"):
        raise ValueError(f"{family}: precision is {config.precision!r}, expected 'float16' or 'bfloat16'")


def half_dtype(config, x: torch.Tensor) -> torch.dtype:
    """The type of the layers of high resolution: float16 on CUDA alone (elsewhere the type of x), bfloat16 everywhere."""
    return x.dtype if config.precision == "float16" and x.device.type != "cuda" else getattr(torch, config.precision)
