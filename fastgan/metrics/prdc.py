"""Precision, recall, density and coverage: how good and how varied, apart from each other.

Kynkäänniemi et al., "Improved Precision and Recall Metric", 2019, eq. 1-3 (precision, recall); Naeem et al., "Reliable
Fidelity and Diversity Metrics", 2020, eq. 4-5 (density, coverage). The manifold of a set is the union of balls around its
points, each as wide as the distance to its k-th nearest neighbour in the set; a ball holds its surface (<=).

Equal distances therefore count, and must come out equal. All distances are taken from one matrix product in float32, whose
error is bounded. Those that this bound cannot tell from the radius they are compared with are computed again in float64, and
of these those that its bound cannot tell either, exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch

from fastgan.metrics.checks import check_rows

_ROWS = 1024  # rows of the distance matrix held at once: 1024 x 50,000 float32 are 205 MB
_CHUNK = 2**17  # numbers that `_exact` and `_double` work on at once: they fit a cache
_SPARE = 8  # neighbours held behind the k-th: those that float32 cannot tell from it are hardly ever more
_GATHER = 32  # a distance of two gathered rows takes as long as so many of a product


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
    # The largest becomes a half to one, by a power of two: figures stay, and no square leaves the range of float32.
    both *= 2.0 ** -max(math.frexp(torch.linalg.vector_norm(both, math.inf).item())[1], -1000)
    number = torch.unique(both, dim=0, return_inverse=True)[1]
    sets = zip(both.split(sizes), number.split(sizes), strict=True)
    real_balls, fake_balls = (_balls(_Points.of(x, numbers), k) for x, numbers in sets)
    points = _Points.of(both, number)
    real, fake = points[: sizes[0]], points[sizes[0] :]
    precise = inside = 0
    recalled, covered = torch.zeros(2, len(real), dtype=torch.bool, device=both.device)
    for start in range(0, len(fake), _ROWS):
        rows = slice(start, start + _ROWS)
        part = fake[rows]
        distance = _distance(part.norms, part.near, real.norms, real.near)
        in_real = _inside(distance, part, real, real_balls)
        in_fake = _inside(distance.mT, real, part, fake_balls[rows])
        precise += int(in_real.any(1).count_nonzero())
        inside += int(in_real.count_nonzero())
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
    """Rows `x` float64 [N, D]; `centred`: without their mean, which a product would take for digits; `near`: these, as
    products are taken of them; `norms`: the squared ones; `number`: equal for equal rows."""

    x: torch.Tensor
    centred: torch.Tensor
    near: torch.Tensor
    norms: torch.Tensor
    number: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor, number: torch.Tensor) -> _Points:
        centred = x - x.mean(0)
        return cls(x, centred, centred.to(_product_dtype(x)), torch.linalg.vector_norm(centred, dim=1).square(), number)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | torch.Tensor) -> _Points:
        return _Points(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass
class _Balls:
    """`radius` [N]: the squared ones, to the rounding of float64 or exact; `neighbour` [N]: the row of `points` that a ball
    reaches to; `centre` [N]: the row that it lies around."""

    points: _Points
    radius: torch.Tensor
    neighbour: torch.Tensor
    centre: torch.Tensor

    def __getitem__(self, rows: slice) -> _Balls:
        return _Balls(self.points, self.radius[rows], self.neighbour[rows], self.centre[rows])

    def exact(self, which: torch.Tensor) -> torch.Tensor:
        """The squared radii of balls `which`, correctly rounded."""
        return _exact(self.points, self.centre[which], self.points, self.neighbour[which])


def _product_dtype(x: torch.Tensor) -> torch.dtype:
    """float32 where its products are sure to have all its digits: settings and GPUs may leave them fewer."""
    exact = x.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    long = x.shape[1] > 2**16  # an error of D 2^-21 would decide little
    return torch.float64 if long or not exact or torch.is_autocast_enabled("cpu") else torch.float32


def _distance(norms: torch.Tensor, x: torch.Tensor, other: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared distances [A, B] of rows `x` to `y` with the squared `norms` and `other`, to the rounding of their dtype, by a
    product: a seventh of torch.cdist's time without one."""
    return ((-2 * x) @ y.mT).add_(norms.to(x.dtype)[:, None]).add_(other.to(x.dtype))


