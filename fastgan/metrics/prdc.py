"""Precision, recall, density and coverage: how good and how varied, apart from each other.

Kynkäänniemi et al., "Improved Precision and Recall Metric", 2019, eq. 1-3 (precision, recall); Naeem et al., "Reliable
Fidelity and Diversity Metrics", 2020, eq. 4-5 (density, coverage). The manifold of a set is the union of balls around its
points, each as wide as the distance to its k-th nearest neighbour in the set.
"""

from typing import NamedTuple

import torch

_ROWS = 1024  # rows of the distance matrix held at once: 1024 x 50,000 float64 are 410 MB


class PRDC(NamedTuple):
    """Shares in [0, 1]; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> PRDC:
    """The four figures of features `real` [N, D] and `fake` [M, D] with the k-th nearest neighbour.

    k = 3 is Kynkäänniemi's choice, 5 that of Naeem. Raises ValueError for wrong shapes or N, M <= k.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) <= k:
        raise ValueError(
            f"features have shapes {list(real.shape)} and {list(fake.shape)}, expected [N > {k}, D] and [M > {k}, D]"
        )
    center = real.double().mean(0)  # which `_distance` would take for digits
    real, fake = real.double() - center, fake.double() - center
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    precise = inside = 0
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    nearest = torch.full((len(real),), torch.inf, dtype=real.dtype, device=real.device)
    for start in range(0, len(fake), _ROWS):
        part = slice(start, start + _ROWS)
        distance = _distance(fake[part], real)
        in_balls = distance <= real_radius
        precise += int(in_balls.any(1).sum())
        inside += int(in_balls.sum())
        recalled |= (distance <= fake_radius[part, None]).any(0)
        nearest = torch.minimum(nearest, distance.amin(0))
    return PRDC(
        precision=precise / len(fake),
        recall=float(recalled.double().mean()),
        density=inside / (k * len(fake)),
        coverage=float((nearest <= real_radius).double().mean()),
    )


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared distances by a product: a seventh of torch.cdist's time without one, whose float32 product loses the digits of
    small distances. In float64 equal rows come within 1e-13 of their norms, and are put at distance 0."""
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    squared = torch.addmm(norms, a, b.T, alpha=-2)
    return squared.where(squared > 1e-13 * norms, 0)


def _radius(x: torch.Tensor, k: int) -> torch.Tensor:
    """Squared distance of each row to its k-th nearest other row."""
    parts = [_distance(part, x).kthvalue(k + 1, 1).values for part in x.split(_ROWS)]
    return torch.cat(parts)
