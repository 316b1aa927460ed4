"""What the StyleGAN networks share beyond `fastgan.nn`: the convolution as their checkpoints hold it, the mapping network,
both generators' outside, and the checks of their options."""

from collections.abc import Sequence

import torch
from torch import nn

from fastgan.fields import check
from fastgan.models.network import Network
from fastgan.nn import EqualConv2d, EqualLinear
from fastgan.ops import pixel_norm, setup_filter
from fastgan.ops.bias_act import ACTIVATIONS
from fastgan.sizes import check_levels

RESAMPLE_FILTER = (1, 3, 3, 1)


class Conv2d(EqualConv2d):
    """`fastgan.nn.EqualConv2d` with two habits of the originals' state_dict: the default resampling filter is there even where
    nothing is resampled, and `trainable=False` keeps weight and bias as buffers."""

    def __init__(self, *args, taps: Sequence[float] = RESAMPLE_FILTER, trainable: bool = True, **options):
        super().__init__(*args, taps=taps, **options)
        if self.resample_filter is None:
            self.register_buffer("resample_filter", setup_filter(RESAMPLE_FILTER))
        for name in () if trainable else [name for name, _ in self.named_parameters()]:
            value = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, value)


def activation(act: str, gain: float, clamp: float | None) -> dict:
    """What `bias_act` is told of an activation: its default gain times `gain`; the clamp is scaled by `gain` too."""
    return dict(act=act, gain=ACTIVATIONS[act].gain * gain, clamp=None if clamp is None else clamp * gain)


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
            self.embed = EqualLinear(c_dim, embed_features)
        widths = [z_dim + embed_features, *[hidden] * (num_layers - 1), w_dim]
        for i in range(num_layers):
            options = dict(act=activation, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", EqualLinear(widths[i], widths[i + 1], **options))
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
            mean = w.detach().to(self.w_avg.dtype).mean(0)  # under autocast w has 16 bits
            self.w_avg.copy_(torch.lerp(mean, self.w_avg, self.w_avg_beta))
        if self.num_ws is not None:
            w = w[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return w
        if self.w_avg_beta is None:
            raise ValueError("mapping: truncation_psi needs the running mean of w, which this network does not keep")
        w = w.to(self.w_avg.dtype)
        near = torch.lerp(self.w_avg, w[:, :truncation_cutoff], truncation_psi)
        return near if truncation_cutoff is None else torch.cat([near, w[:, truncation_cutoff:]], 1)


# The mapping network's arguments in the public implementation, and what the configs call them.
MAPPING = {
    "num_layers": "mapping_layers",
    "layer_features": "mapping_features",
    "activation": "mapping_activation",
    "lr_multiplier": "mapping_lr_multiplier",
}


def renamed(options: dict | None, names: dict[str, str]) -> dict:
    """`options` of the public implementation by the names of a config."""
    return {names.get(key, key): value for key, value in (options or {}).items()}


def mapping_options(config) -> dict:
    """Arguments of `Mapping` beside the sizes, as far as the config has them."""
    fields = MAPPING | {name: name for name in ("embed_features", "w_avg_beta")}
    return {name: getattr(config, field) for name, field in fields.items() if hasattr(config, field)}


class StyleGenerator(Network):
    """What both generators are from outside: `mapping` to w, `synthesis` to images, and their sizes."""

    Config: type
    Synthesis: type[nn.Module]

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.z_dim, self.c_dim, self.w_dim = config.z_dim, config.num_classes, config.w_dim
        self.img_resolution, self.img_channels = config.resolution, config.channels
        self.synthesis = self.Synthesis(config)
        self.num_ws = self.synthesis.num_ws
        self.mapping = Mapping(self.z_dim, self.c_dim, self.w_dim, self.num_ws, **mapping_options(config))

    @classmethod
    def from_reference(
        cls, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs=None, **synthesis_kwargs
    ) -> "StyleGenerator":
        """The network of the public implementation's constructor arguments; TypeError for one it does not have."""
        sizes = dict(z_dim=z_dim, num_classes=c_dim, w_dim=w_dim, resolution=img_resolution, channels=img_channels)
        return cls(cls.Config(**sizes, **renamed(mapping_kwargs, MAPPING), **synthesis_kwargs))


def check_styles(family: str, ws: torch.Tensor, num_ws: int, w_dim: int) -> None:
    """ValueError unless ws is [N, num_ws, w_dim]."""
    if ws.dim() != 3 or ws.shape[1:] != (num_ws, w_dim):
        raise ValueError(f"{family}: ws has shape {tuple(ws.shape)}; expected (N, {num_ws}, {w_dim})")


# Largest values of what decides how many loops a constructor makes and how large its filters are.
LIMITS = {
    "channels": 1 << 10,
    "num_classes": 1 << 20,
    "z_dim": 1 << 14,
    "w_dim": 1 << 14,
    "channel_base": 1 << 26,
    "channel_max": 1 << 14,
    "mapping_layers": 1 << 8,
    "num_layers": 1 << 8,
    "kernel_size": 1 << 5,
    "conv_kernel": 1 << 5,
    "filter_size": 1 << 6,
    "lrelu_upsampling": 1 << 4,
}
MAY_BE_ZERO = ("num_classes",)
MAX_RESOLUTION = 1 << 13


def check_sizes(family: str, config, square: str = "") -> None:
    """ValueError unless each field is of its type, the resolution is one of `fastgan.sizes.check_levels`, and the sizes every
    StyleGAN config has are positive and within reason."""
    check(family, config)
    object.__setattr__(config, "resolution", check_levels(family, config.resolution, 4, MAX_RESOLUTION, square))
    for name, largest in LIMITS.items():
        least = 0 if name in MAY_BE_ZERO else 1
        value = getattr(config, name, least)
        if not least <= value <= largest:
            raise ValueError(f"{family}: {name} is {value}, expected {least} to {largest}")
    if not 0 <= config.num_fp16_res <= 32:
        raise ValueError(f"{family}: num_fp16_res is {config.num_fp16_res}, expected 0 to 32")
    for name in ("activation", "mapping_activation", "epilogue_activation"):
        value = getattr(config, name, "linear")
        if value not in ACTIVATIONS:
            raise ValueError(f"{family}: {name} is {value!r}, expected one of {', '.join(ACTIVATIONS)}")
    taps = getattr(config, "resample_filter", RESAMPLE_FILTER)
    if not 1 <= len(taps) <= 64:
        raise ValueError(f"{family}: resample_filter has {len(taps)} taps, expected 1 to 64")


def layout(config, like: torch.Tensor, half: bool) -> dict:
    """What `Tensor.to` is told of a layer's input: the type of `like`, a parameter; of a layer of high resolution (`half`)
    float16 on CUDA alone, or bfloat16 everywhere, then channels last if the config says so. A float64 network stays float64."""
    dtype = like.dtype
    if half and dtype != torch.float64 and (config.precision != "float16" or like.device.type == "cuda"):
        dtype = getattr(torch, config.precision)
    last = config.channels_last and dtype != like.dtype
    return dict(dtype=dtype, memory_format=torch.channels_last) if last else dict(dtype=dtype)
