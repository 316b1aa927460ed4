"""Losses on statistics of the whole minibatch: a target that does not saturate when the discriminator is sure, and
that a generator which has collapsed to few images cannot reach.
"""

from __future__ import annotations

import torch

from fastgan.ops._checks import accumulation_dtype, check_floating

__all__ = ["batch_loss", "feature_matching"]


def _statistics(name: str, argument: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation over the minibatch, [features] each. The deviation's gradient is 0, not NaN, where it is 0."""
    check_floating(name, argument, x)
    if x.dim() < 2 or x.shape[0] < 1:
        raise ValueError(f"{name}: {argument} has shape {tuple(x.shape)}; expected [N, ...] with N >= 1")
    x = x.to(accumulation_dtype(x.dtype)).flatten(1)
    mean = x.mean(0)
    variance = (x - mean).square().mean(0)
    spread = variance > 0
    return mean, torch.where(spread, torch.where(spread, variance, 1.0).sqrt(), 0.0)


def feature_matching(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean over features of (E f(x) - E f(G(z)))^2 + (sd f(x) - sd f(G(z)))^2, E and sd over the minibatch.

    The first term is Salimans et al. 2016, section 3.1, divided by the number of features.

    Args:
        real, fake: features [N, ...] and [M, ...] of real and generated images; no gradient goes to `real`.

    Returns: a scalar, float32 (float64 for float64): a statistic of the batch has no per-sample part.
    Raises: TypeError, ValueError for other types or unequal features.
    """
    if isinstance(real, torch.Tensor) and isinstance(fake, torch.Tensor) and real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"feature_matching: real has features {tuple(real.shape[1:])} and fake {tuple(fake.shape[1:])}"
        )
    real_mean, real_deviation = _statistics("feature_matching", "real", real)
    fake_mean, fake_deviation = _statistics("feature_matching", "fake", fake)
    means = (real_mean.detach() - fake_mean).square().mean()
    return means + (real_deviation.detach() - fake_deviation).square().mean()


def batch_loss(
    real: torch.Tensor, fake: torch.Tensor, real_features: torch.Tensor, fake_features: torch.Tensor
) -> torch.Tensor:
    """feature_matching(real_features, fake_features) + (d(x) - d(G(z)))^2, where d is the minibatch's standard
    deviation averaged over pixels and channels (Karras et al. 2018, section 3), here as a target of the generator.

    Args:
        real, fake: images [N, ...] and [M, ...]; real_features, fake_features: the discriminator's features of them.

    Returns: a scalar, float32 (float64 for float64). No gradient goes to the real side.
    Raises: TypeError, ValueError for other types or unequal features.
    """
    deviations = [_statistics("batch_loss", name, x)[1].mean() for name, x in (("real", real), ("fake", fake))]
    return feature_matching(real_features, fake_features) + (deviations[0].detach() - deviations[1]).square()
