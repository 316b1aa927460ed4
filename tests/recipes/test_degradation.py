"""The degradation against what defines it: JPEG against libjpeg's, filters against convolution, draws that decide everything."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fastgan.data import load
from fastgan.data.crisp import crisp
from fastgan.recipes import degradation
from fastgan.recipes.degradation import NUMBERS, degrade, jpeg, numbers_of


def drawn(count, channels=3, height=48, width=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    uniform, normal = numbers_of(channels, height, width)
    return torch.rand(count, *uniform, generator=g), torch.randn(count, *normal, generator=g)


def smooth(channels=3, height=48, width=40):
    return F.interpolate(torch.rand(2, channels, 6, 5), (height, width), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("quality", [15, 40, 75, 95])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 48), (37, 29)])
def test_jpeg_is_that_of_libjpeg(quality, channels, size):
    torch.manual_seed(0)
    x = (smooth(channels, *size)[:1] * 255).round() / 255
    pixels = (x[0] * 255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file)).astype(float)
    found = (jpeg(x, quality)[0] * 255).permute(1, 2, 0).squeeze(2).numpy()
    error = np.abs(found - expected)
    # The integer transform of libjpeg rounds a few coefficients to the other side, and colour to bytes between its steps.
    lost = np.abs(pixels - expected).mean()
    assert error.mean() < (0.4 if channels == 1 else 0.45 * lost)


def test_pictures_are_degraded_alike_under_autocast():
    """As a run of --precision bf16 trains on; 16 bits made another picture of each, 2 of 255 steps away in the mean."""
    draws = drawn(2)
    images = smooth()
    expected, waves = degrade(images, 4, 1.0, *draws), jpeg(images[:1], 60)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(degrade(images, 4, 1.0, *draws), expected) and torch.equal(jpeg(images[:1], 60), waves)


@pytest.mark.parametrize("default", ["cpu", "meta"])
def test_tables_and_grids_are_kept_as_numbers_whatever_the_defaults_were(default):
    """They are made once in a process."""
    for made in (degradation._tables, degradation._grid):
        made.cache_clear()
    draws, images = drawn(2), smooth()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device(default):
            found = degrade(images, 4, 1.0, *draws)
    finally:
        torch.set_default_dtype(torch.float32)
    for made in (degradation._tables, degradation._grid):
        made.cache_clear()
    assert found.dtype == torch.float32 and torch.equal(found, degrade(images, 4, 1.0, *draws))


def test_filters_are_convolutions_with_a_repeated_border():
    x, kernel = torch.rand(1, 3, 17, 12), degradation._bell(2.0, 0.7, 0.5, 1.0, False, 5)
    padded = F.pad(x, (5,) * 4, mode="replicate").transpose(0, 1)
    expected = F.conv2d(padded, kernel.float()[None, None]).transpose(0, 1)
    torch.testing.assert_close(degradation._filtered(x, kernel), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "kernel",
    [
        degradation._bell(2.0, 0.7, 0.5, 1.0, False, 5),
        degradation._bell(1.0, 1.0, 0.0, 0.6, True, 10),
        degradation._sinc(1.5, 7),
    ],
)
def test_kernels_are_even_and_sum_to_one(kernel):
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    assert abs(float(kernel.sum()) - 1) < 1e-12


def test_the_deviation_of_a_gaussian():
    y, x = degradation._grid(10)
    kernel = degradation._bell(2.0, 1.0, 0.0, 1.0, False, 10)
    assert abs(float((kernel * x.square()).sum()) - 4) < 1e-3 and abs(float((kernel * y.square()).sum()) - 1) < 1e-3


@pytest.mark.parametrize(("channels", "height", "width", "scale"), [(3, 48, 40, 4), (1, 32, 32, 2), (4, 24, 40, 1)])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_sizes_range_and_steps(channels, height, width, scale, strength):
    images, draws = torch.rand(6, channels, height, width), drawn(6, channels, height, width)
    low = degrade(images, scale, strength, *draws)
    assert low.shape == (6, channels, height // scale, width // scale) and low.min() >= 0 and low.max() <= 1
    torch.testing.assert_close((low * 255).round() / 255, low, atol=1e-7, rtol=0)


def test_draws_decide_everything_and_each_image_has_its_own():
    images, (uniform, normal) = smooth().expand(2, -1, -1, -1), drawn(2)
    both = degrade(images, 2, 1.0, uniform, normal)
    assert torch.equal(both, degrade(images, 2, 1.0, uniform, normal))
    assert torch.equal(both[1:], degrade(images[1:], 2, 1.0, uniform[1:], normal[1:]))
    assert not torch.equal(both[0], degrade(images[:1], 2, 1.0, uniform[1:], normal[1:])[0])


def test_there_are_numbers_enough_and_strength_is_distance():
    torch.manual_seed(0)
    counts, errors = [], []
    images = smooth()[:1]
    clean = degrade(images, 2, 0.0, *drawn(1))
    for strength in (0.1, 1.0):
        for seed in range(60):
            uniform, normal = drawn(1, seed=seed)
            numbers = iter(uniform[0].tolist())
            low = degradation._Degradation(strength, numbers).apply(images, (24, 20), normal[0])
            counts.append(NUMBERS - len(list(numbers)))
            errors.append(float((low - clean).abs().mean()))
    assert max(counts) <= NUMBERS - 4
    assert 2 * sum(errors[:60]) < sum(errors[60:])


def test_crisp_keeps_flat_colours_and_sharpens_edges():
    step = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    step[..., 4:] = 200
    large = crisp(step, 4)
    assert large.shape == (1, 3, 32, 32) and large[..., :12].max() == 0 and large[..., -12:].min() == 200
    soft = F.interpolate(step.float(), scale_factor=4, mode="bicubic")

    def between(x):
        return ((x > 20) & (x < 180)).sum()

    assert between(large) < between(soft)
    emoji = load("emoji", split="test").images[:3]
    small = F.interpolate(crisp(emoji, 4).float(), (32, 32), mode="area")
    assert (small - emoji.float()).abs().mean() < 8  # made small again it is about the same picture
