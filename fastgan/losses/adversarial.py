"""Adversarial losses: objects with `d_loss(real_logits, fake_logits)` and `g_loss(real_logits, fake_logits)`.

Logits have the shape [N] or [N, ...] (a patch discriminator's map), the same for both; the result is [N], float32
(float64 for float64 logits), averaged over a map. r = D(x) and f = D(G(z)) are logits, s the logistic function; with
them -log s(t) = softplus(-t) and -log(1 - s(t)) = softplus(t), which never overflow. g_loss needs `real_logits` only
where the loss is `relativistic`; elsewhere None is accepted, which saves a discriminator pass.

Shapes that differ raise ValueError: [N] against [N, 1] would silently broadcast to [N, N].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import relu, softplus

from fastgan.ops._checks import accumulation_dtype, check_floating

__all__ = [
    "Adversarial",
    "hinge",
    "least_squares",
    "logistic",
    "minimax",
    "non_saturating",
    "ragan",
    "rpgan",
    "wasserstein",
]


@dataclass(frozen=True)
class Adversarial:
    """Two functions of (r, f) and their equations. `equation` names the paper and what each side minimises; `averaging`:
    means over the batch are among it, so logits of several processes are to be gathered first.

    Examples:
        >>> real, fake = torch.randn(8, 1), torch.randn(8, 1)
        >>> fastgan.losses.adversarial.hinge.d_loss(real, fake).mean().shape
        torch.Size([])
    """

    name: str
    equation: str
    discriminator: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    generator: Callable[[torch.Tensor | None, torch.Tensor], torch.Tensor]
    relativistic: bool = False
    averaging: bool = False

    def d_loss(self, real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
        """What the discriminator minimises, [N]. Raises TypeError, ValueError for logits of other types or shapes."""
        real, fake = _checked(self.name, real_logits, fake_logits)
        return _per_sample(self.discriminator(real, fake))

    def g_loss(self, real_logits: torch.Tensor | None, fake_logits: torch.Tensor) -> torch.Tensor:
        """What the generator minimises, [N]. Raises TypeError, ValueError for logits of other types or shapes."""
        if real_logits is None and self.relativistic:
            raise ValueError(f"{self.name}: g_loss compares with real_logits, which is None")
        real, fake = _checked(self.name, fake_logits if real_logits is None else real_logits, fake_logits)
        return _per_sample(self.generator(real, fake))


def _checked(name: str, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    check_floating(name, "real_logits", real)
    check_floating(name, "fake_logits", fake)
    if real.shape != fake.shape or real.dim() < 1:
        raise ValueError(
            f"{name}: real_logits has shape {tuple(real.shape)} and fake_logits {tuple(fake.shape)}; expected the same"
            " shape [N, ...]"
        )
    return real.to(accumulation_dtype(real.dtype)), fake.to(accumulation_dtype(fake.dtype))


def _per_sample(loss: torch.Tensor) -> torch.Tensor:
    return loss if loss.dim() == 1 else loss.flatten(1).mean(1)


def _cross_entropy(r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    return softplus(-r) + softplus(f)


minimax = Adversarial(
    "minimax",
    "Goodfellow et al. 2014, eq. 1. D: -log s(r) - log(1 - s(f)); G: log(1 - s(f)), which saturates where D is sure",
    _cross_entropy,
    lambda r, f: -softplus(f),
)

non_saturating = Adversarial(
    "non_saturating",
    "Goodfellow et al. 2014, section 3. D: -log s(r) - log(1 - s(f)); G: -log s(f)",
    _cross_entropy,
    lambda r, f: softplus(-f),
)

logistic = Adversarial(
    "logistic",
    "Karras et al. 2019 (StyleGAN)'s name of the non-saturating loss. D: softplus(-r) + softplus(f); G: softplus(-f)",
    _cross_entropy,
    lambda r, f: softplus(-f),
)

least_squares = Adversarial(
    "least_squares",
    "Mao et al. 2017, eq. 9 (a = 0, b = c = 1). D: ((r - 1)^2 + f^2) / 2; G: (f - 1)^2 / 2",
    lambda r, f: 0.5 * ((r - 1).square() + f.square()),
    lambda r, f: 0.5 * (f - 1).square(),
)

hinge = Adversarial(
    "hinge",
    "Lim & Ye 2017; Miyato et al. 2018, eq. 16, 17. D: max(0, 1 - r) + max(0, 1 + f); G: -f",
    lambda r, f: relu(1 - r) + relu(1 + f),
    lambda r, f: -f,
)

wasserstein = Adversarial(
    "wasserstein",
    "Arjovsky et al. 2017, eq. 2, 3. D: f - r; G: -f. D must be Lipschitz: see penalty.wgan_gp",
    lambda r, f: f - r,
    lambda r, f: -f,
)

rpgan = Adversarial(
    "rpgan",
    "Jolicoeur-Martineau 2018 (RSGAN); Huang et al. 2024 (R3GAN). Each real logit is paired with one fake logit."
    " D: softplus(-(r - f)); G: softplus(-(f - r))",
    lambda r, f: softplus(f - r),
    lambda r, f: softplus(r - f),
    relativistic=True,
)

ragan = Adversarial(
    "ragan",
    "Jolicoeur-Martineau 2018 (RaSGAN): each logit against the other side's mean over the batch."
    " D: softplus(-(r - E f)) + softplus(f - E r); G: softplus(-(f - E r)) + softplus(r - E f)",
    lambda r, f: softplus(f.mean(0) - r) + softplus(f - r.mean(0)),
    lambda r, f: softplus(r.mean(0) - f) + softplus(r - f.mean(0)),
    relativistic=True,
    averaging=True,
)
