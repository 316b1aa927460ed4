import pytest
import torch

from fastgan.models import build, resnet


@pytest.mark.parametrize("resolution", [8, 32, 64])
def test_shapes_and_range(resolution):
    torch.manual_seed(0)
    config = resnet.Config(resolution=resolution, latent=6, width=8)
    g, d = resnet.Generator(config), resnet.Discriminator(config)
    images = g(torch.randn(2, 6))
    assert images.shape == (2, 3, resolution, resolution) and images.abs().max() < 1
    assert d(images).shape == (2,)


def test_paper_sizes_at_32():
    config = resnet.Config()
    g, d = resnet.Generator(config), resnet.Discriminator(config)
    assert len(g.blocks) == 3
    assert [block.down for block in d.blocks] == [True, True, False, False]
    # 1x1 and 3x3 convolutions of Gulrajani et al., table 3, at 128 channels.
    assert sum(p.numel() for p in d.parameters()) == (
        (3 * 128 * 9 + 128) + 7 * (128 * 128 * 9 + 128) + (3 * 128 + 128) + (128 * 128 + 128) + 129
    )


def test_halving_commutes_with_the_shortcut():
    torch.manual_seed(0)
    block = resnet.DownBlock(4, 6, down=True)
    x = torch.randn(2, 4, 8, 8)
    plain = resnet.halve(block.shortcut(x) + block.conv2(2**0.5 * torch.relu(block.conv1(2**0.5 * torch.relu(x)))))
    torch.testing.assert_close(block(x), plain)


def test_critic_has_no_batch_statistics():
    torch.manual_seed(0)
    d = build("resnet.discriminator", width=8)
    x = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(d(x)[:2], d(x[:2]))


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="resolution is 28, expected a power of two"):
        resnet.Config(resolution=28)
