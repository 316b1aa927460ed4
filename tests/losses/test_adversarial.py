"""Each adversarial loss against its equation, written out with logarithms of the logistic function."""

import pytest
import torch
from device import seeded

from fastgan.losses import adversarial

LOSSES = [getattr(adversarial, name) for name in adversarial.__all__ if name != "Adversarial"]


def log_s(t):
    return torch.log(1 / (1 + torch.exp(-t)))


# name -> (what D minimises, what G minimises), from the papers
EQUATIONS = {
    "minimax": (lambda r, f: -log_s(r) - torch.log(1 - 1 / (1 + torch.exp(-f))), lambda r, f: log_s(-f)),
    "non_saturating": (lambda r, f: -log_s(r) - log_s(-f), lambda r, f: -log_s(f)),
    "logistic": (lambda r, f: torch.log1p(torch.exp(-r)) + torch.log1p(torch.exp(f)), lambda r, f: -log_s(f)),
    "least_squares": (lambda r, f: ((r - 1) ** 2 + f**2) / 2, lambda r, f: (f - 1) ** 2 / 2),
    "hinge": (lambda r, f: (1 - r).clamp(min=0) + (1 + f).clamp(min=0), lambda r, f: -f),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "rpgan": (lambda r, f: -log_s(r - f), lambda r, f: -log_s(f - r)),
    "ragan": (
        lambda r, f: -log_s(r - f.mean()) - log_s(-(f - r.mean())),
        lambda r, f: -log_s(f - r.mean()) - log_s(-(r - f.mean())),
    ),
}


def logits(*shape, seed=0, dtype=torch.float64):
    generator = seeded(seed)
    return [(2 * torch.randn(shape, dtype=torch.float64, generator=generator)).to(dtype) for _ in range(2)]


def test_every_loss_has_an_equation_here():
    assert {loss.name for loss in LOSSES} == set(EQUATIONS) == set(adversarial.__all__) - {"Adversarial"}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_equals_its_equation(loss):
    r, f = logits(7)
    d, g = EQUATIONS[loss.name]
    torch.testing.assert_close(loss.d_loss(r, f), d(r, f))
    torch.testing.assert_close(loss.g_loss(r, f), g(r, f))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_derivatives(loss):
    r, f = (x.requires_grad_() for x in logits(5))
    for side in (loss.d_loss, loss.g_loss):
        assert torch.autograd.gradcheck(side, (r, f)) and torch.autograd.gradgradcheck(side, (r, f))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_logits_of_any_size_give_finite_losses_and_gradients(loss):
    r, f = (x.requires_grad_() for x in (torch.tensor([-1e4, 1e4, -1e4]), torch.tensor([1e4, -1e4, -1e4])))
    for value in (loss.d_loss(r, f), loss.g_loss(r, f)):
        assert torch.isfinite(value).all()
        for gradient in torch.autograd.grad(value.sum(), (r, f), allow_unused=True):
            assert gradient is None or torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_patch_map_is_averaged_per_image(loss):
    r, f = logits(3, 1, 2, 5)
    d, g = EQUATIONS[loss.name]
    if loss.name == "ragan":  # each place of the map against that place's mean over the batch
        real, fake = r.flatten(1).unbind(1), f.flatten(1).unbind(1)
        expected = torch.stack([d(a, b) for a, b in zip(real, fake, strict=True)]).mean(0)
    else:
        expected = d(r, f).mean((1, 2, 3))
        torch.testing.assert_close(loss.g_loss(r, f), g(r, f).mean((1, 2, 3)))
    torch.testing.assert_close(loss.d_loss(r, f), expected)
    assert loss.d_loss(r[:0], f[:0]).shape == (0,) or loss.name == "ragan"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_float32(dtype):
    r, f = logits(9, dtype=dtype)
    for loss in LOSSES:
        assert loss.d_loss(r, f).dtype == loss.g_loss(r, f).dtype == torch.float32
        torch.testing.assert_close(loss.d_loss(r, f), EQUATIONS[loss.name][0](r.float(), f.float()))


def test_the_generator_does_without_real_logits_where_the_equation_does():
    r, f = logits(4)
    for loss in LOSSES:
        if loss.relativistic:
            with pytest.raises(ValueError, match=f"{loss.name}: g_loss compares with real_logits, which is None"):
                loss.g_loss(None, f)
        else:
            assert torch.equal(loss.g_loss(None, f), loss.g_loss(r, f))


def test_bad_input_is_named():
    r, f = logits(4)
    for side in (adversarial.hinge.d_loss, adversarial.rpgan.g_loss):
        with pytest.raises(ValueError, match=r"real_logits has shape \(4,\) and fake_logits \(4, 1\)"):
            side(r, f[:, None])
        with pytest.raises(ValueError, match=r"shape \(\)"):
            side(r[0], f[0])
        with pytest.raises(TypeError, match="fake_logits"):
            side(r, f.long())
        with pytest.raises(TypeError, match="real_logits"):
            side([1.0] * 4, f)
