"""The distance of spectra that vocoders train on."""

import pytest
import torch

from fastgan.losses.vocoder import MultiScaleMel, map_matching


def signals():
    x = 0.1 * torch.randn(2, 1, 4096, generator=torch.Generator().manual_seed(0))
    return x, x + 0.001 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def test_under_autocast_it_is_the_same():
    """Mel bands in 16 bits differ by 0.4%, as those of near signals do."""
    distance, (x, y) = MultiScaleMel(16000), signals()
    expected = distance(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(distance(x, y), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_signals_of_16_bits_are_computed_in_float32(dtype):
    distance, pair = MultiScaleMel(16000), [x.to(dtype) for x in signals()]
    found = distance(*pair)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, distance(*(x.float() for x in pair)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_of_16_bits_are_summed_in_float32(dtype):
    random = torch.Generator().manual_seed(0)
    real, fake = ([[torch.randn(2, 3, n, generator=random).to(dtype) for n in range(5, 45)]] for _ in range(2))
    found = map_matching(real, fake)
    assert found.dtype == torch.float32
    expected = map_matching(*([[m.double() for m in maps] for maps in side] for side in (real, fake)))
    assert expected.dtype == torch.float64
    torch.testing.assert_close(found.double(), expected, rtol=5e-4, atol=0)  # each difference is rounded, up and down
