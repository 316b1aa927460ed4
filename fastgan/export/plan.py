"""What of a recipe, a converted checkpoint or a network becomes a graph: its inputs, which of their sizes are free, and the facts
that an exported file keeps."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

from fastgan import fields
from fastgan.convert.converted import IMAGE_TO_IMAGE, Converted
from fastgan.fields import clip
from fastgan.media import Image, Signal, Text
from fastgan.models import MODELS
from fastgan.models.resnet import spectral_weight
from fastgan.models.stylegan2 import SynthesisLayer
from fastgan.models.stylegan_layers import StyleGenerator
from fastgan.runs import Run
from fastgan.sampling import load_generator
from fastgan.sizes import Resolution, resolution_of
from fastgan.untrusted import BadFile, parse_json

MEDIA = {medium.name: medium for medium in (Image, Signal)}


class ExportError(ValueError):
    """A network that cannot be exported, or whose exported form gives other numbers; the message names the operation, or the
    difference."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an exported file says of itself.

    kind: "generator" draws from latents, "translator" and "upscaler" make images of images. recipe: which made it. inputs: the
    graph's, in order. medium, data: as of the recipe, for who writes samples to files. value_range: of images that go in and out.
    Generators: latent_shape and draws, how a seed becomes a latent (`Recipe.latents` or `convert.Converted.latents`); classes;
    truncation, class_label, noise: "input", or what was fixed, None where there is none. The others: direction; heights and
    widths are multiples of `multiple` and at least `least`, and come out `scale` times as large.
    """

    kind: Literal["generator", "translator", "upscaler"]
    recipe: str
    inputs: tuple[str, ...]
    data: dict[str, Any]
    medium: Literal["image", "signal"] = "image"
    resolution: Resolution | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    latent_shape: tuple[int, ...] = ()
    draws: Literal["torch", "numpy"] = "torch"
    classes: int = 0
    truncation: float | Literal["input"] | None = None
    class_label: int | Literal["input"] | None = None
    noise: Literal["const", "none", "input"] | None = None
    direction: str | None = None
    scale: int = 1
    multiple: int = 1
    least: int = 1
    version: Literal[1] = 1

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str | Path) -> Facts:
        """Raises BadFile, which names `where`, for anything that `to_json` does not write."""
        try:
            return fields.build(cls, parse_json(text.encode(), where), str(where))
        except (fields.Mismatch, TypeError) as error:
            raise BadFile(f"{where}: {error}") from error


@dataclass(frozen=True)
class Plan:
    """A graph to be: the module, example inputs by name, their free dimensions, and what the file will say.

    checks: batches of inputs, of other sizes than the examples', on which the exported form is compared with the module.
    """

    module: nn.Module
    examples: dict[str, torch.Tensor]
    free: dict[str, dict[int, Any]]
    facts: Facts
    checks: Callable[[], Iterator[dict[str, torch.Tensor]]]


class Drawn(nn.Module):
    """latents [N, ...] (labels int64 [N], truncation [], noise [N, pixels]) -> samples, as `Recipe.generate` draws them. What is
    fixed is no input."""

    def __init__(self, recipe: Any, networks: dict[str, nn.Module], fixed: dict[str, Any]):
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.generate, self.fixed = recipe.generate, fixed

    def forward(self, latents, labels=None, truncation=None, noise=None):
        if labels is None and self.fixed["class_label"] is not None:
            labels = latents.new_full((latents.shape[0],), self.fixed["class_label"], dtype=torch.int64)
        generator = getattr(self.networks, "generator", None)
        if not isinstance(generator, StyleGenerator):
            return self.generate(dict(self.networks), latents, labels).float()
        c = F.one_hot(labels, generator.c_dim).to(latents.dtype) if labels is not None and generator.c_dim else None
        ws = generator.mapping(latents, c)
        psi = self.fixed["truncation"] if truncation is None else truncation
        if psi is not None:
            mean = generator.mapping.w_avg
            ws = mean + psi * (ws - mean)
        if (mode := self.fixed["noise"]) is None:
            return generator.synthesis(ws, force_fp32=True)
        return generator.synthesis(ws, noise_mode=mode if noise is None else _parts(noise), force_fp32=True)


def _parts(noise: torch.Tensor) -> Callable[..., torch.Tensor]:
    """What layers take in turn from noise [N, pixels]."""
    offset = 0

    def take(count: int, channels: int, height: int, width: int) -> torch.Tensor:
        nonlocal offset
        part = noise[:, offset : offset + height * width]
        offset += height * width
        return part.reshape(-1, channels, height, width)

    return take


class Translated(nn.Module):
    """images [N, C, H, W] in [-1, 1] -> images in [-1, 1], as the recipe translates or upscales them."""

    def __init__(self, recipe: Any, networks: dict[str, nn.Module], direction: str):
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        upscale = getattr(recipe, "upscale", None)
        self.made = upscale or functools.partial(recipe.translate, direction=direction)

    def forward(self, images):
        return self.made(dict(self.networks), images).float()


def plan(
    source: Any,
    recipe: Any = None,
    truncation: float | None = None,
    class_label: int | None = None,
    noise: Literal["const", "none", "input"] | None = None,
    direction: str | None = None,
) -> Plan:
    """The graph of `source`; arguments and errors as of `fastgan.export.to_onnx`."""
    made, networks = _find(source, recipe)
    if issubclass(made.medium, Text):
        raise ExportError(f"{made.name} writes text token by token: the loop of its sampling is no graph to export")
    if "mel" in made.sample_options:
        raise ExportError(f"{made.name} makes sound of mel spectrograms: torch.onnx.export takes its generator")
    networks = {name: _plain(network) for name, network in networks.items()}
    options = dict(truncation=truncation, class_label=class_label, noise=noise)
    if hasattr(made, "translate") or hasattr(made, "upscale"):
        if given := [name for name, value in options.items() if value is not None]:
            raise ValueError(
                f"{given[0]}={options[given[0]]!r} is nothing for {made.name}, which makes images of images"
            )
        return _translated(made, networks, direction)
    if direction is not None:
        raise ValueError(f"direction={direction!r} is nothing for {made.name}, which does not translate images")
    return _drawn(made, networks, **options)


def _find(source: Any, recipe: Any) -> tuple[Any, dict[str, nn.Module]]:
    """What stands for a recipe, and networks by name."""
    if isinstance(source, Run):
        return source.recipe, source.networks
    if isinstance(source, tuple):
        return source
    if isinstance(source, nn.Module):
        name = MODELS.name_of(type(source))
        if name not in IMAGE_TO_IMAGE and not name.endswith(".generator"):
            raise ValueError(
                f"{name} is no generator of fastgan.models, whose inputs are known: torch.onnx.export takes any module"
            )
        return IMAGE_TO_IMAGE.get(name, Converted)(name, source), {"generator": source}
    return load_generator(source, "cpu", recipe)


def _plain(network: nn.Module) -> nn.Module:
    """A copy for sampling on the CPU, in float32 throughout."""
    network = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(False)
    for module in network.modules():
        if getattr(module, "bf16", False):
            module.bf16 = False
        if getattr(module, "u", None) is not None:  # a constant in eval mode, but 20 operations in the graph
            module.weight.data, module.u = spectral_weight(module.weight, module.u, False), None
    return network


def _drawn(recipe, networks, truncation, class_label, noise) -> Plan:
    generator = networks.get("generator")
    styled = isinstance(generator, StyleGenerator)
    layers = [m for m in generator.modules() if isinstance(m, SynthesisLayer)] if styled else []
    pixels = sum(layer.noise_const.numel() for layer in layers if hasattr(layer, "noise_const"))
    mean = styled and hasattr(generator.mapping, "w_avg")
    labels = recipe.labels([0])
    if truncation is not None and not mean:
        raise ValueError(
            f"truncation={truncation}: {recipe.name} has none, its generator has no mean latent to move towards"
        )
    if truncation is not None and not (isinstance(truncation, int | float) and math.isfinite(truncation)):
        raise ValueError(f"truncation is {clip(truncation)}, expected a finite number")
    if noise is not None and (noise not in ("const", "none", "input") or not pixels):
        there = "expected 'const', 'none' or 'input'" if pixels else f"and {recipe.name} has no noise"
        raise ValueError(f"noise is {clip(noise)}, {there}")
    if class_label is not None:
        if labels is None:
            raise ValueError(f"class_label={class_label}: {recipe.name} was trained without classes")
        known = range(recipe.data["num_classes"])
        if type(class_label) is not int or class_label not in known:
            raise ValueError(f"class_label is {clip(class_label)}, expected a whole number from 0 to {known[-1]}")
    noise = (noise or "const") if pixels else None
    fixed = dict(truncation=truncation, class_label=class_label, noise=noise)

    def inputs(seeds: list[int], psi: float) -> dict[str, torch.Tensor]:
        made = {"latents": recipe.latents(seeds).float()}
        if labels is not None and class_label is None:
            made["labels"] = recipe.labels(seeds)
        if mean and truncation is None:
            made["truncation"] = torch.tensor(psi)
        if noise == "input":
            random = torch.Generator().manual_seed(seeds[0])
            made["noise"] = torch.randn(len(seeds), pixels, generator=random)
        return made

    module, examples = Drawn(recipe, networks, fixed), inputs([0, 1], 0.5)
    batch = Dim("batch", min=1)
    latent_shape = tuple(examples["latents"].shape[1:])
    with torch.no_grad():
        shape = tuple(module(**examples).shape[1:])
    said = {
        name: "input" if name in examples else value for name, value in (("truncation", truncation), ("noise", noise))
    }
    facts = Facts(
        kind="generator",
        recipe=recipe.name,
        inputs=tuple(examples),
        data=dict(recipe.data),
        medium=recipe.medium.name,
        resolution=resolution_of(*shape[1:]) if len(shape) == 3 else None,
        latent_shape=latent_shape,
        draws="numpy" if isinstance(recipe, Converted) else "torch",
        classes=recipe.data["num_classes"] if labels is not None else 0,
        class_label="input" if "labels" in examples else class_label,
        **said,
    )
    free = {name: {0: batch} if t.dim() else {} for name, t in examples.items()}
    return Plan(module, examples, free, facts, lambda: map(inputs, ([2], [3, 4, 5]), (0.7, 1.0)))


def _translated(recipe, networks, direction) -> Plan:
    generators = getattr(recipe, "generators", {"AtoB": "generator"})
    direction = direction or next(iter(generators))
    if direction not in generators:
        raise ValueError(f"{recipe.name}: direction is {clip(direction)}, expected {' or '.join(generators)}")
    name = generators[direction]
    network, scale = networks[name], getattr(recipe, "scale", 1)
    step = getattr(network, "multiple", getattr(network, "unshuffle", 1))
    fewest = -(-getattr(network, "least", step) // step)  # steps of the smallest side
    fixed = getattr(getattr(network, "config", None), "resolution", None)
    made = Translated(recipe, {name: network}, direction)

    def images(count: int, height: int, width: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(count)
        size = (fixed, fixed) if fixed else (height * step, width * step)
        return {"images": torch.rand(count, recipe.data["channels"], *size, generator=random) * 2 - 1}

    facts = Facts(
        kind="upscaler" if hasattr(recipe, "upscale") else "translator",
        recipe=recipe.name,
        inputs=("images",),
        data=dict(recipe.data),
        resolution=recipe.data.get("resolution"),
        direction=direction,
        scale=scale,
        multiple=step,
        least=fewest * step,
    )
    free = {0: Dim("batch", min=1)}
    if not fixed:
        free |= {2: step * Dim("height", min=fewest), 3: step * Dim("width", min=fewest)}
    checks = ((1, fewest, fewest), (3, fewest + 2, fewest + 1))
    return Plan(
        made,
        images(2, fewest + 1, fewest + 2),
        {"images": free},
        facts,
        lambda: (images(*size) for size in checks),
    )
