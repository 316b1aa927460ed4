"""Mode metrics for data whose modes are known: mixtures of Gaussians and stacked digits.

Lin et al., "PacGAN", 2018, section 4.1: a sample is of high quality within 3 standard deviations of a mode, and a mode is
covered if a high-quality sample falls on it. Metz et al., "Unrolled GANs", 2016: reverse KL between the samples' modes and
the data's.
"""

from typing import NamedTuple

import torch

from fastgan.metrics.checks import check_rows


class Modes(NamedTuple):
    """`covered` of `total` modes; `high_quality`: share of samples near a mode; `reverse_kl`: KL(samples || data), nats."""

    covered: int
    total: int
    high_quality: float
    reverse_kl: float


def gaussian_modes(samples: torch.Tensor, centres: torch.Tensor, std: float, radius: float = 3.0) -> Modes:
    """Modes of an equally weighted mixture. samples [N, D]; centres [K, D]; std of each mode; radius in std.

    Raises ValueError for shapes that do not fit, NaN or Inf, and a negative std or radius.
    """
    check_rows(1, samples=samples, centres=centres)
    if not (0 <= std < torch.inf and 0 <= radius < torch.inf):
        raise ValueError(f"std is {std} and radius {radius}, expected finite numbers that are not negative")
    # Not by a product, whose rounding would move samples that lie on the edge.
    mode = "donot_use_mm_for_euclid_dist"
    distance, nearest = torch.cdist(samples.double(), centres.double(), compute_mode=mode).min(1)
    good = distance <= radius * std
    found = histogram_modes(torch.bincount(nearest[good].cpu(), minlength=len(centres)))
    return found._replace(high_quality=float(good.double().mean()))


def histogram_modes(counts: torch.Tensor, expected: torch.Tensor | None = None) -> Modes:
    """Modes from how many samples fell on each: counts int64 [K]; expected: the data's shares [K], equal if None.

    For stacked digits: counts = bincount(100 a + 10 b + c, minlength=1000) of a classifier's three digits. No samples at all
    give infinite reverse KL. Raises ValueError for other shapes, negative or non-finite numbers and shares that do not sum to 1.
    """
    counts = counts.double()
    target = (
        torch.full_like(counts, 1 / max(counts.numel(), 1)) if expected is None else expected.double().to(counts.device)
    )
    known = counts.ndim == 1 and counts.numel() and target.shape == counts.shape
    if not known or not all(bool(((x >= 0) & (x < torch.inf)).all()) for x in (counts, target)):
        raise ValueError(
            f"counts {list(counts.shape)} and expected {list(target.shape)}: expected one [K >= 1], 0 or more each"
        )
    if abs(float(target.sum()) - 1) > 1e-3:
        raise ValueError(f"expected sums to {float(target.sum()):g}: expected shares, which sum to 1")
    share = counts / counts.sum()
    kl = torch.special.xlogy(share, share / target).sum() if counts.sum() > 0 else counts.new_tensor(torch.inf)
    return Modes(int((counts > 0).sum()), len(counts), 1.0, float(kl))
