"""The Fréchet distance, extrapolated to infinitely many samples, on Gaussians, where it is known."""

import numpy as np
import pytest
import torch

from fastgan.metrics import fid, suite
from fastgan.metrics.images import Features

DIM, COUNT = 16, 96  # few samples: the bias is then plain to see


def exact(mean: torch.Tensor, covariance: torch.Tensor) -> fid.Statistics:
    """The statistics of a Gaussian itself."""
    found = fid.Statistics(DIM)
    found._merge(10**6, mean, covariance * (10**6 - 1))
    return found


def gaussian(seed: int, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    mean = shift * torch.randn(DIM, generator=draw, dtype=torch.float64)
    mix = torch.randn(DIM, 4 * DIM, generator=draw, dtype=torch.float64)
    return mean, mix @ mix.mT / (4 * DIM)


def rows(mean: torch.Tensor, covariance: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, DIM, generator=draw, dtype=torch.float64)
    return noise @ torch.linalg.cholesky(covariance).mT + mean


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_it_is_nearer_to_the_exact_distance(shift):
    real, made = gaussian(0, shift), gaussian(0 if shift == 0 else 1, shift)
    known = fid.frechet_distance(exact(*real), exact(*made))
    plain, found = [], []
    for seed in range(40):
        x = rows(*made, COUNT, seed)
        seen = fid.Statistics(DIM)
        seen.update(x)
        plain.append(fid.frechet_distance(exact(*real), seen) - known)
        found.append(fid.frechet_infinity(exact(*real), x) - known)
    bias, left, error = np.mean(plain), np.mean(found), np.std(found) / np.sqrt(len(found))
    assert bias > 10 * np.std(plain) / np.sqrt(len(plain))  # n samples alone are off by far more than chance
    assert abs(left) < max(3 * error, 0.1 * bias) and abs(left) < 0.2 * bias


def test_what_depends_on_one_over_n_alone_is_taken_to_its_end(monkeypatch):
    monkeypatch.setattr(fid, "frechet_distance", lambda real, seen: 7.0 + 30.0 / seen.count)
    assert fid.frechet_infinity(None, torch.zeros(1200, 2)) == pytest.approx(7, abs=1e-9)


def test_too_few_samples():
    with pytest.raises(ValueError, match="63 samples are too few to extrapolate from, expected at least 64"):
        fid.frechet_infinity(exact(*gaussian(0, 0)), torch.zeros(63, DIM))


def test_only_where_it_is_asked_for():
    def names(extractor: str, asked):
        return [figure for row in suite.rows(("fd", "kid"), extractor, asked) for figure in row.figures]

    assert names("efflite0", None) == names("efflite0", ["fd"]) == ["fd_efflite0", "kid_efflite0"]
    assert names("efflite0", ["fd-inf"])[2:] == ["fd-inf_efflite0"]
    assert names("inception", ["fid-inf"])[2:] == ["fid-inf"]
    assert suite.meaning("fd-inf_efflite0").better == suite.meaning("fid-inf").better == "lower"
    mean, covariance = gaussian(0, 0)
    fake = Features(exact(mean, covariance), rows(mean, covariance, 400, 0), torch.zeros(400, 0))
    offered = suite.rows(("fd", "kid"), "efflite0", ["fd-inf"])
    with pytest.raises(ValueError, match="samples is 2000, expected at least 5120 for fd-inf"):
        suite.choose(offered, ["fd-inf"], 2000)
    chosen = suite.choose(offered, ["fd-inf"], 5120)
    found = suite.compute(chosen, {"real": lambda: fake, "fake": lambda: fake}, 5120, strict=True)
    assert found == {"fd-inf_efflite0": fid.frechet_infinity(fake.statistics, fake.rows)} and abs(*found.values()) < 0.1
