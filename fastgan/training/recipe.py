"""What a recipe is: the contract between the engine (`Trainer`), which owns the loop, the moving average, the
checkpoints, the processes, the precision and the log, and a recipe, which owns networks, optimisers and losses.

    class Hinge(Recipe):
        name, Config = "hinge", HingeConfig                  # Config: a dataclass derived from RecipeConfig

        def __init__(self, config, data):                    # data: what describe() said about the data set
            super().__init__(config, data)
            self.networks = {"generator": ..., "discriminator": ...}
            self.optimizers = {"generator": Adam(...), "discriminator": Adam(...)}

        def d_step(self, batch): return {"loss": ..., "real": ..., "fake": ...}    # scalars; "loss" is minimised
        def g_step(self, batch): return {"loss": ...}

What the engine promises

- One training step runs `updates(step)` in order. A recipe may have any number of networks and optimisers, parameters
  may belong to several optimisers, and steps may differ (pre-training, lazy regularisation, schedules).
- While an update of optimiser X runs, only X's parameters require gradients: no detach() and no no_grad() is needed.
- All of `networks` and `optimizers` is in the checkpoint, buffers included. State of any other kind (a running mean, an
  augmentation strength, a pool of images, example inputs for `sample`) therefore goes into a buffer of one of the
  networks; a network may consist of buffers alone.
- `updates(step)` is called once before every step, on every process, also after a resume: it is the place to set
  learning rates or other values that depend on the step (`optimizer.param_groups[0]["lr"] = ...`).

What the engine expects

- Every random draw comes from `batch.randn`, `batch.rand`, `batch.noise` or torch's global generators. The engine seeds the
  latter before each update from (seed, update, rank), and a batch's draws are slices of one draw for all processes: so a
  resumed run repeats an unbroken one bit for bit, and two processes with batch B draw what one with 2B draws.
- A loss is a mean over the batch. A statistic of the batch that enters the loss is taken over all processes with
  `batch.gather(x)`; batch normalisation is synchronised by the engine.
- What one update has made for a later one on the same images goes through `batch.keep(name=tensor)` and `batch.kept(name)`,
  never through an attribute: pieces and compiled steps then find their own.
- With `--grad-accum` a loss sees a piece of the batch at a time, each from the same state of buffers and generators; of
  `running` buffers the mean remains. An update that needs all images is `whole`; where pieces would change what a recipe
  does (draws of a layer from the global generators among them), `whole_batch` says why, and the run is refused.
- With `--graphs` the host runs a step a few times only: a number that changes from step to step and enters a loss is a tensor
  in a buffer, or a plain attribute of the recipe, of which each value is a graph of its own. Learning rates may change freely.
  `dynamic` says why a recipe's steps cannot be captured.
- A buffer that every process moves by its own part of the batch (the path length's mean, LeCam's means) is listed in
  `running`: the engine averages it over the processes, with the gradients.
- A network in `averaged` may be split over processes (`--shard-generator`): outside `prepare` it is used through
  `forward` alone, or through `mapping` and `synthesis`, and is not differentiated twice. Otherwise `whole_generator`
  says why not.
- The constructor depends on `config` and `data` alone (and torch's global generator for initial weights): `load_run`
  rebuilds the networks from config.json without the data set. What needs the data is done in `prepare`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from fastgan._surroundings import in_float32
from fastgan.fields import brief, clip
from fastgan.media import Image, Medium
from fastgan.options import Batch, Count, NonNegative
from fastgan.registry import Registry

RECIPES = Registry("recipe", "fastgan.recipes")  # `fastgan.recipes` has its rows


@dataclass
class RecipeConfig:
    """Options that every recipe has; a recipe's Config adds its own and changes the defaults.

    Each field has a default and a docstring, which becomes the command line's help. `before`: options that came later, as runs
    were trained that have none of them in their config.json; such a run resumes as it began.
    """

    before: ClassVar[Mapping[str, Any]] = {}

    steps: Count = 10_000
    """Length of the run, in generator updates."""
    batch_size: Batch = 64
    """Images per update and process."""
    ema_halflife: NonNegative = 10_000.0
    """Half-life of the generator's moving average, which samples are drawn from, in images. 0: no average."""


class Update(NamedTuple):
    """One optimiser step: `loss(batch)` returns scalars by name; "loss" is minimised by optimiser `optimizer`.

    `fresh`: take the next batch of data; otherwise the last one is used again (with new latents). The first update of
    a step always takes a new one. `whole`: never in pieces (`--grad-accum`), as a statistic of all images enters the loss.
    """

    optimizer: str
    loss: Callable[[Any], dict[str, torch.Tensor]]
    fresh: bool = True
    whole: bool = False


