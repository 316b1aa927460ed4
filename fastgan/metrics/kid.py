"""Kernel distance: an unbiased estimate of the squared maximum mean discrepancy, meaningful from a few hundred images.

Binkowski et al., "Demystifying MMD GANs", 2018, section 4: polynomial kernel k(x, y) = (x . y / D + 1)^3. With features of the
official Inception network this is the KID.
"""

import torch

from fastgan.metrics.checks import check_rows


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
    a, b = a.double(), b.double()

    def draw(x):
        return x[torch.randperm(len(x), generator=generator, device="cpu")[:size].to(x.device)]

    values = torch.tensor([_unbiased(draw(a), draw(b)) for _ in range(subsets)], dtype=torch.float64, device="cpu")
    return float(values.mean()), float(values.std(correction=0))


def _unbiased(x: torch.Tensor, y: torch.Tensor) -> float:
    def kernel(p, q):
        return (p @ q.mT / p.shape[1] + 1).pow(3)

    def off_diagonal(k):
        n = len(k)
        return (k.sum() - k.diagonal().sum()) / (n * (n - 1))

    return float(off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean())
