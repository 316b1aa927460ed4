"""What `fastgan data list` says of the embedded sets is what they are."""

import pytest

from fastgan.cli import main
from fastgan.data import load, load_recordings, names
from fastgan.data.facts import FACTS
from fastgan.data.idx import FASHION_CLASSES
from fastgan.data.speech import NAME as SPEECH
from fastgan.data.text import TEXT_NAMES, load_text

BY_NAME = {facts.name: facts for facts in FACTS}


def test_every_name_is_there():
    assert set(BY_NAME) == {*names(), *TEXT_NAMES, SPEECH} - {"emoji:google"}  # it is emoji


@pytest.mark.parametrize("name", [facts.name for facts in FACTS if facts.name.startswith("emoji")])
def test_images(name):
    facts, data = BY_NAME[name], load(name)
    assert (facts.items, facts.shape, facts.classes) == (len(data), "32x32 RGB", data.num_classes)
    assert data.images.shape[1:] == (3, 32, 32) and facts.absent() == ""


@pytest.mark.parametrize("name", ["tang-quatrains", "song-quatrains", "kjv"])
def test_texts(name):
    facts, data = BY_NAME[name], load_text(name)
    lengths = {len(data.vocabulary.ids(text)) for text in data.decode(data.train)}
    low, high = min(lengths), max(lengths)
    unit = "words" if name == "kjv" else "chars"
    assert facts.items == len(data) and facts.shape == (f"{low}-{high} {unit}" if low < high else f"{high} {unit}")


def test_speech():
    data, facts = load_recordings(SPEECH), BY_NAME[SPEECH]
    seconds = [len(x) / data.rate for x in data.recordings + data.held_out]
    assert facts.items == len(data.recordings) and len(data.held_out) == 7 and facts.absent() == ""
    assert facts.shape == f"{min(seconds):.1f}-{max(seconds):.1f} s"


def test_oracle():
    """Its own are 10,000, drawn in minutes; here 20."""
    for name, length in (("oracle", 20), ("oracle-40", 40)):
        assert load_text(name, count=20).train.shape == (20, length) and BY_NAME[name].shape == f"{length} tokens"
        assert BY_NAME[name].items == load_text.__kwdefaults__["count"]


def test_fashion_mnist(tmp_path, monkeypatch):
    facts = BY_NAME["fashion-mnist"]
    assert facts.classes == len(FASHION_CLASSES)
    monkeypatch.setattr("fastgan.data.facts.FASHION_FOLDERS", (tmp_path,))
    assert facts.absent().startswith("apt install")
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    assert facts.absent() == ""


def test_data_list(capsys):
    assert main(["data", "list"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == ["name", "items", "each", "classes", "licence", "here", "what"]
    assert lines[0].split()[:6] == ["emoji", "3,781", "32x32", "RGB", "9", "Apache-2.0"]
    assert main(["data", "list", "more"]) == 2
