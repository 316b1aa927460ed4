import pytest
import torch

from fastgan.models import build, mlp


def nets(**changes):
    config = mlp.Config(resolution=8, latent=5, units=(12, 7), **changes)
    torch.manual_seed(0)
    return mlp.Generator(config), mlp.Discriminator(config)


def test_two_layers_and_two_mirrored_ones():
    g, d = nets(stddev_group=0)
    assert [tuple(layer.weight.shape) for layer in [*g.down, *g.inverse]] == [(12, 5), (7, 12), (12, 7), (64, 12)]
    assert [tuple(layer.weight.shape) for layer in [*d.down, *d.inverse]] == [(12, 64), (7, 12), (12, 7), (1, 12)]


def test_shapes_and_range():
    g, d = nets()
    images = g(torch.randn(8, 5) * 100)
    assert images.shape == (8, 1, 8, 8) and images.abs().max() <= 1
    logits, features = d(images, features=True)
    assert logits.shape == (8,) and features.shape == (8, 12)
    assert torch.equal(logits, d(images))


def test_generator_equals_its_formula():
    g, _ = nets()
    x = z = torch.randn(3, 5)
    for layer in [*g.down, *g.inverse]:
        x = torch.tanh(x @ layer.weight.T + layer.bias)
    torch.testing.assert_close(g(z).flatten(1), x)


def test_preparation_starts_the_generator_at_the_data():
    g, d = nets()
    mean = torch.linspace(-1, 1, 64).view(1, 8, 8)
    deviation = torch.full((1, 8, 8), 0.1)
    g.prepare(mean, deviation)
    d.prepare(mean, deviation)
    images = g(torch.randn(4096, 5))
    # The mean to first order: away from the ends of the range, where tanh bends.
    assert (images.mean(0) - mean)[mean.abs() < 0.8].abs().max() < 0.03
    assert 0.02 < images.std(0)[mean.abs() < 0.8].mean() < 0.15
    seen = (images.flatten(1) - d.mean) * d.scale
    torch.testing.assert_close(seen.std(0), images.flatten(1).std(0) / 0.1)


def test_discriminator_sees_a_collapsed_batch():
    _, d = nets()
    image = torch.randn(1, 1, 8, 8).repeat(4, 1, 1, 1)
    varied = torch.cat([image[:1], torch.randn(3, 1, 8, 8)])
    assert d(image)[0] != d(varied)[0]


@pytest.mark.parametrize("changes", [{"units": (3,)}, {"units": (0, 3)}, {"latent": 0}])
def test_bad_sizes_are_refused(changes):
    with pytest.raises(ValueError, match="mlp: "):
        build("mlp.generator", **changes)
