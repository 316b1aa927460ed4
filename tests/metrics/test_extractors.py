"""Feature extractors, the cache of a data set's features, and the names that results carry."""

import hashlib
import importlib.util
import os
import pickle
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import fastgan.data
from fastgan.data import ImageDataset
from fastgan.data.catalog import conform
from fastgan.metrics import cache, images, inception
from fastgan.metrics import efflite0 as efflite0_module
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


class Pixels(torch.nn.Module):
    """The pixels times a weight as features."""

    name, dim, resolution = "pixels", 12, 2

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.expand(-1, 3, -1, -1).flatten(1).float() * self.weight

    def logits(self, features):
        return features[:, :4]


def pictures(n, channels=3):
    return ImageDataset(torch.randint(0, 256, (n, channels, 2, 2), dtype=torch.uint8), name="pictures")


@pytest.fixture
def computed(tmp_path):
    """Whether features of a data set are computed anew, and that they are right."""

    def ask(dataset, extractor=None):
        extractor = extractor or Pixels()
        found = images.dataset_features(extractor, dataset, tmp_path)
        fresh = extractor.calls > 0
        right = images.collect(extractor, [dataset.images])
        assert torch.equal(found.rows, right.rows) and torch.equal(found.logits, right.logits)
        assert found.statistics.count == len(dataset)
        torch.testing.assert_close(found.statistics.covariance, right.statistics.covariance)
        return fresh

    return ask


def test_cache(computed, tmp_path):
    """Any one pixel of any picture makes another set; the same pixels under another name do not."""
    data = pictures(3000)
    assert computed(data) and not computed(data)
    assert not computed(data.replace(name="other", labels=torch.arange(3000)))
    for i in (0, 1, 2, 1024, 1500, 2998, 2999):
        changed = data.images.clone()
        changed[i, 2, 1, 1] ^= 1
        assert computed(data.replace(images=changed)), f"picture {i} was changed"
    assert computed(data.replace(images=data.images.flip(0)))
    assert computed(data.subset(torch.arange(2999)))
    assert not computed(data)
    assert len(list(tmp_path.iterdir())) == 10


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([torch.zeros(2, 32, 32, 3, dtype=torch.uint8)], ValueError, r"\[2, 32, 32, 3\].* channels seem to be last"),
        ([torch.zeros(2, 28, 28, 1, dtype=torch.uint8)], ValueError, "channels seem to be last"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), ValueError, r"\[3, 32, 32\], expected \[N, C, H, W\]$"),
        ([np.zeros((2, 3, 32, 32), np.uint8)], TypeError, "ndarray, expected tensors"),
    ],
)
def test_what_are_no_images(efflite0, batches, error, message):
    with pytest.raises(error, match=message):
        images.collect(efflite0, batches)


def test_autocast_is_off(efflite0):
    """16 bits moved features by 4%, and were kept for the next time."""
    parts = list(pictures(9).images.split(4))
    expected = images.collect(efflite0, parts)
    with torch.autocast("cpu", torch.bfloat16):
        found = images.collect(efflite0, (part for part in parts if torch.is_autocast_enabled("cpu")))
    assert torch.equal(found.rows, expected.rows) and torch.equal(found.logits, expected.logits)
    assert torch.equal(found.statistics.scatter, expected.statistics.scatter)


def test_cache_knows_the_settings(computed, monkeypatch):
    data = pictures(70)
    assert computed(data)
    for name, value in {"resolution": 3, "name": "others", "release": "0.5"}.items():
        other = Pixels()
        setattr(other, name, value)
        assert computed(data, other), name
    assert computed(data, Pixels(1.0000001))
    grey = pictures(5, channels=1)
    assert computed(grey) and computed(conform(grey, 4, None).replace(images=conform(grey, 2, 3).images))
    for module, name, value in ((cache, "VERSION", -1), (fastgan, "__version__", "0"), (images, "KEEP", 50)):
        monkeypatch.setattr(module, name, value)
        assert computed(data), name
    assert not computed(data)


