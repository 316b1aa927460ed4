"""The embedded emoji, the names and selectors, and the range of pixels."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from fastgan.data import load, names, to_float, to_uint8
from fastgan.data.emoji import ASSETS, is_test


def test_counts():
    google, twitter = load("emoji"), load("emoji:twitter")
    assert len(google) == len(twitter) == 3781
    assert (google.channels, google.resolution, google.num_classes) == (3, 32, 9)
    assert google.class_names[0] == "Smileys & Emotion" and google.class_names[-1] == "Flags"
    assert torch.bincount(google.labels).tolist() == [169, 2261, 159, 131, 218, 85, 264, 224, 270]
    assert len(load("emoji:base")) == len(load("emoji:twitter:base")) == 1906
    assert len(np.unique(google.images.flatten(1).numpy(), axis=0)) == 3762
    assert len(np.unique(twitter.images.flatten(1).numpy(), axis=0)) == 3747
    assert len(load("emoji:google:base:people")) == 386
    assert google.files == twitter.files and google.files[0] == "1F600"


def test_pixels_are_the_stored_ones_channels_first():
    with np.load(ASSETS / "emoji32.npz") as stored:
        assert np.array_equal(load("emoji").images.permute(0, 2, 3, 1).numpy(), stored["google"])
        assert np.array_equal(load("emoji:twitter").images.permute(0, 2, 3, 1).numpy(), stored["twitter"])


def test_split_holds_out_base_emoji_with_their_variants():
    train, test = (load("emoji", split=split) for split in ("train", "test"))
    assert len(train) + len(test) == 3781 and not set(train.files) & set(test.files)
    assert set(train.files) | set(test.files) == set(load("emoji").files)
    bases = load("emoji:base", split="test")
    assert len(bases) == 190
    assert all(map(is_test, bases.files)) and set(bases.files) <= set(test.files)
    with np.load(ASSETS / "emoji32.npz") as stored:
        family = stored["is_base"].cumsum()  # the file lists each base emoji before its variants
        held_out = np.isin(stored["codepoints"], test.files)
        for number in range(1, 1907):
            assert len(set(held_out[family == number].tolist())) == 1, number
    assert load("emoji:twitter", split="test").files == test.files


def test_one_class_and_no_labels():
    food = load("emoji:twitter:food")
    assert len(food) == 131 and food.num_classes == 0 and not food.labels.any()
    assert food.name == "emoji:twitter:food-drink"
    plain = load("emoji", labels=False)
    assert plain.num_classes == 0 and plain.class_names == [] and not plain.labels.any()
    assert load("emoji").num_classes == 9


def test_options_on_arrays():
    small = load("emoji:base", resolution=16, channels=1, flip=True)
    assert small.images.shape == (1906, 1, 16, 16) and small.flip
    from PIL import Image

    first = load("emoji:base").images[0].permute(1, 2, 0).numpy()
    expected = Image.fromarray(first).convert("L").resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(small.images[0, 0].numpy(), np.asarray(expected))
    assert not load("emoji").flip


def test_every_name_loads_and_fast():
    assert names()[0] == "emoji" and "fashion-mnist" in names()
    code = "import time, fastgan.data as d; t = time.perf_counter(); d.load('emoji'); print(time.perf_counter() - t)"
    taken = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert taken < 1.0
    began = time.perf_counter()
    for name in names():
        if name != "fashion-mnist":
            load(name)
    assert time.perf_counter() - began < 2


def test_needs_pillow_only_for_image_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    code = f"""
import sys
for missing in ("PIL", "torchvision"):
    sys.modules[missing] = None
import fastgan.data as data
data.load("emoji")
next(data.Loader(data.load("emoji"), 4, flip=True))
try:
    data.load({str(tmp_path)!r}, resolution=8)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'pip install "fastgan[train]"' in done.stdout


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name_or_path": "emojis"}, FileNotFoundError, "Names: emoji, emoji:google, .*fashion-mnist"),
        ({"name_or_path": "emoji:apple"}, ValueError, "unknown part.*google, twitter, then base.*food-drink"),
        ({"name_or_path": "emoji:google:twitter"}, ValueError, "unknown part"),
        ({"name_or_path": "emoji:"}, ValueError, "unknown part"),
        ({"name_or_path": "emoji", "resolution": 0}, ValueError, "resolution is 0"),
        ({"name_or_path": "emoji", "resolution": 32.0}, ValueError, r"resolution is 32\.0"),
        ({"name_or_path": "emoji", "channels": 0}, ValueError, "channels is 0, expected a positive integer or None"),
        ({"name_or_path": "emoji", "channels": 5}, ValueError, "emoji:google: channels is 5, and the images have 3"),
        ({"name_or_path": "emoji", "bits": 12}, ValueError, "bits is 12, expected one of None, 8, 16"),
        ({"name_or_path": "emoji", "resolution": (8, 0)}, ValueError, r"resolution is \(8, 0\), expected"),
        ({"name_or_path": "emoji", "resolution": (8,)}, ValueError, r"resolution is \(8,\), expected"),
        ({"name_or_path": "emoji", "crop": "middle"}, ValueError, "crop is 'middle', expected one of 'center'"),
        ({"name_or_path": "emoji", "split": "val"}, ValueError, "split is 'val'"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        load(**arguments)


def test_range_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(2, 1, 8, 16)
    values = to_float(pixels)
    assert values.dtype == torch.float32 and values.min() == -1 and values.max() == 1
    assert torch.equal(to_uint8(values), pixels)
    assert torch.equal(to_uint8(values.double()), pixels)
    wild = torch.tensor([-7.0, -1.004, 1.003, torch.inf, -torch.inf, torch.nan, 0.001, -0.01])
    assert to_uint8(wild).tolist() == [0, 0, 255, 255, 0, 128, 128, 126]
    many = torch.randint(0, 256, (3, 1, 601, 607), dtype=torch.uint8)  # more than one part
    assert torch.equal(to_float(many), many.float() / 127.5 - 1)
    assert torch.equal(to_float(many.mT), many.mT.float() / 127.5 - 1) and to_float(many[0, 0, 0, 0]).ndim == 0
    last = to_float(pixels.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(TypeError, match=r"dtype torch\.float32, expected torch\.uint8"):
        to_float(values)
    with pytest.raises(TypeError, match=r"dtype torch\.uint8, expected a floating type"):
        to_uint8(pixels)


def test_two_sets_where_one_is_expected_and_texts_where_images_are():
    with pytest.raises(ValueError, match="expected one data set, a name or a path; two of them are for translation"):
        load(("emoji:google", "emoji:twitter"))
    with pytest.raises(FileNotFoundError, match="kjv: a set of texts, for mle, seqgan and relgan"):
        load("kjv")
    with pytest.raises(FileNotFoundError, match="did you mean 'fashion-mnist'"):
        load("fashion-mnits")
    with pytest.raises(ValueError, match="did you mean 'food-drink'"):
        load("emoji:fodo-drink")


def test_a_run_says_what_its_classes_are():
    assert load("emoji:base").about.startswith("1906 images, 9 classes: ")
    assert load("emoji:food").about == "131 images, no classes"
