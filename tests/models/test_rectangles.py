"""Rectangles of any number of channels: a network of turned weights makes, and judges, turned images."""

import pytest
import torch

from fastgan import models
from fastgan.sizes import at_level, nominal

SIZE = (48, 80)
SIZES = {
    "mlp": dict(resolution=(5, 7), latent=6, units=(8, 6)),
    "dcgan": dict(resolution=SIZE, latent=6, width=4, max_width=8, num_classes=2),
    "resnet": dict(resolution=SIZE, latent=6, width=4),
    "biggan": dict(resolution=SIZE, latent=8, width=4, num_classes=2, embedding=3),
    "fastgan": dict(resolution=SIZE, latent=6, width=8, max_width=8),
    "r3gan": dict(resolution=SIZE, latent=6, widths=8, groups=2, num_classes=2, embedding=3),
    "stylegan2": dict(resolution=SIZE, channel_base=64, channel_max=6, num_classes=2),
    "stylegan2 skip": dict(resolution=(24, 16), channel_base=64, channel_max=6, num_classes=2, architecture="skip"),
    "stylegan2 resnet": dict(resolution=(24, 16), channel_base=64, channel_max=6, num_classes=2, architecture="resnet"),
    "stylegan2 small": dict(resolution=(5, 6), channel_base=64, channel_max=6, num_classes=2, architecture="skip"),
}
FLAT = {  # tensors in which an image lies as one dimension: key -> dimension
    "mlp": {
        "generator": {"inverse.1.weight": 0, "inverse.1.bias": 0},
        "discriminator": {"down.0.weight": 1, "mean": 0, "scale": 0},
    },
    "dcgan": {"discriminator": {"weight": 0, "embedding.weight": 1}},
    "biggan": {"generator": {"first.weight": 0, "first.bias": 0, "first.u": 0}},
    "stylegan2": {"discriminator": {"b4.fc.weight": 1}},
}


def network(name, kind, channels, turned=False):
    family, _, _ = name.partition(" ")
    options = SIZES[name] | {"channels": channels}
    if family == "stylegan2" and kind == "generator":
        options |= {"z_dim": 6, "w_dim": 6, "mapping_layers": 1}
    if turned:
        options["resolution"] = options["resolution"][::-1]
    made = models.build(f"{family}.{kind}", **options).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # biases and strengths too
    return made.eval() if family == "fastgan" else made


def turn(name, kind, source, target):
    """Load `source`'s tensors into `target` with height and width exchanged."""
    family, _, _ = name.partition(" ")
    resolution = source.config.resolution
    height, width = resolution if family == "mlp" else at_level(resolution, 4)
    flat = FLAT.get(family, {}).get(kind, {})
    state = {}
    for key, tensor in source.state_dict().items():
        if key in flat:
            dim = flat[key]
            state[key] = tensor.unflatten(dim, (-1, height, width)).transpose(dim + 1, dim + 2).flatten(dim, dim + 2)
        else:
            state[key] = tensor.mT.contiguous() if tensor.dim() > 2 or key.endswith("noise_const") else tensor
    target.load_state_dict(state)


def classes(name):
    labels = torch.tensor([0, 1, 1, 0])
    if "num_classes" not in SIZES[name]:
        return []
    return [torch.eye(2, dtype=torch.float64)[labels] if name.startswith("stylegan2") else labels]


