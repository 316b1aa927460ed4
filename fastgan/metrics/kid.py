"""Kernel distance: an unbiased estimate of the squared maximum mean discrepancy, meaningful from a few hundred images.

Binkowski et al., "Demystifying MMD GANs", 2018, section 4: polynomial kernel k(x, y) = (x . y / D + 1)^3. With features of the
official Inception network this is the KID.
"""

import torch

from fastgan.metrics.checks import check_rows

_ROWS = 128  # of the kernel matrix at once: they fit a cache (1,024 took 1.7 times as long)


def kernel_distance(a: torch.Tensor, b: torch.Tensor, subsets: int = 100, size: int = 1000, seed: int = 0):
    """Mean and standard deviation of the unbiased estimate over random subsets.

    Args:
        a, b: features [N, D] and [M, D], any floating type; computed in float64.
        subsets: how many pairs of subsets, at least 1.
        size: rows of each subset, at least 2, drawn without replacement; all rows where a set has fewer.
        seed: of the draw.

    Returns: (mean, standard deviation), floats. Raises ValueError for wrong shapes, NaN or Inf, or fewer than 2 rows.
    """
    if subsets < 1 or size < 2:
        raise ValueError(f"subsets is {subsets} and size {size}, expected at least 1 and 2")
    check_rows(2, a=a, b=b)
    generator = torch.Generator("cpu").manual_seed(seed)
    a, b = a.double(), b.to(a.device).double()
    sizes = [min(size, len(x)) for x in (a, b)]
    drawn: tuple[list, list] = ([], [])
    for _ in range(subsets):
        for x, rows, n in zip((a, b), drawn, sizes, strict=True):
            rows.append(torch.randperm(len(x), generator=generator, device="cpu")[:n].to(x.device))
    whole = len(a) ** 2 + len(b) ** 2 + len(a) * len(b)
    if whole <= subsets * (sizes[0] ** 2 + sizes[1] ** 2 + sizes[0] * sizes[1]):
        values = _of_all(a, b, *(torch.stack(rows) for rows in drawn))
    else:
        values = torch.stack([_unbiased(a[i], b[j]) for i, j in zip(*drawn, strict=True)])
    return float(values.mean()), float(values.std(correction=0))


def _kernel(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    k = (p @ q.mT).div_(p.shape[1]).add_(1)
    return k * k * k


def _unbiased(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    def off_diagonal(k):
        n = len(k)
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    return off_diagonal(_kernel(x, x)) + off_diagonal(_kernel(y, y)) - 2 * _kernel(x, y).mean()


def _of_all(a: torch.Tensor, b: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """`_unbiased` of the subsets a[i[s]], b[j[s]] for every s, from one kernel matrix of all rows: with s the 0/1 vector of a
    subset, the sum over its pairs is s' K s. Three matrices, where the subsets overlap, instead of three for each; of the two
    symmetric ones only what lies on and right of the diagonal's blocks."""
    s, t = (x.new_zeros(len(x), len(rows)).scatter_(0, rows.mT, 1) for x, rows in ((a, i), (b, j)))

    def within(x, rows, n):
        total = -((x.square().sum(1) / x.shape[1] + 1) ** 3) @ rows
        for start in range(0, len(x), _ROWS):
            part, some, weights = x[start : start + _ROWS], rows[start : start + _ROWS], 2 * rows[start:]
            weights[:_ROWS] /= 2
            total += (some * (_kernel(part, x[start:]) @ weights)).sum(0)
        return total / (n * (n - 1))

    parts = zip(a.split(_ROWS), s.split(_ROWS), strict=True)
    across = sum((some * (_kernel(part, b) @ t)).sum(0) for part, some in parts)
    n, m = i.shape[1], j.shape[1]
    return within(a, s, n) + within(b, t, m) - 2 * across / (n * m)