class Preset(NamedTuple):
    """Values of options under a name (`--preset`): those of a paper, for example. `about` is a line for the help; `options` are
    the recipe's and the run's by their names, as `fastgan.run` takes them.

    Those of fastgan's recipes name the section or table of the paper, and were written without the papers at hand: whoever wants
    to reproduce a published figure compares them with the text first.
    """

    about: str
    options: Mapping[str, Any]


class Recipe:
    """Base of all recipes; the module's docstring says how to write one.

    Attributes:
        name: for messages, reports and folders; the class's own name unless given.
        medium: the kind of its samples, from `fastgan.media`.
        Facts: a TypedDict of what `describe` says; config.json is checked against it. Unless given, the medium's, or, where the
            recipe replaces `describe`, the name alone.
        config, data: the options, and the dict that `describe` made.
        networks, optimizers: by name.
        averaged: names of the networks that samples are drawn from; a moving average is kept of them.
        latent_shape: shape of one sample's latent: the option `latent` where there is one, else 64.
        processes: how many processes share each update; the engine sets it.
        begun: the step that this process began at, and the images seen until then; the engine sets it.
        dataset: the data set that a `Trainer` was given; None where it is loaded by name.
        in_training: whether a `Trainer` reads `dataset` meanwhile.
        run_defaults: options of a run (`fastgan.training.run_options`) that this recipe changes, the data set among them.
        presets: by name, for `--preset`.
        metrics: names of the rows of `fastgan.metrics.suite` that `evaluate` offers.
        headline: beginnings of the names of those figures of `evaluate` that a run prints as it goes.
        whole_generator: why `--shard-generator` must not split the networks in `averaged`; empty where it may.
        whole_batch: why `--grad-accum` must not cut a batch, beyond what `fastgan.training.pieces` sees in the networks (batch
            normalisation, dropout, minibatch standard deviation); empty where it may.
        kept: names of the options that a resumed run cannot change, as its networks' numbers would mean something else.
        dynamic: why `--graphs` cannot capture its steps, as the host decides or reads something in them; empty where it can.
        sample_options: what of `fastgan sample` its samples bear, beside seeds.
        sample_columns: names of the images that stand side by side in one sample, where `sample` makes strips of several.
        pairs: whether `load_data` takes two names, as `--data A B` gives them.

    Raises ValueError for a `conditional` config where the data have no classes.
    """

    name: str = ""
    Config: type[RecipeConfig] = RecipeConfig
    medium: type[Medium] = Image
    Facts: type | None = None
    averaged: tuple[str, ...] = ("generator",)
    pairs: bool = False
    processes: int = 1
    begun: tuple[int, int] = (0, 0)
    dataset: Any = None
    in_training: bool = False
    presets: ClassVar[Mapping[str, Preset]] = {}
    run_defaults: ClassVar[Mapping[str, Any]] = {"data": "emoji"}
    metrics: tuple[str, ...] = ("fd", "kid", "prdc", "is")
    headline: tuple[str, ...] = ("fd_",)
    whole_generator: str = ""
    whole_batch: str = ""
    kept: tuple[str, ...] = ()
    dynamic: str = ""
    sample_options: tuple[str, ...] = ("separate", "interpolate")
    sample_columns: tuple[str, ...] = ()

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        inherited = cls.name if "<locals>" in cls.__qualname__ else ""  # found again by what it derives from alone
        cls.name = cls.__dict__.get("name") or inherited or cls.__name__
        if "describe" in cls.__dict__ and "Facts" not in cls.__dict__:
            cls.Facts = Medium.Facts

    def __init__(self, config: RecipeConfig, data: dict[str, Any]):
        if getattr(config, "conditional", False) and not data.get("num_classes"):
            raise ValueError(
                f"{self.name}: --conditional needs labels, and {data['name']} has none; where they are numbers, as in shards,"
                " --classes says how many there are"
            )
        self.config, self.data = config, data
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.latent_shape: tuple[int, ...] = (getattr(config, "latent", 64),)
        self.told: set[str] = set()  # warnings of `evaluate`, which a run gives once
        self.features: dict[str, Any] = {}  # what `evaluate` compared images by
        self.measured: dict[str, int] = {}  # samples of each of its columns, where they are not as many as asked for

    def __repr__(self) -> str:
        lines = [f"{self.name} on {self.data.get('name')}: {brief(self.config)}"]
        for name, network in self.networks.items():
            count, averaged = sum(p.numel() for p in network.parameters()), name in self.averaged
            lines.append(f"  {name}: {count:,} parameters{', sampled from' if averaged else ''}")
        return "\n".join(lines)

    def adversaries(self, generator: nn.Module, discriminator: nn.Module, **adam: Any) -> None:
        """Sets `networks` to the two, `optimizers` to an Adam of each with the options `adam`, and attributes of their names."""
        self.generator, self.discriminator = generator, discriminator
        self.networks = {"generator": generator, "discriminator": discriminator}
        self.optimizers = {name: torch.optim.Adam(n.parameters(), **adam) for name, n in self.networks.items()}

    @property
    def running(self) -> list[torch.Tensor]:
        """Buffers that are averaged over processes after each update; asked for anew, as networks change the device."""
        return []

    @classmethod
    def load_data(cls, name: str, config: RecipeConfig, **options):
        """The data set called `name`: anything `fastgan.data.Loader` takes.

        `options` are those of the medium, for images `split`, `resolution`, `crop`, `flip` and so on of `fastgan.data.load`.
        Replace it for other data: an item is a tuple of tensors, which arrive in `batch.items` as the medium puts them on the
        device: uint8 images as float32 in [-1, 1].
        """
        return cls.medium.load(name, **options)

    @classmethod
    def describe(cls, dataset) -> dict[str, Any]:
        """JSON-able facts that `__init__` and `sample` need, kept in config.json so that sampling needs no data."""
        return cls.medium.describe(dataset)

    def prepare(self, dataset) -> None:
        """Once, before the first step of a new run: statistics of the data into buffers and initial weights."""

    def seen(self, step: int) -> int:
        """Images of all processes in the training steps before `step`, also where a resumed run has another batch or another
        number of processes than before: what schedules in images go by."""
        first, images = self.begun
        return images + (step - first) * self.config.batch_size * self.processes

    def ema_halflife(self, images: int) -> float:
        """Half-life of the moving average, in images, once `images` have been seen."""
        return self.config.ema_halflife

    def updates(self, step: int) -> list[Update]:
        """The optimiser steps that make up training step `step`."""
        return [Update("discriminator", self.d_step), Update("generator", self.g_step, fresh=False)]

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def latents(self, seeds: list[int]) -> torch.Tensor:
        """float32 [N, *latent_shape]: row i depends on seeds[i] alone."""
        return latents_of(seeds, self.latent_shape)

    def labels(self, seeds: list[int]) -> torch.Tensor | None:
        """int64 [N] for class-conditional networks: a class per seed, in turn. None where there are no classes."""
        classes = self.data.get("num_classes", 0) if getattr(self.config, "conditional", False) else 0
        return torch.tensor([seed % classes for seed in seeds], device="cpu") if classes else None

    def generate(
        self,
        networks: dict[str, nn.Module],
        latents: torch.Tensor,
        labels: torch.Tensor | None = None,
        truncation: float = 1.0,
    ) -> torch.Tensor:
        """Images in [-1, 1], [N, C, H, W], of given latents (and classes); `networks` holds those named in `averaged`.

        Raises ValueError where the recipe's generator has no truncation and one other than 1 is asked for.
        """
        from fastgan.models.draw import draw

        return draw(self.name, networks["generator"], latents, labels, truncation)

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor | list[str]:
        """One sample per seed, of the recipe's medium: images or signals in [-1, 1], [N, C, ...], or texts. A recipe
        without latents replaces this one."""
        return self.generate(networks, self.latents(seeds), self.labels(seeds))

    @in_float32
    def evaluate(
        self,
        networks: dict[str, nn.Module],
        run: dict[str, Any],
        count: int,
        extractor: str = "efflite0",
        weights: Path | None = None,
        metrics: Sequence[str] | None = None,
    ) -> dict[str, dict[str, float]]:
        """Columns of figures by name, from `count` samples of seeds 0, 1, ... against the data set of the run. All processes
        call it together and share the work.

        run: the options in config.json; its `reference`, a file of `fastgan.metrics.reference`, takes the place of the data set,
        and leaves out what needs more of it than mean and covariance; with `data_asked` a `data` that cannot be read is an error,
        whatever else can be measured. extractor, weights: see
        `fastgan.metrics.images.load_extractor`; the names of the figures say which it was. metrics: those to compute, by names of
        rows or beginnings of figures' names. None: all that can be; a warning tells which cannot and why, where ValueError does
        if they are asked for.

        What rows need is what `provided` says, and of images their features.
        """
        from fastgan.metrics import images, suite

        facts, title = self.provided(networks, run, count), None
        if issubclass(self.medium, Image):
            found, title = images.provided(
                self, networks, facts["data"], count, extractor, weights, run.get("reference")
            )
            facts |= found
        rows = suite.rows(self.metrics, title, metrics)
        if run.get("reference") is not None:
            rows = [row for row in rows if "real" not in row.needs or row.name in images.BY_MOMENTS]
        choice = suite.choose(rows, metrics, count)
        if run.get("data_asked"):
            facts["data"]()
        return {self.name: suite.compute(choice, facts, count, strict=metrics is not None, told=self.told)}

    def provided(self, networks: dict[str, nn.Module], run: dict[str, Any], count: int) -> dict[str, Callable[[], Any]]:
        """What metrics may need, by name, as functions that are called when a metric asks; arguments as of `evaluate`.

        `samples`: those of seeds 0, 1, ..., float [count, ...] on the CPU, or texts, the whole on every process. `data`: the data
        set of the run, unmirrored. `networks`, `recipe`, `count`. A recipe whose own metrics need more adds to them.
        """
        from fastgan.metrics.processes import gather, numbers

        def samples() -> torch.Tensor | list[str]:
            with torch.no_grad():
                parts = [drawn(part) for part in numbers(count, 64)]
            if not parts or not isinstance(parts[0], torch.Tensor):
                return gather(list(itertools.chain.from_iterable(parts)))
            return gather(torch.cat([part.float().cpu() for part in parts]))

        def data():
            if self.dataset is not None:
                return self.given_data()
            options = {f.name: run[f.name] for f in dataclasses.fields(self.medium.Options) if f.name in run}
            return self.load_data(named(run), self.config, **options | ({"flip": False} if "flip" in options else {}))

        data = functools.cache(data)
        drawn = self.drawing(networks, data)
        constant = {"networks": networks, "recipe": self, "count": count}
        made = {name: lambda value=value: value for name, value in constant.items()}
        return {"samples": functools.cache(samples), "data": data, **made}

    def given_data(self) -> Any:
        """`dataset`, to be measured on. Raises ValueError for a stream that is trained on and that a reading would move."""
        if self.in_training and any(hasattr(self.dataset, name) for name in ("state_dict", "set_epoch")):
            raise ValueError(
                "a stream that knows its place or epoch cannot be read from its beginning while it is trained on"
            )
        return self.dataset

    def drawing(
        self, networks: dict[str, nn.Module], data: Callable[[], Any]
    ) -> Callable[[list[int]], torch.Tensor | list[str]]:
        """`sample` of `networks` by seeds, for figures: of `classes_drawn`, where the recipe's samples are those of the base."""
        if type(self).sample is not Recipe.sample or self.labels([0]) is None:
            return lambda seeds: self.sample(networks, seeds)
        classes = self.classes_drawn(data)
        return lambda seeds: self.generate(networks, self.latents(seeds), classes(seeds))

    def classes_drawn(self, data: Callable[[], Any]) -> Callable[[list[int]], torch.Tensor | None]:
        """`labels` by seeds, for figures: classes come as often as in what `data` makes, where they are the run's, as a distance
        to data of which one class is half would else be that of the classes' shares. Where these are not known classes come in
        turn, as `labels` has them, and a warning says so. A recipe's own `labels` stay as they are."""
        from fastgan.metrics.processes import place

        if type(self).labels is not Recipe.labels or self.labels([0]) is None:
            return self.labels

        @functools.cache
        def shares() -> torch.Tensor | None:
            classes = self.data["num_classes"]
            try:  # torchvision's data sets have `classes` and `targets`
                found = data()
                names = getattr(found, "class_names", getattr(found, "classes", ()))
                labels = (
                    torch.as_tensor(getattr(found, "labels", getattr(found, "targets", ())), device="cpu")
                    .flatten()
                    .long()
                )
                fits = list(names) == list(self.data.get("class_names", ())) and len(labels)
                if fits and 0 <= labels.min() <= labels.max() < classes:
                    return torch.bincount(labels, minlength=classes).double() / len(labels)
            except Exception:  # where it has to do with the data, the figures that need them say why
                pass
            message = "the samples' classes come in turn: how often the data have each is not known"
            if message not in self.told and place()[0] == 0:
                warnings.warn(message, stacklevel=2)
            self.told.add(message)
            return None

        def drawn(seeds: list[int]) -> torch.Tensor | None:
            of_each = shares()
            return self.labels(seeds) if of_each is None else in_shares(seeds, of_each)

        return drawn


