"""The pitch of signals whose pitch is known, and the loss that teaches it."""

import math

import pytest
import torch

from fastgan.losses.pitch import PITCHES, pitch_loss, track_pitch

RATE, HOP = 16000, 256


def harmonics(hertz, count):
    """A signal of 1 s, its fundamental the weakest of its harmonics."""
    t = torch.arange(RATE, dtype=torch.float64) / RATE
    return sum(k * (2 * math.pi * hertz * k * t + k).cos() for k in range(1, count + 1)).float()[None] / count**2


@pytest.mark.parametrize("hertz", [70.0, 123.4, 211.7, 480.0])
@pytest.mark.parametrize("count", [1, 5])
def test_of_harmonics(hertz, count):
    pitch, strength = track_pitch(harmonics(hertz, count), RATE, HOP)
    assert pitch.shape == strength.shape == (1, RATE // HOP)
    inner = slice(4, -4)
    assert (pitch[0, inner] / hertz - 1).abs().max() < 0.003
    assert strength[0, inner].min() > 0.95  # of the nearest whole sample


def test_noise_and_silence_have_none():
    noise = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    assert track_pitch(noise, RATE, HOP)[1].mean() < 0.35
    assert track_pitch(torch.zeros(1, RATE), RATE, HOP)[1].max() == 0
    assert track_pitch(1e-5 * harmonics(200.0, 3), RATE, HOP)[1].max() < 0.01
    with pytest.raises(ValueError, match="T at least 256"):
        track_pitch(torch.zeros(1, 255), RATE, HOP)


def test_frames_are_where_the_mel_spectrogram_has_them():
    """The pitch changes in the middle: so does the track."""
    x = torch.cat([harmonics(150.0, 3)[:, : 32 * HOP], harmonics(300.0, 3)[:, : 30 * HOP]], 1)
    pitch = track_pitch(x, RATE, HOP)[0][0]
    assert (pitch[2:30] / 150 - 1).abs().max() < 0.01 and (pitch[34:58] / 300 - 1).abs().max() < 0.01


def test_the_loss_is_least_at_the_truth():
    grid = torch.linspace(*map(math.log, PITCHES), 40)
    pitch, strength = torch.tensor([[100.0, 200.0]]), torch.tensor([[0.9, 0.1]])
    target = (-((pitch.log()[:, None] - grid[:, None]) / (grid[1] - grid[0])).square() / 2).requires_grad_()
    voiced = torch.tensor([[30.0, -30.0]], requires_grad=True)
    loss = pitch_loss(target, voiced, grid, pitch, strength)
    at, there = torch.autograd.grad(loss, (target, voiced))
    assert at.abs().max() < 1e-6 and there.abs().max() < 1e-6
    assert pitch_loss(target.flip(1), voiced, grid, pitch, strength) > loss + 0.1
    assert pitch_loss(target, -voiced, grid, pitch, strength) > loss + 10
    wrong = target.detach().clone()
    wrong[:, :, 1] = 0  # a frame without a pitch has no say
    assert pitch_loss(wrong, voiced, grid, pitch, strength) == loss
