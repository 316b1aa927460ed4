"""Real-ESRGAN's degradation (Wang et al., 2021, section 3): what pictures go through, modelled twice over: blur, resizing, noise,
JPEG; at the end a sinc filter, whose ringing is that of sharpened pictures, and the last resizing. In torch's operations, image
by image, from numbers that the caller draws: the same numbers give the same picture on every machine of the same arithmetic.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from fastgan._surroundings import on_cpu
from fastgan.ops._autocast import outside_autocast

NUMBERS = 48  # uniform draws that an image takes at most
LARGEST = 1.5  # of the sides while it is degraded
RADIUS = 10  # of the largest blur kernel

# JPEG's example tables of quantisation (ITU-T T.81, annex K.1), for quality 50, by rows of increasing vertical frequency.
_LUMA = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """
17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""


def numbers_of(channels: int, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of what one image of that size is degraded by: uniform numbers in [0, 1), and standard normal ones."""
    return (NUMBERS,), (2, channels, math.ceil(LARGEST * height), math.ceil(LARGEST * width))


@outside_autocast  # 16 bits hold neither a JPEG's waves nor the steps of 1/255
def degrade(
    images: torch.Tensor, scale: int, strength: float, uniform: torch.Tensor, normal: torch.Tensor
) -> torch.Tensor:
    """images [N, C, H, W] in [0, 1] -> [N, C, H / scale, W / scale] in steps of 1/255.

    Args:
        strength: 1 has the paper's ranges; less draws each of them towards doing nothing; 0 is a bicubic reduction.
        uniform, normal: draws for each image, of the shapes `numbers_of`.
    """
    size = images.shape[2] // scale, images.shape[3] // scale
    if not strength:
        low = F.interpolate(images, size, mode="bicubic", antialias=True)
    else:
        each = zip(images.split(1), uniform.tolist(), normal, strict=True)
        low = torch.cat([_Degradation(strength, iter(u)).apply(image, size, n) for image, u, n in each])
    return (low.clamp(0, 1) * 255).round() / 255


class _Degradation:
    """One image's: every number that it needs is the next of `numbers`."""

    def __init__(self, strength: float, numbers: Iterator[float]):
        self.strength, self.numbers = strength, numbers

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self.numbers)

    def chance(self, share: float) -> bool:
        return next(self.numbers) < share

    def apply(self, image: torch.Tensor, size: tuple[int, int], normal: torch.Tensor) -> torch.Tensor:
        """image [1, C, H, W]. The ranges are those of the paper's section 4.1."""
        x = self.blur(image, sigma=3.0, shape=4.0)
        x = self.resize(x, image.shape[2:], ups=0.2, downs=0.7, least=0.15, most=1.5)
        x = self.jpeg(self.noise(x, normal[0], gauss=30, poisson=3.0))
        if self.chance(0.8):
            x = self.blur(x, sigma=1.5, shape=4.0)
        x = self.resize(x, size, ups=0.3, downs=0.4, least=0.3, most=1.2)
        x = self.noise(x, normal[1], gauss=25, poisson=2.5)
        jpeg_last = self.chance(0.5)
        x = self.sinc(_resized(x, size, self.mode())) if jpeg_last else self.jpeg(x)
        return self.jpeg(x) if jpeg_last else self.sinc(_resized(x, size, self.mode()))

    def blur(self, x: torch.Tensor, sigma: float, shape: float) -> torch.Tensor:
        """A Gaussian, a generalised one or a plateau, round or elongated; one time in ten a sinc filter."""
        if self.chance(0.1):
            return _filtered(x, _sinc(self.cutoff(), self.radius()))
        radius, kind, round_ = self.radius(), next(self.numbers), self.chance(0.55)
        a, b, angle = self.between(0.2, sigma), self.between(0.2, sigma), self.between(-math.pi, math.pi)
        a, b = self.strength * a, self.strength * (a if round_ else b)
        power = 1.0 if kind < 0.7 else self.between(0.5, shape) if kind < 0.85 else self.between(1.0, 2.0)
        return _filtered(x, _bell(max(a, 1e-2), max(b, 1e-2), angle, power, plateau=kind >= 0.85, radius=radius))

    def sinc(self, x: torch.Tensor) -> torch.Tensor:
        return _filtered(x, _sinc(self.cutoff(), self.radius())) if self.chance(0.8) else x

    def radius(self) -> int:
        return 3 + int(next(self.numbers) * (RADIUS - 2))

    def cutoff(self) -> float:
        """Radians a pixel."""
        return math.pi - self.strength * (math.pi - self.between(math.pi / 3, math.pi))

    def mode(self) -> str:
        return ("area", "bilinear", "bicubic")[int(next(self.numbers) * 3)]

    def resize(self, x, size: tuple[int, int], ups: float, downs: float, least: float, most: float) -> torch.Tensor:
        """To `size` times a factor; x as it is where that is neither up nor down."""
        way, share = next(self.numbers), next(self.numbers)
        factor = 1 + (most - 1) * share if way < ups else 1 - (1 - least) * share if way < ups + downs else 1.0
        factor = factor**self.strength
        return _resized(x, [max(8, round(side * factor)) for side in size], self.mode())

    def noise(self, x: torch.Tensor, normal: torch.Tensor, gauss: float, poisson: float) -> torch.Tensor:
        """Of one variance, or of one that grows with brightness as that of counted photons; grey, or in each channel."""
        normal = normal[: 1 if self.chance(0.4) else None, : x.shape[2], : x.shape[3]]
        if self.chance(0.5):
            deviation = self.strength * self.between(1, gauss) / 255
        else:
            deviation = self.strength * self.between(0.05, poisson) * (x.clamp(0, 1) / 255).sqrt()
        return (x + deviation * normal).clamp(0, 1)

    def jpeg(self, x: torch.Tensor) -> torch.Tensor:
        return jpeg(x, 100 - self.strength * (100 - self.between(30, 95)))


