"""pix2pix's generator, the U-Net (Isola et al., 2017, section 3.2.1). Its discriminator is CycleGAN's PatchGAN on both images.

Names in the state_dict are those of the widely used nested layout: `model.model.0` is the outermost convolution down,
`model.model.1.model.1` the next, and so on inwards; `model.model.3` the outermost transposed convolution.

In that layout the leaky ReLU of each level works in place on what the skip connection carries, so the skip passes lrelu(x), and
the ReLU after the concatenation makes it relu(x). Published weights were trained that way, and so it is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fastgan import ops
from fastgan.fields import at_least
from fastgan.models.cyclegan import NORMS, Norm, check_norm, initialise
from fastgan.models.network import Network


@dataclass
class GeneratorConfig:
    """The U-Net: `downs` halvings take `2**downs` pixels to one (8 for 256 pixels, 7 for 128)."""

    in_channels: int = 3
    out_channels: int = 3
    width: int = 64
    downs: int = 8
    norm: Norm = "batch"
    dropout: bool = True

    def __post_init__(self):
        at_least("pix2pix.generator", self, in_channels=1, out_channels=1, width=1, downs=5)
        check_norm("pix2pix.generator", self.norm)


class Level(nn.Module):
    """One level and all below it: x [N, C, H, W] -> [N, 2C, H, W] with the skip, or the image at the outermost level."""

    def __init__(self, outer: int, inner: int, norm: Norm, below: Level | None, image: int = 0, dropout: bool = False):
        super().__init__()
        bias, activation = norm != "batch", NORMS[norm]
        down = nn.Conv2d(image or outer, inner, 4, 2, 1, bias=bias)
        up = nn.ConvTranspose2d(inner if below is None else 2 * inner, outer, 4, 2, 1, bias=bias or image > 0)
        self.outermost, self.innermost = image > 0, below is None
        if self.outermost:
            layers = [down, below, nn.Identity(), up, nn.Tanh()]
        elif self.innermost:
            layers = [nn.Identity(), down, nn.Identity(), up, activation(outer, "linear")]
        else:
            between = activation(inner, "lrelu")
            layers = [nn.Identity(), down, between, below, nn.Identity(), up, activation(outer, "linear")]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: an image at the outermost level, elsewhere what the level above has made, leaky ReLU included."""
        m = self.model
        if self.outermost:
            return m[4](m[3](torch.relu(m[1](ops.bias_act(m[0](x), act="lrelu", gain=1)))))
        y = m[1](x)
        y = m[4](m[3](torch.relu(y))) if self.innermost else m[6](m[5](torch.relu(m[3](m[2](y)))))
        return torch.cat([x, m[7](y) if len(m) == 8 else y], 1)


class Generator(Network):
    """images [N, in_channels, H, W] in [-1, 1], H and W multiples of 2**downs -> [N, out_channels, H, W].

    The innermost convolution is not normalised: where H = 2**downs it makes one pixel per channel. Raises ValueError for
    other sizes.
    """

    Config = GeneratorConfig

    def __init__(self, config: GeneratorConfig | None = None):
        super().__init__()
        self.config = config = config or GeneratorConfig()
        w, self.multiple = config.width, 2**config.downs
        level = Level(8 * w, 8 * w, config.norm, None)
        for _ in range(config.downs - 5):
            level = Level(8 * w, 8 * w, config.norm, level, dropout=config.dropout)
        for outer in (4 * w, 2 * w, w):
            level = Level(outer, 2 * outer, config.norm, level)
        self.model = Level(config.out_channels, w, config.norm, level, image=config.in_channels)
        initialise(self)

    @classmethod
    def from_reference(
        cls,
        input_nc: int,
        output_nc: int,
        num_downs: int,
        ngf: int = 64,
        norm: Norm = "batch",
        use_dropout: bool = True,
    ) -> Generator:
        """The network of these options of the original's UnetGenerator; `norm` is its option --norm."""
        return cls(GeneratorConfig(input_nc, output_nc, ngf, num_downs, norm, use_dropout))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dim() != 4 or images.shape[2] % self.multiple or images.shape[3] % self.multiple:
            raise ValueError(
                f"pix2pix.generator: images have shape {tuple(images.shape)}; expected [N, C, H, W] with H and W multiples"
                f" of {self.multiple}"
            )
        return self.model(images)
