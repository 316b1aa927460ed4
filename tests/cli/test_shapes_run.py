"""A folder of rectangles with alpha, and bands in 16 bits, from the first step to the figures."""

import json

import numpy as np
import pytest
from PIL import Image
from pixels import Pixels

from fastgan.cli import main
from fastgan.metrics import images

TINY = ["--width", "4", "--max-width", "8", "--latent", "4", "--batch-size", "4", "--samples", "4", "--device", "cpu"]


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def rgba(tmp_path_factory):
    """Eight pictures of 96x160 whose colour and alpha are noise."""
    folder, rng = tmp_path_factory.mktemp("rgba"), np.random.default_rng(3)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (96, 160, 4), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def cheap(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "load_extractor", lambda *given: Pixels())


@pytest.mark.parametrize("whole", [["--resolution", "96", "160"], ["--crop", "none"]])
def test_pictures_with_alpha(rgba, tmp_path, capsys, whole):
    run = tmp_path / "run"
    command = ["train", "dcgan", "--data", str(rgba), "--out", str(run), *whole, "--channels", "4", *TINY]
    assert main([*command, "--steps", "1"]) == 0
    assert "8 images of 96x160 pixels, RGBA" in capsys.readouterr().out
    assert main(["train", "dcgan", "--out", str(run), "--resume", "--steps", "2"]) == 0
    facts = json.loads((run / "config.json").read_text())["data"]
    assert facts["resolution"] == [96, 160] and facts["channels"] == 4
    assert read(run / "samples" / "step-00000002.png").shape == (2 * 98 + 2, 2 * 162 + 2, 3)
    assert main(["sample", str(run), "--seeds", "0-1", "--separate", "--out", str(tmp_path / "alone")]) == 0
    assert read(tmp_path / "alone" / "seed0001.png").shape == (96, 160, 4)
    assert main(["sample", str(run), "--seeds", "0-1", "--out", str(tmp_path / "grid.jpg")]) == 0
    assert read(tmp_path / "grid.jpg").shape == (100, 2 * 162 + 2, 3)
    assert main(["sample", str(run), "--seeds", "0", "--interpolate", "2", "--out", str(tmp_path / "walk.gif")]) == 0
    capsys.readouterr()
    assert main(["eval", str(run), "--samples", "8", "--metrics", "fd,kid"]) == 0
    said = "before features are taken, alpha is composited on white, 96x160 pixels are squeezed to a square"
    out = capsys.readouterr()
    assert out.err == f"fastgan eval: {said}\n" and "fd_efflite0" in out.out
    assert json.loads((run / "metrics.json").read_text())["notes"] == [said]


def test_bands_in_16_bits(tmp_path, capsys):
    bands = np.random.default_rng(5).integers(0, 65536, (8, 6, 32, 48), np.uint16)
    np.savez(tmp_path / "bands.npz", images=bands, axes="NCHW")
    run = tmp_path / "run"
    command = ["train", "dcgan", "--data", str(tmp_path / "bands.npz"), "--out", str(run), *TINY, "--steps", "2"]
    assert main([*command, "--metrics-every", "1", "--metrics-samples", "8"]) == 0
    out = capsys.readouterr().out
    assert "8 images of 32x48 pixels, 6 channels, 16 bits" in out
    assert out.count("of 6 channels those numbered 0, 2 and 5 stand for red, green and blue, 16 bits are rounded") == 1
    assert main(["sample", str(run), "--seeds", "3", "--separate", "--out", str(tmp_path / "alone")]) == 0
    drawn = np.load(tmp_path / "alone" / "seed0003.npy")
    assert drawn.shape == (6, 32, 48) and drawn.dtype == np.uint16
    assert np.array_equal(read(tmp_path / "alone" / "seed0003.png")[..., 1], (drawn[2].astype(int) + 128) // 257)


def test_grey_in_16_bits(tmp_path):
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 65536, (32, 32), np.uint16)).save(tmp_path / f"{i}.png")
    run = tmp_path / "run"
    command = ["train", "dcgan", "--data", str(tmp_path), "--out", str(run), "--channels", "1", "--bits", "16", *TINY]
    assert main([*command, "--steps", "1"]) == 0
    assert main(["sample", str(run), "--seeds", "3", "--separate", "--out", str(tmp_path / "alone")]) == 0
    assert read(tmp_path / "alone" / "seed0003.png").dtype == np.uint16
