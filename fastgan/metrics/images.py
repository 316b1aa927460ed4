"""Metrics of generated images against a data set: features once, every figure from them.

extractor = images.load_extractor("efflite0")
real = images.dataset_features(extractor, fastgan.data.load("emoji"))      # cached after the first time
fake = images.collect(extractor, generated)                                # generated: iterable of uint8 [N, C, H, W]
images.measure(real, fake, extractor.name)                                 # {"fd_efflite0": ..., "precision_efflite0": ...}

An extractor of your own is a module that a function without arguments makes, of any weights: uint8 images [N, 1 or 3, H, W] ->
features float32 [N, dim]. Its attribute `name` is what figures are named for; those of a data set are kept by it, by `release`
(text of your choice) and by its state_dict. With a method `logits` (features -> class logits [N, K]) there is an Inception score.

    @images.EXTRACTORS.register("mine")
    def make(): ...                                  # fastgan eval RUN --extractor mine, or --extractor ./mine.py:make

A package brings one by its entry point `fastgan.extractors`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan._surroundings import in_float32
from fastgan.data import to_uint8
from fastgan.data.pixels import unseen, viewable
from fastgan.data.source import Spread, images_once, lowest
from fastgan.metrics import cache as files
from fastgan.metrics import fid, inception, latent, suite, vit
from fastgan.metrics.processes import everywhere, gather, numbers, place
from fastgan.metrics.reference import read_reference
from fastgan.ops._autocast import without_autocast
from fastgan.registry import Registry
from fastgan.sizes import sides

EXTRACTORS = Registry("extractor", "fastgan.extractors").own(
    {
        "efflite0": "fastgan.metrics.efflite0:EfficientNetLite0.pretrained",
        "inception": "fastgan.metrics.inception:Inception",
        **{family: f"fastgan.metrics.vit:{family}" for family in vit.FAMILIES},
    }
)
METRICS = ("fid", "kid", "prdc", "is")
BY_MOMENTS = ("fd", "fd-inf", "fid", "fid-inf")  # rows that take no more of real images than mean and covariance
KEEP = 10_000  # rows that kernel distance, PRDC and Inception score see: 51 MB of efflite0 features
_BATCH = 64


@dataclass
class Features:
    """`statistics` of all images; `rows` float32 [M, D]: KEEP of them, or all, in their order; `logits` [M, K] of those rows,
    K = 0 where the extractor has none."""

    statistics: fid.Statistics
    rows: torch.Tensor
    logits: torch.Tensor

    def __repr__(self) -> str:
        return f"Features({self.statistics!r}, {len(self.rows)} kept, {self.logits.shape[1]} class logits)"


@in_float32
def load_extractor(
    name: str = "efflite0", device: str | torch.device = "cpu", weights: str | Path | None = None
) -> nn.Module:
    """Feature extractor "efflite0" (offline), "inception" (torch-fidelity; `weights`: a local file of them), "dinov2", "clip" or
    "openclip" (timm; `weights` likewise, which nothing downloads), or a user's: a registered name, `module:function` or
    `path/file.py:function`, which is your own word and not a file's.

    Raises ValueError for another name, for weights that are not as published, and for what is no extractor; ImportError that
    names the package where it is missing.
    """
    title(name, weights)  # for its errors
    if name in ("efflite0", "inception"):
        return EXTRACTORS.resolve(name)(*[weights] * (name == "inception")).to(device)
    return (_read(name, weights) if name in vit.FAMILIES else _made(name)).to(device)


def title(extractor: str, weights: str | Path | None = None) -> str:
    """What figures made with that extractor are named for: its name, with a hash where the weights are not Inception's
    published, with the size of another transformer than DINOv2's ViT-L/14. Raises as `load_extractor`."""
    if weights is not None and extractor != "inception" and extractor not in vit.FAMILIES:
        raise ValueError(
            f"weights={weights} is for extractor inception, {', '.join(vit.FAMILIES)}; {extractor} brings its own"
        )
    if extractor == "inception":
        return inception.title(weights)
    if extractor in vit.FAMILIES:
        return _read(extractor, weights).name
    return extractor if extractor == "efflite0" else _made(extractor).name


