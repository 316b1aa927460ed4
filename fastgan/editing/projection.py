"""Latents of given pictures, by gradient descent (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020,
section 5 and appendix D; Abdal et al., "Image2StyleGAN", 2019, for a style of its own in each layer, "w+").

    loss = perceptual distance + PIXELS * mean squared error + NOISE * sum over layers and sizes of the noise's autocorrelation

A picture's loss depends on its own latent alone, so many are projected together. Every draw is a function of the seed and the
step: a projection that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from fastgan._surroundings import apart
from fastgan.editing.editor import Editor
from fastgan.editing.latents import Latents
from fastgan.metrics.perceptual import Perceptual, load_perceptual
from fastgan.sizes import sides

Where = Literal["w", "w+", "z"]
PIXELS = 1.0  # weight of the mean squared error of pixels in [-1, 1]
NOISE = 0.1  # weight of the noise's regulariser: appendix D's 1e5 at 1024x1024 pixels, in units that suit every size
RATE = 0.1  # Adam's, in deviations of the latents
RISE, FALL = 0.05, 0.25  # of all steps: the rate rises and falls (appendix D)
WANDER, UNTIL = 0.05, 0.75  # what is added to w at first, in deviations of it as a whole, and until when (appendix D)
_DRAWS = 10_000  # latents for the mean of w
_CANDIDATES = 256  # latents of which the nearest is where z starts
_TOGETHER = 1 << 18  # pixels of one pass


@dataclass
class Progress:
    """step of steps; distances [N, 2]: perceptual, and mean squared error of pixels in [-1, 1]; latents as they are."""

    step: int
    steps: int
    distances: torch.Tensor
    latents: Latents

    @property
    def psnr(self) -> torch.Tensor:
        """dB [N] of the pictures, for a range of 2."""
        return 10 * (4 / self.distances[:, 1].clamp(min=1e-12)).log10()


class Projector:
    """A projection step by step.

    Args:
        images: float [N, C, H, W] in [-1, 1], of the generator's resolution and channels.
        steps: of Adam.
        space: "w": one style for all layers; "w+": one for each, nearer to the picture and further from what the generator makes;
            "z" for networks without styles. None: "w", or "z".
        noise: a StyleGAN2's noise too, kept free of structure by its regulariser.
        labels: int64 [N], needed for class-conditional networks.
        perceptual: None for pixels alone.
        seed: of the draws.

    Attributes: `step`, how many were made.

    Raises ValueError for images, labels or options that do not fit the generator.
    """

    @apart
    def __init__(
        self,
        editor: Editor,
        images: torch.Tensor,
        steps: int = 500,
        space: Where | None = None,
        noise: bool = False,
        labels: torch.Tensor | None = None,
        perceptual: Perceptual | None = None,
        seed: int = 0,
    ):
        space = space or ("w" if editor.space == "w" else "z")
        _check(editor, images, steps, space, noise, labels)
        self.editor, self.steps, self.space, self.seed, self.perceptual = editor, steps, space, seed, perceptual
        self.images, self.labels, self.step = images.float(), None if labels is None else labels.long(), 0
        self._together = max(1, _TOGETHER // math.prod(sides(editor.resolution)))
        with torch.no_grad():
            parts = images.split(self._together)
            self._seen = [perceptual.features(part.to(editor.device)) if perceptual else [] for part in parts]
            self._values, self._deviation = self._start()
        self._values.requires_grad_(True)
        source = torch.Generator("cpu").manual_seed(seed)
        shapes = editor.noise if noise else []
        layers = [torch.randn(len(images), 1, *shape, generator=source, device="cpu") for shape in shapes]
        self._noise = [layer.to(editor.device).requires_grad_(True) for layer in layers]
        groups = [{"params": [self._values], "deviation": self._deviation}]
        groups += [{"params": self._noise, "deviation": 1.0}] if self._noise else []
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.999))

    def _start(self) -> tuple[torch.Tensor, float]:
        """Where the latents begin, and the root mean square of their deviation along one axis. For w the mean of each class."""
        editor = self.editor
        classes = torch.zeros(len(self.images), dtype=torch.int64) if self.labels is None else self.labels
        source = torch.Generator("cpu").manual_seed(self.seed)
        z = torch.randn(_DRAWS, *editor.recipe.latents([0]).shape[1:], generator=source, device="cpu")
        values = torch.empty(len(classes), editor.shape[-1], device=editor.device)
        squares = []
        for label in classes.unique().tolist():
            own = (classes == label).nonzero()[:, 0]
            labels = None if self.labels is None else torch.full((_DRAWS,), label)
            if self.space == "z":
                values[own] = self._nearest(self.images[own], z[:_CANDIDATES], labels)
                squares.append(1.0)
            else:
                chunks = zip(z.split(500), [None] * _DRAWS if labels is None else labels.split(500), strict=False)
                w = torch.cat([editor.styles(*chunk)[:, 0].float() for chunk in chunks])
                values[own] = w.mean(0)
                squares.append(float((w - w.mean(0)).square().mean()))
        if self.space == "w+":
            values = values[:, None].repeat(1, editor.layers, 1)
        return values, math.sqrt(sum(squares) / len(squares))

    def _nearest(self, images: torch.Tensor, z: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """For each picture that z whose picture, 16 pixels a side, is nearest: the mean of z is no picture."""

        def small(pictures: torch.Tensor) -> torch.Tensor:
            return F.adaptive_avg_pool2d(pictures, 16).flatten(1)

        made = self.editor.images(Latents(z, "z", None if labels is None else labels[: len(z)]))
        return z[torch.cdist(small(images), small(made)).argmin(1)].to(self.editor.device)

    @property
    def latents(self) -> Latents:
        """As they are now."""
        values = self._values.detach()
        if self.space == "w":
            values = values[:, None].repeat(1, self.editor.layers, 1)
        labels = self.labels if self.editor.space == "z" else None
        noise = [layer.detach().cpu().clone() for layer in self._noise]
        return Latents(values.cpu().clone(), self.editor.space, labels, noise)

    @apart
    def advance(self) -> torch.Tensor:
        """One step; distances [N, 2] of the pictures that it was made from, as `Progress` has them."""
        share = self.step / self.steps
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - share) / FALL))
        rate = RATE * fall * min(1.0, (self.step + 1) / (RISE * self.steps))
        for group in self._adam.param_groups:
            group["lr"] = rate * group["deviation"]
        wander = 0.0 if self.space == "z" else WANDER * max(0.0, 1 - share / UNTIL) ** 2
        source = torch.Generator("cpu").manual_seed((self.seed * 1_000_003 + self.step) % 2**63)
        drawn = torch.randn(self._values.shape, generator=source, device="cpu").to(self.editor.device)
        drawn *= wander * self._deviation * self._values.shape[-1] ** 0.5
        self._adam.zero_grad(set_to_none=True)
        distances = []
        for number, index in enumerate(torch.arange(len(self.images)).split(self._together)):
            noise = [layer[index] for layer in self._noise]
            found = self._distances(self._values[index] + drawn[index], noise, number, index)
            loss = (found * found.new_tensor([1.0, PIXELS])).sum()
            (loss + NOISE * sum(autocorrelation(layer).sum() for layer in noise)).backward()
            distances.append(found.detach())
        self._adam.step()
        self._bound()
        self.step += 1
        return torch.cat(distances).cpu()

    @apart
    @torch.no_grad()
    def distances(self) -> torch.Tensor:
        """[N, 2] of the pictures as they are now."""
        parts = enumerate(torch.arange(len(self.images)).split(self._together))
        found = [self._distances(self._values[i], [layer[i] for layer in self._noise], n, i) for n, i in parts]
        return torch.cat(found).cpu()

    def _distances(
        self, values: torch.Tensor, noise: list[torch.Tensor], number: int, index: torch.Tensor
    ) -> torch.Tensor:
        """[n, 2] of the pictures `index`, the part of that `number`."""
        editor = self.editor
        labels = None if self.labels is None else self.labels[index].to(editor.device)
        if self.space == "w":
            values = values[:, None].expand(-1, editor.layers, -1)
        made = editor.synthesize(values, labels if editor.space == "z" else None, noise)
        pixels = (made - self.images[index].to(editor.device)).square().mean((1, 2, 3))
        seen = torch.zeros_like(pixels)
        if self.perceptual is not None:
            seen = self.perceptual.distance(self.perceptual.features(made), self._seen[number])
        return torch.stack([seen, pixels], 1)

    @torch.no_grad()
    def _bound(self) -> None:
        """Of z no more than the length that draws have, which is near sqrt(D); of noise mean 0 and variance 1 (appendix D)."""
        if self.space == "z":
            length = self._values.norm(dim=1, keepdim=True)
            self._values.mul_(((self._values.shape[1] ** 0.5 + 2) / length).clamp(max=1))
        for layer in self._noise:
            layer.sub_(layer.mean((2, 3), keepdim=True))
            layer.mul_(layer.square().mean((2, 3), keepdim=True).add(1e-12).rsqrt())

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next step depends on beside the arguments, for `restore`."""
        made = {"step": torch.tensor(self.step)}
        for i, tensor in enumerate((self._values, *self._noise)):
            moments = self._adam.state.get(tensor, {})
            made |= {f"{i}/value": tensor.detach().cpu().clone()}
            made |= {f"{i}/{name}": value.detach().cpu().clone() for name, value in moments.items()}
        return made

    @torch.no_grad()
    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go on where `state` was taken of a projector with the same arguments. ValueError where it is of another."""
        tensors = [self._values, *self._noise]
        shapes = {f"{i}/{name}": t.shape for i, t in enumerate(tensors) for name in ("value", "exp_avg", "exp_avg_sq")}
        step = state.get("step")
        fits = step is not None and step.numel() == 1 and 0 < int(step) <= self.steps
        if not fits or any(name not in state or state[name].shape != shape for name, shape in shapes.items()):
            raise ValueError("the state is of a projection with other pictures or options")
        self.step = int(step)
        for i, tensor in enumerate(tensors):
            tensor.copy_(state[f"{i}/value"])
            moments = {name: state[f"{i}/{name}"].to(tensor.device).clone() for name in ("exp_avg", "exp_avg_sq")}
            self._adam.state[tensor] = {"step": torch.tensor(float(self.step)), **moments}


def autocorrelation(noise: torch.Tensor) -> torch.Tensor:
    """Noise [N, 1, h, w] -> [N]: the sum, over the noise and its halvings down to 8 pixels, of h w (mean product of neighbours)^2
    along each axis (appendix D, which leaves h w out: a term is 1 on average for independent numbers, whatever the size)."""
    total = torch.zeros(len(noise), dtype=noise.dtype, device=noise.device)
    while True:
        for axis in (2, 3):
            products = (noise * noise.roll(1, axis)).mean((1, 2, 3))
            total = total + noise[0].numel() * products.square()
        if min(noise.shape[2:]) <= 8:
            return total
        noise = 2 * F.avg_pool2d(noise, 2)  # the mean of four has half their deviation


def project(
    editor: Editor,
    images: torch.Tensor,
    steps: int = 500,
    space: Where | None = None,
    noise: bool = False,
    labels: torch.Tensor | None = None,
    perceptual: Perceptual | str | None = "efflite0",
    seed: int = 0,
    every: int = 1,
) -> Iterator[Progress]:
    """Project pictures; yields every `every` steps, and at the end. Arguments and errors as of `Projector`, at the first step;
    perceptual: also a name as `fastgan.metrics.perceptual.load_perceptual` takes it."""
    if isinstance(perceptual, str):
        perceptual = load_perceptual(perceptual, editor.device)
    if every < 1:
        raise ValueError(f"every is {every}, expected at least 1")
    projector = Projector(editor, images, steps, space, noise, labels, perceptual, seed)
    while projector.step < steps:
        projector.advance()
        if projector.step % every == 0 or projector.step == steps:
            yield Progress(projector.step, steps, projector.distances(), projector.latents)


def _check(
    editor: Editor, images: torch.Tensor, steps: int, space: str, noise: bool, labels: torch.Tensor | None
) -> None:
    for name, given in {"images": images, "labels": labels}.items():
        if given is not None and not isinstance(given, torch.Tensor):
            raise TypeError(f"{name} is a {type(given).__name__}, expected a tensor")
    size = (editor.channels, *sides(editor.resolution))
    if not images.is_floating_point() or images.dim() != 4 or images.shape[1:] != size or not len(images):
        raise ValueError(
            f"images is {images.dtype} {list(images.shape)}, expected floats in [-1, 1] of shape [N, {', '.join(map(str, size))}]"
        )
    if not images.isfinite().all():
        raise ValueError("images holds NaN or Inf")
    spaces = ("w", "w+") if editor.space == "w" else ("z",)
    if space not in spaces:
        raise ValueError(f"space is {space!r}, expected {' or '.join(spaces)}, which {editor.name} has")
    if steps < 1 or steps != int(steps):
        raise ValueError(f"steps is {steps}, expected a whole number of at least 1")
    if noise and not editor.noise:
        raise ValueError(f"noise=True, and {editor.name} has no noise to project")
    if (labels is not None) != bool(editor.classes):
        need = f"a class, 0 to {editor.classes - 1}, for each picture" if editor.classes else "None: it has no classes"
        raise ValueError(f"labels is {'None' if labels is None else 'given'}; {editor.name} needs {need}")
    if labels is not None and (
        labels.is_floating_point()
        or labels.shape != (len(images),)
        or not bool(((labels >= 0) & (labels < editor.classes)).all())
    ):
        raise ValueError(f"labels is {labels.tolist()}, expected {len(images)} classes of 0 to {editor.classes - 1}")
