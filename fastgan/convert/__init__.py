"""Other projects' checkpoints: read without running code from them, written as safetensors, loaded for sampling.

What is read: `network-snapshot-*.pkl` of StyleGAN2-ADA, StyleGAN3 and R3GAN, `.pt` files in the rosinality layout, and plain
state_dicts (`.pt`, `.pth`, `.safetensors`) of the same networks. The result is one .safetensors file, with the name of the
network and its constructor arguments in the header, and the same as a .json beside it, for people.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastgan.convert import infer, rosinality, unpickler
from fastgan.convert.infer import UnknownNetwork
from fastgan.convert.unpickler import Record, UnsafePickle
from fastgan.models import network_class

__all__ = ["Converted", "UnknownNetwork", "UnsafePickle", "convert", "load", "read"]

_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number that torch.save once began with
_NAMES = {"G_ema": ("G_ema", "g_ema"), "G": ("G", "g"), "D": ("D", "d")}


@dataclass
class Network:
    """A network as found in a file: its name in `fastgan.models`, its original's constructor arguments, its tensors."""

    model: str
    arguments: dict[str, Any]
    state: dict[str, torch.Tensor]
    measure_average: bool = False

    def build(self) -> nn.Module:
        """The module, in eval mode. Raises UnknownNetwork where tensors and arguments do not fit."""
        made = network_class(self.model).from_reference(**self.arguments)
        try:
            made.load_state_dict(self.state)
        except RuntimeError as error:
            raise UnknownNetwork(f"{self.model} with {self.arguments} does not fit the file: {error}") from error
        return made.eval().requires_grad_(False)


def _open(path: Path) -> Any:
    """The content of a file of any of the kinds above."""
    with open(path, "rb") as file:
        start = file.read(16)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if start.startswith((b"PK\x03\x04", _LEGACY_TORCH)):
        try:
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UnsafePickle(f"{path} holds more than plain data, or is damaged: {error}") from error
    return unpickler.load(path)


def _choose(content: dict, network: str, path: Path) -> tuple[Any, dict]:
    """The network asked for, and what lies beside it in the file."""
    for name in _NAMES[network]:
        if content.get(name) is not None:
            return content[name], content
    if content and all(isinstance(v, torch.Tensor) for v in content.values()):
        return content, {}
    held = [key for key, value in content.items() if isinstance(value, Record | dict)]
    raise UnknownNetwork(f"{path} holds no network {network}; it holds {', '.join(map(str, held)) or 'none'}")


def _from_record(record: Record) -> Network:
    state = record.state_dict()
    if all(name.startswith("Model.") for name in state):
        state = {name[len("Model.") :]: tensor for name, tensor in state.items()}
    # What training left there and no network of ours keeps: R3GAN's type markers are attributes, not tensors.
    model = infer.identify(state)
    arguments = record.arguments
    arguments |= arguments.pop("synthesis_kwargs", None) or {}
    return Network(model, arguments or infer.arguments(model, state), state)


def _from_state(state: dict[str, torch.Tensor], beside: dict) -> Network:
    if rosinality.is_generator(state):
        average = beside.get("latent_avg")
        state = rosinality.generator(state, average)
        found = Network("stylegan2.generator", infer.arguments("stylegan2.generator", state), state)
        # That layout clamps nothing.
        found.arguments["conv_clamp"] = None
        found.measure_average = average is None
        return found
    if rosinality.is_discriminator(state):
        state = rosinality.discriminator(state)
        found = Network("stylegan2.discriminator", infer.arguments("stylegan2.discriminator", state), state)
        found.arguments["conv_clamp"] = None
        return found
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if all(name.startswith("Model.") for name in state):
        state = {name[len("Model.") :]: tensor for name, tensor in state.items()}
    model = infer.identify(state)
    return Network(model, infer.arguments(model, state), state)


def read(path: str | Path, network: str = "G_ema", arguments: dict[str, Any] | None = None) -> Network:
    """Network `network` ("G_ema", "G" or "D") of a checkpoint file; a file of one state_dict is that network.

    arguments: the original's constructor arguments, where the file does not tell them and they cannot be read off the shapes.

    Raises: UnsafePickle for a file that holds anything but plain data and networks, UnknownNetwork where nothing fits,
    FileNotFoundError.
    """
    path = Path(path)
    if network not in _NAMES:
        raise ValueError(f"network is {network!r}, expected one of {', '.join(_NAMES)}")
    content = _open(path)
    if isinstance(content, Record):
        content = {network: content}
    if not isinstance(content, dict):
        raise UnknownNetwork(f"{path} holds a {type(content).__name__}, expected a dict of networks or tensors")
    chosen, beside = _choose(content, network, path)
    found = _from_record(chosen) if isinstance(chosen, Record) else _from_state(dict(chosen), beside)
    found.arguments = json.loads(json.dumps({**found.arguments, **(arguments or {})}, default=_jsonable))
    return found


