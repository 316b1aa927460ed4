"""Vocos (Siuzdak, 2024): a vocoder whose layers all work at the rate of the frames; the signal is the inverse transform of the
spectrum that they end in. So a sample costs a hundredth of HiFi-GAN's, which is what a CPU can train.

From the paper (section 3) alone; the state_dict's names are our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fastgan.models.vocoder import Vocoder
from fastgan.ops._autocast import without_autocast

LOUDEST = 100.0  # of a spectrum's magnitude (section 3.3)


@dataclass(frozen=True)
class GeneratorConfig:
    """The paper's network has width 512 and 8 blocks."""

    bands: int = 80
    width: int = 512
    blocks: int = 8
    expansion: int = 3
    """The widest layer of a block, in widths."""
    window: int = 1024
    """Samples of the inverse transform."""
    hop: int = 256

    def __post_init__(self):
        if min(self.bands, self.width, self.blocks, self.expansion) < 1:
            raise ValueError("vocos: bands, width, blocks and expansion must be positive")
        if not 0 < 2 * self.hop <= self.window or (self.window - self.hop) % 2 or self.window % 2:
            raise ValueError(
                f"vocos: window is {self.window} and hop {self.hop}; expected even numbers, the hop at most half the window"
            )


class Block(nn.Module):
    """x + s * W2 gelu(W1 norm(depthwise convolution of 7 frames)): ConvNeXt's (Liu et al., 2022) without a stride. [N, frames,
    width]."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        width = config.width
        self.conv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, config.expansion * width)
        self.narrow = nn.Linear(config.expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1 / config.blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return torch.addcmul(x, self.scale, self.narrow(F.gelu(self.widen(y))))


class Generator(Vocoder):
    """Log mel spectrograms [N, bands, frames] -> signals [N, 1, hop frames].

    Examples:
        >>> fastgan.models.build("vocos", width=64, blocks=2)(torch.randn(1, 80, 10)).shape
        torch.Size([1, 1, 2560])
    """

    Config = GeneratorConfig

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config, width = config, config.width
        overlap = -(-(config.window - config.hop) // (2 * config.hop))  # frames to each side that reach into one
        self.context = 3 + 3 * config.blocks + overlap
        self.embed = nn.Conv1d(config.bands, width, 7, padding=3)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.last_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.outputs(config))
        self.register_buffer("hann", torch.hann_window(config.window), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @staticmethod
    def outputs(config: GeneratorConfig) -> int:
        """Of a frame: logarithms of magnitudes, and phases."""
        return config.window + 2

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Raises ValueError for another shape."""
        self.check(mel)
        x = self.frames(mel)
        with without_autocast(x):
            magnitude, phase = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x).chunk(2, 1)
            # In this order: the gradient of an infinite exponential would be 0 times infinity.
            return self.overlap(torch.polar(magnitude.clamp(max=math.log(LOUDEST)).exp(), phase))

    def frames(self, mel: torch.Tensor) -> torch.Tensor:
        """[N, outputs, frames]."""
        x = self.norm(self.embed(mel).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return self.head(self.last_norm(x)).transpose(1, 2)

    def overlap(self, spectrum: torch.Tensor) -> torch.Tensor:
        """[N, window // 2 + 1, frames], complex -> the signal [N, 1, hop frames]: overlapping windows, divided by the sum of the
        squares of Hann's."""
        size, hop, frames = self.config.window, self.config.hop, spectrum.shape[2]
        windows = torch.fft.irfft(spectrum, size, dim=1)
        hann = self.hann.to(windows.dtype)[:, None]
        shares = hann.square().expand(1, size, frames)
        total = hop * (frames - 1) + size

        def added(parts: torch.Tensor) -> torch.Tensor:
            return F.fold(parts, (1, total), (1, size), stride=(1, hop))[:, :, 0]

        cut = (size - hop) // 2
        y = added(windows * hann)[..., cut : total - cut] / added(shares)[..., cut : total - cut]
        return y.clamp(-1, 1)
