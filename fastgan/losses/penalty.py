"""Regularisers of the discriminator's and the generator's gradients, and of logits; each returns [N], float32
(float64 for float64), already weighted, to be averaged and added to the loss.

The only place of fastgan that calls `torch.autograd.grad(..., create_graph=True)`.

Two kinds of functions. `r1`, `r2` and `r1_r2` differentiate logits that the loss uses too: the images must require
gradients before the discriminator sees them, and no second forward pass is made. `wgan_gp`, `dragan` and
`zero_centered` choose points of their own and call `discriminator(points) -> logits`; for a conditional one pass
`lambda x: D(x, labels)`. These run it in full precision, whatever autocast says.

All of them need logits that do not depend on other images of the batch (no batch normalisation): the gradient of the
sum of logits is then each image's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fastgan.ops import grad_penalty
from fastgan.ops._autocast import without_autocast
from fastgan.ops._checks import accumulation_dtype, check_floating

__all__ = ["dragan", "lecam", "path_length", "r1", "r1_r2", "r2", "wgan_gp", "zero_centered"]


def _gradients(
    name: str, outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """d sum(weights outputs) / d inputs, itself differentiable; RuntimeError if the result could not be minimised."""
    for x in inputs:
        if not x.requires_grad:
            raise RuntimeError(
                f"{name}: the penalised input does not require gradients; call requires_grad_(True) on it before the"
                " network sees it"
            )
    if not all(y.requires_grad for y in outputs):
        raise RuntimeError(f"{name}: the network's output has no graph; compute it outside torch.no_grad()")
    gradients = torch.autograd.grad(outputs, inputs, weights, create_graph=True, allow_unused=True)
    for gradient in gradients:
        if gradient is None:
            raise RuntimeError(f"{name}: the network's output does not depend on the penalised input")
        if not gradient.requires_grad:
            raise RuntimeError(
                f"{name}: the input gradient has no graph, so the penalty would train nothing. Do the network's"
                " parameters require gradients? Is the network compiled on its own (compile the whole step with"
                " fastgan.training.compiled_step)?"
            )
    return gradients


def _image_gradients(name: str, logits: Sequence[torch.Tensor], images: Sequence[torch.Tensor]) -> tuple:
    for y, x in zip(logits, images, strict=True):
        check_floating(name, "logits", y)
        check_floating(name, "images", x)
        if y.dim() < 1 or x.dim() < 1 or y.shape[0] != x.shape[0]:
            raise ValueError(f"{name}: logits {tuple(y.shape)} of images {tuple(x.shape)}; expected one row per image")
    return _gradients(name, logits, images, [torch.ones_like(y) for y in logits])


def _at(name: str, discriminator: Callable, points: torch.Tensor) -> torch.Tensor:
    """The discriminator's gradient at `points` [N, ...], which carry no graph of their own."""
    points = points.to(accumulation_dtype(points.dtype)).detach().requires_grad_(True)
    with without_autocast(points):
        return _image_gradients(name, [discriminator(points)], [points])[0]


def _pair(name: str, real: torch.Tensor, fake: torch.Tensor) -> None:
    check_floating(name, "real", real)
    check_floating(name, "fake", fake)
    if real.shape != fake.shape or real.dim() < 1:
        raise ValueError(
            f"{name}: real is {tuple(real.shape)} and fake {tuple(fake.shape)}; expected the same shape [N, ...]"
        )


def _between(
    real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor | None, generator: torch.Generator | None
) -> torch.Tensor:
    if mix is None:
        mix = torch.rand(len(real), dtype=real.dtype, device=real.device, generator=generator)
    dtype = torch.promote_types(real.dtype, fake.dtype)  # under autocast the generator's images have 16 bits
    mix = mix.to(dtype).reshape([-1] + [1] * (real.dim() - 1))
    return torch.lerp(fake.detach().to(dtype), real.detach().to(dtype), mix)