def _read(name: str, weights: str | Path | None) -> nn.Module:
    """A vision transformer; the same one while the same file is asked for, as its name is needed before its features."""
    if weights is None:
        raise ValueError(
            f"extractor {name} needs a local file of its published weights, weights=FILE: none is downloaded"
        )
    file = Path(weights).resolve()
    known = (file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None
    return _read_once(name, Path(weights), known)


@functools.lru_cache(maxsize=1)
def _read_once(name: str, weights: Path, known: tuple[int, int] | None) -> nn.Module:
    return EXTRACTORS.resolve(name)(weights)


def _made(name: str) -> nn.Module:
    """A user's extractor; the same one while the same name is asked for, as its name is needed before its features."""
    if name not in EXTRACTORS and ":" not in name:
        more = "".join(f", {added}" for added in EXTRACTORS.added())
        raise ValueError(
            f"extractor {name!r} is unknown; expected efflite0 or inception, {', '.join(vit.FAMILIES)}{more}, MODULE:NAME or "
            "FILE.py:NAME"
        )
    return _make(EXTRACTORS.resolve(name, code=True))


@functools.lru_cache(maxsize=1)
def _make(function: Callable[[], nn.Module]) -> nn.Module:
    made = function()
    lacking = [name for name in ("name", "dim") if not hasattr(made, name)]
    if not isinstance(made, nn.Module) or lacking:
        what = f"lacks {lacking[0]}" if isinstance(made, nn.Module) else f"is of type {type(made).__name__}"
        raise ValueError(f"the extractor {what}; expected a module with name, dim and forward(images) -> [N, dim]")
    return made.eval().requires_grad_(False)


def tell(facts: Mapping[str, Any], told: set[str]) -> None:
    """Warn of what is done to images of such `facts` before extractors see them, which take squares, grey or RGB, of 8 bits;
    once for each `told`. facts: as `fastgan.media.Image.describe` says them."""
    height, width = sides(facts.get("resolution", 1))
    squeezed = f"{height}x{width} pixels are squeezed to a square" if height != width else ""
    done = ", ".join(filter(None, (unseen(facts.get("channels", 3), facts.get("bits", 8)), squeezed)))
    message = f"before features are taken, {done}"
    if done and message not in told and place()[0] == 0:
        warnings.warn(message, stacklevel=2)
    told.add(message)


def about(extractor: nn.Module) -> dict[str, Any]:
    """What its figures depend on besides the images: `extractor`, its name, and what it says of `resize`, `precision` and the
    `sha256` of a file of weights."""
    found = {"extractor": extractor.name} | {
        name: getattr(extractor, name, None) for name in ("resize", "precision", "sha256")
    }
    return {name: value for name, value in found.items() if value is not None}


def provided(
    recipe,
    networks: dict[str, nn.Module],
    data: Callable,
    count: int,
    extractor: str,
    weights: str | Path | None,
    reference: str | Path | None = None,
) -> tuple[dict[str, Callable], str]:
    """What rows of `suite` need of a recipe of images, as functions that make it: `real`, `fake` (features of what `data` makes,
    or the mean and covariance in file `reference`, and of `count` samples), `classes` (int64 [count], those of the samples, or
    None), `perceptual`, `styles`, `transform` where it has them. And the extractor's `title`. What the features are, and of how
    many images, goes into `recipe.features`."""
    averaged = next(iter(networks.values()))
    device = next(averaged.parameters(), torch.empty(0, device="cpu")).device

    @functools.cache
    def network() -> nn.Module:
        tell(recipe.data, recipe.told)
        made = load_extractor(extractor, device, weights)
        recipe.features |= about(made) | {"samples": count}
        return made

    def real() -> Features:
        if reference is None:
            found = dataset_features(network(), data())
            recipe.features["real"] = found.statistics.count
            return found
        statistics, said = read_reference(reference, network().dim)
        recipe.features |= said
        return Features(statistics, torch.empty(0, network().dim), torch.empty(0, 0))

    def fake() -> Features:
        drawn = recipe.drawing(networks, data)
        with torch.no_grad():
            return collect_drawn(network(), (drawn(part) for part in numbers(count, _BATCH)))

    facts = {"real": real, "fake": fake, "classes": lambda: recipe.classes_drawn(data)(list(range(count)))}
    if extractor == "efflite0":  # takes floating images; the steps along a path are too small for bytes
        facts["perceptual"] = network
    if latent.has_styles(averaged):
        facts["styles"] = lambda: averaged
    if latent.transform_of(averaged) is not None:
        facts["transform"] = lambda: averaged
    return facts, title(extractor, weights)


def collect(extractor: nn.Module, batches: Iterable[torch.Tensor], keep: int = KEEP) -> Features:
    """Features of images [N, C, H, W], uint8 or uint16, as they are shown (`fastgan.data.pixels.viewable`); each process
    passes its own `share` of them and all get the whole. Of more than `keep` images as many rows are kept, evenly spread: a
    data set's first ones may all be of one class. Autocast is for what draws the images, and off for the extractor.

    Raises TypeError or ValueError for what are no such images, among them those whose channels seem to be last.
    """
    statistics, kept = fid.Statistics(extractor.dim), Spread(keep, *place())
    kept.add(torch.empty(0, extractor.dim, dtype=torch.float32, device="cpu"))
    weight = next(extractor.parameters(), torch.empty(0, device="cpu"))
    with torch.no_grad():
        for images in batches:
            _check(images)
            for part in images.split(_BATCH):
                with without_autocast(weight):
                    found = extractor(viewable(part)).cpu()
                statistics.update(found)
                kept.add(found.float())
        rows, places = map(gather, kept.kept())
        order = places.argsort()
        rows = rows[order][lowest(places[order], keep)]
        logits = rows.new_empty(len(rows), 0)
        if hasattr(extractor, "logits"):
            with without_autocast(weight):
                logits = extractor.logits(rows.to(weight.device)).cpu()
        return Features(statistics.gather(), rows, logits)


def _check(images: torch.Tensor) -> None:
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images is a {type(images).__name__}, expected tensors: torch.from_numpy makes them of arrays")
    last = images.ndim == 4 and images.shape[1] > 4 and images.shape[3] in (1, 3)
    if images.ndim != 4 or last:  # any number of channels is taken, and pictures are wider than 3 pixels
        hint = "; its channels seem to be last: images.permute(0, 3, 1, 2)" if last else ""
        raise ValueError(f"images is {images.dtype} {list(images.shape)}, expected [N, C, H, W]{hint}")


def collect_drawn(extractor: nn.Module, batches: Iterable[torch.Tensor]) -> Features:
    """`collect` of floating images in [-1, 1], as a network draws them.

    Raises ValueError, on every process, where any holds NaN or Inf: as bytes these would be grey or white like others.
    """
    finite = True

    def pixels():
        nonlocal finite
        for images in batches:
            finite = finite and bool(images.isfinite().all())
            yield to_uint8(images)

    found = collect(extractor, pixels())
    if not everywhere(finite):
        raise ValueError("the network draws images that hold NaN or Inf")
    return found


def dataset_features(extractor: nn.Module, dataset: Any, cache: str | Path | None = None) -> Features:
    """Features of every image of `dataset`, an ImageDataset or anything else that a Loader takes and that ends, in one pass
    which all processes share; kept in folder `cache`.

    cache: default $XDG_CACHE_HOME/fastgan/features (~/.cache/...). A file there is known by every pixel, or where pictures are
    decoded one by one by the files' names, sizes and times and the options (`fingerprint`), and by the extractor and its weights
    (`fastgan.metrics.cache.key`); a damaged one is computed again. Of a data set with neither nothing is kept, and a warning
    says so. A folder that cannot be written to only warns.
    """
    content = getattr(dataset, "images", None)
    content = getattr(dataset, "fingerprint", None) if content is None else content
    if content is not None:
        key = files.key(extractor, content, KEEP)
        path = Path(files.folder() if cache is None else cache) / f"{extractor.name}-{key[:24]}.features"
        saved = files.read(path, key)
        if everywhere(saved is not None):  # hosts have caches of their own: all processes compute, or none
            statistics = fid.Statistics(extractor.dim)
            statistics._merge(saved["count"], saved["mean"], saved["scatter"])
            return Features(statistics, saved["rows"], saved["logits"])
    parts = images_once(dataset, *place(), size=_BATCH)
    made = collect(extractor, (to_uint8(part) if part.is_floating_point() else part for part in parts))
    why = "nothing tells whether its images have changed"
    if place()[0] == 0 and content is not None:
        s = made.statistics
        saved = {"count": s.count, "mean": s.mean, "scatter": s.scatter, "rows": made.rows, "logits": made.logits}
        try:
            files.write(path, key, saved)
            why = ""
        except OSError as error:
            why = str(error)
    if place()[0] == 0 and why:
        name = getattr(dataset, "name", type(dataset).__name__)
        warnings.warn(f"features of {name} are not kept for the next time: {why}", stacklevel=2)
    return made


def measure(real: Features, fake: Features, extractor: str, metrics: Iterable[str] = METRICS) -> dict[str, float]:
    """The figures `metrics` (fid, kid, prdc, is), by names that say what they were computed with.

    With extractor "inception": fid, kid, precision, recall, density, coverage, is. With any other the name is appended, and
    the Fréchet distance is not called FID: fd_efflite0, kid_efflite0, ... Raises ValueError for an unknown metric, or one that
    cannot be computed from these features.
    """
    known = {name: name for name in METRICS} | {"fid": "fd", "fd": "fd"}
    metrics = list(metrics)
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise ValueError(f"metric {unknown[0]!r} is unknown; expected some of {', '.join(METRICS)}")
    count = fake.statistics.count
    chosen = suite.choose(suite.rows([known[name] for name in metrics], extractor), None, count)
    return suite.compute(chosen, {"real": lambda: real, "fake": lambda: fake}, count, strict=True)
