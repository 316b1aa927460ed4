"""CycleGAN's networks (Zhu et al., 2017, section 4 and appendix 7.2): ResNet generator, PatchGAN and pixel discriminators.

Names in the state_dict are those of the widely used sequential layout, `model.<index>...`, so that checkpoints published in
it load as they are:

    ResNet-9, norm "instance":  model.1 (7x7), model.4, model.7 (stride 2), model.10 ... model.18 (conv_block.1, conv_block.5),
                                model.19, model.22 (transposed), model.26 (7x7)
    PatchGAN, 3 layers:         model.0, model.2, model.5, model.8, model.11;   pixel: net.0, net.2, net.5

Normalisation, activation and residual addition run as one op (`norm_act`), at the index of the normalisation; the index of the
activation stays empty. Convolutions before a normalisation without parameters keep their bias, as the originals do, although it
cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fastgan import ops
from fastgan._torch_private import eager, transforming
from fastgan.fields import at_least
from fastgan.models.network import Network
from fastgan.nn import Conv2d, ConvTranspose2d

Norm = Literal["instance", "batch", "none"]


class _Reflect(torch.autograd.Function):
    """Reflection padding that keeps its input's shape for the backward pass, where torch's keeps the input."""

    @staticmethod
    def forward(ctx, x, padding):
        ctx.shape, ctx.padding = x.shape, padding
        return torch.ops.aten.reflection_pad2d(x, padding)

    @staticmethod
    def backward(ctx, dy):
        if transforming():  # a graph recorded before it, differentiated inside: vmap over autograd.grad
            return torch.ops.aten.reflection_pad2d_backward(dy, dy.new_empty(ctx.shape), ctx.padding), None
        return _Unreflect.apply(dy, ctx.shape, ctx.padding), None


class _Unreflect(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dy, shape, padding):
        ctx.padding = padding
        last = dy.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        input = torch.empty(shape, dtype=dy.dtype, device=dy.device, memory_format=layout)  # never read
        return torch.ops.aten.reflection_pad2d_backward(dy, input, padding)

    @staticmethod
    def backward(ctx, v):
        return _Reflect.apply(v, ctx.padding), None, None


class ReflectionPad2d(nn.ReflectionPad2d):
    """torch's, without what its graph keeps alive: 6% of the memory of a CycleGAN step."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        recorded = torch.is_grad_enabled() and x.requires_grad and x.dim() == 4
        return _Reflect.apply(x, self.padding) if recorded and eager() else super().forward(x)


class InstanceAct(nn.Module):
    """Instance normalisation without parameters, activation, and the residual added after it."""

    def __init__(self, channels: int, act: str = "relu"):
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        return ops.norm_act(x, residual=residual, act=self.act)

    def _load_from_state_dict(self, state, prefix, *rest):
        # Some published checkpoints carry running statistics, which instance normalisation never used.
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            state.pop(prefix + name, None)
        super()._load_from_state_dict(state, prefix, *rest)


class BatchAct(nn.BatchNorm2d):
    """Batch normalisation, activation, residual."""

    def __init__(self, channels: int, act: str = "relu"):
        super().__init__(channels)
        self.act = act

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        y = ops.bias_act(super().forward(x), act=self.act, gain=1)
        return y if residual is None else y + residual


class Act(nn.Module):
    """An activation where there is no normalisation."""

    def __init__(self, channels: int = 0, act: str = "relu"):
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        y = ops.bias_act(x, act=self.act, gain=1)
        return y if residual is None else y + residual


NORMS = {"instance": InstanceAct, "batch": BatchAct, "none": Act}