def r1(real_logits: torch.Tensor, real: torch.Tensor, gamma: float) -> torch.Tensor:
    """gamma/2 |grad_x D(x)|^2 at real images (Mescheder et al. 2018, eq. 9).

    Args:
        real_logits: D(real), [N, ...]; a patch discriminator's map is summed.
        real: [N, ...], requiring gradients before D saw it.

    Returns: [N]. Raises: RuntimeError if `real` requires no gradient or `real_logits` do not depend on it.

    Examples:
        >>> discriminator = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 1))
        >>> real = torch.randn(2, 3, 4, 4, requires_grad=True)
        >>> r1(discriminator(real), real, gamma=10).shape
        torch.Size([2])
    """
    (gradient,) = _image_gradients("r1", [real_logits], [real])
    return 0.5 * gamma * grad_penalty(gradient, "r1")


def r2(fake_logits: torch.Tensor, fake: torch.Tensor, gamma: float) -> torch.Tensor:
    """gamma/2 |grad_x D(x)|^2 at generated images (Mescheder et al. 2018, eq. 10). Arguments and errors as of `r1`.

    In a discriminator step, where the generator's parameters require no gradients, call `fake.requires_grad_(True)`.
    """
    (gradient,) = _image_gradients("r2", [fake_logits], [fake])
    return 0.5 * gamma * grad_penalty(gradient, "r1")


