"""What is taken for classes: dataset.json, sub-folders, and what only looks like classes; parts of a set by `split`."""

import json
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from fastgan.data import load, load_pair


def save(path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


def zipped(root, path, start: str = "", separator: str = "/"):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                info = zipfile.ZipInfo("x")
                info.filename = start + file.relative_to(root).as_posix().replace("/", separator)
                archive.writestr(info, file.read_bytes())
    return path


@pytest.fixture
def stylegan(tmp_path):
    """Two chunks of StyleGAN's layout, two images each."""
    for number in (0, 999, 1000, 1001):
        save(tmp_path / "set" / f"{number // 1000:05}" / f"img{number:08}.png", number % 256)
    return tmp_path / "set"


NAMES = [f"{n // 1000:05}/img{n:08}.png" for n in (0, 999, 1000, 1001)]


@pytest.fixture(params=["folder", "zip", "wrapped zip", "zip with backslashes"])
def form(request, tmp_path):
    """Makes a folder or one of the zips of a folder."""
    if request.param == "folder":
        return lambda root: root
    start, separator = {"zip": ("", "/"), "wrapped zip": ("top/", "/")}.get(request.param, ("top\\", "\\"))
    return lambda root: zipped(root, tmp_path / "set.zip", start, separator)


def write(root, content) -> None:
    (root / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("labels", "expected", "count"),
    [
        ([3, 0, 2, 0], [3, 0, 2, 0], 4),
        ([[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [1, 0, 1, 2], 3),
        ([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], [1, 0, 0, 0], 2),
    ],
)
def test_dataset_json_is_what_labels_are(stylegan, form, labels, expected, count):
    write(stylegan, {"labels": list(reversed(list(map(list, zip(NAMES, labels, strict=True)))))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(form(stylegan))
    assert data.labels.tolist() == expected
    assert data.class_names == [str(i) for i in range(count)]
    assert "dataset.json" in data.about and f"{count} classes" in data.about


def test_null_and_chunks_are_no_classes(stylegan, form):
    data = load(form(stylegan))
    assert data.num_classes == 0 and data.labels.tolist() == [0] * 4
    assert "no classes (sub-folders 00000 to 00001 are chunks" in data.about
    write(stylegan, {"labels": None})
    data = load(form(stylegan))
    assert data.num_classes == 0 and "labels in dataset.json are null" in data.about


def test_numbered_folders_that_are_classes(tmp_path):
    for folder in ("00000", "00001"):  # German traffic signs
        for number in range(3):
            save(tmp_path / "signs" / folder / f"{number:05}_00001.png")
            save(tmp_path / "numbers" / folder / f"{number:05}.png")
    assert load(tmp_path / "signs").class_names == load(tmp_path / "numbers").class_names == ["00000", "00001"]
    for number in (5, 1007, 2000):  # FFHQ's folders are called by their first image
        save(tmp_path / "ffhq" / f"{number // 1000 * 1000:05}" / f"{number:05}.png")
    assert load(tmp_path / "ffhq").num_classes == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[n, i] for i, n in enumerate(NAMES[:3])], r"no entry for 1 of 4 images: 00001/img00001001\.png"),
        ([[n, [0.5, 0.5]] for n in NAMES], r"img00000000\.png is \[0\.5, 0\.5\], which is no one-hot vector"),
        ([[n, [1, 1]] for n in NAMES], "no one-hot vector"),
        ([[n, []] for n in NAMES], "no one-hot vector"),
        ([[n, [0] * i + [1]] for i, n in enumerate(NAMES)], r"vectors of 1 and \(00000/img00000999\.png\) of 2"),
        ([[n, "cat"] for n in NAMES], "img00000000.png is cat, expected integers"),
        ([[n, True] for n in NAMES], "img00000000.png is true, expected integers"),
        ([[n, None] for n in NAMES], "img00000000.png is null, expected integers"),
        ([[n, 1.5] for n in NAMES], "img00000000.png is 1.5, expected integers"),
        ([[n, -1] for n in NAMES], "img00000000.png is -1, expected integers"),
        ([[n, [1] if i else 0] for i, n in enumerate(NAMES)], r"img00000999\.png is \[1\], expected integers"),
        ([[n, 2**40] for n in NAMES], r"labels 1099511627776\.\.1099511627776, expected 0\.\.65535"),
        ([[n, 2**200] for n in NAMES], "an integer of more than 62 bits"),
        ([[n, i] for i, n in enumerate([*NAMES, NAMES[0]])], r"img00000000\.png twice: 0 and 4"),
        ({n: 0 for n in NAMES}, "labels is an object, expected a list"),
        (7, "labels is 7, expected a list"),
        ([*NAMES], r"labels holds 00000/img00000000\.png, expected \[name, label\]"),
        ([[1, 2]], r"labels holds \[1, 2\], expected"),
        ([[["x" * 1000] * 900]], "expected"),
    ],
)
def test_wrong_labels_are_named(stylegan, form, labels, message):
    write(stylegan, {"labels": labels})
    with pytest.raises(ValueError, match=rf"dataset\.json: .*{message}") as caught:
        load(form(stylegan))
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
    assert load(form(stylegan), labels=False).num_classes == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "no readable JSON"),
        ('{"labels": ' + "[" * 100_000 + "]" * 100_000 + "}", "no readable JSON"),
        ("", "no readable JSON"),
        ('{"labels": [', "no readable JSON"),
        ('"labels"', 'expected an object with "labels"'),
        ("{}", 'expected an object with "labels"'),
        ('{"labels": [' + "[]," * (1 << 20) + "[]]}", "bytes, limit"),
        ('{"labels": [["' + NAMES[0] + '", ' + "9" * 5000 + "]]}", "dataset.json"),
    ],
)
def test_hostile_json_is_named(stylegan, form, content, message):
    write(stylegan, content)
    with pytest.raises(ValueError, match=rf"dataset\.json: .*{message}" if message != "dataset.json" else message):
        load(form(stylegan))