def initialise(network: nn.Module) -> None:
    """Weights N(0, 0.02), biases 0, scales of batch normalisation N(1, 0.02) (appendix 7.2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


def in_pixels(images: torch.Tensor) -> torch.Tensor:
    """Channels last on the CPU, and so every layer's output: its convolutions reorder nothing (transposed ones run up to
    twice as fast)."""
    there = images.device.type == "cpu" and not transforming()  # vmap knows no memory formats
    return images.contiguous(memory_format=torch.channels_last) if there else images


def check_norm(name: str, norm: str) -> None:
    """ValueError for a normalisation that is none of NORMS."""
    if norm not in NORMS:
        raise ValueError(f"{name}: norm={norm!r}, expected one of {', '.join(NORMS)}")


@dataclass
class GeneratorConfig:
    """The ResNet generator: 6 blocks for images up to 128 pixels, 9 from 256 on, in the paper."""

    in_channels: int = 3
    out_channels: int = 3
    width: int = 64
    blocks: int = 9
    norm: Norm = "instance"
    dropout: bool = False

    def __post_init__(self):
        at_least("cyclegan.generator", self, in_channels=1, out_channels=1, width=1, blocks=0)
        check_norm("cyclegan.generator", self.norm)


class ResnetBlock(nn.Module):
    def __init__(self, channels: int, norm: Norm, dropout: bool):
        super().__init__()
        bias, activation = norm != "batch", NORMS[norm]
        self.conv_block = nn.Sequential(
            ReflectionPad2d(1),
            Conv2d(channels, channels, 3, bias=bias),
            activation(channels),
            nn.Identity(),
            *([nn.Dropout(0.5)] if dropout else []),
            ReflectionPad2d(1),
            Conv2d(channels, channels, 3, bias=bias),
            activation(channels, "linear"),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *body, last = self.conv_block
        y = x
        for layer in body:
            y = layer(y)
        return last(y, x)


class Generator(Network):
    """images [N, in_channels, H, W] in [-1, 1], H and W multiples of 4 and at least 16 -> [N, out_channels, H, W]."""

    Config = GeneratorConfig
    multiple, least = 4, 16  # of heights and widths

    def __init__(self, config: GeneratorConfig | None = None):
        super().__init__()
        self.config = config = config or GeneratorConfig()
        w, bias, activation = config.width, config.norm != "batch", NORMS[config.norm]
        layers = [ReflectionPad2d(3), Conv2d(config.in_channels, w, 7, bias=bias), activation(w), nn.Identity()]
        for inputs in (w, 2 * w):
            outputs = 2 * inputs
            layers += [Conv2d(inputs, outputs, 3, 2, 1, bias=bias), activation(outputs), nn.Identity()]
        layers += [ResnetBlock(4 * w, config.norm, config.dropout) for _ in range(config.blocks)]
        for inputs in (4 * w, 2 * w):
            up = ConvTranspose2d(inputs, inputs // 2, 3, 2, 1, output_padding=1, bias=bias)
            layers += [up, activation(inputs // 2), nn.Identity()]
        layers += [ReflectionPad2d(3), Conv2d(w, config.out_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        initialise(self)

    @classmethod
    def from_reference(
        cls,
        input_nc: int,
        output_nc: int,
        ngf: int = 64,
        norm: Norm = "instance",
        use_dropout: bool = False,
        n_blocks: int = 9,
    ) -> Generator:
        """The network of these options of the original's ResnetGenerator; `norm` is its option --norm."""
        return cls(GeneratorConfig(input_nc, output_nc, ngf, n_blocks, norm, use_dropout))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dim() != 4 or images.shape[2] % 4 or images.shape[3] % 4 or min(images.shape[2:]) < 16:
            raise ValueError(
                f"cyclegan.generator: images have shape {tuple(images.shape)}; expected [N, C, H, W] with H and W"
                " multiples of 4 and at least 16"
            )
        return self.model(in_pixels(images)).contiguous()


@dataclass
class DiscriminatorConfig:
    """`layers` = 3 sees patches of 70x70 pixels; 0 is the pixel discriminator. pix2pix gives both images: 6 channels."""

    in_channels: int = 3
    width: int = 64
    layers: int = 3
    norm: Norm = "instance"

    def __post_init__(self):
        at_least("cyclegan.discriminator", self, in_channels=1, width=1, layers=0)
        check_norm("cyclegan.discriminator", self.norm)


class Discriminator(Network):
    """images [N, in_channels, H, W] -> logits [N, 1, h, w], one per patch (Isola et al., 2017, section 3.2.2)."""

    Config = DiscriminatorConfig

    def __init__(self, config: DiscriminatorConfig | None = None):
        super().__init__()
        self.config = config = config or DiscriminatorConfig()
        w, bias, activation = config.width, config.norm != "batch", NORMS[config.norm]
        if config.layers == 0:
            self.net = nn.Sequential(
                Conv2d(config.in_channels, w, 1),
                Act(act="lrelu"),
                Conv2d(w, 2 * w, 1, bias=bias),
                activation(2 * w, "lrelu"),
                nn.Identity(),
                Conv2d(2 * w, 1, 1, bias=bias),
            )
        else:
            layers: list[nn.Module] = [Conv2d(config.in_channels, w, 4, 2, 1), Act(act="lrelu")]
            for i in range(1, config.layers + 1):
                inputs, outputs = w * min(2 ** (i - 1), 8), w * min(2**i, 8)
                stride = 2 if i < config.layers else 1
                conv = Conv2d(inputs, outputs, 4, stride, 1, bias=bias)
                layers += [conv, activation(outputs, "lrelu"), nn.Identity()]
            self.model = nn.Sequential(*layers, Conv2d(outputs, 1, 4, 1, 1))
        initialise(self)

    @classmethod
    def from_reference(cls, input_nc: int, ndf: int = 64, n_layers: int = 3, norm: Norm = "instance") -> Discriminator:
        """The network of these options of the original's NLayerDiscriminator; 0 layers: its PixelDiscriminator."""
        return cls(DiscriminatorConfig(input_nc, ndf, n_layers, norm))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = in_pixels(images)
        return (self.net(images) if hasattr(self, "net") else self.model(images)).contiguous()
