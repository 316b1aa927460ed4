"""The cycle engine: losses by hand on fixed inputs, one-dimensional signals end to end, and the pool."""

import math

import pytest
import torch
from device import seeded
from torch import nn

from fastgan.losses import adversarial
from fastgan.models.cycle import CycleGAN, Pool


class Times(nn.Module):
    """A generator or discriminator one can compute in one's head."""

    def __init__(self, factor, calls=None):
        super().__init__()
        self.factor, self.calls = nn.Parameter(torch.tensor(factor, dtype=torch.float64)), calls

    def forward(self, x):
        if self.calls is not None:
            self.calls.append(len(x))
        return self.factor * x


A = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
B = torch.tensor([[-1.0, 4.0], [0.5, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize("joint", [True, False])
def test_losses_by_hand(joint):
    """G(a) = 2a, F(b) = 3b, D_A(x) = 0.5 x, D_B(x) = -x."""
    engine = CycleGAN(Times(2.0), Times(3.0), Times(0.5), Times(-1.0), joint=joint)
    out = engine(A, B)
    found = engine.generator_loss(A, B, out)
    expected = {
        "gan_ab": ((-2 * A - 1) ** 2).mean(),  # E (D_B(G(a)) - 1)^2
        "gan_ba": ((1.5 * B - 1) ** 2).mean(),
        "cycle_a": 10 * (5 * A).abs().mean(),  # F(G(a)) - a = 6a - a
        "cycle_b": 10 * (5 * B).abs().mean(),
        "identity_a": 5 * (2 * A).abs().mean(),  # F(a) - a = 2a
        "identity_b": 5 * B.abs().mean(),  # G(b) - b = b
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-14, atol=0)
    torch.testing.assert_close(found["loss"], sum(expected.values()), rtol=1e-14, atol=0)
    judged = engine.discriminator_loss(A, B, out.fake_a, out.fake_b)
    a = ((0.5 * A - 1) ** 2).mean() / 2 + ((0.5 * 3 * B) ** 2).mean() / 2
    b = ((-B - 1) ** 2).mean() / 2 + ((-2 * A) ** 2).mean() / 2
    torch.testing.assert_close(judged["loss"], a + b, rtol=1e-14, atol=0)


def test_r1_by_hand():
    """D_A(x) = 0.5 x judges each of two numbers: their sum's gradient is 0.5 at both, of square 0.5, a quarter per patch."""
    engine = CycleGAN(Times(2.0), Times(3.0), Times(0.5), Times(-1.0), gamma=3.0)
    plain = CycleGAN(Times(2.0), Times(3.0), Times(0.5), Times(-1.0))
    out = engine(A, B)
    found = engine.discriminator_loss(A, B, out.fake_a, out.fake_b)
    without = plain.discriminator_loss(A, B, out.fake_a, out.fake_b)
    assert found["r1_a"].item() == pytest.approx(3 / 2 * 0.25) and found["r1_b"].item() == pytest.approx(3 / 2)
    assert found["loss"].item() == pytest.approx(without["loss"].item() + 3 / 2 * 1.25) and "r1_a" not in without
    found["r1_a"].backward()
    assert engine.a.factor.grad.item() == pytest.approx(3 * 0.5)  # d (gamma/2 factor^2) / d factor
    assert not A.requires_grad


def test_cross_entropy_without_identity():
    engine = CycleGAN(Times(2.0), Times(3.0), Times(0.5), Times(-1.0), loss=adversarial.non_saturating, identity=0)
    out = engine(A, B)
    assert out.same_a is None and out.same_b is None
    found = engine.generator_loss(A, B, out)
    torch.testing.assert_close(found["gan_ab"], torch.log1p(torch.exp(2 * A)).mean(), rtol=1e-12, atol=0)
    assert set(found) == {"loss", "gan_ab", "gan_ba", "cycle_a", "cycle_b"}


def test_no_pass_is_made_twice():
    calls = {name: [] for name in ("ab", "ba", "a", "b")}
    engine = CycleGAN(*(Times(1.0, made) for made in calls.values()))
    out = engine(A, B)
    engine.generator_loss(A, B, out)
    assert calls == {"ab": [4, 2], "ba": [4, 2], "a": [2], "b": [2]}


def test_the_discriminators_loss_does_not_reach_the_generators():
    engine = CycleGAN(Times(2.0), Times(3.0), Times(0.5), Times(-1.0))
    out = engine(A, B)
    engine.discriminator_loss(A, B, out.fake_a, out.fake_b)["loss"].backward()
    assert engine.ab.factor.grad is None and engine.ba.factor.grad is None
    assert engine.a.factor.grad is not None and engine.b.factor.grad is not None


def test_pool():
    torch.manual_seed(0)
    pool = Pool(3, (1,))
    first = torch.arange(3.0).unsqueeze(1)
    assert torch.equal(pool(first, torch.rand(3, 2)), first) and int(pool.filled) == 3
    choice = torch.tensor([[0.2, 0.0], [0.9, 0.4]])  # use the new one; swap with the one at index 1
    assert pool(torch.tensor([[10.0], [11.0]]), choice).flatten().tolist() == [10.0, 1.0]
    assert pool.kept.flatten().tolist() == [0.0, 11.0, 2.0]
    copy = Pool(3, (1,))
    copy.load_state_dict(pool.state_dict())
    assert torch.equal(copy.kept, pool.kept) and int(copy.filled) == 3
    assert torch.equal(Pool(0, (1,))(first, torch.rand(3, 2)), first)


def sines(n, shift, generator):
    """Periodic signals [n, 1, 32] of random phase: sines in one family, squares of the same sines in the other."""
    phase = 2 * math.pi * torch.rand(n, 1, 1, generator=generator)
    time = torch.linspace(0, 4 * math.pi, 33)[:-1].view(1, 1, -1)
    wave = torch.sin(time + phase)
    return wave if shift == 0 else 0.5 * torch.tanh(6 * wave) + 0.4


def one_dimensional(outputs):
    return nn.Sequential(
        nn.Conv1d(1, 16, 5, padding=2, padding_mode="circular"),
        nn.LeakyReLU(0.2),
        nn.Conv1d(16, outputs, 5, padding=2, padding_mode="circular"),
    )


def test_one_dimensional_signals_are_translated():
    """Sines to flattened squares of another mean: after a few hundred updates the translation is much nearer to the true
    counterpart than the untouched signal, though no pair was ever shown."""
    torch.manual_seed(1)
    generator = seeded(0)
    networks = [one_dimensional(1) for _ in range(4)]
    engine = CycleGAN(*networks)
    g = torch.optim.Adam([*networks[0].parameters(), *networks[1].parameters()], lr=5e-3, betas=(0.5, 0.99))
    d = torch.optim.Adam([*networks[2].parameters(), *networks[3].parameters()], lr=5e-3, betas=(0.5, 0.99))
    for _ in range(300):
        a, b = sines(16, 0, generator), sines(16, 1, generator)
        out = engine(a, b)
        g.zero_grad()
        engine.generator_loss(a, b, out)["loss"].backward()
        g.step()
        d.zero_grad()
        engine.discriminator_loss(a, b, out.fake_a, out.fake_b)["loss"].backward()
        d.step()
    a, truth = sines(64, 0, seeded(9)), sines(64, 1, seeded(9))
    with torch.no_grad():
        error = (networks[0](a) - truth).abs().mean()
        back = (networks[1](networks[0](a)) - a).abs().mean()
    assert error < 0.5 * (a - truth).abs().mean()
    assert back < 0.2