def test_entries_without_an_image_are_named(stylegan):
    write(stylegan, {"labels": [[n, 0] for n in [*NAMES, "00000/gone.png"]]})
    with pytest.warns(UserWarning, match=r"labels names 1 images that are not there: 00000/gone\.png"):
        assert load(stylegan).num_classes == 1


def test_a_dataset_json_of_some_images_is_not_passed_over(stylegan):
    write(stylegan / "00001", {"labels": None})
    with pytest.raises(ValueError, match=r"00001/dataset\.json would label only some of the images"):
        load(stylegan)


@pytest.fixture(
    params=["train val", "Train Test", "training_set validation", "train2017 val2017", "faces_train faces_held-out"]
)
def parts(request, tmp_path):
    """A set in two parts: 3 cats and 2 dogs to train on, a dog held out."""
    root, (train, held_out) = tmp_path / "set", request.param.split()
    for i in range(3):
        save(root / train / "cat" / f"{i}.png", 1)
    for i in range(2):
        save(root / train / "dog" / f"{i}.png", 2)
    save(root / held_out / "dog" / "9.png", 3)
    return root, train, held_out


def test_parts_of_a_set_are_no_classes(parts, form):
    root, train, held_out = parts
    path = form(root)
    with pytest.warns(UserWarning, match=f"{train}.* are parts of one set, no classes.*held-out.*--split {train}"):
        data = load(path)
    assert data.class_names == ["cat", "dog"] and sorted(data.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load(path, split=train.lower())
        assert data.class_names == ["cat", "dog"] and data.images[:, 0, 0, 0].tolist() == [1, 1, 1, 2, 2]
        assert "2 classes (sub-folders): cat, dog" in data.about
        assert load(path, split=held_out).images[:, 0, 0, 0].tolist() == [3]
    with pytest.raises(ValueError, match="split='dev' needs a sub-folder of that name; there are ") as caught:
        load(path, split="dev")
    assert train in str(caught.value) and held_out in str(caught.value)


def test_parts_without_classes_and_with_dataset_json(tmp_path, form):
    for i, part in enumerate(("train", "dev")):
        save(tmp_path / "set" / part / "a.png", i)
        write(tmp_path / "set" / part, {"labels": [["a.png", 5 + i]]})
    with (
        pytest.warns(UserWarning, match="--split train"),
        pytest.raises(ValueError, match=r"dev/dataset\.json, .*split="),
    ):
        load(form(tmp_path / "set"))
    assert load(form(tmp_path / "set"), split="dev").labels.tolist() == [6]
    for part in ("train", "dev"):
        (tmp_path / "set" / part / "dataset.json").unlink()
    with pytest.warns(UserWarning, match="no classes"):
        assert load(form(tmp_path / "set")).num_classes == 0


def test_one_folder_called_train_among_classes(tmp_path):
    for name in ("bus", "car", "train"):
        save(tmp_path / name / "a.png")
    with pytest.warns(UserWarning, match="sub-folders train may be a part of the set; it is read as a class"):
        assert load(tmp_path).class_names == ["bus", "car", "train"]
    save(tmp_path / "flat" / "a.png")
    save(tmp_path / "flat" / "val" / "b.png")
    with pytest.warns(UserWarning, match=r"val are parts of one set.*--split val"):
        assert load(tmp_path / "flat").num_classes == 0


def test_names_that_hold_such_a_word_are_classes(tmp_path):
    for name in ("latest", "constraint", "devil", "evaluate me", "valley"):
        save(tmp_path / name / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tmp_path).num_classes == 5


def test_pairs_take_a_part_too(tmp_path):
    for side in "AB":
        for part, count in (("train", 3), ("val", 2)):
            for i in range(count):
                save(tmp_path / side / part / f"{i}.png", i)
    pair = load_pair(tmp_path / "A", tmp_path / "B", split="val", paired=True)
    assert len(pair) == 2 and "2 pairs" in pair.about


def test_splits_of_named_sets():
    for name in ("emoji", "emoji:twitter:base:food"):
        with pytest.raises(ValueError, match="split is 'val', expected one of 'train', 'test'"):
            load(name, split="val")