def test_cache_of_files_follows_what_is_done_to_them(efflite0, tmp_path, monkeypatch):
    """The same files with another crop, size or number of channels."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    seen = []
    collect = images.collect
    monkeypatch.setattr(images, "collect", lambda *a: seen.append(1) or collect(*a))
    for i, options in enumerate([{}, {"crop": "stretch"}, {"resolution": 18}, {"channels": 1}], 1):
        for _ in range(2):
            data = fastgan.data.load(tmp_path, **({"resolution": 16} | options))
            images.dataset_features(efflite0, data, tmp_path / "cache")
            assert len(seen) == i, options


def test_cache_with_a_changed_bit_is_computed_again(computed, tmp_path):
    data = pictures(9)
    assert computed(data)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in [*np.random.default_rng(0).integers(0, len(whole), 60).tolist(), 0, 31, 32, len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert computed(data), f"byte {place}"
    for size in (0, 31, 32, 1000, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert computed(data), f"{size} bytes"
    assert not computed(data)
    other = pictures(9)
    assert computed(other)
    (theirs,) = (p for p in tmp_path.iterdir() if p != path)
    path.replace(theirs)
    assert computed(other), "a file under another's name"


def test_cache_runs_no_code(computed, tmp_path):
    """Even one with a right checksum."""
    data = pictures(9)
    assert computed(data)
    (path,) = tmp_path.iterdir()
    key = cache.key(Pixels(), data.images, images.KEEP)
    code = pickle.dumps(Evil(tmp_path / "ran"), 2)
    path.write_bytes(cache._checksum(key, code) + code)
    assert computed(data) and not (tmp_path / "ran").exists()


def test_cache_that_cannot_be_written(tmp_path):
    """A file stands where the folder should be, as root may write everywhere."""
    (tmp_path / "cache").write_text("")
    with pytest.warns(UserWarning, match="features of pictures are not kept"):
        found = images.dataset_features(Pixels(), pictures(9), tmp_path / "cache")
    assert found.statistics.count == 9


class Stream(torch.utils.data.IterableDataset):
    """The same pictures one by one, as bytes or as floats; `fingerprint` is what stands for them."""

    def __init__(self, dataset, floats=False, fingerprint=None):
        self.dataset, self.floats, self.fingerprint = dataset, floats, fingerprint

    def __iter__(self):
        for i, image in enumerate(self.dataset.images):
            yield (image / 127.5 - 1 if self.floats else image), i


@pytest.mark.parametrize("floats", [False, True])
def test_a_stream_takes_one_pass_and_nothing_is_kept_of_a_nameless_one(tmp_path, floats):
    data = pictures(150)
    right = images.dataset_features(Pixels(), data, tmp_path / "a")
    with pytest.warns(UserWarning, match="features of Stream are not kept for the next time: nothing tells whether"):
        found = images.dataset_features(Pixels(), Stream(data, floats), tmp_path / "b")
    assert torch.equal(found.rows, right.rows) and found.statistics.count == 150
    assert torch.equal(found.statistics.covariance, right.statistics.covariance)
    assert not (tmp_path / "b").exists()


def test_a_stream_is_known_by_its_fingerprint(tmp_path):
    data, first, again, other = pictures(30), Pixels(), Pixels(), Pixels()
    right = images.dataset_features(first, Stream(data, fingerprint="files of today"), tmp_path)
    found = images.dataset_features(again, Stream(data, fingerprint="files of today"), tmp_path)
    images.dataset_features(other, Stream(data, fingerprint="files of tomorrow"), tmp_path)
    assert (first.calls > 0, again.calls, other.calls > 0) == (True, 0, True)
    assert torch.equal(found.rows, right.rows)


class Evil:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture
def library(monkeypatch):
    """Stands for torch-fidelity: a network that reads its weights as that one does, running whatever they hold."""

    class Network(torch.nn.Module):
        def __init__(self, name, features, feature_extractor_weights_path):
            super().__init__()
            self.fc = torch.nn.Linear(2048, 1008)
            self.scale = torch.nn.Parameter(torch.zeros(1))
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

        def forward(self, x):
            return (x.double().mean((1, 2, 3))[:, None].expand(-1, 2048) * self.scale,)

    package = types.ModuleType("torch_fidelity")
    package.__version__ = "0"
    package.feature_extractor_inceptionv3 = types.SimpleNamespace(
        FeatureExtractorInceptionV3=Network, URL_INCEPTION_V3="file:///nonexistent/weights-6726825d.pth"
    )
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    return {"fc.weight": torch.ones(1008, 2048), "fc.bias": torch.zeros(1008), "scale": torch.full((1,), 2.0)}


def save(content, path):
    torch.save(content, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_inception_weights_are_read_and_named(library, tmp_path, monkeypatch):
    digest = save(library, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="no FID"):
        network = images.load_extractor("inception", weights=tmp_path / "w.pth")
    assert network.name == f"inception_{digest[:8]}" == inception.title(tmp_path / "w.pth")
    x = torch.full((2, 1, 4, 4), 3, dtype=torch.uint8)
    assert torch.equal(network(x), torch.full((2, 2048), 6.0)) and network(x).dtype == torch.float32
    monkeypatch.setattr(inception, "SHA256", digest[:8])
    assert images.load_extractor("inception", weights=tmp_path / "w.pth").name == "inception"
    assert inception.title(None) == "inception"


def test_inception_weights_run_no_code(library, tmp_path):
    for i, content in enumerate(
        [Evil(tmp_path / "ran"), library | {"scale": Evil(tmp_path / "ran")}, {"a": Evil(tmp_path / "ran")}]
    ):
        for name, write in (("zip", torch.save), ("pickle", lambda c, p: p.write_bytes(pickle.dumps(c, 2)))):
            path = tmp_path / f"{name}{i}.pth"
            write(content, path)
            with pytest.raises(ValueError, match=f"{name}{i}.pth") as error:
                images.load_extractor("inception", weights=path)
            assert "weights_only" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_inception_weights_that_are_none_are_named(library, tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"fc.weight": torch.ones(3)}, tmp_path / "few.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    for name in ("text", "empty", "list", "few", "pipe"):
        with pytest.raises(ValueError, match=f"{name}.pth"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images.load_extractor("inception", weights=tmp_path / f"{name}.pth")


def test_a_download_is_checked(library, tmp_path, monkeypatch):
    """Also one that was made earlier, by whomever."""
    package = sys.modules["torch_fidelity"].feature_extractor_inceptionv3
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(OSError, match="give weights=FILE"):
        images.load_extractor("inception")
    digest = save(library, tmp_path / "weights.pth")
    package.URL_INCEPTION_V3 = (tmp_path / "weights.pth").as_uri()
    with pytest.raises(OSError, match="hash"):
        images.load_extractor("inception")
    monkeypatch.setattr(inception, "SHA256", digest[:8])
    assert images.load_extractor("inception").name == "inception"
    save({"a": torch.ones(1)}, tmp_path / "hub" / "checkpoints" / "weights.pth")
    with pytest.raises(ValueError, match=f"expected {digest[:8]}"):
        images.load_extractor("inception")


def test_efflite0_weights_are_those_published(tmp_path, monkeypatch):
    (published,) = (Path(importlib.util.find_spec(efflite0_module._PACKAGE).origin).parent / "models").glob("*.pth")
    spec = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    (tmp_path / "models").mkdir()
    with pytest.raises(ValueError, match=r"0 files of weights.*==0\.1\.0"):
        EfficientNetLite0.pretrained()
    data = bytearray(published.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "models" / published.name).write_bytes(data)
    with pytest.raises(ValueError, match=f"expected {efflite0_module.SHA256}.*==0"):
        EfficientNetLite0.pretrained()


def test_the_real_library_takes_what_it_is_given(tmp_path):
    """torch-fidelity itself, with weights of no worth: loaded through the same path, features as it computes them."""
    library = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="extra inception is not installed"
    )
    blank = library.FeatureExtractorInceptionV3.__new__(library.FeatureExtractorInceptionV3)
    state = {}

    def keep(self, given):
        state.update(self.state_dict())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", keep)
        patch.setattr(library, "load_state_dict_from_url", lambda *a, **k: {})
        blank.__init__("inception-v3-compat", ["2048"])
    torch.save(state, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="no FID"):
        network = images.load_extractor("inception", weights=tmp_path / "w.pth")
    x = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(network(x), blank(x)[0])


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
