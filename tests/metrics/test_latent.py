"""Path length of maps whose length is known; equivariance of a generator that has it exactly, and of one that has not."""

import math

import pytest
import torch
from torch import nn

from fastgan.metrics import latent


class Waves(nn.Module):
    """Sums of plane waves at w's phases, drawn where `input.transform` says: exactly equivariant."""

    def __init__(self, size=64, highest=0.25):
        super().__init__()
        self.size, self.z_dim = size, 6
        self.mapping = lambda z, c: z[:, None].expand(-1, 3, -1)
        self.synthesis = nn.Module()
        self.synthesis.forward = self._draw
        self.synthesis.input = nn.Module()
        self.synthesis.input.register_buffer("transform", torch.eye(3))
        angle = torch.arange(6) * 1.7
        self.frequency = nn.Parameter(highest * size * torch.stack([angle.cos(), angle.sin()], 1))

    def _draw(self, ws):
        q = (torch.arange(self.size) + 0.5) / self.size - 0.5
        y, x = torch.meshgrid(q, q, indexing="ij")
        place = torch.stack([x, y, torch.ones_like(x)], -1)
        if self.synthesis.input is not None:
            place = place @ self.synthesis.input.transform.mT
        phase = 2 * math.pi * (place[..., :2] @ self.frequency.mT) + ws[:, 0, None, None]
        return phase.sin().mean(-1)[:, None] * 0.8


class Fixed(Waves):
    """A pattern on the pixel grid is added, which nothing moves."""

    def _draw(self, ws):
        return super()._draw(ws) + 0.5 * (torch.arange(self.size) % 2)


def test_path_length_of_a_linear_map():
    """g(w) = A w and f the identity: the length is |A (w2 - w1)|^2, at every t and epsilon."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    start, end = torch.randn(2, 7, 3, 5, generator=generator, dtype=torch.float64).unbind()
    t = torch.rand(7, generator=generator, dtype=torch.float64)
    found = latent.path_lengths(lambda w: w[:, 0] @ a.mT, lambda x: x, start, end, t)
    expected = ((end - start)[:, 0] @ a.mT).square().sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_path_length_is_taken_at_t():
    """f(w) = w^2 from 0 to 1: the derivative's square at t is (2 t)^2."""
    zero, one = torch.zeros(3, 1, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    found = latent.path_lengths(lambda w: w.square(), lambda x: x, zero, one, t)
    torch.testing.assert_close(found, (2 * t + latent.EPSILON).square(), rtol=1e-6, atol=1e-9)


def test_rotation_by_quarters_is_exact_and_by_any_angle_close():
    images = Waves()._draw(torch.zeros(1, 3, 6))
    for quarters in range(4):
        angle = quarters * math.pi / 2
        c, s = round(math.cos(angle)), round(math.sin(angle))
        turned, inside = latent.rotate(images, torch.tensor([[c, s], [-s, c]], dtype=torch.float64))
        expected = torch.rot90(images, -quarters, (2, 3))
        torch.testing.assert_close(turned[:, :, inside], expected[:, :, inside], rtol=0, atol=1e-5)


def test_equivariance():
    """What is equivariant scores as high as float32 and the interpolation allow; a fixed pattern of +-0.25 shows."""
    plain = latent.measure(Waves(), None, 6)
    assert list(plain) == ["eq_t", "eq_r"]
    assert plain["eq_t"] > 100 and plain["eq_r"] > 55
    fixed = latent.measure(Fixed(), None, 12)
    assert fixed["eq_t"] < 25 and fixed["eq_r"] < 25


def test_translation_error_is_the_definition():
    """An image that ignores the transform, moved by (3, -2): compared where both are defined."""
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = latent.translation_error(lambda transform: x, 3, -2)
    expected = (x[:, :, :6, 3:] - x[:, :, 2:, :5]).double().square().mean((1, 2, 3))
    torch.testing.assert_close(found, expected)
    assert latent.decibels(torch.tensor([0.04])) == pytest.approx(20)


def test_a_generator_that_diverged_is_named():
    broken = Waves(size=32)
    with torch.no_grad():
        broken.frequency.fill_(math.nan)
    with pytest.raises(ValueError, match="images of 6 of 6 draws are NaN"):
        latent.measure(broken, None, 6)
    broken.synthesis.input = None
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="path lengths of"):
            latent.measure(broken, lambda x, bad=bad: x.flatten(1) * bad, 4)
    with pytest.raises(ValueError, match="at least 1 draw"):
        latent.measure(Waves(size=32), None, 0)


def test_what_is_measured_depends_on_the_generator():
    assert latent.measure(nn.Linear(2, 2), None, 4) == {}
    waves = Waves(size=16)
    waves.synthesis.input = None
    found = latent.measure(waves, lambda x: x.flatten(1), 40, "_pixels")
    # sin(k x + w_j), mean over 6, three equal channels: |d/dw|^2 = 3 16^2 0.8^2 / 36 sum of cos^2 (w2 - w1)^2 at random phases
    assert list(found) == ["ppl_pixels"] and found["ppl_pixels"] == pytest.approx(3 * 256 * 0.64 / 36 * 6, rel=0.25)
    again = latent.measure(waves, lambda x: x.flatten(1), 40, "_pixels")
    assert again == found
    with torch.autocast("cpu", torch.bfloat16):
        assert latent.measure(waves, lambda x: x.flatten(1), 40, "_pixels") == found
