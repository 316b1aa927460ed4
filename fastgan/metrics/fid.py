"""Fréchet distance between two sets of features, and the Inception score.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017, eq. 6: features of
both sets are taken as Gaussian, and

    d^2 = ||m1 - m2||^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

With features of the official Inception network this is the FID; with any other it is not, and is not called so.
"""

import math

import torch

from fastgan.metrics.checks import check_rows
from fastgan.metrics.processes import of_all

# Rows gathered before the covariance's product: 1,024 rows of 2,048 numbers, 64 at a time, took 5 times as long as at once.
ROWS = 1024


class Statistics:
    """Mean and covariance of features that arrive in batches and from several processes, in float64.

    `count` int; `mean` float64 [D]; `covariance` float64 [D, D], divided by count - 1 as numpy.cov does.
    """

    def __init__(self, dim: int):
        if dim < 1:
            raise ValueError(f"dim is {dim}, expected at least 1")
        self._count = 0
        self._mean = torch.zeros(dim, dtype=torch.float64, device="cpu")
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64, device="cpu")
        self._waiting: list[torch.Tensor] = []

    @classmethod
    def of_moments(cls, mean: torch.Tensor, covariance: torch.Tensor) -> "Statistics":
        """Those of unseen features with that mean [D] and covariance [D, D]. Their `count` says nothing: 2."""
        found = cls(len(mean))
        found._merge(2, mean.double(), covariance.double())
        return found

    def __repr__(self) -> str:
        return f"Statistics of {self.count} rows of {len(self._mean)} features"

    @property
    def count(self) -> int:
        return self._count + sum(map(len, self._waiting))

    @property
    def mean(self) -> torch.Tensor:
        self._settle()
        return self._mean

    @property
    def scatter(self) -> torch.Tensor:
        """float64 [D, D]: the covariance times count - 1."""
        self._settle()
        return self._scatter

    def update(self, features: torch.Tensor) -> None:
        """Adds `features` [N, D], any floating type and device."""
        if features.ndim != 2 or features.shape[1] != len(self._mean):
            raise ValueError(f"features has shape {list(features.shape)}, expected [N, {len(self._mean)}]")
        if features.is_complex():
            raise TypeError(f"features is {features.dtype}, expected real numbers")
        if len(features):
            self._waiting.append(features.detach().to("cpu", torch.float64, copy=True))
        if sum(map(len, self._waiting)) >= ROWS:
            self._settle()

    def _settle(self) -> None:
        if self._waiting:
            x, self._waiting = torch.cat(self._waiting), []
            mean = x.mean(0)
            centred = x - mean
            self._merge(len(x), mean, centred.mT @ centred)

    def merge(self, other: "Statistics") -> None:
        """Adds what `other` has seen."""
        if other.count:
            self._settle()
            self._merge(other.count, other.mean, other.scatter)

    def _merge(self, count: int, mean: torch.Tensor, scatter: torch.Tensor) -> None:
        # Chan et al. 1979: no cancellation, however far the mean is from zero.
        total = self._count + count
        shift = mean - self._mean
        self._scatter = self._scatter + scatter + torch.outer(shift, shift) * (self._count * count / total)
        self._mean = self._mean + shift * (count / total)
        self._count = total

    @property
    def covariance(self) -> torch.Tensor:
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 features, got {self.count}")
        return self.scatter / (self.count - 1)

    def gather(self) -> "Statistics":
        """The statistics of all processes together, the same on each of them; itself where there is one process."""
        parts = of_all((self.count, self.mean, self.scatter))
        if len(parts) == 1:
            return self
        whole = Statistics(len(self.mean))
        for count, mean, scatter in parts:
            if count:
                whole._merge(count, mean, scatter)
        return whole


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The squared Fréchet distance of two sets of features (eq. 6 above; what the field reports as FID).

    tr (C1 C2)^(1/2) is taken as the sum of the singular values of A'B, with C1 = AA' and C2 = BB': real, without jitter where
    there are fewer images than features, and exact to rounding there, where square roots of eigenvalues lose half the digits.

    Raises ValueError for fewer than 2 features, different D, and where any feature was NaN or Inf.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"a has features of {len(a.mean)} numbers and b of {len(b.mean)}, expected the same")
    for name, seen in (("a", a), ("b", b)):
        if not seen.covariance.isfinite().all():
            raise ValueError(f"{name}: among its {seen.count} features are NaN, Inf or numbers too large to square")
    try:
        overlap = _nuclear_norm(_factor(a.covariance).mT @ _factor(b.covariance))
    except torch.linalg.LinAlgError as error:
        raise ValueError(f"the covariances have no square roots to float64: {error}") from error
    return float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap)