def _slack(points: _Points, radius: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """More than the error of `_distance` in `dtype` from each of `points` to what lies within or near its squared `radius` r.

    With u half the dtype's eps, D products summed in any order are off by at most 1.01 D u |a| |b|, and taken twice; all else
    by 7 u (|a|^2 + |b|^2); and |b| <= |a| + r^(1/2), |b|^2 <= 2 |a|^2 + 2 r. D u r is the error of a sum of D squares. 2^-100
    stands for what is rounded to zero.
    """
    radius = radius.double().clamp(min=0)
    size = points.norms + (points.norms * radius).sqrt() + radius / 2 + 2.0**-100
    return (points.x.shape[1] + 24) * 1.1 * torch.finfo(dtype).eps * size


def _balls(points: _Points, k: int) -> _Balls:
    """Around each row, to its k-th nearest other row."""
    here = torch.arange(len(points), device=points.norms.device)
    balls = _Balls(points, torch.zeros_like(points.norms), here.clone(), here)
    few = points.number.bincount()[points.number] <= k  # the others have it at distance 0
    nearest, columns = _nearest(points, min(len(points), k + 1 + _SPARE))
    slack = 2 * _slack(points, nearest[:, k], nearest.dtype)
    # Whether they hold all that is as near as the k-th: there is something behind it, or nothing more.
    held = (nearest[:, -1] > (nearest[:, k] + slack).to(nearest.dtype)) | (nearest.shape[1] == len(points))
    for rows in (few & held).nonzero()[:, 0].split(_ROWS):
        balls.radius[rows], balls.neighbour[rows] = _settled(points, rows, nearest[rows], columns[rows], k)
    for rows in (few & ~held).nonzero()[:, 0].split(_ROWS):
        part = points[rows]
        distance = _distance(part.norms, part.near, points.norms, points.near)
        balls.radius[rows], balls.neighbour[rows] = _settled(points, rows, *distance.sort(), k)
    return balls


def _nearest(points: _Points, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` smallest squared distances of each row, itself included, in ascending order, and the rows they lead to.

    The matrix is symmetric: each block is computed once, for its rows and for its columns."""
    values = points.near.new_full((len(points), count), math.inf)
    columns = torch.zeros(values.shape, dtype=torch.long, device=values.device)

    def merge(start: int, distance: torch.Tensor, first: int) -> None:
        place = slice(start, start + len(distance))
        best, index = distance.topk(min(count, distance.shape[1]), largest=False)
        both, index = torch.cat([values[place], best], 1), torch.cat([columns[place], index + first], 1)
        values[place], order = both.topk(count, largest=False)
        columns[place] = index.gather(1, order)

    for i in range(0, len(points), _ROWS):
        a = points[i : i + _ROWS]
        for j in range(i, len(points), _ROWS):
            b = points[j : j + _ROWS]
            distance = _distance(a.norms, a.near, b.norms, b.near)
            merge(i, distance, j)
            if j > i:
                merge(j, distance.mT.contiguous(), i)
    return values, columns


def _settled(
    points: _Points, rows: torch.Tensor, nearest: torch.Tensor, columns: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k-th smallest squared distance of `rows` (0 is the row's own) of those `nearest` [R, K], in ascending order, to the
    rows `columns`, and which of these it leads to: what their dtype cannot tell from it is computed again."""
    part = points[rows]
    slack = 2 * _slack(part, nearest[:, k], nearest.dtype)
    low, high = (nearest[:, k] + s for s in (-slack, slack))
    low, high = (limit[:, None].to(nearest.dtype) for limit in (low, high))
    row, place = ((nearest >= low) & (nearest <= high)).nonzero(as_tuple=True)
    column = columns[row, place]
    rank = k - (nearest < low).sum(1)
    again = _double(nearest[row, place], part, row, points, column)
    radius = again[_ranked(again, row, rank)]
    slack = 2 * _slack(part, radius, again.dtype)
    rank -= row[again < (radius - slack)[row]].bincount(minlength=len(rows))
    close = (again - radius[row]).abs() <= slack[row]
    row, column, again = row[close], column[close], again[close]
    several = (row.bincount()[row] > 1).nonzero()[:, 0]
    again[several] = _exact(part, row[several], points, column[several])
    found = _ranked(again, row, rank)
    return again[found], column[found]


def _ranked(values: torch.Tensor, row: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """Where in `values` the one of each row is that is number `rank` by size, from 0; `row` ascends."""
    order = values.argsort()
    order = order[row[order].argsort(stable=True)]
    return order[torch.searchsorted(row, torch.arange(len(rank), device=row.device)) + rank]


def _inside(distance: torch.Tensor, points: _Points, centres: _Points, balls: _Balls) -> torch.Tensor:
    """bool [P, C]: which of `points` lie in which of the `balls` around `centres`; `distance` [P, C] is squared."""
    radius = balls.radius
    slack = _slack(centres, radius, distance.dtype)
    found = distance <= (radius + slack).to(distance.dtype)
    row, column = (found & (distance >= (radius - slack).to(distance.dtype))).nonzero(as_tuple=True)
    again, limit = _double(distance[row, column], points, row, centres, column), radius[column]
    close = ((again - limit).abs() <= 2 * _slack(centres, radius, again.dtype)[column]).nonzero()[:, 0]
    again[close], limit[close] = _exact(points, row[close], centres, column[close]), balls.exact(column[close])
    found[row, column] = again <= limit
    return found


def _double(known: torch.Tensor, a: _Points, rows: torch.Tensor, b: _Points, columns: torch.Tensor) -> torch.Tensor:
    """Squared distances of a[rows] to b[columns] to the rounding of float64; `known`: to that of a product."""
    if known.dtype == torch.float64:
        return known
    if len(rows) * _GATHER > len(a) * len(b):
        return _distance(a.norms, a.centred, b.norms, b.centred)[rows, columns]
    found = a.norms.new_empty(len(rows))
    few = max(1, _CHUNK // a.x.shape[1])
    for part, row, column in zip(found.split(few), rows.split(few), columns.split(few), strict=True):
        torch.sum((a.x[row] - b.x[column]).square_(), 1, out=part)
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
