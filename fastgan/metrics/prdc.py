"""Precision, recall, density and coverage: how good and how varied, apart from each other.

Kynkäänniemi et al., "Improved Precision and Recall Metric", 2019, eq. 1-3 (precision, recall); Naeem et al., "Reliable
Fidelity and Diversity Metrics", 2020, eq. 4-5 (density, coverage). The manifold of a set is the union of balls around its
points, each as wide as the distance to its k-th nearest neighbour in the set; a ball holds its surface (<=).

Equal distances therefore count, and must come out equal. All distances are taken from one matrix product, whose error is
bounded; those that this bound cannot tell from the radius they are compared with are computed again, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from fastgan.metrics.checks import check_rows

_ROWS = 1024  # rows of the distance matrix held at once: 1024 x 50,000 float64 are 410 MB
_CHUNK = 2**17  # numbers that `_exact` works on at once: they fit a cache


class PRDC(NamedTuple):
    """Shares in [0, 1]; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> PRDC:
    """The four figures of features `real` [N, D] and `fake` [M, D] with the k-th nearest neighbour.

    k = 3 is Kynkäänniemi's choice, 5 that of Naeem. Raises ValueError for wrong shapes, NaN or Inf, k < 1, or N, M <= k.
    """
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    check_rows(k + 1, real=real, fake=fake)
    sizes = (len(real), len(fake))
    both = torch.cat([real.double(), fake.to(real.device).double()])
    number = torch.unique(both, dim=0, return_inverse=True)[1]
    sets = zip(both.split(sizes), number.split(sizes), strict=True)
    real_radius, fake_radius = (_radius(_Points.of(x, numbers), k) for x, numbers in sets)
    points = _Points.of(both, number)
    real, fake = points[: sizes[0]], points[sizes[0] :]
    precise = inside = 0
    recalled, covered = torch.zeros(2, len(real), dtype=torch.bool, device=both.device)
    for start in range(0, len(fake), _ROWS):
        part = fake[start : start + _ROWS]
        distance = _distance(part, real)
        in_real = _inside(distance, part, real, real_radius)
        in_fake = _inside(distance.mT, real, part, fake_radius[start : start + _ROWS])
        precise += int(in_real.any(1).sum())
        inside += int(in_real.sum())
        covered |= in_real.any(0)
        recalled |= in_fake.any(1)
    return PRDC(
        precision=precise / len(fake),
        recall=float(recalled.double().mean()),
        density=inside / (k * len(fake)),
        coverage=float(covered.double().mean()),
    )


@dataclass
class _Points:
    """Rows `x` float64 [N, D]; `centred`: without their mean, which a product would take for digits; `norms`: the squared
    ones of these; `number`: equal for equal rows."""

    x: torch.Tensor
    centred: torch.Tensor
    norms: torch.Tensor
    number: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor, number: torch.Tensor) -> _Points:
        centred = x - x.mean(0)
        return cls(x, centred, centred.square().sum(1), number)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | torch.Tensor) -> _Points:
        return _Points(self.x[rows], self.centred[rows], self.norms[rows], self.number[rows])


def _distance(a: _Points, b: _Points) -> torch.Tensor:
    """Squared distances [A, B] to rounding, by a product: a seventh of torch.cdist's time without one."""
    return torch.addmm(a.norms[:, None] + b.norms, a.centred, b.centred.mT, alpha=-2)


def _slack(points: _Points, radius: torch.Tensor) -> torch.Tensor:
    """More than the error of `_distance` from each of `points` to what lies within or near its squared `radius`.

    With u = 2^-53, each of the three sums of D products is off by at most D u (|a|^2 + |b|^2) / 2 or D u |a|^2, the rest by
    8 u (|a|^2 + |b|^2); and |b|^2 <= 2 |a|^2 + 2 |a - b|^2.
    """
    return (points.x.shape[1] + 8) * 2.0**-52 * 4 * (points.norms + radius.clamp(min=0))


def _radius(points: _Points, k: int) -> torch.Tensor:
    """Squared distance of each row to its k-th nearest other row."""
    found = points.norms.new_zeros(len(points))
    copies = points.number.bincount()[points.number]
    for rows in (copies <= k).nonzero()[:, 0].split(_ROWS):  # the others have their k-th neighbour at distance 0
        part = points[rows]
        distance = _distance(part, points)
        radius = distance.topk(k + 1, largest=False).values[:, k]  # a row's nearest is itself
        slack = 2 * _slack(part, radius)
        low, high = (radius - slack)[:, None], (radius + slack)[:, None]
        row, column = ((distance >= low) & (distance <= high)).nonzero(as_tuple=True)
        exact, order = _exact(part, row, points, column).sort()
        row, again = row[order].sort(stable=True)
        first = torch.searchsorted(row, torch.arange(len(rows), device=row.device))
        found[rows] = exact[again][first + k - (distance < low).sum(1)]
    return found


def _inside(distance: torch.Tensor, points: _Points, centres: _Points, radius: torch.Tensor) -> torch.Tensor:
    """bool [P, C]: which of `points` lie in which ball around `centres`; `distance` [P, C] and `radius` [C] are squared."""
    slack = _slack(centres, radius)
    found = distance <= radius + slack
    row, column = (found & (distance >= radius - slack)).nonzero(as_tuple=True)
    found[row, column] = _exact(points, row, centres, column) <= radius[column]
    return found


def _exact(a: _Points, rows: torch.Tensor, b: _Points, columns: torch.Tensor) -> torch.Tensor:
    """Squared distances of a[rows] to b[columns], correctly rounded: equal ones come out equal, in whatever order their terms
    are added. All arithmetic is in pairs of float64 (Dekker, 1971: two-sum and two-product)."""
    found = a.norms.new_zeros(len(rows))
    different = (a.number[rows] != b.number[columns]).nonzero()[:, 0]
    for part in different.split(max(1, _CHUNK // a.x.shape[1])):
        x, y = a.x[rows[part]], b.x[columns[part]]
        difference, rest = _two_sum(x, -y)
        square = difference.square()
        head = difference * (2.0**27 + 1)
        head = head - (head - difference)  # the upper 26 bits, whose square is exact
        tail = difference - head
        rest = ((head * head - square) + 2 * head * tail) + tail * tail + 2 * difference * rest
        while square.shape[1] > 1:
            if square.shape[1] % 2:
                square, rest = (torch.nn.functional.pad(t, (0, 1)) for t in (square, rest))
            square, error = _two_sum(*square.chunk(2, 1))
            rest = sum(rest.chunk(2, 1)) + error
        found[part] = (square + rest)[:, 0]
    return found


def _two_sum(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x + y and what its rounding lost (Knuth, TAOCP 4.2.2)."""
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)
