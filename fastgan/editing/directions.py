"""Directions in which pictures change, found without labels.

pca   Of a network with styles the principal components of w (Harkonen et al., "GANSpace", 2020, section 2.1). z is drawn alike in
      every direction, so of other networks the components are those of the pictures, led back to z by least squares as there
      (eq. 3): U = argmin sum_j |U x_j - z_j|^2, x_j a picture's coordinates.
sefa  The directions that a layer's weights A answer to most, argmax |A n|^2 = eigenvectors of A^T A (Shen and Zhou, "Closed-Form
      Factorization", 2021, eq. 5): of the layers that take w, or of the first that takes z. No picture is drawn.

A strength of 1 is one standard deviation of the latents themselves along the direction, so that both kinds compare.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fastgan import fields
from fastgan.data.pixels import viewable
from fastgan.editing.editor import Editor
from fastgan.editing.latents import Latents
from fastgan.files import complete, named
from fastgan.untrusted import BadFile, parse_json, read_tensors, shorten

Method = Literal["pca", "sefa"]
_SIDE = 16  # of the pictures whose components are taken
_DRAW = 64  # latents drawn at a time
_USUAL = 10  # directions
# Share of the variance from which a direction is one: float32's rounding alone makes (2^-24)^2 in each of a picture's 768 values.
_LEAST = 1e-11


@dataclass
class Directions:
    """K directions of a generator, the strongest first.

    vectors: float32 [K, D] of unit length; deviations [K]: of the latents along each; explained [K]: the share of all variance
    (pca) or of the weights' squared sum (sefa). `layers`: of "w", those that are moved; None: all.
    """

    vectors: torch.Tensor
    deviations: torch.Tensor
    explained: torch.Tensor
    method: Method
    space: str
    layers: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return f"Directions({len(self)} by {self.method} in {self.space}, {float(self.explained.sum()):.1%} explained)"

    def moved(self, latents: Latents, number: int, strength: float | torch.Tensor) -> Latents:
        """`latents` moved along direction `number` by `strength` deviations: one for all, or [N]. ValueError for a number that is
        not there, other strengths, or latents of another space or size."""
        if not 0 <= number < len(self):
            raise ValueError(f"direction is {number}, expected 0 to {len(self) - 1}")
        if latents.space != self.space or latents.values.shape[-1] != self.vectors.shape[1]:
            raise ValueError(
                f"the directions are of {self.vectors.shape[1]} numbers in {self.space}, the latents of"
                f" {latents.values.shape[-1]} in {latents.space}: they are another generator's"
            )
        step = self.vectors[number] * self.deviations[number]
        strength = torch.as_tensor(strength, dtype=torch.float32, device="cpu")
        if strength.shape not in ((), (len(latents),)) or not strength.isfinite().all():
            raise ValueError(
                f"strength is {shorten(strength.tolist())}, expected a finite number, or {len(latents)} of them"
            )
        strength = strength.expand(len(latents))
        values = latents.values.clone()
        if self.space == "z":
            values += strength[:, None] * step
        else:
            layers = list(range(values.shape[1]) if self.layers is None else self.layers)
            if not set(layers) <= set(range(values.shape[1])):
                raise ValueError(
                    f"the directions move layers {layers}, and the latents have 0 to {values.shape[1] - 1}: they are another "
                    "generator's"
                )
            values[:, layers] += strength[:, None, None] * step
        return Latents(values, latents.space, latents.labels, latents.noise)

    def save(self, path: str | Path) -> Path:
        """Write them as .safetensors; the file appears under its name when it is complete. Returns the path."""
        from safetensors.torch import save_file

        path = named(Path(path), (".safetensors",))
        tensors = {name: getattr(self, name).contiguous() for name in ("vectors", "deviations", "explained")}
        about = {"method": self.method, "space": self.space, "layers": self.layers}
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete(path) as temporary:
            save_file(tensors, temporary, metadata={"fastgan": "directions", "about": json.dumps(about)})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Directions:
        """Those of a file that `save` wrote. Raises BadFile, a ValueError that names the file, or FileNotFoundError."""
        tensors, header = read_tensors(Path(path))
        if header.get("fastgan") != "directions":
            raise BadFile(f"{path} holds no directions: expected a file of `fastgan directions`")
        about = parse_json(header.get("about", "").encode(), f"{path}: its header")
        try:
            method = fields.conform(about.get("method"), Method, "method")
            space = fields.conform(about.get("space"), Literal["w", "z"], "space")
            layers = fields.conform(about.get("layers"), tuple[int, ...] | None, "layers")
        except fields.Mismatch as error:
            raise BadFile(f"{path}: {error}") from error
        found = [tensors.get(name) for name in ("vectors", "deviations", "explained")]
        count = len(found[0]) if found[0] is not None and found[0].dim() == 2 else -1
        shapes = [None if t is None else list(t.shape) for t in found]
        if (
            count < 1
            or shapes[1:] != [[count], [count]]
            or any(t.dtype != torch.float32 or not t.isfinite().all() for t in found)
        ):
            raise BadFile(
                f"{path}: vectors, deviations and explained are {shapes}, expected [K >= 1, D], [K], [K], float32"
            )
        return cls(*found, method, space, layers)


def find_directions(
    editor: Editor,
    method: Method = "pca",
    count: int | None = None,
    samples: int = 10_000,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Directions:
    """The `count` strongest directions of a generator.

    Args:
        count: None: 10, or as many as change anything.
        samples: latents that are drawn; of a network without styles their pictures too, for "pca".
        layers: of "w": the style layers that "sefa" looks at, and that `Directions.moved` moves. None: all.
        seed: of the draws.

    Raises ValueError for an unknown method, layers that are not there, or more directions than there are dimensions or than
    change anything: small pictures, or weights of low rank, have fewer.
    """
    width = editor.shape[-1]
    if method not in ("pca", "sefa"):
        raise ValueError(f"method is {method!r}, expected 'pca' or 'sefa'")
    wanted = min(_USUAL, width) if count is None else count
    if not 1 <= wanted <= width:
        raise ValueError(f"count is {count}, expected 1 to {width}, the dimensions of {editor.space}")
    if samples <= width:
        raise ValueError(f"samples is {samples}, expected more than {width}, the dimensions of {editor.space}")
    if layers is not None and (editor.space == "z" or not layers or not set(layers) <= set(range(editor.layers))):
        there = f"0 to {editor.layers - 1}" if editor.space == "w" else "none, as there are no styles"
        raise ValueError(f"layers is {shorten(list(layers), 60)}, expected some of the layers that there are: {there}")
    drawn = _draws(editor, samples, seed)
    if method == "sefa":
        values = torch.cat([values for values, _ in drawn])
        vectors, explained = _answered(_weights(editor, layers))
    elif editor.space == "w":
        values = torch.cat([values for values, _ in drawn])
        vectors, explained, _ = _components(values)
    else:
        values, vectors, explained = _led_back(editor, drawn, wanted)
    there = int((explained > _LEAST).sum())  # none where the shares are NaN, as nothing varies
    if there < (wanted if count is not None else 1):
        raise ValueError(
            f"count is {wanted}, and {there} directions of {editor.space} change anything"
            f"{f': expected at most {there}' if there else ''}"
        )
    kept = min(wanted, there)
    vectors = vectors[:kept]
    # Of an eigenvector both signs are right; the largest number is made positive, so that a second run moves the same way.
    largest = vectors.abs().argmax(1, keepdim=True)
    vectors = vectors * vectors.gather(1, largest).sign()
    deviations = ((values.double() - values.double().mean(0)) @ vectors.t()).std(0)
    made = (t.float() for t in (vectors, deviations, explained[:kept]))
    return Directions(*made, method, editor.space, None if layers is None else tuple(layers))


def _draws(editor: Editor, samples: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Latents [n, D] of `samples` draws, one style for all layers of "w", and their classes."""
    source = torch.Generator("cpu").manual_seed(seed)
    for start in range(0, samples, _DRAW):
        count = min(_DRAW, samples - start)
        z = torch.randn(count, *editor.recipe.latents([0]).shape[1:], generator=source, device="cpu")
        labels = editor.labels(range(start, start + count))
        if editor.space == "w":
            with torch.no_grad():
                z = editor.styles(z, labels)[:, 0].float().cpu()
        yield z, labels


