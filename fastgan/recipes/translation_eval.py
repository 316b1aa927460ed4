"""Evaluation of translators: against the true counterparts where the data have them, and as sets of images in any case."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from fastgan.data import PairDataset, to_float, to_uint8
from fastgan.metrics import images, suite
from fastgan.metrics.processes import share

_CHUNK = 32
_KNOWN = 1024  # candidates at a time


def _chunked(function: Callable, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([function(part) for part in x.split(_CHUNK)])


def nearest(x: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """The image among `candidates` [M, C, H, W] that is nearest to each of x [N, C, H, W] in pixels. Candidates that are a data
    set's integers are made floats a part at a time, as all of them may not fit into memory."""
    least = torch.full((len(x),), torch.inf)
    chosen = torch.zeros(len(x), dtype=torch.int64)
    for first in range(0, len(candidates), _KNOWN):
        found = torch.cdist(x.flatten(1), _floats(candidates[first : first + _KNOWN]).flatten(1)).min(1)
        nearer = found.values < least
        least[nearer], chosen[nearer] = found.values[nearer], first + found.indices[nearer]
    return _floats(candidates[chosen])


def _floats(images: torch.Tensor) -> torch.Tensor:
    return images if images.is_floating_point() else to_float(images)


METRICS = ("l1", "psnr", "ssim", "fd", "kid", "cycle")


def offered(extractor: str | None, weights: Path | None, asked: Sequence[str] | None = ()) -> list[suite.Row]:
    """The rows of METRICS, and users' that are `asked` for; without an extractor those that need none can be computed."""
    return suite.rows(METRICS, extractor and images.title(extractor, weights), asked)


@torch.no_grad()
def evaluate(
    translators: dict[str, Callable],
    held_out: PairDataset,
    training: PairDataset,
    extractor: str | None,
    weights: Path | None,
    truth: bool,
    metrics: Sequence[str] | None = None,
    told: set[str] | None = None,
) -> dict[str, dict[str, float]]:
    """Columns of figures, each by name.

    translators: "AtoB" and/or "BtoA": image batch in [-1, 1] -> the other side's.
    held_out: images not trained on; with `truth`, a.images[i] belongs to b.images[i].
    training: where nearest neighbours are looked for.
    extractor, weights: features for Fréchet and kernel distance; None leaves these out.
    metrics: those to compute, as in `Recipe.evaluate`; told: as in `fastgan.metrics.suite.compute`.

    Each translator stands beside the identity map and the nearest training image of the other side: a translation that is
    no better than these has learnt nothing. `cycle` is the L1 distance after there and back.
    """
    a, b = to_float(held_out.a.images), to_float(held_out.b.images)
    choice = suite.choose(offered(extractor, weights, metrics), metrics, len(a))

    @functools.cache
    def network() -> torch.nn.Module:
        facts = {name: getattr(held_out, name) for name in ("resolution", "channels", "bits")}
        images.tell(facts, set() if told is None else told)
        return images.load_extractor(extractor, weights=weights)

    columns: dict[str, dict[str, float]] = {}
    for direction, translate in translators.items():
        source, target, candidates = (a, b, training.b) if direction == "AtoB" else (b, a, training.a)
        back = translators.get("BtoA" if direction == "AtoB" else "AtoB")
        made = {
            direction: functools.cache(functools.partial(_chunked, translate, source)),
            f"{direction} identity": lambda x=source: x,
            f"{direction} nearest": functools.cache(
                functools.partial(_chunked, lambda x, known=candidates.images: nearest(x, known), source)
            ),
        }
        real = functools.cache(lambda y=target: images.collect(network(), [to_uint8(share(y))]))
        for label, output in made.items():
            facts = {"source": lambda x=source: x, "output": output, "samples": output, "data": lambda: held_out}
            if truth:
                facts["target"] = lambda y=target: y
            if extractor:
                facts |= {"real": real, "fake": lambda y=output: images.collect_drawn(network(), [share(y())])}
            if back:
                # The other two maps are their own inverse.
                facts["returned"] = output if label != direction else lambda f=back, y=output: _chunked(f, y())
            columns[label] = suite.compute(choice, facts, len(source), strict=metrics is not None, told=told)
    return columns
