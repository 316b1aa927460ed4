"""The generators of bench_serving.py. Each: build() -> (network, inputs), in evaluation mode, seeded.

Plain networks are written as everybody writes them; those that live by custom operations are fastgan's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from bench_accelerate import cyclegan_generator, dcgan_generator
from torch import nn

from fastgan import models


class UNet(nn.Module):
    """pix2pix's generator (Isola et al., 2017) for 2**len(widths) pixels."""

    def __init__(self, widths=(64, 128, 256, 512, 512, 512, 512, 512)):
        super().__init__()
        inputs = [3, *widths[:-1]]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(inputs, widths, strict=True))
        self.down_norm = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:-1])
        outputs = [3, *widths[:-1]]
        both = [2 * w for w in widths[:-1]] + [widths[-1]]
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in zip(both, outputs, strict=True))
        self.up_norm = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[:-1])

    def forward(self, x):
        skips = [self.down[0](x)]
        for i in range(1, len(self.down)):
            y = self.down[i](F.leaky_relu(skips[-1], 0.2))
            skips.append(self.down_norm[i - 1](y) if i < len(self.down) - 1 else y)
        y = skips.pop()
        for i in range(len(self.up) - 1, 0, -1):
            y = torch.cat([skips.pop(), self.up_norm[i - 1](self.up[i](F.relu(y)))], 1)
        return torch.tanh(self.up[0](F.relu(y)))


class Vocoder(nn.Module):
    """HiFi-GAN's generator V1 (Kong et al., 2020): log-mel spectrogram [N, 80, T] -> waveform [N, 1, 256 T]."""

    def __init__(self, width=512, rates=(8, 8, 2, 2), kernels=(3, 7, 11), dilations=(1, 3, 5)):
        super().__init__()
        self.first = nn.Conv1d(80, width, 7, padding=3)
        self.up, self.blocks = nn.ModuleList(), nn.ModuleList()
        for rate in rates:
            self.up.append(nn.ConvTranspose1d(width, width // 2, 2 * rate, rate, rate // 2))
            width //= 2
            self.blocks.append(nn.ModuleList(self.block(width, k, dilations) for k in kernels))
        self.last = nn.Conv1d(width, 1, 7, padding=3)

    @staticmethod
    def block(width: int, k: int, dilations) -> nn.ModuleList:
        return nn.ModuleList(
            nn.ModuleList(nn.Conv1d(width, width, k, dilation=d, padding=d * (k - 1) // 2) for d in (dilation, 1))
            for dilation in dilations
        )

    def forward(self, x):
        x = self.first(x)
        for up, blocks in zip(self.up, self.blocks, strict=True):
            x, total = up(F.leaky_relu(x, 0.1)), 0
            for block in blocks:
                y = x
                for first, second in block:
                    y = y + second(F.leaky_relu(first(F.leaky_relu(y, 0.1)), 0.1))
                total = total + y
            x = total / len(blocks)
        return torch.tanh(self.last(F.leaky_relu(x)))


def _r3gan() -> nn.Module:
    from fastgan.recipes.r3gan import R3GAN, R3GANConfig

    return R3GAN(R3GANConfig(), dict(name="", resolution=64, channels=3, num_classes=0, class_names=[])).generator


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "DCGAN 64 px, 1": (dcgan_generator, (1, 100, 1, 1)),
    "DCGAN 64 px, 16": (dcgan_generator, (16, 100, 1, 1)),
    "pix2pix U-Net-256, 1": (UNet, (1, 3, 256, 256)),
    "CycleGAN ResNet-9 256 px, 1": (cyclegan_generator, (1, 3, 256, 256)),
    "StyleGAN2 256 px, 1": (lambda: models.build("stylegan2", resolution=256, channel_base=16384), (1, 512)),
    "StyleGAN2 256 px, 4": (lambda: models.build("stylegan2", resolution=256, channel_base=16384), (4, 512)),
    "StyleGAN3-T 256 px, 1": (lambda: models.build("stylegan3", resolution=256), (1, 512)),
    "R3GAN 64 px, 8": (_r3gan, (8, 64)),
    "SRVGG 64 px x4, 1": (lambda: models.build("esrgan.compact"), (1, 3, 64, 64)),
    "RRDB 64 px x4, 1": (lambda: models.build("esrgan", blocks=6), (1, 3, 64, 64)),
    "HiFi-GAN V1, 100 frames": (Vocoder, (1, 80, 100)),
}


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make().eval().requires_grad_(False)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):  # nothing at its special initial value
            nn.init.normal_(m.running_mean, 0, 0.1), nn.init.uniform_(m.running_var, 0.5, 1.5)
    return network, torch.randn(shape)