def r1_r2(
    real_logits: torch.Tensor, real: torch.Tensor, fake_logits: torch.Tensor, fake: torch.Tensor, gamma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R1, R2), each [N], from one backward pass (Huang et al. 2024 (R3GAN): both with the same gamma).

    Arguments and errors as of `r1`. Where real and fake images went through D in one batch, `r1(logits, images,
    gamma)` on that batch is the same and keeps it whole.
    """
    at_real, at_fake = _image_gradients("r1_r2", [real_logits, fake_logits], [real, fake])
    return 0.5 * gamma * grad_penalty(at_real, "r1"), 0.5 * gamma * grad_penalty(at_fake, "r1")


def wgan_gp(
    discriminator: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    fake: torch.Tensor,
    weight: float = 10.0,
    generator: torch.Generator | None = None,
    *,
    target: float = 1.0,
    one_sided: bool = False,
    mix: torch.Tensor | None = None,
) -> torch.Tensor:
    """weight (|grad D(x^)| - target)^2, x^ = e x + (1 - e) G(z), e ~ U[0, 1] per image (Gulrajani et al. 2017, eq. 3).

    Args:
        discriminator: points [N, ...] -> logits.
        real, fake: [N, ...], same shape; no gradient goes to either.
        generator: where e is drawn from, on the device of `real`; default torch's global one.
        one_sided: weight max(0, |grad D(x^)| - target)^2 instead (Petzka et al. 2018, WGAN-LP).
        mix: e itself, [N], for draws that must not depend on the number of processes.

    Returns: [N]. Raises: TypeError, ValueError for wrong tensors; RuntimeError if D's parameters require no gradients.

    Examples:
        >>> discriminator = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 1))
        >>> wgan_gp(discriminator, torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)).shape
        torch.Size([2])
    """
    _pair("wgan_gp", real, fake)
    gradient = _at("wgan_gp", discriminator, _between(real, fake, mix, generator))
    return weight * grad_penalty(gradient, "one-sided" if one_sided else "wgan-gp", target)


def zero_centered(
    discriminator: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    fake: torch.Tensor,
    weight: float = 10.0,
    generator: torch.Generator | None = None,
    *,
    mix: torch.Tensor | None = None,
) -> torch.Tensor:
    """weight |grad D(x^)|^2, x^ = e x + (1 - e) G(z), e ~ U[0, 1] per image (Thanh-Tung et al. 2019, 0-GP).

    Arguments, result and errors as of `wgan_gp`.
    """
    _pair("zero_centered", real, fake)
    gradient = _at("zero_centered", discriminator, _between(real, fake, mix, generator))
    return weight * grad_penalty(gradient, "r1")


def dragan(
    discriminator: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    weight: float = 10.0,
    generator: torch.Generator | None = None,
    *,
    target: float = 1.0,
    noise: float = 0.5,
) -> torch.Tensor:
    """weight (|grad D(x + d)| - target)^2, d ~ N(0, (noise sd(x))^2 I) (Kodali et al. 2017, algorithm 1).

    Args:
        discriminator: points [N, ...] -> logits.
        real: [N, ...]; no gradient goes to it. sd(x) is its standard deviation over the whole batch.
        generator: where d is drawn from, on the device of `real`; default torch's global one.
        noise: deviation of d in units of the data's.

    Returns: [N]. Raises: TypeError, ValueError for wrong tensors; RuntimeError if D's parameters require no gradients.
    """
    check_floating("dragan", "real", real)
    if real.dim() < 1:
        raise ValueError("dragan: real has no dimensions; expected [N, ...]")
    real = real.detach()
    draw = torch.randn(real.shape, dtype=real.dtype, device=real.device, generator=generator)
    points = real + noise * real.std(correction=0) * draw
    return weight * grad_penalty(_at("dragan", discriminator, points), "wgan-gp", target)


def path_length(
    images: torch.Tensor,
    latents: torch.Tensor,
    mean: torch.Tensor,
    weight: float = 2.0,
    decay: float = 0.01,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """weight (|J^T y| - a)^2, y ~ N(0, I / pixels), a the running mean of |J^T y| (Karras et al. 2020, eq. 4).

    Args:
        images: G's output [N, C, H, W], computed from `latents` with a graph.
        latents: w as the synthesis network got it, [N, L] or [N, layers, L]; |.| is the root of the mean over layers
            of the squared norm over L.
        mean: a, a scalar tensor that starts at 0. Keep the new one: `self.mean.copy_(new)`.
        decay: a' = a + decay (E|J^T y| - a); the penalty uses a'.
        generator: where y is drawn from, on the device of `images`; default torch's global one.

    Returns: (penalty [N], a' without a graph). Over several processes a' is the mean of this process's batch.
    Raises: TypeError, ValueError for wrong tensors; RuntimeError if `images` do not depend on `latents`.
    """
    check_floating("path_length", "images", images)
    check_floating("path_length", "latents", latents)
    if images.dim() != 4 or latents.dim() not in (2, 3) or len(images) != len(latents):
        raise ValueError(
            f"path_length: images {tuple(images.shape)} and latents {tuple(latents.shape)}; expected [N, C, H, W] and"
            " [N, L] or [N, layers, L]"
        )
    draw = torch.randn(images.shape, dtype=images.dtype, device=images.device, generator=generator)
    draw = draw / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = _gradients("path_length", [images], [latents], [draw])
    squares = grad_penalty(gradient, "r1") / (latents.shape[1] if latents.dim() == 3 else 1)
    positive = squares > 0
    lengths = torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
    mean = torch.lerp(mean.to(lengths.dtype), lengths.detach().mean(), decay)
    return weight * (lengths - mean).square(), mean


def lecam(
    real_logits: torch.Tensor,
    fake_logits: torch.Tensor,
    real_mean: torch.Tensor,
    fake_mean: torch.Tensor,
    weight: float = 0.3,
) -> torch.Tensor:
    """weight ((D(x) - a_F)^2 + (D(G(z)) - a_R)^2) (Tseng et al. 2021, LeCam): no gradient of a gradient.

    Args:
        real_logits, fake_logits: [N, ...], the same shape; a patch discriminator's map is averaged.
        real_mean, fake_mean: a_R and a_F, scalar tensors: moving averages of the logits, kept by the caller, as by
            `real_mean.lerp_(real_logits.detach().float().mean(), 0.01)`.

    Returns: [N]. Raises: TypeError, ValueError for wrong tensors.
    """
    _pair("lecam", real_logits, fake_logits)
    dtype = accumulation_dtype(real_logits.dtype)
    loss = (real_logits.to(dtype) - fake_mean.detach()).square() + (fake_logits.to(dtype) - real_mean.detach()).square()
    return weight * (loss if loss.dim() == 1 else loss.flatten(1).mean(1))
