"""What a run shows of signals: waveforms, spectrograms, a WAV file, and a player in the report."""

import base64
import re

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from fastgan.data.wav import decode
from fastgan.media import Image, Signal, Text, medium_of
from fastgan.media.signal import CELL

RATE = 8000


def tone(frequency: float, length: int = RATE, channels: int = 1) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * frequency * torch.arange(length) / RATE).expand(channels, length)


def cell(path, i: int) -> np.ndarray:
    (width, height), pad = CELL, 2
    with Picture.open(path) as picture:
        row, column = divmod(i, picture.width // width)
        y, x = pad + row * (height + pad), pad + column * (width + pad)
        return np.asarray(picture.convert("RGB"))[y : y + height, x : x + width].astype(int)


def test_all_samples_under_one_stem(tmp_path):
    signals = torch.stack([tone(f, channels=2) for f in (200, 400, 800, 1600, 3200)])
    path = Signal.save(signals, tmp_path / "step-00000000", {"rate": RATE})
    assert path == tmp_path / "step-00000000.png"
    names = ["step-00000000.png", "step-00000000.spectrogram.png", "step-00000000.wav"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    with Picture.open(path) as waves, Picture.open(tmp_path / names[1]) as spectrogram:
        assert waves.size == spectrogram.size == (2 + 2 * (CELL[0] + 2), 2 + 3 * (CELL[1] + 2))
    samples, rate = decode((tmp_path / names[2]).read_bytes(), ".wav")
    gap = RATE // 5
    assert rate == RATE and samples.shape == (2, 5 * RATE + 4 * gap)
    for i, signal in enumerate(signals):
        part = samples[:, i * (RATE + gap) :]
        assert np.abs(part[:, :RATE] - signal.numpy()).max() <= 1 / 32768 and not part[:, RATE : RATE + gap].any()


def test_a_spectrogram_shows_the_frequency(tmp_path):
    frequencies = (400, 1000, 2000, 3500)
    Signal.save(torch.stack([tone(f) for f in frequencies]), tmp_path / "a", {"rate": RATE})
    for i, frequency in enumerate(frequencies):
        brightest = cell(tmp_path / "a.spectrogram.png", i)[:, CELL[0] // 2].sum(-1).argmax()
        assert abs((1 - brightest / (CELL[1] - 1)) * RATE / 2 - frequency) < 100


def test_a_waveform_shows_the_amplitude(tmp_path):
    signals = torch.stack([torch.full((1, 1000), level) for level in (0.9, 0.0, -0.9)])
    Signal.save(signals, tmp_path / "a", {"rate": RATE})
    for i, level in enumerate((0.9, 0.0, -0.9)):
        picture = cell(tmp_path / "a.png", i)
        blue = np.flatnonzero((picture[:, 50, 2] - picture[:, 50, 0]) > 100)
        assert abs(blue.mean() - (1 - level) / 2 * (CELL[1] - 1)) <= 1


def test_channels_have_colours(tmp_path):
    levels = torch.tensor([0.9, 0.0, -0.9])
    Signal.save(levels[None, :, None].expand(1, 3, 100), tmp_path / "a", {"rate": RATE})
    colours = {tuple(pixel) for pixel in cell(tmp_path / "a.png", 0)[:, 50]}
    assert {(0x25, 0x63, 0xEB), (0xDC, 0x26, 0x26), (0x05, 0x96, 0x69)} <= colours


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 16, 191, 385, 1001])
@pytest.mark.parametrize("rate", [1, 250, 192_000])
def test_any_length_and_rate(length, rate, tmp_path):
    signals = torch.rand(3, 2, length) * 2 - 1
    signals[0, 0, 0] = float("nan")
    signals[1, 0, 0] = float("inf")
    signals[2] = 0
    path = Signal.save(signals, tmp_path / "a", {"rate": rate})
    assert decode(path.with_suffix(".wav").read_bytes(), ".wav")[1] == rate


def test_names(tmp_path):
    signals = torch.zeros(1, 1, 8)
    assert Signal.save(signals, tmp_path / "run.v2", {"rate": 8}).name == "run.v2.png"
    assert Signal.save(signals, tmp_path / "b.wav", {"rate": 8}).name == "b.wav" and (tmp_path / "b.png").exists()
    assert Signal.save_one(signals[0], tmp_path / "c", {"rate": 8}).name == "c.wav"
    before = sorted(tmp_path.iterdir())
    for name in ("a.jpg", "a.mp3", "a.txt"):
        with pytest.raises(ValueError, match="is not written here"):
            Signal.save(signals, tmp_path / name, {"rate": 8})
    for facts in (None, {}, {"rate": 0}, {"rate": "8"}):
        with pytest.raises(ValueError, match="signals' sampling rate is"):
            Signal.save(signals, tmp_path / "d", facts)
    with pytest.raises(ValueError, match="too many for one picture"):
        Signal.save(torch.zeros(1, 1, 1).expand(20_000, 1, 1), tmp_path / "d", {"rate": 8})
    assert sorted(tmp_path.iterdir()) == before


def test_the_player(tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    path = Signal.save(tone(440)[None], folder / "step-00000003", {"rate": RATE})
    html = Signal.html(path)
    held = re.findall(r'src="data:(image/png|audio/wav);base64,([^"]+)"', html)
    assert [kind for kind, _ in held] == ["image/png", "image/png", "audio/wav"] and "<audio controls" in html
    assert base64.b64decode(held[2][1]) == path.with_suffix(".wav").read_bytes()
    assert "step 00000003" in html and html.startswith("<figure>")
    Signal.save(torch.zeros(1, 1, 3 << 20), path, {"rate": RATE})  # too large to be held
    assert '<audio controls src="samples/step-00000003.wav">' in Signal.html(path)
    path.with_suffix(".wav").unlink()
    assert "<audio" not in Signal.html(path)


def test_what_a_file_looks_like(tmp_path):
    Signal.save(torch.zeros(1, 1, 8), tmp_path / "a", {"rate": 8})
    Image.save(torch.zeros(1, 3, 8, 8), tmp_path / "b")
    Text.save(["<b>&"], tmp_path / "c")
    assert [medium_of(tmp_path / name) for name in ("a.png", "b.png", "c.txt")] == [Signal, Image, Text]
    assert "&lt;b&gt;&amp;" in Text.html(tmp_path / "c.txt")


def test_what_a_recipe_gets(tmp_path):
    device, layout = torch.device("cpu"), torch.contiguous_format
    whole = torch.tensor([[-32768, 0, 16384]], dtype=torch.int16)
    assert Signal.to_device(whole, device, layout).tolist() == [[-1, 0, 0.5]]
    assert Signal.to_device(torch.zeros(1, dtype=torch.float64), device, layout).dtype == torch.float32
    assert Signal.to_device(torch.ones(1, dtype=torch.int64), device, layout).dtype == torch.int64
    np.savez(tmp_path / "a.npz", signals=np.zeros((4, 2, 10)), rate=50)
    assert Signal.describe(Signal.load(tmp_path / "a.npz")) == {
        "name": str(tmp_path / "a.npz"), "rate": 50, "channels": 2, "length": 10, "num_classes": 0, "class_names": []
    }  # fmt: skip


def test_a_data_set_that_says_little():
    data = torch.utils.data.TensorDataset(torch.zeros(4, 2, 10), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="the signals' sampling rate is None: the data set's attribute `rate`"):
        Signal.describe(data)
    data.rate = 100
    found = {"name": "TensorDataset", "rate": 100, "channels": 2, "length": 10, "num_classes": 0, "class_names": []}
    assert Signal.describe(data) == found
    data.classes = ["a", "b"]
    assert Signal.describe(data) == found | {"num_classes": 2, "class_names": ["a", "b"]}
    with pytest.raises(ValueError, match=r"its first item begins with torch.float32 \[10\], expected a signal"):
        Signal.describe(torch.utils.data.TensorDataset(torch.zeros(4, 10)))
    with pytest.raises(
        ValueError, match=r"a recipe on sentences needs to know .*, and the data set has no such attribute"
    ):
        Text.describe(data)
