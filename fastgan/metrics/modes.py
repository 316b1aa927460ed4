"""Mode metrics for data whose modes are known: mixtures of Gaussians and stacked digits.

Lin et al., "PacGAN", 2018, section 4.1: a sample is of high quality within 3 standard deviations of a mode, and a mode is
covered if a high-quality sample falls on it. Metz et al., "Unrolled GANs", 2016: reverse KL between the samples' modes and
the data's.
"""

from typing import NamedTuple

import torch


class Modes(NamedTuple):
    """`covered` of `total` modes; `high_quality`: share of samples near a mode; `reverse_kl`: KL(samples || data), nats."""

    covered: int
    total: int
    high_quality: float
    reverse_kl: float


def gaussian_modes(samples: torch.Tensor, centres: torch.Tensor, std: float, radius: float = 3.0) -> Modes:
    """Modes of an equally weighted mixture. samples [N, D]; centres [K, D]; std of each mode; radius in std.

    Raises ValueError for shapes that do not fit.
    """
    if samples.ndim != 2 or centres.ndim != 2 or samples.shape[1] != centres.shape[1] or not len(samples):
        raise ValueError(
            f"samples {list(samples.shape)} and centres {list(centres.shape)}, expected [N >= 1, D] and [K, D]"
        )
    distance, nearest = torch.cdist(samples.double(), centres.double()).min(1)
    good = distance <= radius * std
    found = histogram_modes(torch.bincount(nearest[good].cpu(), minlength=len(centres)))
    return found._replace(high_quality=float(good.double().mean()))


def histogram_modes(counts: torch.Tensor, expected: torch.Tensor | None = None) -> Modes:
    """Modes from how many samples fell on each: counts int64 [K]; expected: the data's shares [K], equal if None.

    For stacked digits: counts = bincount(100 a + 10 b + c, minlength=1000) of a classifier's three digits. No samples at all
    give infinite reverse KL.
    """
    counts = counts.double()
    target = torch.full_like(counts, 1 / len(counts)) if expected is None else expected.double()
    share = counts / counts.sum()
    kl = torch.special.xlogy(share, share / target).sum() if counts.sum() > 0 else torch.tensor(torch.inf)
    return Modes(int((counts > 0).sum()), len(counts), 1.0, float(kl))
