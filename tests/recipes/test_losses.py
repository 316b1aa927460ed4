"""The losses of the recipes for images, written out again in plain torch on the same latents."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import relu, softplus


def close(actual, expected):
    torch.testing.assert_close(actual.double(), expected.double(), atol=2e-6, rtol=2e-5)


def squared_slope(discriminator, images, *labels):
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(images, *labels).sum(), images)
    return gradient.square().flatten(1).sum(1)


def penalised(recipe, batch, gamma, *labels):
    """(D loss, G loss) of relativistic pairing with gamma/2 (R1 + R2)."""
    draws = batch()
    fake = recipe.generator(draws.randn(8), *labels).detach()
    r, f = (recipe.discriminator(x, *labels) for x in (draws.real, fake))
    slopes = sum(squared_slope(recipe.discriminator, x, *labels) for x in (draws.real, fake))
    return (softplus(f - r) + gamma / 2 * slopes).mean(), softplus(r - f).mean()


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", ["dcgan", "r3gan"])
def test_relativistic_pairing_with_r1_and_r2(name, conditional, made):
    gamma = {"gamma": 3.0, "penalty_interval": 1} if name == "dcgan" else {"gamma": (3.0, 1.0)}
    recipe, batch = made(name, width=4, max_width=8, conditional=conditional, **gamma)
    for name_, p in recipe.generator.named_parameters():
        if name_.endswith("LinearLayer3.Layer.weight"):
            torch.nn.init.normal_(p, std=0.1)
    d_loss, g_loss = penalised(recipe, batch, 3.0, *([batch().labels] if conditional else []))
    close(recipe.d_step(batch())["loss"], d_loss)
    close(recipe.g_step(batch())["loss"], g_loss)


def test_penalties_of_dcgan_are_lazy(made):
    recipe, batch = made("dcgan", width=4, max_width=8, gamma=3.0, penalty_interval=4)
    lazy, once, plain = (penalised(recipe, batch, gamma)[0] for gamma in (12.0, 3.0, 0.0))
    assert lazy > once > plain + 1e-4
    close(recipe.penalised_step(batch())["loss"], lazy)
    close(recipe.d_step(batch())["loss"], once)
    close(recipe.plain_step(batch())["loss"], plain)
    steps = [[update.loss.__name__ for update in recipe.updates(step)] for step in range(8)]
    assert steps == ([["plain_step", "g_step"]] * 3 + [["penalised_step", "g_step"]]) * 2

    class Own(type(recipe)):
        def d_step(self, batch):
            return super().d_step(batch)

    assert Own(recipe.config, recipe.data).updates(0)[0].loss.__name__ == "d_step"
    recipe, _ = made("dcgan", width=4, max_width=8, gamma=0.0, penalty_interval=4)
    assert [update.loss.__name__ for update in recipe.updates(0)] == ["d_step", "g_step"]


def test_dcgan_without_a_penalty(made):
    recipe, batch = made("dcgan", width=4, max_width=8, gamma=0.0, loss="least-squares")
    draws = batch()
    fake = recipe.generator(draws.randn(8))
    r, f = recipe.discriminator(draws.real), recipe.discriminator(fake)
    close(recipe.d_step(batch())["loss"], (((r - 1) ** 2 + f**2) / 2).mean())
    close(recipe.g_step(batch())["loss"], ((f - 1) ** 2 / 2).mean())


@pytest.mark.parametrize("loss", ["non-saturating", "minimax"])
def test_gan_with_its_batch_loss(made, loss):
    recipe, batch = made("gan", units=(8, 6), batch_loss=2.0, loss=loss)
    draws = batch()
    fake = recipe.generator(draws.randn(8))
    (r, real), (f, matched) = (recipe.discriminator(x, features=True) for x in (draws.real, fake))
    close(recipe.d_step(batch())["loss"], (softplus(-r) + softplus(f)).mean())
    adversarial = softplus(-f).mean() if loss == "non-saturating" else -softplus(f).mean()
    means = (real.mean(0) - matched.mean(0)).square().mean()
    deviations = (real.std(0, correction=0) - matched.std(0, correction=0)).square().mean()
    close(recipe.g_step(batch())["loss"], adversarial + 2 * (means + deviations))


def test_gan_is_prepared_from_the_data(made):
    recipe, _ = made("gan", units=(8, 6))
    torch.manual_seed(1)
    images = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8)
    images[:, 0, 0, 0] = 255  # a pixel that never moves

    class Data:
        pass

    data = Data()
    data.images = images
    recipe.prepare(data)
    x = images.double() / 127.5 - 1
    close(recipe.discriminator.mean, x.mean(0).flatten())
    close(recipe.discriminator.scale, 1 / x.std(0, correction=0).flatten().clamp(min=0.1))
    close(torch.tanh(recipe.generator.inverse[-1].bias), x.mean(0).flatten().clamp(-0.98, 0.98))


def test_wgan_gp(made):
    recipe, batch = made("wgan-gp", width=4, penalty=7.0)
    draws = batch()
    fake = recipe.generator(draws.randn(8)).detach()
    e = draws.rand()[:, None, None, None]
    slope = squared_slope(recipe.discriminator, e * draws.real + (1 - e) * fake).sqrt()
    r, f = recipe.discriminator(draws.real), recipe.discriminator(fake)
    close(recipe.d_step(batch())["loss"], (f - r + 7 * (slope - 1) ** 2).mean())
    close(recipe.g_step(batch())["loss"], -f.mean())
    order = [update.optimizer for update in recipe.updates(0)]
    assert order == ["discriminator"] * 5 + ["generator"]


@pytest.mark.parametrize("conditional", [False, True])
def test_sngan(made, conditional):
    recipe, batch = made("sngan", width=4, conditional=conditional)
    for network in recipe.networks.values():
        network.eval()  # where the power method stands still
    draws = batch()
    labels = [draws.labels] if conditional else []
    fake = recipe.generator(draws.randn(8), *labels)
    r, f = recipe.discriminator(draws.real, *labels), recipe.discriminator(fake, *labels)
    close(recipe.d_step(batch())["loss"], (relu(1 - r) + relu(1 + f)).mean())
    close(recipe.g_step(batch())["loss"], -f.mean())
    assert [update.optimizer for update in recipe.updates(0)] == ["discriminator"] * 5 + ["generator"]


def test_fastgan_with_its_reconstructions(made):
    recipe, batch = made("fastgan", width=4, max_width=8, augment="none", reconstruction=3.0)
    recipe.generator.eval()
    recipe.discriminator.eval()
    draws = batch()
    fake = recipe.generator(draws.randn(8))
    which = (draws.rand() * 4).long()
    d = recipe.discriminator
    at16 = d.to16(d.first(draws.real))
    whole = d.whole(d.to8(at16))
    corners = [(8 * (q // 2), 8 * (q % 2)) for q in which.tolist()]
    part = d.part(torch.stack([x[:, i : i + 8, j : j + 8] for x, (i, j) in zip(at16, corners, strict=True)]))
    target = torch.stack(
        [x[:, 2 * i : 2 * i + 16, 2 * j : 2 * j + 16] for x, (i, j) in zip(draws.real, corners, strict=True)]
    )
    distance = (whole - F.avg_pool2d(draws.real, 2)).abs().mean() + (part - target).abs().mean()
    r, f = d(draws.real), d(fake)
    close(recipe.d_step(batch())["loss"], relu(1 - r).mean() + relu(1 + f).mean() + 3 * distance)
    close(recipe.g_step(batch())["loss"], -f.mean())


@pytest.mark.parametrize("loss", ["rpgan", "ragan"])
def test_overfitting_is_free_of_the_middle_that_a_relativistic_loss_leaves_open(loss, made):
    found = []
    for shift in (0.0, 4.0):
        recipe, batch = made("dcgan", width=4, max_width=8, augment="ada", loss=loss)
        recipe.discriminator.register_forward_hook(lambda module, given, logits, shift=shift: logits + shift)
        recipe.d_step(batch())
        found.append(float(recipe.augment.signs))
    assert found[0] == found[1] < 4


def test_r3gan_rates_follow_half_a_cosine(made):
    recipe, _ = made(
        "r3gan",
        width=4,
        max_width=8,
        burn_in=800,
        lr=(4e-4, 1e-4),
        beta2=(0.9, 0.99),
        gamma=(2.0, 0.2),
        ema_halflife=1000.0,
        augment="ada",
        augment_p=0.4,
    )

    def values(step):
        recipe.updates(step)
        group = recipe.optimizers["discriminator"].param_groups[0]
        return [
            group["lr"],
            group["betas"][1],
            recipe.gamma,
            recipe.augment.p.item(),
            recipe.ema_halflife(4 * step * recipe.processes),
        ]

    half = 0.5 + math.sqrt(0.5) / 2  # (1 + cos(pi/4)) / 2, a quarter of the way
    start, end = [4e-4, 0.9, 2.0, 0.0, 0.0], [1e-4, 0.99, 0.2, 0.4, 1000.0]
    assert values(0) == pytest.approx(start)
    assert values(50) == pytest.approx([b + (a - b) * half for a, b in zip(start, end, strict=True)])
    assert values(100) == pytest.approx([(a + b) / 2 for a, b in zip(start, end, strict=True)])
    assert values(200) == pytest.approx(end) == values(10_000)
    recipe.processes = 2  # images are counted over all processes
    assert values(50) == pytest.approx([(a + b) / 2 for a, b in zip(start, end, strict=True)])
    assert recipe.optimizers["generator"].param_groups[0]["betas"][0] == 0
    assert [update.fresh for update in recipe.updates(0)] == [True, True]
