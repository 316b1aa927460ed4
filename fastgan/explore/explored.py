"""What is explored: a network with what its kind of page needs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastgan.editing import Directions, Editor, find_directions
from fastgan.media import Image, Text
from fastgan.recipes import find_run, read_run
from fastgan.sampling import load_generator
from fastgan.training.checkpoint import list_checkpoints
from fastgan.training.packed import PACKED

SLIDERS = 6


@dataclass
class Explored:
    """name, medium: of what is explored; recipe and networks as `fastgan.sampling.load_generator` gives them, None of a run that
    has no checkpoint yet; editor: of images with latents, and its directions; folder: a run's, whose newest samples are shown."""

    name: str
    medium: Any
    recipe: Any = None
    networks: dict[str, nn.Module] | None = None
    editor: Editor | None = None
    directions: Directions | None = None
    folder: Path | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        recipe: Any = None,
        directions: str | Path | None = None,
    ) -> Explored:
        """Of a run, a checkpoint in it, what `fastgan pull` fetched, or what `fastgan convert` wrote.

        directions: a file of `fastgan directions`. None: the one in the run's folder, or else the strongest of the styles (pca),
        or of the weights (sefa) where there are none.

        Raises ValueError for a network that draws nothing without more input than a picture, and as `load_generator` does.
        """
        path = Path(path)
        folder = find_run(path) if path.is_dir() and not (path / PACKED).is_file() else None
        if folder is not None and (folder / "config.json").exists() and not list_checkpoints(folder / "checkpoints"):
            return cls(path.name, read_run(folder, recipe).recipe.medium, folder=folder)
        kind, networks = load_generator(path, device, recipe)
        found = cls(path.resolve().name if path.is_dir() else path.stem, kind.medium, kind, networks, folder=folder)
        if found.what == "nothing":
            raise ValueError(
                f"{kind.name} makes {kind.medium.unit} of given ones: fastgan sample {shlex.quote(str(path))} --input FOLDER"
            )
        if found.what == "edit":
            found.editor = Editor(kind, networks)
            found.directions = _directions(found.editor, path, directions)
        return found

    @property
    def what(self) -> str:
        """Which page: edit, text, translate, upscale, sample, wait for the first checkpoint, or nothing."""
        if self.recipe is None:
            return "wait"
        if hasattr(self.recipe, "upscale") or hasattr(self.recipe, "translate"):
            return "upscale" if hasattr(self.recipe, "upscale") else "translate"
        if not hasattr(self.recipe, "latents"):
            return "nothing" if "input" in self.recipe.sample_options else "sample"
        if issubclass(self.medium, Image):
            return "edit"
        return "text" if issubclass(self.medium, Text) else "sample"


def _directions(editor: Editor, path: Path, file: str | Path | None) -> Directions | None:
    """None where the network has no style, nor weights that are known to take its latent first."""
    if file is None and path.is_dir():
        there = find_run(path) / "directions.safetensors"
        file = there if there.exists() else None
    if file is not None:
        found = Directions.load(file)
        found.moved(editor.latents([0]), 0, 0.0)  # another generator's are refused
        return found
    count = min(SLIDERS, editor.shape[-1])
    try:
        return find_directions(editor, "pca" if editor.space == "w" else "sefa", count, max(2000, 2 * editor.shape[-1]))
    except ValueError:
        return None
