"""Latents as values: kept in a file, taken apart, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fastgan.data.archive import read_arrays
from fastgan.files import complete, named
from fastgan.untrusted import BadFile, clip, read_tensors

Space = Literal["w", "z"]
SUFFIXES = (".safetensors", ".npz")
_LAYERS = tuple(f"noise{i:02d}" for i in range(64))  # names in a file


@dataclass
class Latents:
    """N latents of one generator, on the CPU.

    values: float32 [N, layers, D] of space "w", a style for each layer, or [N, D] of space "z".
    labels: int64 [N], of a class-conditional generator; styles hold their class already.
    noise: of a StyleGAN2 [N, 1, h, w] for each layer in order; empty for the generator's own pattern.
    """

    values: torch.Tensor
    space: Space = "w"
    labels: torch.Tensor | None = None
    noise: list[torch.Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        labels = "" if self.labels is None else ", with classes"
        noise = f", with noise of {len(self.noise)} layers" if self.noise else ""
        return f"Latents({len(self)} in {self.space}, {list(self.values.shape[1:])}{labels}{noise})"

    def __getitem__(self, index: int | slice | Sequence[int]) -> Latents:
        """Those numbered so, as a number, a slice or a list says."""
        if isinstance(index, int):
            index = [index]
        labels = None if self.labels is None else self.labels[index]
        return Latents(self.values[index], self.space, labels, [layer[index] for layer in self.noise])

    def repeated(self, times: int) -> Latents:
        """Each `times` times, one after the other."""
        return self[[i for i in range(len(self)) for _ in range(times)]]

    def save(self, path: str | Path) -> Path:
        """Write them as .safetensors, or as .npz; the file appears under its name when it is complete. Returns the path, which
        gets .safetensors where it has no suffix. ValueError for another one."""
        path = named(Path(path), SUFFIXES)
        tensors = {"values": self.values} | ({} if self.labels is None else {"labels": self.labels.long()})
        tensors |= dict(zip(_LAYERS, self.noise, strict=False))
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete(path) as temporary:
            if path.suffix.lower() == ".npz":
                with open(temporary, "wb") as file:
                    np.savez(file, space=self.space, **{name: tensor.numpy() for name, tensor in tensors.items()})
            else:
                from safetensors.torch import save_file

                save_file(tensors, temporary, metadata={"fastgan": "latents", "space": self.space})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Latents:
        """Those of a file that `save` wrote. Runs no code from it. Raises BadFile, a ValueError that names the file and what is
        wrong, or FileNotFoundError."""
        path = Path(path)
        tensors, space = _read_npz(path) if path.suffix.lower() == ".npz" else _read(path)
        values, labels = tensors.pop("values", None), tensors.pop("labels", None)
        noise = [tensors[name] for name in sorted(tensors)]
        _check(path, space, values, labels, noise, list(tensors))
        return cls(values.float(), space, labels, [layer.float() for layer in noise])


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    tensors, header = read_tensors(path)
    if header.get("fastgan") != "latents":
        raise BadFile(f"{path} holds no latents: expected a file of `fastgan project`, or of Latents.save")
    return tensors, header.get("space")


def _read_npz(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    arrays = read_arrays(path, ["values", "labels", "space", *_LAYERS])
    space = arrays.pop("space", None)
    bad = next((f"{name} is {array.dtype}" for name, array in arrays.items() if array.dtype.kind not in "fi"), None)
    if bad is not None:
        raise BadFile(f"{path}: {bad}, expected numbers")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, None if space is None else str(space)


def _check(
    path: Path,
    space: Any,
    values: torch.Tensor | None,
    labels: torch.Tensor | None,
    noise: list[torch.Tensor],
    names: list[str],
) -> None:
    if space not in ("w", "z"):
        raise BadFile(f"{path}: space is {clip(space)}, expected w or z")
    dimensions = 3 if space == "w" else 2
    fits = values is not None and values.is_floating_point() and values.dim() == dimensions and len(values) > 0
    if not fits or not values.isfinite().all():
        found = "absent" if values is None else f"{values.dtype} {list(values.shape)}"
        shape = "[N >= 1, layers, D]" if space == "w" else "[N >= 1, D]"
        raise BadFile(f"{path}: values is {found}, expected finite floats {shape} of space {space}")
    if labels is not None and (labels.dtype != torch.int64 or labels.shape != values.shape[:1]):
        raise BadFile(f"{path}: labels is {labels.dtype} {list(labels.shape)}, expected int64 [{len(values)}]")
    if sorted(names) != list(_LAYERS[: len(names)]):
        raise BadFile(f"{path} also holds {clip(sorted(names))}, expected values, labels and noise00, noise01, ...")
    for name, layer in zip(sorted(names), noise, strict=True):
        fits = layer.is_floating_point() and layer.dim() == 4 and layer.shape[:2] == (len(values), 1)
        if not fits or not layer.isfinite().all():
            raise BadFile(f"{path}: {name} is {layer.dtype} {list(layer.shape)}, expected [{len(values)}, 1, h, w]")