@pytest.mark.parametrize("channels", [1, 4, 8])
@pytest.mark.parametrize("name", SIZES)
def test_generators(name, channels):
    pair = network(name, "generator", channels), network(name, "generator", channels, turned=True)
    turn(name, "generator", *pair)
    latents = torch.randn(4, 8 if name == "biggan" else 6, dtype=torch.float64)
    options = {"noise_mode": "const"} if name.startswith("stylegan2") else {}
    image, turned = (g(latents, *classes(name), **options) for g in pair)
    assert image.shape == (4, channels, *SIZES[name]["resolution"])
    torch.testing.assert_close(turned.mT, image)
    weights = torch.randn_like(image)
    (image * weights).sum().backward()
    (turned * weights.mT).sum().backward()
    gradients = [{n: p.grad.norm() for n, p in g.named_parameters() if p.grad is not None} for g in pair]
    assert len(gradients[0]) > 3
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("channels", [1, 4, 8])
@pytest.mark.parametrize("name", SIZES)
def test_discriminators(name, channels):
    """Logits, their gradients by the image, and those of a gradient penalty by the weights."""
    pair = network(name, "discriminator", channels), network(name, "discriminator", channels, turned=True)
    turn(name, "discriminator", *pair)
    images = torch.randn(4, channels, *SIZES[name]["resolution"], dtype=torch.float64)
    found = []
    for d, x in zip(pair, (images, images.mT.contiguous()), strict=True):
        x.requires_grad_(True)
        logits = d(x, *classes(name))
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        slope.square().sum().backward()
        found.append((logits, slope, {n: p.grad.norm() for n, p in d.named_parameters() if p.grad is not None}))
    (logits, slope, norms), (turned_logits, turned_slope, turned_norms) = found
    torch.testing.assert_close(turned_logits.mT if logits.dim() > 2 else turned_logits, logits)
    torch.testing.assert_close(turned_slope.mT, slope)
    torch.testing.assert_close(turned_norms, norms)
    assert len(norms) > 3


def test_decoders_of_few_shot_networks():
    pair = network("fastgan", "discriminator", 4), network("fastgan", "discriminator", 4, turned=True)
    turn("fastgan", "discriminator", *pair)
    images, which = torch.randn(4, 4, *SIZE, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    made, turned = pair[0].reconstruct(images, which), pair[1].reconstruct(images.mT, torch.tensor([0, 2, 1, 3]))
    for one, other in zip(made, turned, strict=True):
        torch.testing.assert_close(other.mT, one)
    targets = pair[0].targets(images, which)
    assert [x.shape for x in (*made[1:], *targets)] == [(4, 4, 24, 40)] * 4
    torch.testing.assert_close(targets[0], torch.nn.functional.avg_pool2d(images, 2))
    torch.testing.assert_close(targets[1][1], images[1, :, :24, 40:])


@pytest.mark.parametrize("name", ["dcgan", "resnet", "biggan", "fastgan", "r3gan", "stylegan2"])
def test_a_square_within_has_the_same_widths(name):
    """The same tensors as of the square of as many levels; those that have a number per pixel are 15/4 as large."""
    for kind in ("generator", "discriminator"):
        rectangle, square = (
            models.build(f"{name}.{kind}", **SIZES[name] | {"resolution": r}).state_dict()
            for r in (SIZE, nominal(SIZE))
        )
        assert list(rectangle) == list(square)
        ratios = {tensor.numel() / square[key].numel() for key, tensor in rectangle.items()}
        assert ratios <= {1.0, 48 * 80 / 32**2}


@pytest.mark.parametrize(
    "name", ["stylegan3.generator", "stylegan2.discriminator", "dcgan", "resnet", "fastgan", "r3gan"]
)
def test_refusals_advise_a_size(name):
    with pytest.raises(ValueError, match=r"resolution is \(90, 161\), expected .*: give resolution="):
        models.build(name, resolution=(90, 161))


def test_minibatch_statistics_of_rectangles():
    from fastgan.ops import minibatch_stddev

    x = torch.randn(8, 6, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(minibatch_stddev(x.mT, 4, 2).mT, minibatch_stddev(x, 4, 2))
    plain = x.view(4, 2, 2, 3, 3, 5).var(0, correction=0).add(1e-8).sqrt().mean((2, 3, 4))
    torch.testing.assert_close(minibatch_stddev(x, 4, 2)[:, 6:, 1, 4], plain.repeat(4, 1))
