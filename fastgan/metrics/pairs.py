"""How near a translated image is to its true counterpart: L1, PSNR and SSIM. Images are float, [-1, 1]; 16-bit types are
computed in float32, and of two types in the wider."""

import torch
import torch.nn.functional as F

from fastgan.ops._autocast import outside_autocast
from fastgan.ops._checks import accumulation_dtype

RANGE = 2.0  # of the values, from -1 to 1


def l1(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of images [N, C, H, W] -> [N], in units of the whole range: 0.1 are 25.5 of 255 steps."""
    a, b = _checked(a, b)
    return (a - b).abs().flatten(1).mean(1) / RANGE


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """10 log10(range^2 / mean squared difference) of images [N, C, H, W] -> [N], dB; infinite for equal images."""
    a, b = _checked(a, b)
    return 10 * torch.log10(RANGE**2 / (a - b).square().flatten(1).mean(1))


@outside_autocast  # whose 16 bits leave nothing of a variance, a difference of means
def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity of images [N, C, H, W], H and W at least 11 -> [N], at most 1.

    Wang et al., "Image Quality Assessment", 2004, eq. 13: Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03,
    averaged over the positions where the window lies inside and over channels. Black counts as 0, as the paper demands:
    eq. 6 compares brightness by the ratio of means, which says nothing where these may be negative.
    """
    a, b = _checked(a, b)
    if min(a.shape[2:]) < 11:
        raise ValueError(f"ssim: images have shape {tuple(a.shape)}; expected at least 11 pixels a side")
    a, b = a + RANGE / 2, b + RANGE / 2
    offsets = torch.arange(-5, 6, dtype=torch.float64, device="cpu")
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = (window / window.sum()).to(a)

    def blur(x):
        n, c = x.shape[:2]
        x = F.conv2d(x.reshape(n * c, 1, *x.shape[2:]), window.view(1, 1, -1, 1))
        return F.conv2d(x, window.view(1, 1, 1, -1)).unflatten(0, (n, c)).squeeze(2)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a.square(), blur(b * b) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return (luminance * (2 * covariance + c2) / (var_a + var_b + c2)).flatten(1).mean(1)


def _checked(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if a.shape != b.shape or a.dim() != 4 or not a.numel():
        raise ValueError(
            f"images have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected the same [N, C, H, W], none of them 0"
        )
    if not (a.is_floating_point() and b.is_floating_point()):
        raise TypeError(f"images are {a.dtype} and {b.dtype}; expected floats in [-1, 1]")
    dtype = accumulation_dtype(torch.promote_types(a.dtype, b.dtype))
    return a.to(dtype), b.to(dtype)