def named(run: Mapping[str, Any]) -> Any:
    """What the data of a `run`, options as `Recipe.evaluate` takes them, are loaded by. Raises ValueError where that is no more
    than the name of an object."""
    if run.get("given") and not run.get("data_asked"):
        raise ValueError(
            f"it was trained on an object of Python, {clip(run['given'])}, and {clip(run['data'])} is but its name: give "
            f"fastgan.Run({run.get('out')!r}) that `dataset` and let it evaluate, or fastgan eval --data NAME another"
        )
    return run["data"]


def in_shares(seeds: Sequence[int], shares: torch.Tensor) -> torch.Tensor:
    """A class for each seed, int64 [N]: of any N seeds in a row each class has its share, to a few, as the multiples of an
    irrational number fill the unit interval evenly (Weyl). It is the root of 3, not the golden ratio, by whose multiples
    `data.source.lowest` chooses rows of more than are kept: by the same these would be of a few classes alone."""
    places = torch.tensor(list(seeds), dtype=torch.float64, device="cpu") * 3**0.5 % 1
    return torch.searchsorted(shares.cumsum(0), places, right=True).clamp(max=int(shares.nonzero().max()))


def whole_seeds(seeds: Iterable[int]) -> list[int]:
    """`seeds` as Python's integers, be they numpy's or a tensor's. Raises TypeError for other things, ValueError for none, or
    numbers that are no seeds."""
    try:
        found = [operator.index(seed) for seed in seeds]
    except TypeError:
        raise TypeError(f"seeds is {clip(seeds)}: expected whole numbers, as range(4) or [7, 8]") from None
    if not found or min(found) < -(2**63) or max(found) >= 2**64:
        raise ValueError(f"seeds is {clip(seeds)}: expected at least one, from -2^63 to 2^64 - 1")
    return found