def _components(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Principal components of rows: unit vectors [D, D], shares of the variance [D], the mean [D]; float64."""
    mean = x.double().mean(0)
    centred = x.double() - mean
    values, vectors = torch.linalg.eigh(centred.t() @ centred)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1).t()
    return vectors, values / values.sum(), mean


def _answered(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvectors of A^T A [D, D] and their shares of its trace."""
    values, vectors = torch.linalg.eigh(a.double().t() @ a.double())
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1).t()
    return vectors, values / values.sum()


def _led_back(
    editor: Editor, drawn: Iterator[tuple[torch.Tensor, torch.Tensor | None]], count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(z [N, D], directions in z [count, D], shares of the pictures' variance)."""
    latents, pictures = [], []
    for z, labels in drawn:
        images = torch.cat([*editor.draw(Latents(z, "z", labels))])
        small = nn.functional.interpolate(viewable(images), (_SIDE, _SIDE), mode="area")
        latents.append(z)
        pictures.append(small.flatten(1))
    z = torch.cat(latents)
    x = torch.cat(pictures)
    components, explained, mean = _components(x)
    places = (x.double() - mean) @ components[:count].t()
    u = torch.linalg.lstsq(places, z.double() - z.double().mean(0)).solution
    return z, nn.functional.normalize(u, dim=1), explained


# Of networks without styles, by family: the weights [outputs, D and more] that z meets first.
_FIRST: dict[str, Callable[[Any], torch.Tensor]] = {
    "dcgan": lambda generator: generator.weight.flatten(1).t(),
    "resnet": lambda generator: generator.weight.flatten(1).t(),
    "fewshot": lambda generator: generator.first[0].weight.flatten(1).t(),
    "mlp": lambda generator: generator.down[0].weight,
    "r3gan": lambda generator: generator.MainLayers[0].Layers[0].LinearLayer.weight,
}


def _weights(editor: Editor, layers: Sequence[int] | None) -> torch.Tensor:
    """A [outputs, D]: what takes w in the layers, one below the other; or what takes z first, without what takes the class."""
    generator = editor.generator
    if editor.space == "w":
        rows, index = [], 0
        for module in generator.synthesis.modules():
            if hasattr(module, "affine"):
                if layers is None or index in layers:
                    rows.append(module.affine.weight)
                index += type(module).__name__ != "ToRGB"  # StyleGAN2's shares its style with the next convolution
        return torch.cat(rows).detach().float().cpu()
    family = type(generator).__module__.rpartition(".")[2]
    if family not in _FIRST:
        raise ValueError(f"method is 'sefa', and {family} does not take z by one layer of weights: 'pca' needs none")
    return _FIRST[family](generator)[:, : editor.shape[-1]].detach().float().cpu()


def strip(
    editor: Editor, directions: Directions, number: int, latents: Latents, strengths: Sequence[float]
) -> tuple[torch.Tensor, int]:
    """Pictures [N * len(strengths), C, H, W] of latents moved along a direction, a row for each latent, and the columns.
    ValueError for no strength, and as of `Directions.moved`."""
    if not len(strengths):
        raise ValueError("strengths is empty, expected at least one number")
    amounts = torch.tensor(list(strengths)).repeat(len(latents))
    return editor.images(directions.moved(latents.repeated(len(strengths)), number, amounts)), len(strengths)
