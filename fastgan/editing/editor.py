"""A trained generator from outside: latents of seeds, and the pictures of latents."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan.editing.latents import Latents
from fastgan.media import Image
from fastgan.sizes import Resolution, sides
from fastgan.training.recipe import whole_seeds

_PIXELS = 1 << 22  # of one pass through the generator: 64 pictures of 256x256


class Editor:
    """A generator of images, and the space in which its latents are edited: the styles "w" of a network with `mapping` and
    `synthesis`, "z" of others.

    Args: what `fastgan.recipes.load_run` and `fastgan.convert.load` return.

    Attributes: `name`, `recipe`, `networks`, `generator`, `device`; `space`; `shape`, of one latent: (layers, D) or (D,);
    `classes`, how many there are; `resolution`, `channels` of its images; `noise`: the shapes (h, w) of a StyleGAN2's noise.

    Raises ValueError for a recipe whose samples are no images, or have no latents.
    """

    def __init__(self, recipe: Any, networks: dict[str, nn.Module]):
        self.recipe, self.networks, self.name = recipe, networks, recipe.name
        generator = networks.get("generator")
        if not issubclass(recipe.medium, Image) or generator is None or "input" in recipe.sample_options:
            raise ValueError(
                f"{self.name} makes no images of latents that could be edited; of an exported file take the run"
            )
        self.generator = generator
        self.device = next(generator.parameters()).device
        has_styles = hasattr(generator, "mapping") and hasattr(generator, "synthesis")
        self.space = "w" if has_styles else "z"
        self.shape: tuple[int, ...] = (
            (generator.num_ws, generator.w_dim) if has_styles else tuple(recipe.latents([0]).shape[1:])
        )
        first = recipe.labels([0])
        self.classes: int = 0 if first is None else recipe.data["num_classes"]
        config = getattr(generator, "config", None)
        self.resolution: Resolution = getattr(config, "resolution", None) or recipe.data["resolution"]
        self.channels: int = getattr(config, "channels", None) or recipe.data["channels"]
        self.noise = [tuple(b.shape) for name, b in generator.named_buffers() if name.endswith("noise_const")]

    def __repr__(self) -> str:
        height, width = sides(self.resolution)
        classes = f", {self.classes} classes" if self.classes else ""
        return f"Editor({self.name}: {height}x{width}, latents {list(self.shape)} in {self.space}{classes}, on {self.device})"

    @property
    def layers(self) -> int:
        """How many layers take a style of their own; 1 in "z"."""
        return self.shape[0] if self.space == "w" else 1

    def labels(self, seeds: Sequence[int], label: int | None = None) -> torch.Tensor | None:
        """int64 [N]: the class `label` for all, or the classes in turn; None where there are none. ValueError for no class."""
        if label is None:
            return self.recipe.labels(list(seeds))
        if not 0 <= label < self.classes:
            expected = f"0 to {self.classes - 1}" if self.classes else f"None: {self.name} was trained without classes"
            raise ValueError(f"label is {label}, expected {expected}")
        return torch.full((len(seeds),), label, device="cpu")

    @torch.no_grad()
    def latents(self, seeds: Sequence[int], label: int | None = None, truncation: float = 1.0) -> Latents:
        """Those of seeds: the pictures that `fastgan sample` draws of them. Raises ValueError for a truncation other than 1 in
        "z", or one that is no number, or a label that is no class; TypeError or ValueError for what are no seeds."""
        seeds = whole_seeds(seeds)
        if not math.isfinite(truncation):
            raise ValueError(f"truncation is {truncation}, expected a finite number")
        labels, parts = self.labels(seeds, label), []
        z = self.recipe.latents(seeds)
        if self.space == "z":
            if truncation != 1.0:
                raise ValueError(f"{self.name} has no truncation: its generator has no mean latent to move towards")
            return Latents(z, "z", labels)
        for i in range(0, len(z), 256):
            parts.append(self.styles(z[i : i + 256], None if labels is None else labels[i : i + 256], truncation))
        return Latents(torch.cat(parts).cpu(), "w")

    def styles(self, z: torch.Tensor, labels: torch.Tensor | None = None, truncation: float = 1.0) -> torch.Tensor:
        """w [N, layers, D] of z, on the device."""
        c = None
        if labels is not None:
            c = nn.functional.one_hot(labels, self.generator.c_dim).float().to(self.device)
        return self.generator.mapping(z.to(self.device), c, truncation_psi=truncation)

    def synthesize(
        self,
        values: torch.Tensor,
        labels: torch.Tensor | None = None,
        noise: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """Images float [N, C, H, W] in about [-1, 1], on the device, of latents on the device: all at once, differentiable in
        `values` and `noise`, which are as in `Latents`."""
        if self.space == "z":
            return self.recipe.generate(self.networks, values, labels).float()
        fixed: dict[str, Any] = {}
        if "noise_mode" in inspect.signature(self.generator.synthesis.forward).parameters:
            layers = iter(noise)
            fixed["noise_mode"] = (lambda *shape: next(layers)) if noise else "const"
        return self.generator.synthesis(values, **fixed).float()

    def check(self, latents: Latents) -> None:
        """ValueError unless the latents are of this generator's space and shapes."""
        found, expected = tuple(latents.values.shape[1:]), self.shape
        if latents.space != self.space or found != expected:
            raise ValueError(
                f"the latents are {list(found)} of {latents.space}, and {self.name} takes {list(expected)} of {self.space}: "
                "they are another generator's"
            )
        if self.space == "z" and bool(self.classes) != (latents.labels is not None):
            raise ValueError(f"the latents have {'no ' * bool(self.classes)}classes, unlike {self.name}")
        if latents.labels is not None and not bool(((latents.labels >= 0) & (latents.labels < self.classes)).all()):
            raise ValueError(f"the latents' classes are not all 0 to {self.classes - 1}")
        sizes = [tuple(layer.shape[2:]) for layer in latents.noise]
        if sizes and sizes != self.noise:
            raise ValueError(f"the latents' noise has sizes {sizes}, and {self.name} takes {self.noise}")

    def draw(self, latents: Latents) -> Iterator[torch.Tensor]:
        """Images [n, C, H, W] in [-1, 1] on the CPU, a few latents at a time; errors as of `check`, at once."""
        self.check(latents)
        few = max(1, min(64, _PIXELS // math.prod(sides(self.resolution))))
        return self._drawn(latents, few)

    @torch.no_grad()
    def _drawn(self, latents: Latents, few: int) -> Iterator[torch.Tensor]:
        for i in range(0, len(latents), few):
            part = latents[i : i + few]
            labels = None if part.labels is None else part.labels.to(self.device)
            noise = [layer.to(self.device) for layer in part.noise]
            yield self.synthesize(part.values.to(self.device), labels, noise).cpu()

    def images(self, latents: Latents) -> torch.Tensor:
        """All pictures of latents: float [N, C, H, W] in about [-1, 1], on the CPU."""
        return torch.cat([*self.draw(latents)])


def load(path: str | Path, device: str | torch.device = "cpu", recipe: Any = None) -> Editor:
    """The editor of a run, of a checkpoint in it, or of a file that `fastgan convert` wrote; arguments and errors as of
    `fastgan.sampling.load_generator`."""
    from fastgan.sampling import load_generator

    return Editor(*load_generator(path, device, recipe))