def latents_of(seeds: Iterable[int], shape: tuple[int, ...]) -> torch.Tensor:
    """float32 [N, *shape], normal numbers: row i depends on seeds[i] alone."""
    seeded = (torch.Generator("cpu").manual_seed(seed) for seed in whole_seeds(seeds))
    return torch.stack([torch.randn(shape, generator=g, device="cpu", dtype=torch.float32) for g in seeded])


@in_float32
def draw(recipe: Recipe, networks: dict[str, nn.Module], seeds: list[int], chunk: int = 64) -> torch.Tensor | list[str]:
    """Samples of `seeds` without gradients, `chunk` at a time: float [N, C, ...] on the CPU, or texts.

    Raises ValueError where they are not of the recipe's medium.
    """
    with torch.no_grad():
        parts = [recipe.sample(networks, seeds[i : i + chunk]) for i in range(0, len(seeds), chunk)]
    if isinstance(parts[0], list):
        samples = list(itertools.chain.from_iterable(parts))
    else:
        samples = torch.cat([part.float().cpu() for part in parts])
    if not recipe.medium.check(samples, recipe.data):
        what = list(samples.shape) if isinstance(samples, torch.Tensor) else f"a list of {type(samples[0]).__name__}"
        raise ValueError(
            f"{recipe.name}: its samples are {what}, and of {recipe.medium.unit} {recipe.medium.expected} was expected; the "
            "recipe's `medium` says what it makes"
        )
    return samples


