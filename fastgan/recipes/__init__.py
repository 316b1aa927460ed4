"""Recipes: all that makes this GAN this GAN. The engine (`fastgan.training`) owns the loop, the moving average, the
checkpoints, the processes and the log; a recipe owns networks, optimisers and losses.

To add a recipe, write a class that derives from `Recipe` and a `Config` dataclass that derives from `RecipeConfig`;
`fastgan.training.recipe` states the contract. It needs no place in fastgan:

    fastgan train mypackage.recipes:Mine     or     fastgan train ./mine.py:Mine

A short name for it comes from `@RECIPES.register("mine")`, or from a package's entry point `fastgan.recipes`
(`fastgan.registry`). A run's config.json keeps the name. Only a registered one is looked up when the run is sampled or
measured: for another, `load_run(path, recipe=Mine)` or `--recipe mypackage.recipes:Mine` says which code may be imported.

A recipe of fastgan's own is a file `fastgan/recipes/<name>.py` and a row of `OURS`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan import fields
from fastgan._surroundings import apart
from fastgan.training.checkpoint import NAME, Checkpoint, CheckpointError, load_checkpoint, load_network
from fastgan.training.recipe import RECIPES, Recipe, RecipeConfig, Update
from fastgan.training.run import RunOptions, check_options, read_config, read_options
from fastgan.untrusted import BadFile, clip
from fastgan.untrusted.blueprint import check_fit, naming, within

__all__ = [
    "RECIPES",
    "Recipe",
    "RecipeConfig",
    "SavedRun",
    "Update",
    "check_run",
    "find_run",
    "get",
    "load_run",
    "read_run",
]

# name -> (module:class, one line for the help)
OURS = {
    "gan": ("fastgan.recipes.gan:GAN", "small images: the founding article's fully connected GAN, with a batch loss"),
    "dcgan": (
        "fastgan.recipes.dcgan:DCGAN",
        "small images in minutes, to begin with: convolutional, RpGAN loss with R1 and R2",
    ),
    "wgan-gp": (
        "fastgan.recipes.wgan_gp:WGANGP",
        "small images: Wasserstein loss with gradient penalty, residual networks",
    ),
    "sngan": (
        "fastgan.recipes.sngan:SNGAN",
        "small images, also by class: hinge loss, spectral norm, residual networks",
    ),
    "fastgan": (
        "fastgan.recipes.fewshot:FewShot",
        "tens to thousands of images: light networks, regularised by a decoder",
    ),
    "r3gan": (
        "fastgan.recipes.r3gan:R3GAN",
        "images by a plain modern recipe: residual networks, RpGAN loss, scheduled rates",
    ),
    "stylegan2": (
        "fastgan.recipes.stylegan2:StyleGAN2",
        "images whose styles can be mixed and edited; adaptive augmentation for few",
    ),
    "stylegan3": (
        "fastgan.recipes.stylegan3:StyleGAN3",
        "images that follow shifts and rotations, as for video: alias-free",
    ),
    "mle": ("fastgan.recipes.mle:MLE", "text by maximum likelihood, the baseline of the text GANs"),
    "seqgan": ("fastgan.recipes.seqgan:SeqGAN", "text by policy gradient with Monte Carlo rollouts"),
    "relgan": ("fastgan.recipes.relgan:RelGAN", "text by relational memory and Gumbel-softmax"),
    "cyclegan": ("fastgan.recipes.cyclegan:CycleGANRecipe", "translation between two sets of images without pairs"),
    "pix2pix": ("fastgan.recipes.pix2pix:Pix2Pix", "translation learnt from pairs of images"),
    "vocoder": ("fastgan.recipes.vocoder:Vocoder", "speech from mel spectrograms: pulses and noise, HiFi-GAN, BigVGAN"),
    "realesrgan": ("fastgan.recipes.realesrgan:RealESRGAN", "enlarging pictures, also blurred and compressed ones"),
}
RECIPES.own(OURS)


def get(name: str) -> type[Recipe]:
    """The class of recipe `name`: a registered name, `module:Class`, or `path/file.py:Class`, whose code then runs.

    Raises ValueError that lists the known names, or for what is no recipe.
    """
    found = RECIPES.resolve(name, code=True)
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise ValueError(f"{clip(name)} is no recipe, a class derived from fastgan.recipes.Recipe")
    return found


@dataclass
class SavedRun:
    """A run folder's config.json, checked: the class of the recipe, its options, those of the run, the facts of the data.
    `given`: the kind of the object that the data were, where `run.data` is no more than its name; else empty."""

    folder: Path
    recipe: type[Recipe]
    config: RecipeConfig
    run: RunOptions
    data: dict[str, Any]
    given: str = ""

    def __repr__(self) -> str:
        facts = {name: value for name, value in self.data.items() if isinstance(value, int | float | str)}
        options = f"{fields.brief(self.config)}, {fields.brief(self.run)}"
        return f"SavedRun({str(self.folder)!r}, {self.recipe.name}, {options}, {facts})"

    def build(self) -> Recipe:
        return self.recipe(self.config, dict(self.data))

    def options(self) -> dict[str, Any]:
        """The options of the run by name, and `given`, as `Recipe.evaluate` takes them."""
        return dataclasses.asdict(self.run) | {"given": self.given}


def find_run(path: str | Path) -> Path:
    """The run folder that `path` is, or that a checkpoint or a folder of checkpoints lies in."""
    path = Path(path)
    parts = path.resolve()
    if NAME.match(parts.name) and not (path / "config.json").exists():
        path, parts = path.parent, parts.parent
    return path.parent if parts.name == "checkpoints" else path


def read_run(path: str | Path, recipe: type[Recipe] | str | None = None) -> SavedRun:
    """What config.json says of a run (or of that of a checkpoint). recipe: as in `load_run`.

    Raises CheckpointError or ValueError that names file and field.
    """
    folder = find_run(path)
    saved, where = read_config(folder), folder / "config.json"
    try:
        kind = trusted(saved["recipe"], recipe)
        config = fields.build(kind.Config, saved["config"], f"{where}: config")
        run = read_options(kind, saved["run"], f"{where}: run")
        check_options(kind, config, run)
        facts = fields.record(kind.Facts or kind.medium.Facts, saved["data"], f"{where}: data")
        given = fields.conform(saved.get("given", ""), str, f"{where}: given")
        return SavedRun(folder, kind, config, run, facts, given)
    except fields.Mismatch:
        raise
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def trusted(name: str, recipe: type[Recipe] | str | None) -> type[Recipe]:
    """The class of a run whose config.json names `name`: a registered one, or the one that the caller names."""
    if recipe is None:
        if name not in RECIPES and not RECIPES.typed(name):
            code = clip(name, 1000) if ":" in name else "'MODULE:CLASS'"
            raise ValueError(
                f"{RECIPES.unknown(name)}. If you trust the code of this run's recipe, say so: recipe={code}"
            )
        return RECIPES.resolve(name)
    kind = get(recipe) if isinstance(recipe, str) else recipe
    names = [RECIPES.name_of(kind), RECIPES.name_of(kind, elsewhere=True)]
    # Code that is registered nowhere may have another name by now: its file was moved.
    if name not in names and (name in RECIPES or ":" not in names[1]):
        raise ValueError(f"this is a run of recipe {clip(name, 1000)}, not {names[0]}")
    return kind


def check_run(path: str | Path, recipe: type[Recipe] | str | None = None) -> tuple[SavedRun, Checkpoint]:
    """config.json and the newest whole checkpoint of a run, or the one at `path`; CheckpointError, before memory is taken,
    where the networks of the one are not those of the other. recipe: as in `load_run`."""
    saved, checkpoint = read_run(path, recipe), load_checkpoint(path)
    try:
        with within(checkpoint.tensors.values(), str(saved.folder / "config.json")):
            planned = saved.build()
        for name, network in planned.networks.items():
            check_fit(network, checkpoint.under(f"network/{name}/"), f"{checkpoint.path}: network {name}")
    except BadFile as error:
        raise CheckpointError(str(error)) from error
    return saved, checkpoint


@apart
def load_run(
    path: str | Path, device: str | torch.device = "cpu", recipe: type[Recipe] | str | None = None
) -> tuple[Recipe, dict[str, nn.Module]]:
    """The recipe of a run folder and its averaged networks, in eval mode, from the newest whole checkpoint; of the folder of
    one checkpoint (`RUN/checkpoints/step-00001000`), from that one.

    Args:
        recipe: the class that the run was trained with, or its name, which `get` resolves; needed where config.json names code
            that is not registered, since a run folder from a stranger must not choose code to import.

    Raises:
        CheckpointError: no run or no whole checkpoint there, or one that does not fit config.json, or is of a later version.
        ValueError: a recipe that is not registered, or another one than `recipe`; an option this version does not know.
    """
    saved, checkpoint = check_run(path, recipe)
    try:
        with naming(str(saved.folder / "config.json")):
            made = saved.build()
    except BadFile as error:
        raise CheckpointError(str(error)) from error
    networks = {name: made.networks[name].eval().requires_grad_(False) for name in made.averaged}
    for name, network in networks.items():
        load_network(network, checkpoint.under(f"ema/{name}/"), f"{checkpoint.path}: {name}")
        network.to(device)
    return made, networks