def _jsonable(value):
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, torch.dtype):
        return str(value)
    raise UnknownNetwork(f"constructor argument {value!r} is not plain data")


def convert(
    source: str | Path, out: str | Path, network: str = "G_ema", arguments: dict[str, Any] | None = None
) -> Path:
    """Writes network `network` of checkpoint `source` to `out` (.safetensors); arguments and errors as of `read`.

    The network is built and loaded before anything is written, so a file that exists is one that works. A generator in the
    rosinality layout without a mean latent gets that of 10,000 draws (seed 0), as its own code does when sampling.
    """
    from safetensors.torch import save_file

    out = Path(out)
    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: expected a name that ends with .safetensors")
    found = read(source, network, arguments)
    built = found.build()
    if found.measure_average:
        z = torch.randn(10_000, built.z_dim, generator=torch.Generator().manual_seed(0))
        built.mapping.w_avg.copy_(built.mapping(z, None)[:, 0].mean(0))
    about = {"model": found.model, "arguments": found.arguments, "source": Path(source).name, "network": network}
    tensors = {name: tensor.contiguous().clone() for name, tensor in built.state_dict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out, metadata={"fastgan": json.dumps(about)})
    out.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return out


class Converted:
    """A converted generator for sampling; stands where a recipe does in `fastgan sample`."""

    def __init__(self, model: str, generator: nn.Module):
        self.name, self.generator = model, generator
        r3gan = model.startswith("r3gan")
        self.z_dim = generator.config.latent if r3gan else generator.z_dim
        self.classes = generator.config.num_classes if r3gan else generator.c_dim

    def latents(self, seeds: list[int]) -> torch.Tensor:
        """float32 [N, z_dim]; seed s gives the picture that the original projects show for it (numpy's RandomState)."""
        return torch.stack([torch.from_numpy(np.random.RandomState(s).randn(self.z_dim)).float() for s in seeds])

    def labels(self, seeds: list[int]) -> torch.Tensor | None:
        """int64 [N], a class per seed, in turn; None for a network without classes."""
        return torch.tensor([seed % self.classes for seed in seeds]) if self.classes else None

    def generate(
        self,
        networks: dict[str, nn.Module],
        latents: torch.Tensor,
        labels: torch.Tensor | None = None,
        truncation: float = 1.0,
    ) -> torch.Tensor:
        """Images in about [-1, 1], [N, C, H, W]. Raises ValueError for a truncation that the network does not have."""
        generator = networks["generator"]
        device = next(generator.parameters()).device
        z = latents.to(device)
        c = None if labels is None else nn.functional.one_hot(labels.to(device), self.classes).to(z.dtype)
        if hasattr(generator, "mapping"):
            return generator(z, c, truncation_psi=truncation, noise_mode="const")
        if truncation != 1.0:
            raise ValueError(f"{self.name} has no truncation: its generator has no mean latent to move towards")
        return generator(z, c)

    def sample(self, networks: dict[str, nn.Module], seeds: list[int]) -> torch.Tensor:
        """Images of seeds, classes in turn."""
        return self.generate(networks, self.latents(seeds), self.labels(seeds))


def load(path: str | Path, device: str | torch.device = "cpu") -> tuple[Converted, dict[str, nn.Module]]:
    """A converted generator and its networks ({"generator": module}), as `fastgan.recipes.load_run` gives those of a run.

    Raises UnknownNetwork for a file that `convert` did not write, or one of a discriminator.
    """
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        about = json.loads((file.metadata() or {}).get("fastgan", "{}"))
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    if "model" not in about:
        raise UnknownNetwork(f"{path} was not written by fastgan convert: run `fastgan convert {path} OUT.safetensors`")
    if not about["model"].endswith(".generator"):
        raise UnknownNetwork(f"{path} is a {about['model']}: only generators draw samples")
    generator = Network(about["model"], about["arguments"], state).build().to(device)
    return Converted(about["model"], generator), {"generator": generator}
