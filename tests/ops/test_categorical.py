import math

import pytest
import torch
from device import seeded
from scipy.stats import chisquare

from fastgan.ops.categorical import sample_categorical


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [2, 7, 130])
def test_draws_follow_the_softmax(size, dtype):
    random = seeded(size)
    logits = torch.randn(size, generator=random, dtype=dtype)
    draws = sample_categorical(logits.expand(4, 5000, size), random)
    assert draws.shape == (4, 5000)
    assert draws.dtype == torch.int64
    observed = torch.bincount(draws.flatten(), minlength=size)
    expected = logits.double().softmax(0) * draws.numel()
    assert chisquare(observed.tolist(), expected.tolist()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_of_16_bits_reach_every_token(dtype):
    """In 16 bits the sums of many small probabilities stay where they are."""
    draws = sample_categorical(torch.zeros(1000, dtype=dtype).expand(50_000, 1000), seeded(0))
    observed = torch.bincount(draws, minlength=1000)
    assert chisquare(observed.tolist()).pvalue > 1e-3


def test_one_token_is_always_drawn():
    assert not sample_categorical(torch.randn(100, 1)).any()


def test_impossible_tokens_are_never_drawn():
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 1.0, -math.inf]).expand(20_000, 5)
    assert sample_categorical(logits).unique().tolist() == [1, 3]


@pytest.mark.parametrize(("u", "expected"), [(0.0, 1), (1 - 2**-24, 3)])
def test_the_ends_of_the_unit_interval(monkeypatch, u, expected):
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.full(shape, u))
    logits = torch.tensor([[-math.inf, 3.3, 0.1, 2.2, -math.inf]])
    assert sample_categorical(logits).item() == expected


def test_the_generator_decides():
    logits = torch.randn(50, 30)
    first, second = (sample_categorical(logits, seeded(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert sample_categorical(torch.zeros(0, 4)).shape == (0,)
