"""L1, PSNR and SSIM against numpy and scipy."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from fastgan.metrics import pairs


def images(seed):
    return torch.rand(3, 2, 17, 23, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_l1_and_psnr():
    a, b = images(0), images(1)
    difference = (a - b).numpy()
    np.testing.assert_allclose(pairs.l1(a, b), np.abs(difference).mean((1, 2, 3)) / 2, rtol=1e-12)
    mse = (difference**2).mean((1, 2, 3))
    np.testing.assert_allclose(pairs.psnr(a, b), 20 * np.log10(2 / np.sqrt(mse)), rtol=1e-12)
    assert pairs.l1(torch.full((1, 1, 2, 2), -1.0), torch.ones(1, 1, 2, 2)).item() == 1
    assert pairs.psnr(a, a).tolist() == [math.inf] * 3


def test_ssim_by_scipy():
    a, b = images(2), images(3)
    found = pairs.ssim(a, b)
    for i in range(3):
        values = []
        for x, y in zip(a[i].numpy() + 1, b[i].numpy() + 1, strict=True):

            def blur(v):
                return scipy.ndimage.gaussian_filter(v, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

            mx, my = blur(x), blur(y)
            vx, vy, cxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
            c1, c2 = 0.02**2, 0.06**2
            values.append(((2 * mx * my + c1) * (2 * cxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
        assert found[i].item() == pytest.approx(np.mean(values), rel=1e-9)
    torch.testing.assert_close(pairs.ssim(a, a), torch.ones(3, dtype=torch.float64))


def test_autocast_changes_nothing():
    """A smooth image: its variance is the difference of two numbers near 1."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    a = 0.8 * (torch.sin(2 * x) * torch.cos(y))[None, None]
    b = a + 0.02 * torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    for figure in (pairs.ssim, pairs.psnr, pairs.l1):
        expected = figure(a, b)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(figure(a, b), expected)


def test_ssim_of_plain_images():
    """Without structure only brightness is compared: white and grey as (2 * 2 * 1) / (2^2 + 1^2), black and white as 0."""
    white, grey, black = (torch.full((1, 1, 12, 12), v, dtype=torch.float64) for v in (1.0, 0.0, -1.0))
    assert pairs.ssim(white, grey).item() == pytest.approx(0.8, abs=1e-4)
    assert pairs.ssim(white, black).item() == pytest.approx(0.0, abs=2e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_16_bits_are_computed_in_more(dtype):
    """A square of 1e-4 is 0 in float16, and the variance of a bright plane a difference of equals."""
    a = torch.full((1, 1, 16, 16), 0.9) + 0.01 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    a, b = a.to(dtype), a.to(dtype).clone()
    b[..., 3, 4] *= -1
    b[..., 8, 8] = torch.nextafter(b[..., 8, 8], b.new_zeros(()))
    for f in (pairs.l1, pairs.psnr, pairs.ssim):
        expected = f(a.double(), b.double())
        for x, y in ((a, b), (a, b.float()), (a.double(), b)):
            assert f(x, y).dtype == torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
            torch.testing.assert_close(f(x, y).double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_pixel_shows(bad):
    a, b = images(4), images(5)
    a[1, 0, 8, 8] = bad
    for f in (pairs.l1, pairs.psnr, pairs.ssim):
        assert f(a, b).isfinite().tolist() == [True, False, True]


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="same"):
        pairs.l1(images(0), images(0)[:, :1])
    with pytest.raises(ValueError, match="none of them 0"):
        pairs.psnr(images(0)[:0], images(0)[:0])
    with pytest.raises(TypeError, match="uint8"):
        pairs.l1(*torch.zeros(2, 1, 3, 12, 12, dtype=torch.uint8))
    with pytest.raises(ValueError, match="11 pixels"):
        pairs.ssim(images(0)[..., :9], images(0)[..., :9])
