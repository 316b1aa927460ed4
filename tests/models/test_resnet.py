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


def test_widths_double_above_32():
    config = resnet.Config(resolution=64, width=4)
    assert config.widths == [32, 32, 16, 8, 4]
    d = resnet.Discriminator(config)
    assert [block.conv2.weight.shape[0] for block in d.blocks] == [4, 8, 16, 32, 32]
    assert [block.down for block in d.blocks] == [True, True, True, True, False]


def test_spectral_norms_become_one_and_eval_keeps_them():
    torch.manual_seed(0)
    d = resnet.Discriminator(resnet.Config(width=8, spectral=True))
    convolutions = [m for m in d.modules() if isinstance(m, resnet.Conv)]
    x = torch.randn(2, 3, 32, 32)
    for _ in range(60):
        d(x)
    before = {name: b.clone() for name, b in d.named_buffers()}
    d.eval()(x)
    assert all(torch.equal(before[name], b) for name, b in d.named_buffers())
    for conv in convolutions:
        weight = resnet.spectral_weight(conv.weight, conv.u, update=False)
        assert torch.linalg.matrix_norm(weight.flatten(1), ord=2).item() == pytest.approx(1, abs=1e-2)


def test_spectral_gradient_is_that_of_the_quotient():
    """sigma = u' W v with u and v constant (Miyato et al., 2018, eq. 12): at the fixed point its derivative is u v'."""
    torch.manual_seed(0)
    weight = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    left, values, right = torch.linalg.svd(weight.detach())
    g = torch.randn(4, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(resnet.spectral_weight(weight, left[:, 0].clone(), update=False), weight, g)
    normal = weight.detach() / values[0]
    expected = (g - (g * normal).sum() * torch.outer(left[:, 0], right[0])) / values[0]
    torch.testing.assert_close(gradient, expected)


def test_the_size_of_a_spectral_weight_does_not_matter():
    torch.manual_seed(0)
    d = resnet.Discriminator(resnet.Config(width=8, spectral=True)).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = d(x)
    with torch.no_grad():
        for name, p in d.named_parameters():
            if name.endswith("weight"):
                p.mul_(3)
    torch.testing.assert_close(d(x), expected)
