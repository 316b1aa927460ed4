"""What CycleGAN and pix2pix share: two image sets, examples for the grid, and the schedule of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypedDict

import torch
from torch import nn

from fastgan._surroundings import in_float32
from fastgan.data import PairDataset, load_pair, to_float
from fastgan.data.catalog import conform
from fastgan.data.registered import absent
from fastgan.data.source import evenly
from fastgan.losses import LOSSES
from fastgan.losses.adversarial import Adversarial
from fastgan.metrics import suite
from fastgan.options import Batch, Count, Decay, NonNegative, Range, Share
from fastgan.recipes import Recipe, RecipeConfig
from fastgan.recipes.examples import cut
from fastgan.recipes.translation_eval import METRICS, evaluate, offered
from fastgan.sizes import Resolution, resolution_of, sides
from fastgan.training.recipe import compares_with_means, named

EXAMPLES = 16  # rows of the sample grid


@dataclass
class TranslationConfig(RecipeConfig):
    """Options of both recipes; the defaults are the papers'."""

    batch_size: Batch = 1
    """Images of each side per update and process."""
    ema_halflife: NonNegative = 0.0
    """Half-life of the generators' moving average, in images. 0: no average, as in the papers."""
    width: Count = 64
    """Channels of the first layer of generators and discriminators."""
    layers: Annotated[int, Range(0, 12)] = 3
    """Depth of the patch discriminator: 3 sees patches of 70 pixels, 2 of 34, 1 of 16, 0 single pixels."""
    jitter: bool = True
    """Load images 286/256 as large, and cut a random part of the final size from each."""
    lr: NonNegative = 2e-4
    """Learning rate of the Adam optimisers."""
    beta1: Decay = 0.5
    """Adam's decay rate of the mean gradient."""
    lr_decay: Share = 0.5
    """The learning rate falls linearly to zero over this last share of the run."""


class PairFacts(TypedDict):
    """What a translation needs to know of its two sets."""

    name: str
    resolution: Resolution
    channels: int
    num_classes: int


class Examples(nn.Module):
    """Images of both sides that the grids show, kept with the networks so that sampling needs no data."""

    def __init__(self, channels: int, resolution: Resolution):
        super().__init__()
        self.register_buffer("a", torch.zeros(EXAMPLES, channels, *sides(resolution)))
        self.register_buffer("b", torch.zeros(EXAMPLES, channels, *sides(resolution)))


def larger(resolution: Resolution) -> Resolution:
    """What the papers load for 256 pixels, and as much more for other sizes."""
    return resolution_of(*(round(side * 286 / 256) for side in sides(resolution)))


def center(images: torch.Tensor, resolution: Resolution) -> torch.Tensor:
    """The middle [..., *sides(resolution)] of images [..., H, W]."""
    height, width = sides(resolution)
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