def compares_with_means(loss, name: str) -> str:
    """For `whole_batch`: why a piece will not do for --loss `name`; "" where it will."""
    return f"as --loss {name} compares with means of the batch" if loss.averaging else ""


def compared(loss, batch, *logits: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Logits as the adversarial `loss` takes them: of one with means over the batch (`averaging`) those of all processes. A
    recipe that has such a loss says so in `whole_batch`, as a piece knows no other."""
    return [batch.gather(x) if loss.averaging and x is not None else x for x in logits]


def lazy_adam(
    parameters, lr: float, betas: tuple[float, float], interval: int, make: Callable = torch.optim.Adam, **options
) -> torch.optim.Optimizer:
    """Adam for a network whose regulariser, times `interval`, is an update of its own every `interval` steps.

    With c = interval / (interval + 1) the learning rate becomes c lr and the betas beta^c, so that the more frequent
    steps move the weights as the joint loss would (Karras et al., 2020, appendix B). Where the regulariser is added to
    the main loss every `interval` steps, the number of steps stays and no correction is needed.

    Raises ValueError for an interval below 1.
    """
    if interval < 1:
        raise ValueError(f"lazy_adam: interval is {interval}, expected at least 1")
    c = interval / (interval + 1)
    return make(parameters, lr=c * lr, betas=(betas[0] ** c, betas[1] ** c), **options)
