"""Metrics of generators that map z to w before they draw: perceptual path length, and equivariance of StyleGAN3's.

A generator is recognised by what it has: `mapping(z, c) -> ws [N, layers, L]` and `synthesis(ws) -> images` in [-1, 1];
equivariance is measured where `synthesis.input.transform` [3, 3] says where in the image each output pixel is taken from.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from fastgan._surroundings import in_float32
from fastgan.data.pixels import viewable
from fastgan.metrics.processes import gather, share
from fastgan.ops._autocast import without_autocast

EPSILON = 1e-4
_BATCH = 16
_LANCZOS = 5  # lobes: between band-limited images the interpolation's own error is below -60 dB


def path_lengths(
    generate: Callable[[torch.Tensor], torch.Tensor],
    features: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    end: torch.Tensor,
    t: torch.Tensor,
    epsilon: float = EPSILON,
) -> torch.Tensor:
    """|f(g(w(t + epsilon))) - f(g(w(t)))|^2 / epsilon^2, w(t) = start + t (end - start), [N].

    Karras et al., "A Style-Based Generator Architecture", 2019, eq. 3; there f is LPIPS's VGG16, scaled. With other
    features the figure has another scale and compares with its like alone. Plain mean: no lengths are left out.

    Args:
        generate: latents [N, ...] -> images in [-1, 1]. features: images -> [N, D].
        start, end: latents in the intermediate space W. t: [N], in [0, 1).
    """
    t = t.reshape([-1] + [1] * (start.dim() - 1))
    here, there = (features(generate(torch.lerp(start, end, at))).double() for at in (t, t + epsilon))
    return (there - here).square().sum(1) / epsilon**2


def translation_error(render: Callable[[torch.Tensor], torch.Tensor], dx: int, dy: int) -> torch.Tensor:
    """[N]: mean square difference between images drawn translated and images translated, where both are defined.

    Karras et al., "Alias-Free Generative Adversarial Networks", 2021, eq. 3: by whole pixels, so nothing is resampled.

    Args:
        render: transform [3, 3] -> images [N, C, H, W]; the transform takes output coordinates, in units of the image's
            side from its centre, to those drawn there.
    """
    plain = render(torch.eye(3))
    h, w = plain.shape[2:]
    transform = torch.eye(3)
    transform[0, 2], transform[1, 2] = -dx / w, -dy / h
    moved = render(transform)
    here = plain.new_zeros(h, w, dtype=torch.bool)
    here[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = True
    expected = plain.roll((dy, dx), (2, 3))
    return (moved - expected)[:, :, here].double().square().mean((1, 2))


def rotation_error(render: Callable[[torch.Tensor], torch.Tensor], angle: float) -> torch.Tensor:
    """[N]: mean square difference between images drawn rotated and images rotated, in the disc both are defined in.

    Karras et al. 2021, appendix E.3, with one difference: the rotation of a finished image is interpolated by a
    Lanczos-windowed sinc and not low-passed to the disc of frequencies common to both, so figures of images with energy
    in the corners of the spectrum are lower here.
    """
    c, s = math.cos(angle), math.sin(angle)
    inverse = torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    expected, inside = rotate(render(torch.eye(3)), inverse[:2, :2])
    difference = (render(inverse) - expected).double().square().mean(1) * inside
    return difference.sum((1, 2)) / inside.sum()


def rotate(images: torch.Tensor, inverse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Square images [N, C, H, H] at inverse q for every pixel q from the centre, and the mask [H, H] of pixels whose
    interpolation reads inside the image alone, whatever the angle."""
    n, c, size, _ = images.shape
    q = torch.arange(size, device=images.device, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(q, q, indexing="ij")
    place = torch.stack([x, y], -1) @ inverse.to(q).mT + (size - 1) / 2
    first = place.floor().long() - (_LANCZOS - 1)
    tap = torch.arange(2 * _LANCZOS, device=images.device)
    offset = place[..., None] - (first[..., None] + tap)  # [H, H, 2, taps]
    weight = torch.sinc(offset) * torch.sinc(offset / _LANCZOS)
    weight = (weight / weight.sum(-1, keepdim=True)).to(images.dtype)
    index = (first[..., None] + tap).clamp(0, size - 1)
    out = images.new_zeros(n, c, size, size)
    for j in range(2 * _LANCZOS):
        row = images.new_zeros(n, c, size, size)
        for i in range(2 * _LANCZOS):
            row += images[:, :, index[..., 1, j], index[..., 0, i]] * weight[..., 0, i]
        out += row * weight[..., 1, j]
    return out, (x.square() + y.square()).sqrt() <= (size - 1) / 2 - _LANCZOS


def decibels(errors: torch.Tensor) -> float:
    """Peak signal to noise ratio 10 log10(4 / mean error) of images in [-1, 1]. Raises ValueError for NaN or Inf."""
    return 10 * math.log10(4 / max(_mean(errors, "images"), 1e-20))


def _mean(values: torch.Tensor, what: str) -> float:
    bad = int((~values.isfinite()).sum())
    if bad:
        raise ValueError(f"{what} of {bad} of {len(values)} draws are NaN or Inf")
    return float(values.mean())


def has_styles(generator: nn.Module) -> bool:
    """Whether there are `mapping` and `synthesis`, whose path length can be measured."""
    return hasattr(generator, "mapping") and hasattr(generator, "synthesis")


def transform_of(generator: nn.Module) -> torch.Tensor | None:
    """The buffer [3, 3] that says where in the image each output pixel is taken from, where there is one."""
    return getattr(getattr(getattr(generator, "synthesis", None), "input", None), "transform", None)


@in_float32
@torch.no_grad()
def measure(
    generator: nn.Module,
    features: Callable | None,
    count: int,
    suffix: str = "",
    seed: int = 0,
    equivariance: bool = True,
    classes: torch.Tensor | None = None,
) -> dict[str, float]:
    """`ppl<suffix>`, and `eq_t` and `eq_r` in dB where there is a transform, over `count` draws shared by all processes.

    features: float images in [-1, 1] -> [N, D]; None leaves the path length out, equivariance=False the others. classes: int64
    [count], one for each draw, whose path keeps to it, as nothing lies between two; None: in turn, where the generator has any.
    Empty for a generator without mapping and synthesis. Raises ValueError where images or their features are NaN or Inf.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1 draw")
    if not has_styles(generator):
        return {}
    with without_autocast(next(generator.parameters())):  # 16 bits know no steps of 1e-4
        return _measure(generator, features, count, suffix, seed, equivariance, classes)


def _measure(generator, features, count, suffix, seed, equivariance, classes) -> dict[str, float]:
    fixed = {"noise_mode": "const"} if "noise_mode" in inspect.signature(generator.synthesis.forward).parameters else {}
    transform = transform_of(generator) if equivariance else None
    lengths, shifts, turns = [], [], []

    def images(ws: torch.Tensor, at: torch.Tensor | None = None) -> torch.Tensor:
        if at is not None:
            transform.copy_(at)
        made = generator.synthesis(ws, **fixed).float()
        return made.expand(-1, 3, -1, -1) if made.shape[1] == 1 else made

    try:
        for ws, other, u in _draws(generator, count, seed, classes):
            if features is not None:
                lengths.append(path_lengths(lambda ws: viewable(images(ws)), features, ws, other, u[:, 0]))
            if transform is None:
                continue
            side = images(ws[:1]).shape[3]
            # One transformation per image: the buffer is shared by all that are drawn together.
            for w, (dx, dy, angle) in zip(ws.split(1), u[:, 1:].tolist(), strict=True):
                shift = [round((2 * v - 1) * side / 8) for v in (dx, dy)]
                shifts.append(translation_error(lambda at, w=w: images(w, at), *shift))
                turns.append(rotation_error(lambda at, w=w: images(w, at), 2 * math.pi * angle))
    finally:
        if transform is not None:
            transform.copy_(torch.eye(3))
    found = {}
    if features is not None:
        found[f"ppl{suffix}"] = _mean(_all(lengths), "path lengths")
    if transform is not None:
        found |= {"eq_t": decibels(_all(shifts)), "eq_r": decibels(_all(turns))}
    return found


def _all(parts: list[torch.Tensor]) -> torch.Tensor:
    return gather(torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64))


def _draws(
    generator: nn.Module, count: int, seed: int, labels: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """This process's share of the draws: latents in W of two ends, and uniform numbers [N, 4], a batch at a time."""
    device = next(generator.parameters()).device
    source = torch.Generator("cpu").manual_seed(seed)
    z = torch.randn(count, 2, generator.z_dim, generator=source, device="cpu")
    u = torch.rand(count, 4, generator=source, device="cpu")
    classes = getattr(generator, "c_dim", 0)
    labels = torch.arange(count) % max(classes, 1) if labels is None else labels.cpu()
    c = F.one_hot(labels, classes).float() if classes else torch.empty(count, 0)
    for latents, uniform, label in zip(*(share(t).split(_BATCH) for t in (z, u, c)), strict=True):
        if not len(uniform):  # of a process beyond the draws
            return
        ends = [generator.mapping(end.to(device), label.to(device) if classes else None) for end in latents.unbind(1)]
        yield *ends, uniform.to(device)
