import pytest
import torch
import torch.nn.functional as F

from fastgan.models import build, fewshot


def nets(**changes):
    torch.manual_seed(0)
    config = fewshot.Config(**{"width": 4, "max_width": 16, "latent": 6} | changes)
    return fewshot.Generator(config), fewshot.Discriminator(config)


@pytest.mark.parametrize("resolution", [32, 64, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size(resolution, channels):
    g, d = nets(resolution=resolution, channels=channels)
    images = g(torch.randn(2, 6))
    assert images.shape == (2, channels, resolution, resolution) and images.abs().max() < 1
    which = torch.tensor([3, 0])
    logits, *decoded = d.reconstruct(images, which)
    size = min(resolution // 2, 128)
    assert logits.shape == (2, 5, 5)
    assert [x.shape for x in (*decoded, *d.targets(images, which))] == [(2, channels, size, size)] * 4


@pytest.mark.parametrize(
    "resolution, pairs",
    [
        (32, {32: 4}),
        (64, {64: 4}),
        (256, {64: 4, 128: 8, 256: 16}),
        (1024, {64: 4, 128: 8, 256: 16, 512: 32, 1024: 64}),
    ],
)
def test_large_maps_are_weighted_by_small_ones(resolution, pairs):
    assert fewshot.Config(resolution=resolution).excited == pairs


def test_excitation_is_the_published_formula():
    """y = F(x_low, W) x_high (section 3.1), one weight per channel."""
    g, _ = nets()
    g.eval()
    z = torch.randn(2, 6)
    x = g.first(z[:, :, None, None])
    small = x
    for block in g.blocks:
        x = block(x)
    layers = g.excitations["32"].layers
    weights = torch.sigmoid(F.conv2d(F.silu(F.conv2d(small, layers[1].weight)), layers[3].weight))
    assert weights.shape == (2, 8, 1, 1)
    torch.testing.assert_close(g(z), torch.tanh(g.rgb(x * weights)))


def test_quarter():
    x = torch.arange(2 * 16.0).view(2, 1, 4, 4)
    assert fewshot.quarter(x, torch.tensor([1, 2])).flatten(1).tolist() == [[2, 3, 6, 7], [24, 25, 28, 29]]


def test_noise_in_training_alone():
    g, _ = nets()
    for module in g.modules():
        if isinstance(module, fewshot.Noise):
            module.weight.data.fill_(0.5)
    z = torch.randn(3, 6)
    assert not torch.equal(g(z), g(z))
    g.eval()
    assert torch.equal(g(z), g(z))
    torch.testing.assert_close(g(z)[:1], g(z[:1]))


def test_decoders_get_gradients_and_give_them_to_the_features():
    _, d = nets(resolution=64)
    images, which = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3])
    _, whole, part = d.reconstruct(images, which)
    (whole.square().sum() + part.square().sum()).backward()
    reached = {name.split(".")[0] for name, p in d.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == {"first", "to16", "to8", "whole", "part"}


@pytest.mark.parametrize("resolution", [16, 48])
def test_other_sizes_are_refused(resolution):
    with pytest.raises(ValueError, match=f"resolution is {resolution}, expected a power of two, at least 32"):
        fewshot.Config(resolution=resolution)


def test_build_by_name():
    assert isinstance(build("fastgan.discriminator", width=4), fewshot.Discriminator)