def frechet_infinity(real: Statistics, rows: torch.Tensor) -> float:
    """The Fréchet distance d of `real` and infinitely many samples, from features `rows` [N, D] of N of them.

    Of n samples it is too large by c/n, to first order, with another c for each generator (Chong and Forsyth, "Effectively
    Unbiased FID and Inception Score", 2020). The straight line in 1/n through all N and through halves of them, whose two
    distances are averaged, is taken to its end: 2 d(N) - d(N/2). It may fall below 0; what the number of real images adds stays
    in it. Further points, at N/3 and N/4, brought the next order's error with them and scattered no less (16 features, 4 to
    20 samples a feature).

    Raises ValueError for fewer than 4 D rows.
    """
    if len(rows) < 4 * rows.shape[1]:
        raise ValueError(
            f"{len(rows)} samples are too few to extrapolate from, expected at least {4 * rows.shape[1]}, 4 for each feature"
        )

    def distance(part: torch.Tensor) -> float:
        seen = Statistics(part.shape[1])
        seen.update(part)
        return frechet_distance(real, seen)

    first, second = rows.tensor_split(2)
    return 2 * distance(rows) - (distance(first) + distance(second)) / 2


def _factor(covariance: torch.Tensor) -> torch.Tensor:
    """A with AA' = `covariance`, positive semi-definite: Cholesky's where its pivots are far from rounding, else the symmetric
    square root, which takes ten times as long."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal()
    if not failed and pivots.min() > 1e-5 * pivots.max():
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    # Zeros come out as up to 4 eps of the largest at D = 1280, less for fewer, on either side; their roots would be 1e-8.
    rounding = len(values) ** 0.5 * torch.finfo(values.dtype).eps * values[-1]
    return (vectors * values.where(values > rounding, 0).sqrt()) @ vectors.mT


def _nuclear_norm(m: torch.Tensor) -> torch.Tensor:
    """The sum of the singular values of a square matrix; as square roots of the eigenvalues of MM', a third of the time, where
    none is so small that these lose its digits."""
    values = torch.linalg.eigvalsh(m @ m.mT)
    roots = values.clamp(min=0).sqrt()
    lost = len(m) * torch.finfo(m.dtype).eps * values[-1] / (2 * roots)  # of an eigenvalue, over twice its root
    return roots.sum() if lost.sum() <= 1e-10 * roots.sum() else torch.linalg.svdvals(m).sum()


def inception_score(logits: torch.Tensor, splits: int = 10) -> tuple[float, float]:
    """exp(E KL(p(y|x) || p(y))) of class logits [N, K], mean and standard deviation over `splits` parts.

    Salimans et al., "Improved Techniques for Training GANs", 2016, section 4. Raises ValueError for fewer than `splits` rows,
    NaN or Inf.
    """
    if splits < 1 or logits.ndim != 2 or len(logits) < splits:
        raise ValueError(f"logits has shape {list(logits.shape)}, expected [N, K] with N >= splits = {splits} >= 1")
    check_rows(splits, logits=logits)
    scores = []
    for part in logits.double().log_softmax(1).tensor_split(splits):
        marginal = part.logsumexp(0) - math.log(len(part))
        scores.append((part.exp() * (part - marginal)).sum(1).mean().exp())
    scores = torch.stack(scores)
    return float(scores.mean()), float(scores.std(correction=0))
