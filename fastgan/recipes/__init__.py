"""Recipes: all that makes this GAN this GAN. The engine (`fastgan.training`) owns the loop, the moving average, the
checkpoints, the processes and the log; a recipe owns networks, optimisers and losses.

To add a recipe, write `fastgan/recipes/<name>.py` with a class that derives from `Recipe` and a `Config` dataclass that
derives from `RecipeConfig`, and add a row to `RECIPES`. `fastgan.training.recipe` states the contract.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan import fields
from fastgan.names import did_you_mean
from fastgan.training.checkpoint import NAME, Checkpoint, CheckpointError, load_checkpoint, load_network
from fastgan.training.recipe import Recipe, RecipeConfig, Update
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
RECIPES = {
    "gan": ("fastgan.recipes.gan:GAN", "the founding article's fully connected GAN, with a batch loss"),
    "dcgan": ("fastgan.recipes.dcgan:DCGAN", "convolutional GAN, relativistic pairing loss with R1 and R2"),
    "wgan-gp": ("fastgan.recipes.wgan_gp:WGANGP", "Wasserstein GAN with gradient penalty, residual networks"),
    "sngan": ("fastgan.recipes.sngan:SNGAN", "hinge loss, spectrally normalised discriminator, residual networks"),
    "fastgan": ("fastgan.recipes.fewshot:FewShot", "light networks for few images, decoder-regularised discriminator"),
    "r3gan": ("fastgan.recipes.r3gan:R3GAN", "R3GAN: residual networks without normalisation, scheduled rates"),
    "stylegan2": (
        "fastgan.recipes.stylegan2:StyleGAN2",
        "StyleGAN2 with adaptive augmentation, path length, style mixing",
    ),
    "stylegan3": (
        "fastgan.recipes.stylegan3:StyleGAN3",
        "StyleGAN3-T and -R: alias-free, follows translation and rotation",
    ),
    "mle": ("fastgan.recipes.mle:MLE", "text by maximum likelihood, the baseline of the text GANs"),
    "seqgan": ("fastgan.recipes.seqgan:SeqGAN", "text by policy gradient with Monte Carlo rollouts"),
    "relgan": ("fastgan.recipes.relgan:RelGAN", "text by relational memory and Gumbel-softmax"),
    "cyclegan": ("fastgan.recipes.cyclegan:CycleGANRecipe", "translation between two sets of images without pairs"),
    "pix2pix": ("fastgan.recipes.pix2pix:Pix2Pix", "translation learnt from pairs of images"),
}


def get(name: str) -> type[Recipe]:
    """The class of recipe `name`. Raises ValueError that lists the known names."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}{did_you_mean(name, RECIPES)}; known: {', '.join(RECIPES)}")
    module, _, attribute = RECIPES[name][0].partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass
class SavedRun:
    """A run folder's config.json, checked: the class of the recipe, its options, those of the run, the facts of the data."""

    folder: Path
    recipe: type[Recipe]
    config: RecipeConfig
    run: RunOptions
    data: dict[str, Any]

    def build(self) -> Recipe:
        return self.recipe(self.config, dict(self.data))


def find_run(path: str | Path) -> Path:
    """The run folder that `path` is, or that a checkpoint or a folder of checkpoints lies in."""
    path = Path(path)
    parts = path.resolve()
    if NAME.match(parts.name) and not (path / "config.json").exists():
        path, parts = path.parent, parts.parent
    return path.parent if parts.name == "checkpoints" else path


def read_run(path: str | Path) -> SavedRun:
    """What config.json says of a run (or of that of a checkpoint). Raises CheckpointError or ValueError naming file and field."""
    folder = find_run(path)
    saved, where = read_config(folder), folder / "config.json"
    try:
        recipe = get(clip(saved["recipe"]).strip("'"))
        config = fields.build(recipe.Config, saved["config"], f"{where}: config")
        run = read_options(recipe, saved["run"], f"{where}: run")
        check_options(recipe, config, run)
        facts = fields.record(recipe.Facts or recipe.medium.Facts, saved["data"], f"{where}: data")
        return SavedRun(folder, recipe, config, run, facts)
    except fields.Mismatch:
        raise
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def check_run(path: str | Path) -> tuple[SavedRun, Checkpoint]:
    """config.json and the newest whole checkpoint of a run, or the one at `path`; CheckpointError, before memory is taken,
    where the networks of the one are not those of the other."""
    saved, checkpoint = read_run(path), load_checkpoint(path)
    try:
        with within(checkpoint.tensors.values(), str(saved.folder / "config.json")):
            planned = saved.build()
        for name, network in planned.networks.items():
            check_fit(network, checkpoint.under(f"network/{name}/"), f"{checkpoint.path}: network {name}")
    except BadFile as error:
        raise CheckpointError(str(error)) from error
    return saved, checkpoint


def load_run(path: str | Path, device: str | torch.device = "cpu") -> tuple[Recipe, dict[str, nn.Module]]:
    """The recipe of a run folder and its averaged networks, in eval mode, from the newest whole checkpoint; of the folder of
    one checkpoint (`RUN/checkpoints/step-00001000`), from that one.

    Raises:
        CheckpointError: no run or no whole checkpoint there, or one that does not fit config.json.
        ValueError: a recipe or an option this version does not know.
    """
    saved, checkpoint = check_run(path)
    try:
        with naming(str(saved.folder / "config.json")):
            recipe = saved.build()
    except BadFile as error:
        raise CheckpointError(str(error)) from error
    networks = {name: recipe.networks[name].eval().requires_grad_(False) for name in recipe.averaged}
    for name, network in networks.items():
        load_network(network, checkpoint.under(f"ema/{name}/"), f"{checkpoint.path}: {name}")
        network.to(device)
    return recipe, networks
