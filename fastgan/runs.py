"""Runs from Python: `fastgan.run` trains one, `fastgan.Run` is one that lies in a folder."""

from __future__ import annotations

import dataclasses
import functools
import html
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan.data.registered import trust
from fastgan.data.source import is_stream
from fastgan.recipes import RECIPES, Recipe, check_run, find_run, get, load_run, read_run
from fastgan.training.checkpoint import list_checkpoints
from fastgan.training.distributed import find_device
from fastgan.training.recipe import draw, whole_seeds
from fastgan.training.report import sample_files
from fastgan.training.run import find_folder, part_log
from fastgan.training.settings import Settings


def plan(recipe: str | type[Recipe] | None, config: str | Path | None = None, preset: str | None = None) -> Settings:
    """The options of a new run: the recipe's defaults, then the preset's, then those of the YAML file `config`.

    recipe: a class, or the name that a person gave. None: the one that the file names, which must be registered: a file from a
    stranger must not choose code to import.

    Raises ValueError that names the option, the file and its line; FileNotFoundError.
    """
    from fastgan.training import yaml_file

    file = None if config is None else yaml_file.read(config)
    named = None if file is None else file.recipe
    if recipe is not None:
        kind = recipe if isinstance(recipe, type) else get(recipe)
        if named in RECIPES and named != RECIPES.name_of(kind):
            raise ValueError(f"{file.where('recipe')}these are options of recipe {named}, not {kind.name}")
    elif named is None:
        raise ValueError(f"{'' if file is None else f'{config}: '}no recipe is named; known: {', '.join(RECIPES)}")
    elif named in RECIPES or RECIPES.typed(named):
        kind = get(named)
    else:
        more = f". If you trust it, name it yourself: fastgan train {named} --config {config}" if ":" in named else ""
        raise ValueError(f"{file.where('recipe')}{RECIPES.unknown(named)}{more}")
    settings = Settings.of(kind, preset)
    if file is not None:
        settings = settings.updated(file.values, file.where)
        settings.run.log, code = part_log(settings.run.log)
        if code:
            warnings.warn(
                f"{file.where('log')}{', '.join(code)}: code to import; to log to it, name it yourself", stacklevel=2
            )
    return settings


def saved(settings: Settings) -> Settings:
    """The options of the run that `settings` ask to resume; of one on an object without `data`, as its name need not lead there.
    Raises ValueError where it is a run of another recipe."""
    kind = settings.kind
    folder = find_folder(kind.name, settings.run)
    begun = list_checkpoints(folder / "checkpoints")
    found = check_run(folder, kind)[0] if begun else read_run(folder, kind)
    run = dataclasses.replace(found.run, out=str(folder), resume=True, data="" if found.given else found.run.data)
    return Settings(kind, run, found.config)


def run(
    recipe: str | type[Recipe] | None = None,
    /,
    *,
    config: str | Path | None = None,
    preset: str | None = None,
    dataset: Any = None,
    sinks: Sequence[Any] = (),
    **options: Any,
) -> Run:
    """Train a recipe, and return the run:

        trained = fastgan.run("dcgan", data="photos", steps=2500)
        images = trained.sample(range(16))

    Args:
        recipe: a name (`fastgan.recipes.RECIPES`, `module:Class` or `file.py:Class`) or a class; None where `config` names it.
        config: a YAML file of options, such as the run.yaml of a run's folder.
        preset: a name of `Recipe.presets`.
        dataset, sinks: as `fastgan.training.Trainer` takes them: data instead of those called `data`, loggers beside those
            in `log`.
        options: those of the recipe's Config and of the run, as `fastgan train RECIPE --help` lists them; what is given here wins
            over `config`, and that over `preset`. Where both have one of a name, `seed=0` is the run's and
            `recipe={"seed": 0}` the recipe's; options that are nested in another are given so too: `model={"width": 8}`.
            With `resume=True` a run goes on with the options that it was started with, but for those given here.

    Raises ValueError for what is unknown or makes no sense, before anything is written; and what `Trainer.train` raises.
    """
    from fastgan.training import Trainer

    planned = plan(recipe, config, preset)
    settings = planned.updated(options)
    if (data := settings.run.data) is not planned.run.data:  # the caller's own words, not the file's
        trust(*([data] if isinstance(data, str) else data))
    if settings.run.resume:
        check_resumed(config, preset)
        settings = saved(settings).updated(options)
    trainer = Trainer(settings.kind, settings.recipe, settings.run, dataset=dataset, sinks=sinks)
    try:
        made = Run(trainer.train(), settings.run.device, settings.kind)
        if dataset is not None and not is_stream(dataset):  # which may never end
            made.dataset = dataset
        return made
    finally:
        trainer.close()