def _resized(x: torch.Tensor, size, mode: str) -> torch.Tensor:
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode=mode, **({} if mode == "area" else {"align_corners": False}))


def _filtered(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """x [1, C, H, W] under kernel [K, K], which is even, the border repeated. By Fourier transforms: each image has a size of
    its own, and to plan a convolution for it takes longer than this."""
    edge = kernel.shape[0] - 1
    padded = F.pad(x, (edge // 2,) * 4, mode="replicate")
    size = padded.shape[2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel.to(x), size)
    return torch.fft.irfft2(spectrum, size)[..., edge:, edge:]


@functools.cache
@on_cpu
def _grid(radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    line = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return torch.meshgrid(line, line, indexing="ij")


def _bell(a: float, b: float, angle: float, power: float, plateau: bool, radius: int) -> torch.Tensor:
    """exp(-q / 2) or, with a flat top, 1 / (1 + q), q = (x' S^-1 x)^power, S of deviations a and b along turned axes; sums
    to 1 (Wang et al., 2021, section 3.2.1)."""
    y, x = _grid(radius)
    u, v = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    q = ((u / a).square() + (v / b).square()) ** power
    kernel = 1 / (1 + q) if plateau else torch.exp(-q / 2)
    return kernel / kernel.sum()


def _sinc(cutoff: float, radius: int) -> torch.Tensor:
    """The ideal round low pass, cutoff J1(cutoff r) / (2 pi r), cut off at `radius`; sums to 1 (section 3.3)."""
    r = torch.hypot(*_grid(radius))
    r[radius, radius] = 1
    kernel = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r)
    kernel[radius, radius] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


@functools.cache
@on_cpu
def _tables() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The orthonormal discrete cosine transform of 8 points [8, 8], and the two tables [8, 8]."""
    k, n = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    transform = 0.5 * torch.cos((2 * n + 1) * k * math.pi / 16)
    transform[0] /= math.sqrt(2)
    luma, chroma = (torch.tensor([*map(int, table.split())]).view(8, 8) for table in (_LUMA, _CHROMA))
    return transform.float(), luma, chroma


def _quantised(plane: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """planes [C, H, W] in [-128, 128), through blocks of 8x8 and back."""
    transform = _tables()[0].to(plane)
    height, width = plane.shape[1:]
    padded = F.pad(plane[None], (0, -width % 8, 0, -height % 8), mode="replicate")[0]
    blocks = padded.unflatten(1, (-1, 8)).unflatten(3, (-1, 8)).transpose(2, 3)  # [C, rows, columns, 8, 8]
    # One matrix on the right at a time is one large product; on the left it would be one small product for each block.
    waves = (blocks @ transform.t()).transpose(3, 4) @ transform.t()
    waves = (waves / table.t()).round() * table.t()
    blocks = (waves @ transform).transpose(3, 4) @ transform
    return blocks.transpose(2, 3).flatten(3).flatten(1, 2)[:, :height, :width]


@outside_autocast
def jpeg(x: torch.Tensor, quality: float) -> torch.Tensor:
    """images [1, C, H, W] in [0, 1] as JPEG keeps them, C = 1 or 3; of other numbers of channels each as a grey one. Colour has
    half the resolution of brightness, as files have it unless told otherwise. `quality`: from 1 to 100, of libjpeg's scale."""
    _, luma, chroma = _tables()
    percent = int(5000 / quality if quality < 50 else 200 - 2 * quality)
    luma, chroma = (((table * percent + 50) // 100).clamp(1, 255).to(x) for table in (luma, chroma))
    planes = (x[0] * 255).round()
    if len(planes) != 3:
        return ((_quantised(planes - 128, luma) + 128).round().clamp(0, 255) / 255)[None]
    r, g, b = planes
    y = 0.299 * r + 0.587 * g + 0.114 * b
    colour = torch.stack([(b - y) / 1.772, (r - y) / 1.402])
    size = y.shape
    small = F.avg_pool2d(F.pad(colour[None], (0, size[1] % 2, 0, size[0] % 2), mode="replicate"), 2)[0]
    y = _quantised(y[None] - 128, luma)[0] + 128
    small = _quantised(small, chroma)[None]
    cb, cr = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)[0, :, : size[0], : size[1]]
    r, b = y + 1.402 * cr, y + 1.772 * cb
    rgb = torch.stack([r, (y - 0.299 * r - 0.114 * b) / 0.587, b])
    return (rgb.round().clamp(0, 255) / 255)[None]
