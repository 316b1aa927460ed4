"""Penalties against their equations on critics whose input gradient is known in closed form."""

import gc
import weakref

import pytest
import torch
from device import DEVICE, seeded

from fastgan.losses import penalty

SHAPE = (4, 2, 3, 3)


def images(count=2, shape=SHAPE, dtype=torch.float64):
    generator = seeded(5)
    return [torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for _ in range(count)]


class Quadratic(torch.nn.Module):
    """D(x) = sum a x + b x^2 / 2 over pixels, whose gradient is a + b x."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(0.3 * x) for x in images(shape=SHAPE[1:], dtype=dtype))

    def forward(self, x):
        return (self.a * x + self.b * x.square() / 2).flatten(1).sum(1)

    def norm(self, x):
        return (self.a + self.b * x).flatten(1).square().sum(1).sqrt()


def squares(critic, real, fake):
    """Every penalty as a function of a critic: name -> (ours, the equation), both [N]."""
    mix = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=real.dtype)
    between = mix[:, None, None, None] * real + (1 - mix)[:, None, None, None] * fake
    torch.manual_seed(7)
    near = real + 0.5 * real.std(correction=0) * torch.randn(real.shape, dtype=real.dtype)
    real, fake = real.clone().requires_grad_(), fake.clone().requires_grad_()
    torch.manual_seed(7)
    return {
        "r1": (penalty.r1(critic(real), real, 3.0), 1.5 * critic.norm(real) ** 2),
        "r2": (penalty.r2(critic(fake), fake, 3.0), 1.5 * critic.norm(fake) ** 2),
        "r1_r2": (
            sum(penalty.r1_r2(critic(real), real, critic(fake), fake, 3.0)),
            1.5 * critic.norm(real) ** 2 + 1.5 * critic.norm(fake) ** 2,
        ),
        "wgan_gp": (penalty.wgan_gp(critic, real, fake, mix=mix), 10 * (critic.norm(between) - 1) ** 2),
        "wgan_lp": (
            penalty.wgan_gp(critic, real, fake, 2.0, mix=mix, one_sided=True, target=0.5),
            2 * (critic.norm(between) - 0.5).clamp(min=0) ** 2,
        ),
        "zero_centered": (penalty.zero_centered(critic, real, fake, mix=mix), 10 * critic.norm(between) ** 2),
        "dragan": (penalty.dragan(critic, real), 10 * (critic.norm(near) - 1) ** 2),
    }


NAMES = ["r1", "r2", "r1_r2", "wgan_gp", "wgan_lp", "zero_centered", "dragan"]


@pytest.mark.parametrize("name", NAMES)
def test_value_and_parameter_gradients_equal_the_equation(name):
    critic = Quadratic()
    ours, expected = squares(critic, *images())[name]
    assert ours.shape == (4,)
    torch.testing.assert_close(ours, expected)
    parameters = list(critic.parameters())
    got = torch.autograd.grad(ours.sum(), parameters, retain_graph=True)
    torch.testing.assert_close(got, torch.autograd.grad(expected.sum(), parameters))


@pytest.mark.parametrize("name", NAMES)
def test_parameter_gradients_to_second_order(name):
    """gradcheck of the penalty is a second derivative of the critic, gradgradcheck a third."""
    real, fake = images(shape=(4, 2, 3, 3))

    def value(a, b):
        critic = Quadratic()
        for key, new in (("a", a), ("b", b)):
            delattr(critic, key)
            setattr(critic, key, new)
        return squares(critic, real, fake)[name][0]

    parameters = [p.detach().clone().requires_grad_() for p in Quadratic().parameters()]
    assert torch.autograd.gradcheck(value, parameters) and torch.autograd.gradgradcheck(value, parameters)


@pytest.mark.parametrize("name", NAMES)
def test_a_critic_without_slope_is_never_nan(name):
    critic = Quadratic()
    torch.nn.init.zeros_(critic.a)
    torch.nn.init.zeros_(critic.b)
    ours, _ = squares(critic, *images())[name]
    assert torch.isfinite(ours).all()
    for gradient in torch.autograd.grad(ours.sum(), list(critic.parameters())):
        assert torch.isfinite(gradient).all()


def test_mix_is_drawn_from_the_generator_and_images_get_no_gradient():
    critic, (real, fake) = Quadratic(), images()
    real.requires_grad_()
    fake.requires_grad_()
    mix = torch.rand(4, dtype=torch.float64, generator=seeded(1))
    drawn = penalty.wgan_gp(critic, real, fake, generator=seeded(1))
    assert torch.equal(drawn, penalty.wgan_gp(critic, real, fake, mix=mix))
    assert torch.autograd.grad(drawn.sum(), (real, fake), allow_unused=True) == (None, None)


def test_a_patch_map_is_summed():
    real = images()[0].requires_grad_()
    logits = (real**2).sum(1)
    torch.testing.assert_close(penalty.r1(logits, real, 2.0), (2 * real).flatten(1).square().sum(1))


@pytest.mark.parametrize("layers", [0, 3])
def test_path_length_equals_its_equation(layers):
    """G(w) = M w with the same M in every layer: J^T y = M^T y, in each."""
    generator = seeded(2)
    matrix = torch.randn(2 * 4 * 4, 5, dtype=torch.float64, generator=generator).requires_grad_()
    w = torch.randn((6, *([layers] if layers else []), 5), dtype=torch.float64, generator=generator).requires_grad_()
    made = ((w.sum(1) if layers else w) @ matrix.T).view(6, 2, 4, 4)
    got, mean = penalty.path_length(made, w, torch.tensor(0.5), decay=0.25, generator=seeded(9))
    y = torch.randn(6, 2, 4, 4, dtype=torch.float64, generator=seeded(9)) / 4
    lengths = (y.flatten(1) @ matrix).square().sum(1).sqrt()
    expected = 0.5 + 0.25 * (lengths.mean().detach() - 0.5)
    torch.testing.assert_close(mean, expected)
    assert not mean.requires_grad
    torch.testing.assert_close(got, 2.0 * (lengths - expected) ** 2)
    theirs = torch.autograd.grad((2.0 * (lengths - expected) ** 2).sum(), matrix, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), matrix), theirs)


def test_path_length_of_a_constant_generator_is_never_nan():
    w = torch.randn(3, 4, requires_grad=True)
    scale = torch.zeros((), requires_grad=True)
    got, _ = penalty.path_length((scale * w).view(3, 1, 2, 2), w, torch.tensor(0.0))
    assert torch.isfinite(got).all() and torch.isfinite(torch.autograd.grad(got.sum(), scale)[0])


def test_lecam_equals_its_equation():
    r, f = images(shape=(5,))
    a_r, a_f = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.2, dtype=torch.float64)
    torch.testing.assert_close(penalty.lecam(r, f, a_r, a_f), 0.3 * ((r - a_f) ** 2 + (f - a_r) ** 2))
    maps = [x.view(5, 1, 1, 1).expand(5, 1, 2, 2) for x in (r, f)]
    torch.testing.assert_close(penalty.lecam(*maps, a_r, a_f), penalty.lecam(r, f, a_r, a_f))
    assert torch.autograd.gradgradcheck(
        lambda r, f: penalty.lecam(r, f, a_r, a_f), (r.requires_grad_(), f.requires_grad_())
    )


def test_penalties_run_in_full_precision_under_autocast():
    critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(18, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    real, fake = images(dtype=torch.float32)
    mix = torch.rand(4)
    expected = penalty.wgan_gp(critic, real, fake, mix=mix)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        got = penalty.wgan_gp(critic, real.bfloat16().float(), fake, mix=mix)
    assert got.dtype == torch.float32
    assert torch.equal(penalty.wgan_gp(critic, real.bfloat16().float(), fake, mix=mix), got)
    assert not torch.equal(got, expected)


def test_the_graph_is_gone_with_the_penalty():
    """A graph that an input's .grad or a cycle keeps alive would leak a discriminator pass per step."""
    critic, (real, fake) = Quadratic(), images()
    alive = []

    def forward(x):
        x = x * 1
        alive.append(weakref.ref(x))
        return critic(x)

    gc.disable()
    try:
        real.requires_grad_()
        value = penalty.wgan_gp(forward, real, fake).sum() + penalty.r1(forward(real), real, 1.0).sum()
        value.backward()
        assert len(alive) == 2
        del value
        assert [r() for r in alive] == [None, None]
    finally:
        gc.enable()
    assert real.grad is not None and critic.a.grad.grad_fn is None


