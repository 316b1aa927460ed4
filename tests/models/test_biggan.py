import pytest
import torch

from fastgan.models import biggan, build


def nets(**changes):
    torch.manual_seed(0)
    config = biggan.Config(**{"width": 8, "latent": 9, "num_classes": 3, "embedding": 5} | changes)
    return biggan.Generator(config), biggan.Discriminator(config)


@pytest.mark.parametrize("resolution, attention", [(8, 0), (16, 8), (32, 16), (64, 32), (64, 64), (128, 0)])
def test_every_size(resolution, attention):
    g, d = nets(resolution=resolution, attention=attention, channels=1)
    labels = torch.tensor([0, 2])
    images = g(torch.randn(2, 9), labels)
    assert images.shape == (2, 1, resolution, resolution) and images.abs().max() < 1
    assert d(images, labels).shape == (2,)


@pytest.mark.parametrize("attention", [16, 32])
def test_attention_sees_the_size_it_is_asked_for(attention):
    g, d = nets(resolution=64, attention=attention)
    seen = []
    for network in (g, d):
        network.attention.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[2:]))
    labels = torch.tensor([1])
    d(g(torch.randn(1, 9), labels), labels)
    assert seen == [(attention, attention)] * 2


def test_attention_is_the_identity_at_first_and_softmax_attention_after():
    torch.manual_seed(0)
    layer = biggan.SelfAttention(16, spectral=False)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(layer(x), x)
    layer.scale.data.fill_(0.7)
    expected = torch.empty_like(x)
    for n in range(2):
        query = layer.query(x[n : n + 1])[0]
        key, value = (
            torch.nn.functional.max_pool2d(f(x[n : n + 1]), 2)[0].flatten(1) for f in (layer.key, layer.value)
        )
        mixed = torch.empty(8, 4, 4)
        for i in range(4):
            for j in range(4):
                mixed[:, i, j] = value @ torch.softmax(query[:, i, j] @ key, 0)
        expected[n] = x[n] + 0.7 * layer.out(mixed[None])[0]
    torch.testing.assert_close(layer(x), expected)


def test_norm_follows_class_and_latent():
    torch.manual_seed(0)
    layer = biggan.ConditionalNorm(4, 3, spectral=False)
    x, c = torch.randn(5, 4, 6, 6), torch.randn(5, 3)
    plain = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    gain, bias = (f(c)[:, :, None, None] for f in (layer.gain, layer.bias))
    torch.testing.assert_close(layer(x, c), (1 + gain) * plain + bias)


def test_projection_of_the_class():
    _, d = nets(spectral=False)
    x = torch.randn(1, 3, 32, 32).repeat(3, 1, 1, 1)
    logits = d(x, torch.arange(3))
    x = d.blocks[0](x[:1])
    for block in d.blocks[1:]:
        x = block(x)
    features = torch.relu(x).mean((2, 3))[0]
    expected = [
        features @ (d.linear.weight[0] + d.embedding.weight[:, k]) + d.embedding.bias @ features for k in range(3)
    ]
    torch.testing.assert_close(logits, torch.stack(expected))


def test_each_part_of_the_latent_reaches_its_block():
    g, _ = nets()
    g.eval()
    assert g.parts == [3, 2, 2, 2]
    z = torch.randn(1, 9, requires_grad=True)
    g(z, torch.tensor([1])).square().sum().backward()
    assert (z.grad.abs() > 0).all()


def test_logits_do_not_depend_on_the_rest_of_the_batch_and_differentiate_twice():
    _, d = nets()
    d.eval()
    d.attention.scale.data.fill_(0.5)
    x, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(d(x, labels)[:2], d(x[:2], labels[:2]))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(d(x, labels).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for n, p in d.named_parameters() if n.endswith("weight") and "embedding" not in n)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_classes": 0}, "num_classes and embedding must be positive"),
        ({"attention": 64}, r"attention is 64, expected 0 or one of \[8, 16, 32\]"),
        ({"latent": 3}, "latent is 3, expected at least one per block, 4"),
    ],
)
def test_wrong_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        biggan.Config(**changes)


def test_build_by_name():
    assert isinstance(build("biggan.generator", width=4, num_classes=2), biggan.Generator)
