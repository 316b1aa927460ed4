"""Mel spectrograms and the losses of vocoders against recorded numbers."""

import pytest
import torch
from golden import golden_cases
from stylegan_golden import close
from tolerances import assert_close

from fastgan.losses import vocoder
from fastgan.nn import MelSpectrogram, mel_filterbank


def spectrogram(n_fft, num_mels, sampling_rate, hop_size, win_size, fmin, fmax, center):
    assert not center
    return MelSpectrogram(sampling_rate, n_fft, hop_size, win_size, num_mels, fmin, fmax)


@pytest.mark.parametrize(("case", "t"), golden_cases("audio", "mel_filterbank"))
def test_golden_filterbank(case, t):
    k = case["kwargs"]
    close(mel_filterbank(k["sr"], k["n_fft"], k["n_mels"], k["fmin"], k["fmax"]).float(), t["basis"], 2e-7)


@pytest.mark.parametrize(("case", "t"), golden_cases("audio", "mel_spectrogram"))
def test_golden_spectrogram(case, t):
    x = t["x"].requires_grad_()
    y = spectrogram(**case["kwargs"])(x)
    close(y, t["y"])
    (gx,) = torch.autograd.grad((y * t["gy"]).sum(), x)
    close(gx, t["gx"], 1e-4)


@pytest.mark.parametrize(("case", "t"), golden_cases("audio", "multiscale_mel_loss"))
def test_golden_multi_scale_mel(case, t):
    y = t["y"].requires_grad_()
    loss = vocoder.MultiScaleMel(case["kwargs"]["sampling_rate"])(t["x"], y)
    close(loss, t["loss"])
    close(torch.autograd.grad(loss, y)[0], t["gy_wave"], 1e-4)


@pytest.mark.parametrize(("case", "t"), golden_cases("audio", "lsgan_losses"))
def test_golden_least_squares(case, t):
    real, fake = ([t[f"{side}{i}"] for i in range(3)] for side in ("real", "fake"))
    assert_close(vocoder.sum_d(real, fake), t["d_loss"])
    assert_close(vocoder.sum_g(fake), t["g_loss"])


@pytest.mark.parametrize(("case", "t"), golden_cases("audio", "feature_matching"))
def test_golden_map_matching(case, t):
    real, fake = ([[t[f"{side}{i}_{j}"] for j in range(2)] for i in range(2)] for side in ("real", "fake"))
    assert_close(vocoder.map_matching(real, fake), t["loss"])


def test_spectrogram_of_a_tone_peaks_at_its_band():
    mel = MelSpectrogram(16000)
    time = torch.arange(16000, dtype=torch.float64) / 16000
    found = mel((2 * torch.pi * 1000 * time).sin()[None])
    frequencies = torch.arange(513) * 16000 / 1024
    middle = (mel.basis @ frequencies.float()) / mel.basis.sum(1)
    assert abs(middle[found[0].mean(1).argmax()] - 1000) < 60
    assert found.shape == (1, 80, 62) and found.dtype == torch.float64


@pytest.mark.parametrize("length", [1, 384])
def test_too_short_a_signal_is_refused(length):
    with pytest.raises(ValueError, match="T above 384"):
        MelSpectrogram(16000)(torch.zeros(1, length))


@pytest.mark.parametrize(("length", "hop"), [(1764, 441), (1024, 255), (1100, 275)])
def test_a_frame_for_each_hop_where_the_rest_is_odd(length, hop):
    mel = MelSpectrogram(22050, length, hop)
    assert mel(torch.randn(1, 20 * hop)).shape == (1, 80, 20)
    assert torch.cat([*mel.pieces(torch.randn(1, 20 * hop), 7)], 2).shape == (1, 80, 20)


@pytest.mark.parametrize("options", [dict(low=9000.0), dict(bands=0), dict(high=8001.0), dict(low=-1.0)])
def test_bad_edges(options):
    with pytest.raises(ValueError, match="mel_filterbank"):
        mel_filterbank(16000, 1024, **{"bands": 80} | options)
    with pytest.raises(ValueError, match="hop 2048"):
        MelSpectrogram(16000, hop=2048)


def test_no_gradient_reaches_the_real_maps():
    real, fake = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    vocoder.map_matching([[real]], [[fake]]).backward()
    assert real.grad is None and fake.grad is not None


def test_on_the_meta_device():
    with torch.device("meta"):
        mel, distance = MelSpectrogram(16000), vocoder.MultiScaleMel(16000)
        x = torch.empty(2, 1, 8192)
        assert mel(x).shape == (2, 80, 32)
        assert distance(x, x).shape == ()


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"signals has dtype torch.int16; expected float16"):
        MelSpectrogram(16000)(torch.zeros(1, 9000, dtype=torch.int16))
