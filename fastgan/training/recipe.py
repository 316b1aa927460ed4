"""The contract between the engine and a recipe. `fastgan.recipes` documents it and holds the recipes themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn


@dataclass
class RecipeConfig:
    """Options that every recipe has; a recipe's Config adds its own and changes the defaults."""

    steps: int = 10_000
    """Length of the run, in generator updates."""
    batch_size: int = 64
    """Images per update and process."""
    ema_halflife: float = 10_000.0
    """Half-life of the generator's moving average, which samples are drawn from, in images. 0: no average."""


class Update(NamedTuple):
    """One optimiser step: `loss(batch)` returns scalars by name; "loss" is minimised by optimiser `optimizer`.

    `fresh`: take the next batch of data; otherwise the last one is used again (with new latents).
    """

    optimizer: str
    loss: Callable[[Any], dict[str, torch.Tensor]]
    fresh: bool = True


class Recipe:
    """Base of all recipes; `fastgan.recipes` says how to write one.

    Attributes: `name`, as on the command line; `config`; `data`, the dict `describe` made; `networks` and `optimizers`, by name; `averaged`, the networks that
    samples are drawn from and that a moving average is kept of; `latent_shape`, the shape of one image's latent.
    """

    name: str = ""
    Config: type[RecipeConfig] = RecipeConfig
    averaged: tuple[str, ...] = ("generator",)

    def __init__(self, config: RecipeConfig, data: dict[str, Any]):
        self.config, self.data = config, data
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.latent_shape: tuple[int, ...] = (64,)

    @classmethod
    def load_data(cls, name: str, config: RecipeConfig, **options):
        """The data set called `name`; `options` are those of `fastgan.data.load`. Replace it where items are no images."""
        from fastgan.data import load

        return load(name, **options)

    @classmethod
    def describe(cls, dataset) -> dict[str, Any]:
        """JSON-able facts that `__init__` and `sample` need, kept in config.json so that sampling needs no data."""
        names = ("name", "resolution", "channels", "num_classes", "class_names")
        return {name: getattr(dataset, name) for name in names}

    def prepare(self, dataset) -> None:  # noqa: B027 - most recipes have nothing to prepare
        """Once, before the first step of a new run: statistics of the data into buffers and initial weights."""

    def updates(self, step: int) -> list[Update]:
        """The optimiser steps that make up training step `step`."""
        return [Update("discriminator", self.d_step), Update("generator", self.g_step, fresh=False)]

    def d_step(self, batch) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def g_step(self, batch) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def latents(self, seeds: list[int]) -> torch.Tensor:
        """float32 [N, *latent_shape]: row i depends on seeds[i] alone."""
        draws = [torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(draws)

    def labels(self, seeds: list[int]) -> torch.Tensor | None:
        """int64 [N] for class-conditional networks: a class per seed, in turn. None where there are no classes."""
        classes = self.data.get("num_classes", 0) if getattr(self.config, "conditional", False) else 0
        return torch.tensor([seed % classes for seed in seeds]) if classes else None

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor | list[str]:
        """Images in [-1, 1], [N, C, H, W], or texts, one per seed. `networks` holds those named in `averaged`."""
        generator = networks["generator"]
        device = next(generator.parameters()).device
        inputs = [t.to(device) for t in (self.latents(seeds), self.labels(seeds)) if t is not None]
        return generator(*inputs)
