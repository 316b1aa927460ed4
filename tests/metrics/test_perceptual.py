"""Distances as networks see them: zero for the same, more for more; weights from local files, and what is none refused."""

import pytest
import torch

from fastgan import data
from fastgan.metrics import perceptual
from fastgan.metrics.perceptual import Perceptual, load_perceptual


def test_the_formula():
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    weights = torch.tensor([1.0, 0.5, 2.0])
    made = Perceptual(lambda images: [images], [weights])
    a, b = (t / t.norm(dim=1, keepdim=True) for t in (x, y))
    expected = ((a - b).square() * weights[:, None, None]).sum(1).mean((1, 2))
    assert torch.allclose(made(x, y), expected, atol=1e-6)
    assert (made(x, x) == 0).all()
    plain = Perceptual(lambda images: [images])
    assert torch.allclose(plain(x, y), (a - b).square().sum(1).mean((1, 2)), atol=1e-6)


def test_efflite0_sees_more_of_more():
    images = data.to_float(data.load("emoji").images[[10, 900]])
    network = load_perceptual("efflite0")
    little = (images + 0.02 * torch.randn_like(images)).clamp(-1, 1)
    much = (images + 0.4 * torch.randn_like(images)).clamp(-1, 1)
    near, far, other = network(images, little), network(images, much), network(images, images.flip(0))
    assert (near > 0).all() and (near < far).all() and (near < other).all()
    assert network(images, images).abs().max() < 1e-6
    grey = images.mean(1, keepdim=True)
    assert torch.allclose(network(grey, images), network(grey.expand(-1, 3, -1, -1), images), atol=1e-5)
    x = images.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(network(x, images.flip(0)).sum(), x)
    step = (images - 0.05 * g / g.abs().max()).detach()
    assert network(step, images.flip(0)).sum() < network(images, images.flip(0)).sum()


@pytest.fixture
def vgg(tmp_path, monkeypatch):
    """A network of VGG-16's form with few channels, its file in torchvision's layout, and one of LPIPS."""
    monkeypatch.setattr(perceptual, "_VGG", ((2, 3), (4, 4), (5, 5, 5), (6, 6, 6), (7, 7, 7)))
    numbers = [
        0,
        2,
        5,
        7,
        10,
        12,
        14,
        17,
        19,
        21,
        24,
        26,
        28,
    ]  # torchvision's list of vgg16.features: Conv2d at these places
    state, inputs = {}, 3
    torch.manual_seed(1)
    for number, width in zip(numbers, [w for group in perceptual._VGG for w in group], strict=True):
        state[f"features.{number}.weight"] = torch.randn(width, inputs, 3, 3) * 0.3
        state[f"features.{number}.bias"] = torch.randn(width) * 0.1
        inputs = width
    torch.save(state, tmp_path / "vgg16.pth")
    lpips = {f"lin{i}.model.1.weight": torch.rand(1, widths[-1], 1, 1) for i, widths in enumerate(perceptual._VGG)}
    torch.save(lpips, tmp_path / "lpips.pth")
    return tmp_path, state, lpips


def test_vgg16_of_a_local_file(vgg):
    folder, state, _ = vgg
    made = load_perceptual(folder / "vgg16.pth")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    x, expected = ((images + 1) / 2 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]), []
    x = x / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    for number in range(30):  # conv, relu, ..., pool: as torchvision numbers them
        if f"features.{number}.weight" in state:
            x = torch.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1).relu()
        if number in (3, 8, 15, 22, 29):
            expected.append(x)
            x = torch.max_pool2d(x, 2)
    found = made.layers(images)
    assert len(found) == 5 and all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert made.name == "vgg16" and (made(images, images.flip(0)) > 0).all()


def test_lpips_weights(vgg):
    folder, _, lpips = vgg
    made = load_perceptual(folder / "vgg16.pth", lpips=folder / "lpips.pth")
    assert made.name == "lpips"
    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    expected = torch.zeros(2)
    for i, (a, b) in enumerate(zip(made.layers(x), made.layers(y), strict=True)):
        a, b = (t * (t.square().sum(1, keepdim=True) + 1e-10).rsqrt() for t in (a, b))
        expected += ((a - b).square() * lpips[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
    assert torch.allclose(made(x, y), expected, atol=1e-6)


def test_what_is_no_such_file(vgg):
    folder, state, _ = vgg
    with pytest.raises(ValueError, match="expected efflite0 or a file of VGG-16's weights"):
        load_perceptual("alex")
    with pytest.raises(ValueError, match="belongs to the weights of VGG-16"):
        load_perceptual("efflite0", lpips=folder / "lpips.pth")
    with pytest.raises(FileNotFoundError):
        load_perceptual(folder / "none.pth")
    torch.save({n: t for n, t in state.items() if n != "features.10.bias"}, folder / "less.pth")
    with pytest.raises(ValueError, match=r"less.pth: features.10.bias is absent, expected \[5\], as of VGG-16"):
        load_perceptual(folder / "less.pth")
    with pytest.raises(ValueError, match=r"vgg16.pth: lin0.model.1.weight"):
        load_perceptual(folder / "vgg16.pth", lpips=folder / "vgg16.pth")