class Translation(Recipe):
    """Base of the two recipes. A subclass adds networks and optimisers and sets `least`, the least number of pixels a side, and
    `step`, what each side is a multiple of, `paired`, what training needs, and `generators`, the network's name by direction."""

    Facts = PairFacts
    run_defaults: ClassVar = {"data": ("emoji:google", "emoji:twitter")}
    pairs = True
    sample_options = ("input",)
    metrics = METRICS
    least: int
    step: int
    paired: bool
    generators: dict[str, str]

    def __init__(self, config: TranslationConfig, data: dict[str, Any]):
        super().__init__(config, data)
        resolution, step = data["resolution"], self.step
        # After the halvings of the discriminator come two convolutions that take a pixel each.
        enough = -(-max(self.least, 3 << config.layers) // step) * step
        size = sides(resolution)
        near = resolution_of(*(max(enough, round(side / step) * step) for side in size))
        if min(size) < self.least or any(side % step for side in size):
            multiple = f"a multiple of {step}" if size[0] == size[1] else f"height and width multiples of {step}"
            raise ValueError(
                f"{self.name}: resolution is {resolution}, expected {multiple}, at least {self.least}: give resolution={near}"
            )
        if min(size) < enough:
            raise ValueError(
                f"{self.name}: resolution is {resolution}, too small for the patches that {config.layers} layers of the"
                f" discriminator see: give layers={(min(size) // 3).bit_length() - 1}, or resolution={near}"
            )
        self.networks["examples"] = Examples(data["channels"], resolution)

    @property
    def whole_batch(self) -> str:
        return compares_with_means(self.adversarial(), self.config.loss)

    @classmethod
    def load_data(cls, name: str | tuple[str, str], config: TranslationConfig, **options) -> PairDataset:
        """Two sets (`--data A B`), or one folder or zip of pairs; the embedded emoji leave their test set out."""
        size = options.get("resolution")
        if config.jitter and size is not None and options.get("crop") != "none":  # which keeps the exact aspect ratio
            options["resolution"] = larger(size)  # of the originals: what was made smaller has lost its detail
        pair = cls.load_pair(name, **options)
        if not config.jitter:
            return pair
        size = size or pair.resolution
        both = (conform(images, larger(size), None) for images in (pair.a, pair.b))
        return PairDataset(*both, paired=pair.paired, flip=pair.flip, crop=size)

    @classmethod
    def load_pair(
        cls,
        name: str | tuple[str, str],
        split: str | None = None,
        paired: bool | None = None,
        classes: int | None = None,
        **options,
    ) -> PairDataset:
        """`split`: None is train of one folder of both sides and of named sets, and the whole of two folders.
        `paired`: whether a.images[i] must belong to b.images[i]; None: as training needs it."""
        if classes is not None:
            raise ValueError(f"classes is {classes}, but {cls.name} translates images, whose classes it does not use")
        a, b = (name, None) if isinstance(name, str) else name
        if (a, b) == ("emoji", None):
            a, b = "emoji:google", "emoji:twitter"
        if split is None and (b is None or a.startswith(("emoji:", "fashion-mnist"))):
            split = "train"
        return load_pair(a, b, paired=cls.paired if paired is None else paired, split=split, **options)

    @classmethod
    def describe(cls, dataset: PairDataset) -> dict[str, Any]:
        if not isinstance(dataset, PairDataset):
            kind = type(dataset).__name__
            raise ValueError(f"{cls.name} draws images of two sets by their number: expected a PairDataset, got {kind}")
        facts = {"name": dataset.name, "resolution": dataset.resolution, "channels": dataset.channels, "num_classes": 0}
        return facts | ({"bits": 16} if dataset.bits == 16 else {})

    def prepare(self, dataset: PairDataset) -> None:
        """Examples for the grids, evenly spaced in the training data."""
        for side, kept in ((dataset.a, self.networks["examples"].a), (dataset.b, self.networks["examples"].b)):
            count = min(len(dataset.a), len(dataset.b)) if dataset.paired else len(side)
            index = torch.arange(EXAMPLES) * count // EXAMPLES
            kept.copy_(center(to_float(side.images[index]), self.data["resolution"]))

    def updates(self, step: int) -> list:
        left = (self.config.steps - step) / self.config.steps
        share = min(1.0, left / self.config.lr_decay) if self.config.lr_decay else 1.0
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr * share
        return []

    def cut(self, batch) -> tuple[torch.Tensor, torch.Tensor]:
        """A random part of each image of both sides, [N, C, H, W]; the same part of both where they are pairs."""
        size, (a, b, *_) = sides(self.data["resolution"]), batch.items
        if a.shape[2:] == size:
            return a, b
        places = batch.rand(2, 2)
        return cut(a, size, places[:, 0]), cut(b, size, places[:, 0 if self.paired else 1])

    def translate(self, networks: dict[str, nn.Module], images: torch.Tensor, direction: str = "AtoB") -> torch.Tensor:
        """images [N, C, H, W] in [-1, 1] of one side -> the other's. Raises ValueError for a direction not learnt."""
        if direction not in self.generators:
            raise ValueError(f"{self.name}: direction is {direction!r}, expected {' or '.join(self.generators)}")
        return networks[self.generators[direction]](images)

    def _held_out(self, name: str | tuple[str, str], options: dict[str, Any]) -> tuple[PairDataset, bool]:
        """Images to judge by, and whether each has its counterpart: the test split where there is one, paired if it can be."""
        for split in ("test", options.get("split")):
            for paired in (True, False):
                try:
                    return self.load_pair(name, paired=paired, **{**options, "split": split}), paired
                except ValueError as error:
                    if not absent(error, *([name] if isinstance(name, str) else name)):
                        raise
        raise ValueError(f"{name}: no images to evaluate on")

    def adversarial(self) -> Adversarial:
        """The loss of the options. Raises ValueError for one that compares with real images, which no generator here is shown."""
        loss = LOSSES.resolve(self.config.loss)
        if loss.relativistic:
            raise ValueError(
                f"{self.name}: loss is {self.config.loss!r}, which compares with real images where the generators learn"
            )
        return loss

    def adam(self, *networks: nn.Module) -> torch.optim.Adam:
        parameters = [p for network in networks for p in network.parameters()]
        return torch.optim.Adam(parameters, lr=self.config.lr, betas=(self.config.beta1, 0.999))

    @in_float32
    def evaluate(
        self,
        networks: dict[str, nn.Module],
        run: dict[str, Any],
        count: int,
        extractor: str | None = "efflite0",
        weights: Path | None = None,
        metrics: Sequence[str] | None = None,
    ) -> dict[str, dict[str, float]]:
        """Both directions against the true counterparts (where file names or code points match), the identity map and the
        nearest training image, on the test split where the data have one; at most `count` images of each side, spread over it.
        Sets that were given, not named, are measured as they are."""
        names = ("split", "resolution", "channels", "bits", "crop", "strict")
        options = {key: run[key] for key in names if key in run}
        options["resolution"] = run.get("resolution") or self.data["resolution"]
        # A wrong name ends here, before data are read.
        suite.choose(offered(extractor, weights, metrics), metrics, count)
        if self.dataset is not None:
            size = self.data["resolution"]
            both = (side.replace(images=center(side.images, size)) for side in (self.dataset.a, self.dataset.b))
            training = held_out = PairDataset(*both, paired=self.dataset.paired)
            truth = held_out.paired
        else:
            training = self.load_pair(named(run), paired=False, **options)
            held_out, truth = self._held_out(run["data"], options)
        both = (side.subset(evenly(len(side), count)) for side in (held_out.a, held_out.b))
        held_out = PairDataset(*both, paired=truth)
        device = next(networks[next(iter(self.generators.values()))].parameters()).device
        translators = {d: lambda x, d=d: self.translate(networks, x.to(device), d).cpu() for d in self.generators}
        columns = evaluate(translators, held_out, training, extractor, weights, truth, metrics, self.told)
        self.measured = {label: len(held_out.a if label.startswith("AtoB") else held_out.b) for label in columns}
        return columns
