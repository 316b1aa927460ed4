"""Converted networks as `fastgan sample` uses them; each stands where a recipe does."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fastgan.media import Image, Signal
from fastgan.models.draw import draw
from fastgan.nn import MelSpectrogram, fold_weight_norm


def numpy_latents(seeds: list[int], size: int) -> torch.Tensor:
    """float32 [N, size], as the original projects draw them: by numpy's RandomState."""
    return torch.stack([torch.from_numpy(np.random.RandomState(seed).randn(size)).float() for seed in seeds])


class Converted:
    """A converted generator for sampling; stands where a recipe does in `fastgan sample`."""

    medium = Image
    sample_columns = ()  # one image a seed

    def __init__(self, model: str, generator: nn.Module):
        self.name, self.generator = model, generator
        self.z_dim = generator.z_dim if hasattr(generator, "z_dim") else generator.config.latent
        self.classes = getattr(generator.config, "num_classes", 0)
        self.data = {"num_classes": self.classes}
        # A network without styles says so itself.
        self.sample_options = ("separate", "interpolate", "class_label", "truncation", "mix")

    def latents(self, seeds: list[int]) -> torch.Tensor:
        """float32 [N, z_dim]; seed s gives the picture that the original projects show for it."""
        return numpy_latents(seeds, self.z_dim)

    def labels(self, seeds: list[int]) -> torch.Tensor | None:
        """int64 [N], a class per seed, in turn; None for a network without classes."""
        return torch.tensor([seed % self.classes for seed in seeds], device="cpu") if self.classes else None

    def generate(
        self,
        networks: dict[str, nn.Module],
        latents: torch.Tensor,
        labels: torch.Tensor | None = None,
        truncation: float = 1.0,
    ) -> torch.Tensor:
        """Images in about [-1, 1], [N, C, H, W]. Raises ValueError for a truncation that the network does not have."""
        return draw(self.name, networks["generator"], latents, labels, truncation)

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor:
        """Images of seeds, classes in turn."""
        return self.generate(networks, self.latents(seeds), self.labels(seeds))


class Translator:
    """CycleGAN's and pix2pix's generators: images [-1, 1] of the size they were trained on, and as large ones out."""

    call: ClassVar[dict[str, str]] = {}  # arguments of the network beside images

    medium = Image
    sample_columns = ()
    sample_options: tuple[str, ...] = ("input",)

    def __init__(self, model: str, generator: nn.Module):
        self.name, self.generators = model, {"AtoB": "generator"}
        # What the published networks were trained on; CycleGAN's have no layer that knows the size.
        channels = next(m.in_channels for m in generator.modules() if isinstance(m, nn.Conv2d))
        self.data = {"resolution": generator.multiple if model == "pix2pix.generator" else 256, "channels": channels}

    def translate(self, networks: dict[str, nn.Module], images: torch.Tensor, direction: str = "AtoB") -> torch.Tensor:
        """images [N, C, H, W] in [-1, 1] -> translated ones. Raises ValueError for a way back, which is another file."""
        if direction not in self.generators:
            raise ValueError(
                f"{self.name}: the file holds one direction: leave --direction out, and convert the other's file"
            )
        generator = networks["generator"]
        return generator(images.to(next(generator.parameters()).device), **self.call)

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor:
        raise ValueError(f"{self.name} makes images of images: give --input FOLDER instead of seeds")


class Restorer(Translator):
    """GFP-GAN: aligned faces in, restored ones out, with the noise of the file."""

    call: ClassVar[dict[str, str]] = {"noise_mode": "const"}

    def __init__(self, model: str, generator: nn.Module):
        self.name, self.generators = model, {"AtoB": "generator"}
        self.data = {"resolution": generator.config.resolution, "channels": 3}


class Upscaler(Translator):
    """Images of any size in, and larger ones out."""

    sample_options = ("input", "tile", "overlap")

    def __init__(self, model: str, generator: nn.Module):
        super().__init__(model, generator)
        self.scale, self.data = generator.config.scale, {"channels": generator.config.in_channels}
        self.multiple = getattr(generator, "unshuffle", 1)  # what heights and widths are multiples of

    def upscale(self, networks: dict[str, nn.Module], images: torch.Tensor) -> torch.Tensor:
        """images [N, C, H, W] in [-1, 1] -> [N, C, scale H, scale W]. The published networks take and give [0, 1]."""
        generator = networks["generator"]
        return generator((images.to(next(generator.parameters()).device) + 1) / 2) * 2 - 1


class Speaker:
    """A vocoder: recordings or mel spectrograms in, speech out. mel: arguments of `fastgan.nn.MelSpectrogram`."""

    medium = Signal
    sample_columns = ()
    sample_options = ("input", "mel")

    def __init__(self, model: str, generator: nn.Module, mel: dict):
        self.name, self.generator = model, fold_weight_norm(generator)
        self.data = {"rate": mel["rate"]}
        self._mel = MelSpectrogram(**mel).to(next(generator.parameters()).device)

    def heard(self, networks: dict[str, nn.Module]) -> MelSpectrogram:
        """What makes the mel spectrograms that the generator takes."""
        return self._mel

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor:
        raise ValueError(f"{self.name} speaks what it is given: --input FOLDER or --mel FILE.npy instead of seeds")


IMAGE_TO_IMAGE = {
    "esrgan.generator": Upscaler,
    "esrgan.compact": Upscaler,
    "gfpgan.clean": Restorer,
    "gfpgan.original": Restorer,
    "cyclegan.generator": Translator,
    "pix2pix.generator": Translator,
}