def check_resumed(config: str | Path | None, preset: str | None) -> None:
    """ValueError for options that a resumed run does not take."""
    for name, value in (("config", config), ("preset", preset)):
        if value is not None:
            raise ValueError(
                f"{name}={str(value)!r} is for a new run: a resumed one goes on with the options it was started with"
            )


class Run:
    """A run in a folder, and its averaged networks, which are loaded when they are first asked for.

    Args:
        folder: as `fastgan train` made it; or one of its checkpoints.
        device: auto, cpu, cuda or cuda:N.
        recipe: needed where the run's recipe is not registered (see `fastgan.recipes.load_run`).

    Attributes: `folder`, `saved` (config.json: the class of the recipe, its options, those of the run, the facts of the data),
    `dataset`: what `evaluate` measures against; None: what the run's `data` names, and of a run on an object nothing, until you
    set it. `fastgan.run` sets it to the one that it was given, unless that is a stream.

    Raises CheckpointError where there is no run.
    """

    def __init__(self, folder: str | Path, device: str = "auto", recipe: str | type[Recipe] | None = None):
        self.folder, self._path = find_run(folder), Path(folder)
        self.saved, self.device = read_run(folder, recipe), find_device(device)
        self.dataset: Any = None

    @functools.cached_property
    def _loaded(self) -> tuple[Recipe, dict[str, nn.Module]]:
        return load_run(self._path, self.device, self.saved.recipe)

    @property
    def recipe(self) -> Recipe:
        return self._loaded[0]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Those that samples are drawn from, by name, in eval mode."""
        return self._loaded[1]

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl: losses, speed and what was measured, by step."""
        from fastgan.training.log import read_metrics

        return read_metrics(self.folder / "metrics.jsonl")

    def sample(self, seeds: Iterable[int] = range(16)) -> torch.Tensor | list[str]:
        """One sample per seed, the same for the same seed: images in [-1, 1], float [N, C, H, W] on the CPU, or texts.

        Raises TypeError or ValueError for what are no seeds.
        """
        return draw(*self._loaded, whole_seeds(seeds))

    def evaluate(
        self, samples: int = 2000, metrics: Sequence[str] | None = None, **options: Any
    ) -> dict[str, dict[str, float]]:
        """Columns of figures by name, as `fastgan eval` prints them. options: as in `Recipe.evaluate`."""
        self.recipe.dataset = self.dataset
        return self.recipe.evaluate(self.networks, self.saved.options(), samples, metrics=metrics, **options)

    def __repr__(self) -> str:
        steps = [step for step, _ in list_checkpoints(self.folder / "checkpoints")] or [0]
        about = f"{self.saved.recipe.name} on {self.saved.data.get('name')}"
        return f"Run({str(self._path)!r}: {about}, step {steps[-1]} of {self.saved.config.steps}, on {self.device})"

    def _repr_html_(self) -> str:
        """For notebooks, with the newest samples of the training."""
        shown = [self.saved.recipe.medium.html(path) for path in sample_files(self.folder / "samples")[-1:]]
        return f"<p>{html.escape(repr(self))}</p>{''.join(shown)}"
