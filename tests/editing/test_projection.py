"""Projection: what a generator made is found again, alone or among others, at once or in parts."""

import pytest
import torch
from torch.autograd import gradcheck

from fastgan import editing
from fastgan.editing.projection import Projector, autocorrelation
from fastgan.metrics.perceptual import Perceptual


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """For the mean of w and the first z: seconds less."""
    monkeypatch.setattr("fastgan.editing.projection._DRAWS", 1000)


@pytest.fixture(scope="module")
def small():
    """A perceptual distance of two layers, quicker than a network that has learnt to see."""

    def layers(x):
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        return [x, torch.nn.functional.avg_pool2d(x, 4)]

    return Perceptual(layers, name="small")


def labels_for(made, count):
    return torch.arange(count) % made.classes if made.classes else None


@pytest.mark.parametrize(
    ("name", "space"),
    [("gan", None), ("stylegan2", "w"), ("stylegan2", "w+"), ("r3gan", "z"), ("classes w", None), ("classes z", None)],
)
def test_a_picture_of_the_generator_is_found(editor, small, name, space):
    made = editor(name)
    images = made.images(made.latents([3, 4]))
    *_, last = editing.project(made, images, 30, space, labels=labels_for(made, 2), perceptual=small, every=15)
    start = Projector(made, images, 30, space, labels=labels_for(made, 2), perceptual=small).distances()
    assert last.step == last.steps == 30
    assert (last.distances[:, 1] < 0.5 * start[:, 1]).all() or last.distances[:, 1].max() < 1e-4
    found = made.images(last.latents)
    assert torch.allclose((found - images).square().mean((1, 2, 3)), last.distances[:, 1], atol=1e-6)
    assert torch.allclose(last.psnr, 10 * (4 / last.distances[:, 1]).log10(), atol=1e-3)
    if name == "stylegan2" and space == "w":
        assert (last.latents.values == last.latents.values[:, :1]).all()


def test_together_as_in_parts(editor, small, monkeypatch):
    made = editor("stylegan2")
    images = made.images(made.latents([3, 4, 5]))
    whole = [step.latents.values for step in editing.project(made, images, 6, noise=True, perceptual=small)]
    monkeypatch.setattr("fastgan.editing.projection._TOGETHER", 16 * 16)
    parts = [step.latents.values for step in editing.project(made, images, 6, noise=True, perceptual=small)]
    assert len(whole) == 6 and all((a - b).abs().max() < 1e-4 for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("name", ["stylegan2", "gan"])
def test_one_that_was_stopped_goes_on_as_if_it_had_not(editor, small, name):
    made = editor(name)
    images = made.images(made.latents([3, 4]))
    options = dict(steps=10, noise=bool(made.noise), perceptual=small, seed=5)
    whole, first, second = (Projector(made, images, **options) for _ in range(3))
    for _ in range(10):
        whole.advance()
    for _ in range(4):
        first.advance()
    second.restore(first.state())
    while second.step < 10:
        second.advance()
    assert torch.equal(whole.latents.values, second.latents.values)
    assert all(map(torch.equal, whole.latents.noise, second.latents.noise))
    with pytest.raises(ValueError, match="other pictures or options"):
        Projector(made, images[:1], **options).restore(first.state())


def test_noise_is_normal_and_without_structure(editor, small):
    made = editor("stylegan2")
    for name, parameter in made.generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(1.0)
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    *_, last = editing.project(made, images, 20, noise=True, perceptual=small, every=20)
    *_, plain = editing.project(made, images, 20, perceptual=small, every=20)
    assert last.distances.sum() < plain.distances.sum()
    for layer, shape in zip(last.latents.noise, made.noise, strict=True):
        assert layer.shape == (2, 1, *shape)
        assert layer.mean((2, 3)).abs().max() < 1e-5 and (layer.square().mean((2, 3)) - 1).abs().max() < 1e-4
    assert autocorrelation(last.latents.noise[-1]).max() < 20


def test_autocorrelation():
    torch.manual_seed(0)
    white, ramp = torch.randn(3, 1, 32, 32), torch.linspace(-1.7, 1.7, 32).expand(3, 1, 32, 32)
    assert (autocorrelation(white) < 20).all() and (autocorrelation(ramp) > 500).all()
    n = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    own = sum(
        x.numel() * (x * torch.roll(x, 1, axis)).mean() ** 2
        for x in (n, 2 * torch.nn.functional.avg_pool2d(n, 2))
        for axis in (2, 3)
    )
    assert torch.allclose(autocorrelation(n), own[None])
    assert gradcheck(autocorrelation, (torch.randn(1, 1, 9, 10, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize(
    ("name", "images", "options", "message"),
    [
        ("stylegan2", torch.zeros(2, 3, 16, 16), {}, r"expected floats in \[-1, 1\] of shape \[N, 1, 16, 16\]"),
        ("stylegan2", torch.zeros(0, 1, 16, 16), {}, r"\[0, 1, 16, 16\], expected"),
        ("stylegan2", torch.zeros(1, 1, 16, 16, dtype=torch.uint8), {}, "torch.uint8"),
        ("stylegan2", torch.full((1, 1, 16, 16), torch.nan), {}, "NaN or Inf"),
        ("stylegan2", torch.zeros(1, 1, 16, 16), dict(space="z"), r"space is 'z', expected w or w\+"),
        ("gan", torch.zeros(1, 1, 8, 8), dict(space="w+"), "expected z, which gan has"),
        ("gan", torch.zeros(1, 1, 8, 8), dict(noise=True), "gan has no noise"),
        ("gan", torch.zeros(1, 1, 8, 8), dict(steps=0), "steps is 0"),
        ("gan", torch.zeros(1, 1, 8, 8), dict(steps=2.5), "steps is 2.5, expected a whole number"),
        ("gan", torch.zeros(1, 1, 8, 8), dict(every=0), "every is 0, expected at least 1"),
        ("classes z", torch.zeros(1, 1, 16, 16), dict(labels=torch.tensor([0.5])), r"labels is \[0.5\], expected 1"),
        ("gan", torch.zeros(1, 1, 8, 8), dict(labels=torch.tensor([0])), "labels is given; gan needs None"),
        ("classes z", torch.zeros(1, 1, 16, 16), {}, "r3gan needs a class, 0 to 2, for each picture"),
        (
            "classes z",
            torch.zeros(1, 1, 16, 16),
            dict(labels=torch.tensor([3])),
            r"labels is \[3\], expected 1 classes",
        ),
    ],
)
def test_what_cannot_be_projected(editor, name, images, options, message):
    with pytest.raises(ValueError, match=message):
        next(iter(editing.project(editor(name), images, **{"steps": 2, "perceptual": None} | options)))


def test_what_is_no_tensor(editor):
    for images, options in ((torch.zeros(1, 1, 16, 16).numpy(), {}), (torch.zeros(1, 1, 16, 16), {"labels": [0]})):
        with pytest.raises(TypeError, match=r"(images is a ndarray|labels is a list), expected a tensor"):
            next(editing.project(editor("classes z"), images, steps=2, perceptual=None, **options))


def test_labels_of_any_integers_and_any_seed_can_be_kept(editor, tmp_path):
    options = dict(labels=torch.tensor([1], dtype=torch.int32), perceptual=None, seed=2**53)
    *_, last = editing.project(editor("classes z"), torch.zeros(1, 1, 16, 16), steps=2, **options)
    assert editing.Latents.load(last.latents.save(tmp_path / "l")).labels.tolist() == [1]
