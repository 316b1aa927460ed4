"""Metrics of speech: zero where nothing differs, known values, order of degradation, errors."""

import pytest
import torch

from fastgan.data import load_recordings
from fastgan.metrics import speech
from fastgan.nn import MelSpectrogram

RATE = 16000
TIME = torch.arange(RATE) / RATE
# A voice of 120 Hz with harmonics, and noise.
VOICE = 0.2 * sum((2 * torch.pi * 120 * k * TIME).sin() / k for k in range(1, 9))
NOISE = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
MEL = MelSpectrogram(RATE)


def test_nothing_differs():
    same = [VOICE, NOISE]
    assert speech.mel_l1(same, same, MEL) == 0
    assert speech.stft_distance(same, same) == 0
    assert speech.voicing(same, same, RATE) == (0, 0)
    assert speech.frechet_mel(same, same, MEL) == pytest.approx(0, abs=1e-6)


def test_more_noise_is_farther():
    distances = [
        (
            speech.mel_l1([VOICE + level * NOISE], [VOICE], MEL),
            speech.stft_distance([VOICE + level * NOISE], [VOICE]),
            speech.frechet_mel([VOICE + level * NOISE], [VOICE], MEL),
        )
        for level in (0.1, 1.0)
    ]
    assert all(near < far for near, far in zip(*distances, strict=True))


def test_mel_l1_of_half_the_level_is_ln_2():
    assert speech.mel_l1([NOISE / 2], [NOISE], MEL) == pytest.approx(torch.tensor(2.0).log().item(), rel=1e-3)


def test_signals_go_where_the_mel_spectrogram_is():
    """As one on a GPU takes none of the CPU's."""

    class Elsewhere(torch.nn.Module):
        bands = 2

        def __init__(self):
            super().__init__()
            self.register_buffer("window", torch.empty(1, device="meta"))

        def forward(self, x):
            assert x.device == self.window.device
            return torch.arange(2 * 5).view(1, 2, 5).float()

    assert speech.mel_l1([VOICE], [NOISE], Elsewhere()) == 0
    assert speech.frechet_mel([VOICE], [NOISE], Elsewhere()) == pytest.approx(0, abs=1e-6)


def test_periodicity():
    voiced, unvoiced = speech.periodicity(VOICE, RATE), speech.periodicity(NOISE, RATE)
    assert len(voiced) == 101 and voiced[5:90].min() > 0.98 and unvoiced[5:90].max() < 0.5
    assert speech.periodicity(torch.cat([VOICE, 1e-4 * VOICE]), RATE)[110:].max() == 0  # silence has no pitch
    error, share = speech.voicing([NOISE], [VOICE], RATE)
    assert error > 0.5 and share > 0.9


@pytest.mark.parametrize("function", [speech.pesq, speech.stoi])
def test_perceptual(function):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    clip = load_recordings("speech").held_out[0]
    noise = 0.05 * torch.randn(len(clip), generator=torch.Generator().manual_seed(0))
    best, worse = function([clip], [clip], RATE), function([(clip + noise).clamp(-1, 1)], [clip], RATE)
    assert best > worse and best > (4.5 if function is speech.pesq else 0.999)


def test_errors():
    with pytest.raises(ValueError, match="1 signals against 2 recordings"):
        speech.mel_l1([VOICE], [VOICE, VOICE], MEL)
    with pytest.raises(ValueError, match="expected the same"):
        speech.stft_distance([VOICE[1:]], [VOICE])
    broken = VOICE.clone()
    broken[100] = torch.nan
    with pytest.raises(ValueError, match="recording 1 is silent"):
        speech.stft_distance([VOICE, VOICE], [VOICE, 0 * VOICE])
    with pytest.raises(ValueError, match="NaN or Inf"):
        speech.voicing([broken], [VOICE], RATE)


def test_too_little_speech_has_no_stoi():
    """pystoi gives 1e-5 there, which would be taken for the worst of all."""
    pytest.importorskip("pystoi")
    for few in (NOISE[:4000], NOISE[:100], torch.zeros(4000)):
        with pytest.raises(ValueError, match=r"recording 1, of 0\.\d+ s has less than 0.4 s of speech"):
            speech.stoi([NOISE, few], [NOISE, few], RATE)


@pytest.mark.parametrize(
    ("made", "recorded", "why"),
    [
        (NOISE[:900], NOISE[:900], "Buffer needs to be at least 1/4 of a second long"),
        (0 * NOISE, 0 * NOISE, "it is silent"),
        (0 * NOISE, NOISE, "what was made of it is silent"),
    ],
)
def test_what_has_no_pesq(made, recorded, why):
    """In words that say which recording it is."""
    pytest.importorskip("pesq")
    with pytest.raises(ValueError, match=rf"recording 1, of [\d.]+ s: {why}"):
        speech.pesq([NOISE, made], [NOISE, recorded], RATE)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pesq", None)
    with pytest.raises(ImportError, match=r"pip install 'fastgan\[speech\]'"):
        speech.pesq([VOICE], [VOICE], RATE)


def test_griffin_lim_outside_autocast():
    heard = MEL(VOICE[None])
    expected = speech.griffin_lim(heard, MEL, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(speech.griffin_lim(heard, MEL, 2), expected)
