"""Evaluation of translators: against the true counterparts where the data have them, and as sets of images in any case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from fastgan.data import PairDataset, to_float, to_uint8
from fastgan.metrics import images, pairs
from fastgan.metrics.processes import share

_CHUNK = 32


def _chunked(function: Callable, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([function(part) for part in x.split(_CHUNK)])


def nearest(x: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """The image among `candidates` [M, C, H, W] that is nearest to each of x [N, C, H, W] in pixels."""
    return candidates[torch.cdist(x.flatten(1), candidates.flatten(1)).argmin(1)]


@torch.no_grad()
def evaluate(
    translators: dict[str, Callable],
    held_out: PairDataset,
    training: PairDataset,
    extractor: str | None,
    weights: Path | None,
    truth: bool,
) -> dict[str, dict[str, float]]:
    """Columns of figures, each by name.

    translators: "AtoB" and/or "BtoA": image batch in [-1, 1] -> the other side's.
    held_out: images not trained on; with `truth`, a.images[i] belongs to b.images[i].
    training: where nearest neighbours are looked for.
    extractor, weights: features for Fréchet and kernel distance; None leaves these out.

    Each translator stands beside the identity map and the nearest training image of the other side: a translation that is
    no better than these has learnt nothing. `cycle` is the L1 distance after there and back.
    """
    a, b = to_float(held_out.a.images), to_float(held_out.b.images)
    known_a, known_b = to_float(training.a.images), to_float(training.b.images)
    network = images.load_extractor(extractor, weights=weights) if extractor else None
    columns: dict[str, dict[str, float]] = {}
    for direction, translate in translators.items():
        source, target, candidates = (a, b, known_b) if direction == "AtoB" else (b, a, known_a)
        made = {
            direction: _chunked(translate, source),
            f"{direction} identity": source,
            f"{direction} nearest": _chunked(lambda x, known=candidates: nearest(x, known), source),
        }
        real = images.collect(network, [to_uint8(share(target))]) if network else None
        back = translators.get("BtoA" if direction == "AtoB" else "AtoB")
        for label, output in made.items():
            found = {}
            if truth:
                found = {f.__name__: float(f(output, target).mean()) for f in (pairs.l1, pairs.psnr, pairs.ssim)}
            if network:
                fake = images.collect(network, [to_uint8(share(output))])
                found |= images.measure(real, fake, extractor, ["fid", "kid"])
            if back:
                returned = _chunked(back, output) if label == direction else output
                found["cycle"] = float(pairs.l1(returned, source).mean())
            columns[label] = found
    return columns
