"""Pictures that are decoded one by one: facts from the first, unreadable ones left out and counted, options applied to each."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.data import Loader, load, prepare
from fastgan.data.pictures import Options, PictureItems, PictureStream, pictures
from fastgan.data.source import once


def picture(i: int, width: int = 8, height: int = 8, mode: str = "RGB") -> Image.Image:
    """The left half is bright, and the value of the right one is `i`."""
    pixels = np.full((height, width, 3), i % 200, np.uint8)
    pixels[:, : width // 2] = 255
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def items(n: int, broken: tuple[int, ...] = (), **size) -> list[dict]:
    found = [{"image": encoded(picture(i, **size)), "label": i % 3} for i in range(n)]
    for i in broken:
        found[i]["image"] = found[i]["image"][:40]
    return found


def make(source, kind, **options):
    about = {"name": "test", "classes": options.pop("classes", 0)}
    return pictures(source if kind is PictureItems else Stream(source), Options(**options), **about)


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, source):
        self.source = source

    def __iter__(self):
        return iter(self.source)


kinds = pytest.mark.parametrize("kind", [PictureItems, PictureStream])


@kinds
def test_facts_and_pixels(kind):
    made = make(items(7), kind, classes=3)
    assert isinstance(made, kind)
    assert (made.resolution, made.channels, made.num_classes, made.class_names) == (8, 3, 3, ["0", "1", "2"])
    images, labels = (torch.cat(parts) for parts in zip(*once(made, size=3), strict=True))
    assert images.shape == (7, 3, 8, 8) and images.dtype == torch.uint8
    assert images[:, 0, 0, -1].tolist() == list(range(7))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


@kinds
def test_options_apply_to_each(kind):
    wide = items(4, width=24, height=12)
    assert next(once(make(wide, kind)))[0].shape == (4, 3, 12, 12)
    assert make(wide, kind, crop="none").resolution == (12, 24)
    grey = make(wide, kind, resolution=(6, 12), channels=1)
    assert (grey.resolution, grey.channels) == ((6, 12), 1)
    assert next(once(grey))[0].shape == (4, 1, 6, 12)
    assert next(once(make(wide, kind, bits=16)))[0].dtype == torch.uint16
    images = next(Loader(make(items(64), kind, flip=True), 64))[0]
    left = images[:, 0, 0, 0] == 255
    assert 16 < int(left.sum()) < 48 and bool((images[~left, 0, 0, -1] == 255).all())


@kinds
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_pictures_are_left_out_and_counted(kind, workers):
    with pytest.warns(UserWarning, match=r"skipped [123] unreadable so far: .*item"):
        made = make(items(40, broken=(0, 3, 4, 11)), kind)
        loader = Loader(made, 10, workers=workers)
        seen = torch.cat([next(loader)[0][:, 0, 0, -1] for _ in range(12)])
    assert not {0, 3, 4, 11} & set(seen.tolist())
    assert len(made.skipped) >= 4
    assert len(seen) == 120
    loader.close()
    with pytest.raises(ValueError, match="test: "):
        next(Loader(make(items(40, broken=(4,)), kind, strict=True), 40))


@kinds
def test_what_cannot_be_taken_is_an_error(kind):
    with pytest.raises(ValueError, match="test: no pictures"):
        make([], kind)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of the first 5 pictures is readable"):
        make(items(5, broken=(0, 1, 2, 3, 4)), kind)
    mixed = items(3) + items(3, width=9, height=9)
    with pytest.raises(ValueError, match=r"has 9x9 pixels, the first 8x8: give resolution="):
        list(once(make(mixed, kind)))
    assert next(once(make(mixed, kind, resolution=4)))[0].shape == (6, 3, 4, 4)
    with pytest.raises(ValueError, match=r"has label 2, expected 0\.\.1"):
        list(once(make(items(4), kind, classes=2)))
    with pytest.raises(ValueError, match="channels is 5"):
        make(items(4), kind, channels=5)
    with pytest.warns(UserWarning, match="a Tensor, expected a picture"), pytest.raises(ValueError, match="none of"):
        make([torch.zeros(3, 8, 8)], kind)


@pytest.mark.parametrize("form", ["pairs", "bytes", "pil", "dict", "path"])
def test_forms_of_items(form, tmp_path):
    plain = items(5)
    (tmp_path / "p.png").write_bytes(plain[2]["image"])
    source = {
        "pairs": [(item["image"], item["label"]) for item in plain],
        "bytes": [item["image"] for item in plain],
        "pil": [(picture(i, mode="L"), i % 3) for i in range(5)],
        "dict": [{"png": item["image"], "cls": str(item["label"])} for item in plain],
        "path": [{"image": {"bytes": None, "path": str(tmp_path / "p.png")}}] * 5,
    }[form]
    images, labels = next(once(make(source, PictureItems, classes=0 if form in ("bytes", "path") else 3)))
    assert images[2, 0, 0, -1] == 2
    assert labels.tolist() == ([0] * 5 if form in ("bytes", "path") else [0, 1, 2, 0, 1])


class Folder(torch.utils.data.Dataset):
    """As torchvision's ImageFolder."""

    classes = ("cat", "dog", "owl")

    def __len__(self):
        return 30

    def __getitem__(self, i):
        return picture(i, 12, 10), i % 3


def test_a_torch_data_set_of_pictures_is_loaded():
    made = load(Folder(), resolution=4, channels=1)
    assert made.class_names == ["cat", "dog", "owl"] and len(made) == 30
    assert made.about == "30 images, 3 classes"
    first = Loader(made, 7, seed=1)
    whole = torch.cat([next(first)[0] for _ in range(9)])
    assert torch.equal(next(Loader(made, 7, seed=1, workers=2, start=28))[0], whole[28:35])
    with pytest.raises(ValueError, match="expected one data set"):
        load(3)


def test_a_set_that_needs_every_picture_at_hand_refuses_others(tmp_path):
    with pytest.raises(ValueError, match="Folder: its pictures are decoded one by one, and an npz"):
        prepare(Folder(), tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_classes_are_for_sets_that_name_none():
    with pytest.raises(ValueError, match="classes is 4, but emoji says itself"):
        load("emoji", classes=4)