def test_what_could_train_nothing_raises():
    critic, (real, fake) = Quadratic(), images()
    with pytest.raises(RuntimeError, match="r1: the penalised input does not require gradients"):
        penalty.r1(critic(real), real, 1.0)
    other = fake.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="does not depend on the penalised input"):
        penalty.r1(critic(real.clone().requires_grad_()), other, 1.0)
    with torch.no_grad():
        logits = critic(other)
    with pytest.raises(RuntimeError, match="r2: the network's output has no graph"):
        penalty.r2(logits, other, 1.0)
    linear = torch.nn.Linear(18, 1, dtype=torch.float64).requires_grad_(False)
    with pytest.raises(RuntimeError, match="no graph, so the penalty would train nothing"):
        penalty.wgan_gp(lambda x: linear(x.flatten(1)), real, fake)


def test_bad_input_is_named():
    critic, (real, fake) = Quadratic(), images()
    for name in ("wgan_gp", "zero_centered"):
        with pytest.raises(ValueError, match=rf"{name}: real is \(4, 2, 3, 3\) and fake \(3, 2, 3, 3\)"):
            getattr(penalty, name)(critic, real, fake[:3])
        with pytest.raises(TypeError, match=f"{name}.*fake"):
            getattr(penalty, name)(critic, real, fake.long())
    with pytest.raises(TypeError, match=r"dragan.*real"):
        penalty.dragan(critic, real.long())
    x = real.clone().requires_grad_()
    with pytest.raises(ValueError, match="expected one row per image"):
        penalty.r1(critic(x)[:3], x, 1.0)
    with pytest.raises(ValueError, match=r"path_length: images .* expected \[N, C, H, W\]"):
        penalty.path_length(x.flatten(1), x.flatten(1), torch.tensor(0.0))
    with pytest.raises(ValueError, match="lecam"):
        penalty.lecam(real[:, 0, 0, 0], fake[:, 0], torch.tensor(0.0), torch.tensor(0.0))
