"""What a figure means: its direction, its unit or range, and what it is compared with."""

from __future__ import annotations

import re
from typing import NamedTuple


class Meaning(NamedTuple):
    """better: "lower", "higher", or "" where neither is better. about: one line, with the unit or the range."""

    better: str
    about: str


_RANGE = "as a share of the whole range of values, 0 to 1"
_FEATURES = {
    "fd": Meaning(
        "lower", "distance of Gaussians fitted to the features, 0: the same; no FID, which has other features"
    ),
    "fd-inf": Meaning("lower", "the same, extrapolated to infinitely many samples; may be a little below 0"),
    "kid": Meaning(
        "lower", "kernel distance of the features, about 0: the same; unbiased, so a few hundred samples will do"
    ),
    "precision": Meaning("higher", "share of the samples that look like data, 0 to 1: quality"),
    "recall": Meaning("higher", "share of the data that samples look like, 0 to 1: variety"),
    "density": Meaning("higher", "how dense the data are around a sample, about 1 for the data themselves: quality"),
    "coverage": Meaning("higher", "share of the data with a sample near by, 0 to 1: variety"),
    "is": Meaning("higher", "Inception score: 1 to the number of classes; does not look at the data"),
    "ppl": Meaning("lower", "perceptual path length: how far images change for a small step in style space"),
}
MEANINGS = _FEATURES | {
    "fid": Meaning("lower", "FID, 0: the same; to be compared at one number of samples and one data set alone"),
    "fid-inf": Meaning("lower", "FID extrapolated to infinitely many samples; may be a little below 0"),
    "eq_t": Meaning("higher", "decibels: how exactly an image follows a translation"),
    "eq_r": Meaning("higher", "decibels: how exactly an image follows a rotation"),
    "l1": Meaning("lower", f"mean difference from the true counterpart, {_RANGE}"),
    "psnr": Meaning("higher", "decibels: peak signal to noise against the true counterpart"),
    "ssim": Meaning("higher", "structural similarity to the true counterpart, up to 1"),
    "cycle": Meaning("lower", f"mean difference from the source after there and back, {_RANGE}"),
    "mel-l1": Meaning("lower", "mean difference of log mel spectrograms from the recording's; 1 is 8.7 dB"),
    "stft": Meaning("lower", "distance of magnitude spectra of three resolutions from the recording's"),
    "periodicity": Meaning("lower", "how far the strength of the pitch is off, 0 to 1"),
    "voicing": Meaning("lower", "share of the frames that are voiced where the recording is not, or the reverse"),
    "pesq": Meaning("higher", "PESQ against the recording, 1 to 4.6: quality"),
    "stoi": Meaning("higher", "STOI against the recording, 0 to 1: how understandable"),
    "fd-mel": Meaning("lower", "distance of Gaussians fitted to frames of mel spectrograms; no perceptual feature"),
    "nll-gen": Meaning("lower", "nats per token of the training texts under the model"),
    "nll-test": Meaning("lower", "nats per token of held-out texts under the model"),
    "nll-oracle": Meaning("lower", "nats per token of the samples under the oracle, which wrote the data"),
    "nll-oracle-real": Meaning("", "the same of real texts: what a perfect model reaches"),
    "bleu": Meaning("higher", "share of the samples' n-grams that held-out texts have, 0 to 1: quality"),
    "self-bleu": Meaning("lower", "the same against the other samples, 0 to 1: repetition"),
    "distinct": Meaning("higher", "share of the samples' n-grams that differ, 0 to 1: variety"),
    "embedding-similarity": Meaning("higher", "how alike words are used in samples and data, up to 1"),
}


def meaning(figure: str) -> Meaning | None:
    """Of a figure of fastgan's own, "recall_efflite0" or "bleu-4"; None for another."""
    stem = re.sub(r"-\d+$", "", figure)
    return MEANINGS.get(stem) or _FEATURES.get(figure.partition("_")[0])
