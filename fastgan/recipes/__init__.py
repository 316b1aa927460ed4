"""Recipes: all that makes this GAN this GAN. The engine (`fastgan.training`) owns the loop, the moving average, the
checkpoints, the processes and the log; a recipe owns networks, optimisers and losses.

To add a recipe, write `fastgan/recipes/<name>.py` with a class that derives from `Recipe` and a `Config` dataclass that
derives from `RecipeConfig`, and add a row to `RECIPES`. `fastgan.training.recipe` states the contract.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import torch
from torch import nn

from fastgan.names import did_you_mean
from fastgan.training.checkpoint import CheckpointError, load_checkpoint, load_network
from fastgan.training.recipe import Recipe, RecipeConfig, Update

__all__ = ["RECIPES", "Recipe", "RecipeConfig", "Update", "get", "load_run"]

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


def load_run(folder: str | Path, device: str | torch.device = "cpu") -> tuple[Recipe, dict[str, nn.Module]]:
    """The recipe of a run folder and its averaged networks, in eval mode, from the newest whole checkpoint.

    Raises:
        CheckpointError: no run or no whole checkpoint there.
        ValueError: a recipe this version does not know.
    """
    folder = Path(folder)
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is no run folder: {error}") from error
    recipe_class = get(saved["recipe"])
    recipe = recipe_class(recipe_class.Config(**saved["config"]), saved["data"])
    checkpoint = load_checkpoint(folder)
    networks = {name: recipe.networks[name].eval().requires_grad_(False) for name in recipe.averaged}
    for name, network in networks.items():
        load_network(network, checkpoint.under(f"ema/{name}/"), name)
        network.to(device)
    return recipe, networks
