import pytest
import torch

from fastgan.models import build, dcgan, list_models


def nets(**changes):
    config = dcgan.Config(**{"latent": 6, "width": 4, "max_width": 16, **changes})
    torch.manual_seed(0)
    return dcgan.Generator(config), dcgan.Discriminator(config)


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size(resolution, channels):
    g, d = nets(resolution=resolution, channels=channels)
    images = g(torch.randn(2, 6))
    assert images.shape == (2, channels, resolution, resolution)
    assert d(images).shape == (2,)


@pytest.mark.parametrize("resolution", [0, 16, 48, 512])
def test_other_sizes_are_refused(resolution):
    with pytest.raises(ValueError, match=f"resolution is {resolution}, expected 32, 64, 128 or 256"):
        dcgan.Config(resolution=resolution)


def test_activations_keep_their_scale_at_the_start():
    g, d = nets(width=32, max_width=256, latent=64)
    with torch.no_grad():
        images = g(torch.randn(64, 64))
        logits = d(torch.randn(64, 3, 32, 32))
    assert 0.5 < images.std() < 2
    assert 0.3 < logits.std() < 3


def test_logits_do_not_depend_on_the_rest_of_the_batch():
    g, d = nets()
    z = torch.randn(5, 6)
    torch.testing.assert_close(g(z)[:2], g(z[:2]))
    x = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(d(x)[:2], d(x[:2]))


def test_classes_change_images_and_logits():
    g, d = nets(num_classes=3)
    z, x = torch.randn(1, 6).repeat(3, 1), torch.randn(1, 3, 32, 32).repeat(3, 1, 1, 1)
    classes = torch.arange(3)
    assert (g(z, classes)[0] - g(z, classes)[1]).abs().max() > 1e-3
    logits = d(x, classes)
    features = d.down(x[:1]).flatten()
    expected = torch.stack([features @ (d.weight + d.embedding.weight[k]) for k in range(3)]) + d.bias
    torch.testing.assert_close(logits, expected)


def test_second_derivatives_reach_every_weight():
    _, d = nets()
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for n, p in d.named_parameters() if n.endswith("weight"))


def test_build_by_name():
    assert isinstance(build("dcgan.generator", width=4), dcgan.Generator)
    assert "dcgan.discriminator" in list_models()
    assert isinstance(build("dcgan", width=4), dcgan.Generator)  # a family's name alone
    with pytest.raises(
        ValueError,
        match=r"unknown model 'dcgan\.encoder'; did you mean 'dcgan\.generator'\?; known: .*dcgan\.generator",
    ):
        build("dcgan.encoder")
    with pytest.raises(ValueError, match="no option colour, size; it takes resolution, channels"):
        build("dcgan.generator", size=3, colour=1)
