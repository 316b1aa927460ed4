"""Losses on minibatch statistics and on translated images, against their equations."""

import pytest
import torch
from device import seeded

from fastgan.losses import batch, cycle


def draws(*shape, count=2, dtype=torch.float64):
    generator = seeded(3)
    return [torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for _ in range(count)]


def test_feature_matching_equals_its_equation():
    real, fake = draws(6, 2, 3)[0], draws(5, 2, 3)[1]
    expected = sum(
        (a.mean() - b.mean()) ** 2 + (a.std(correction=0) - b.std(correction=0)) ** 2
        for a, b in zip(real.flatten(1).T, fake.flatten(1).T, strict=True)
    )
    torch.testing.assert_close(batch.feature_matching(real, fake), expected / 6)


def test_batch_loss_adds_the_deviation_of_the_images():
    real, fake, real_features, fake_features = draws(4, 6, count=4)
    deviations = [x.std(0, correction=0).mean() for x in (real, fake)]
    expected = batch.feature_matching(real_features, fake_features) + (deviations[0] - deviations[1]) ** 2
    torch.testing.assert_close(batch.batch_loss(real, fake, real_features, fake_features), expected)


def test_batch_losses_train_the_fake_side_only_and_twice_differentiably():
    real, fake, real_features, fake_features = (x.requires_grad_() for x in draws(4, 3, count=4))
    loss = batch.batch_loss(real, fake, real_features, fake_features)
    given = torch.autograd.grad(loss, (real, real_features, fake, fake_features), allow_unused=True)
    assert given[:2] == (None, None) and all(g.abs().sum() > 0 for g in given[2:])

    def of_fake(fake, features):
        return batch.batch_loss(real.detach(), fake, real_features.detach(), features)

    assert torch.autograd.gradcheck(of_fake, (fake, fake_features))
    assert torch.autograd.gradgradcheck(of_fake, (fake, fake_features))


def test_a_collapsed_batch_has_finite_gradients():
    """The deviation of equal samples is 0, where the square root has no derivative."""
    real = draws(4, 3)[0]
    fake = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(batch.feature_matching(real, fake), fake, create_graph=True)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    assert torch.isfinite(torch.autograd.grad(gradient.sum(), fake)[0]).all()


@pytest.mark.parametrize("name", ["cycle", "identity"])
def test_cycle_losses_equal_their_equation(name):
    x, y = draws(3, 2, 4, 5)
    function, weight = {"cycle": (cycle.cycle, 10.0), "identity": (cycle.identity, 5.0)}[name]
    expected = torch.stack([(a - b).abs().sum() / 40 for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(function(x, y), weight * expected)
    torch.testing.assert_close(function(x, y, weight=2.0), 2 * expected)
    assert torch.autograd.gradcheck(function, (x.requires_grad_(), y.requires_grad_()))
    assert function(x.half(), y.half()).dtype == torch.float32
    assert function(x[:0], y[:0]).shape == (0,)


def test_bad_input_is_named():
    x, y = draws(3, 4)
    with pytest.raises(ValueError, match=r"real has features \(4,\) and fake \(3,\)"):
        batch.feature_matching(x, y[:, :3])
    with pytest.raises(ValueError, match=r"real has shape \(0, 4\)"):
        batch.feature_matching(x[:0], y)
    with pytest.raises(TypeError, match="fake"):
        batch.feature_matching(x, y.long())
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        batch.batch_loss(x[:, 0], y[:, 0], x, y)
    with pytest.raises(ValueError, match=r"cycle: images of shape \(3, 3\) against \(3, 4\)"):
        cycle.cycle(x, y[:, :3])
    with pytest.raises(TypeError, match="identity"):
        cycle.identity(x, y.long())
