"""Feature extractors, the cache of a data set's features, and the names that results carry."""

import pytest
import torch

import fastgan.data
from fastgan.metrics import images
from fastgan.metrics.efflite0 import _BN_EPS, EfficientNetLite0


@pytest.fixture(scope="module")
def efflite0():
    return images.load_extractor("efflite0")


@pytest.fixture(scope="module")
def emoji():
    return fastgan.data.load("emoji")


def test_the_network_knows_what_it_sees(efflite0, emoji):
    """ImageNet classes of emoji that have one: a wrong stride, padding or activation anywhere loses them all."""
    expected = {
        "1F427": "king penguin 145",
        "1F34D": "pineapple 953",
        "1F353": "strawberry 949",
        "2602-FE0F": "umbrella 879",
    }
    index = torch.tensor([emoji.files.index(code) for code in expected])
    top = efflite0.logits(efflite0(emoji.images[index])).topk(2).indices.tolist()
    for (code, name), classes in zip(expected.items(), top, strict=True):
        assert int(name.split()[-1]) in classes, (code, name, classes)


def test_folding_changes_nothing():
    """The folded first block against convolution, batch normalisation and ReLU6 written out."""
    torch.manual_seed(0)
    network = EfficientNetLite0(16)
    state = {}
    for name, conv, norm in [("_conv_stem", network.stem, "_bn0")]:
        state[f"{name}.weight"] = torch.randn_like(conv.weight)
        for key in ("weight", "bias", "running_mean"):
            state[f"{norm}.{key}"] = torch.randn(len(conv.weight))
        state[f"{norm}.running_var"] = torch.rand(len(conv.weight))
    with pytest.raises(KeyError):
        network._load(state)  # the stem is folded before the first missing block is found
    x = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    padded = torch.nn.functional.pad((x.float() - 127) / 128, (0, 1, 0, 1))
    y = torch.nn.functional.conv2d(padded, state["_conv_stem.weight"], stride=2)
    bn = [state[f"_bn0.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    expected = torch.nn.functional.batch_norm(y, *bn, eps=_BN_EPS).clamp(0, 6)
    torch.testing.assert_close(network.stem(network._pixels(x)), expected, rtol=1e-4, atol=1e-4)


def test_grey_images_and_any_size(efflite0):
    grey = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    assert torch.equal(efflite0(grey), efflite0(grey.expand(-1, 3, -1, -1)))
    floats = fastgan.data.to_float(grey)
    torch.testing.assert_close(efflite0(floats), efflite0(grey), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="uint8"):
        efflite0(grey.long())


def test_cache(efflite0, emoji, tmp_path, monkeypatch):
    small = emoji.subset(torch.arange(40))
    first = images.dataset_features(efflite0, small, tmp_path)
    (path,) = tmp_path.iterdir()
    monkeypatch.setattr(images, "collect", lambda *a: pytest.fail("the cache was not used"))
    again = images.dataset_features(efflite0, small, tmp_path)
    assert torch.equal(again.rows, first.rows) and again.statistics.count == 40
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:1000])
    assert torch.equal(images.dataset_features(efflite0, small, tmp_path).rows, first.rows)
    images.dataset_features(efflite0, emoji.subset(torch.arange(1, 41)), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_names_say_what_was_measured(efflite0, emoji):
    a = images.collect(efflite0, emoji.images[:30].split(16))
    b = images.collect(efflite0, [emoji.images[1000:1025]])
    found = images.measure(a, b, "efflite0")
    assert list(found) == [
        f"{name}_efflite0" for name in ("fd", "kid", "precision", "recall", "density", "coverage", "is")
    ]
    assert list(images.measure(a, b, "inception", ["kid", "is"])) == ["kid", "is"]
    with pytest.raises(ValueError, match="fid, kid, prdc, is"):
        images.measure(a, b, "efflite0", ["sid"])
    with pytest.raises(ValueError, match="efflite0 or inception"):
        images.load_extractor("vgg")
    with pytest.raises(FileNotFoundError):
        images.load_extractor("inception", weights="/nonexistent.pth")
