"""CycleGAN as an engine for any cyclic data: two generators, two discriminators, tensors of any shape.

Zhu et al., 2017, eq. 3, with G: A -> B, F: B -> A:

    L(G, F, D_A, D_B) = L_GAN(G, D_B) + L_GAN(F, D_A) + lambda (|F(G(a)) - a|_1 + |G(F(b)) - b|_1)
                        + identity lambda (|G(b) - b|_1 + |F(a) - a|_1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from fastgan.losses import adversarial, cycle, penalty


class Cycle(NamedTuple):
    """What one pass makes of samples a and b; the identity outputs are None where they have no weight."""

    fake_b: torch.Tensor
    fake_a: torch.Tensor
    back_a: torch.Tensor
    back_b: torch.Tensor
    same_b: torch.Tensor | None
    same_a: torch.Tensor | None


def _alone(*logits: torch.Tensor | None) -> Sequence[torch.Tensor | None]:
    return logits


class CycleGAN(nn.Module):
    """Losses of two generators and two discriminators on samples of two domains.

    Args:
        ab, ba: generators, domain A to B and back; any modules from [N, ...] to the other domain's [N, ...].
        a, b: discriminators of the domains, to logits [N, ...]; with `conditional` they see what a translation was made
            from beside it, concatenated along dim 1.
        loss: adversarial loss, `least_squares` in the paper.
        lambda_a, lambda_b: weights of the cycles A-B-A and B-A-B.
        identity: weight of the identity terms as a share of lambda; 0 leaves them out (domains of different shape).
        gamma: weight of R1 (`losses.penalty.r1`) on the discriminators at real samples, averaged over the patches that a
            discriminator judges, as its loss is. 0 in the paper. Not with batch normalisation in the discriminators.
        joint: let each generator translate and reproduce in one pass over both batches, which changes no number unless
            the generators mix samples (batch normalisation).
    """

    def __init__(
        self,
        ab: nn.Module,
        ba: nn.Module,
        a: nn.Module,
        b: nn.Module,
        loss: adversarial.Adversarial = adversarial.least_squares,
        lambda_a: float = 10.0,
        lambda_b: float = 10.0,
        identity: float = 0.5,
        joint: bool = True,
        gamma: float = 0.0,
    ):
        super().__init__()
        self.ab, self.ba, self.a, self.b = ab, ba, a, b
        self.loss, self.lambda_a, self.lambda_b, self.identity = loss, lambda_a, lambda_b, identity
        self.joint, self.gamma = joint, gamma
        # Mao et al.'s factor 1/2 is not in the paper's equations, where the weights lambda are measured against 1.
        self.scale = 2 if loss is adversarial.least_squares else 1

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> Cycle:
        """Everything the generators' loss needs of samples a [N, ...] and b [M, ...]."""
        same_a = same_b = None
        if self.identity and self.joint:
            fake_b, same_b = self.ab(torch.cat([a, b])).split([len(a), len(b)])
            fake_a, same_a = self.ba(torch.cat([b, a])).split([len(b), len(a)])
        else:
            fake_b, fake_a = self.ab(a), self.ba(b)
            if self.identity:
                same_b, same_a = self.ab(b), self.ba(a)
        return Cycle(fake_b, fake_a, self.ba(fake_b), self.ab(fake_a), same_b, same_a)

    def generator_loss(
        self, a: torch.Tensor, b: torch.Tensor, out: Cycle, compared: Callable = _alone
    ) -> dict[str, torch.Tensor]:
        """Scalars: "loss", what the generators minimise, and its parts. `out`: what `forward` made of a and b; `compared`: real
        logits or None, and those of fakes -> the same of all processes, for a loss with means over the batch (`averaging`)."""
        parts = {
            "gan_ab": self.scale * self.loss.g_loss(*compared(None, self.b(out.fake_b))).mean(),
            "gan_ba": self.scale * self.loss.g_loss(*compared(None, self.a(out.fake_a))).mean(),
            "cycle_a": cycle.cycle(a, out.back_a, self.lambda_a).mean(),
            "cycle_b": cycle.cycle(b, out.back_b, self.lambda_b).mean(),
        }
        if self.identity:
            parts["identity_a"] = cycle.identity(a, out.same_a, self.identity * self.lambda_a).mean()
            parts["identity_b"] = cycle.identity(b, out.same_b, self.identity * self.lambda_b).mean()
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def discriminator_loss(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        fake_a: torch.Tensor,
        fake_b: torch.Tensor,
        compared: Callable = _alone,
    ) -> dict[str, torch.Tensor]:
        """Scalars: "loss", half the sum of both discriminators' losses (section 4) and their penalties, and each of these.
        The fakes are constants; `compared` as of `generator_loss`."""
        parts = {}
        for name, discriminator, real, fake in (("a", self.a, a, fake_a), ("b", self.b, b, fake_b)):
            real = real.detach().requires_grad_(self.gamma != 0)
            logits = discriminator(real)
            judged = compared(logits, discriminator(fake.detach()))
            parts[name] = self.loss.d_loss(*judged).mean() * (self.scale / 2)
            if self.gamma:  # |grad of the sum of P patches|^2 / P
                parts[f"r1_{name}"] = penalty.r1(logits / logits.shape[1:].numel() ** 0.5, real, self.gamma).mean()
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}


class Pool(nn.Module):
    """The last translations, from which discriminators learn (Shrivastava et al., 2017): each new one is used at once with
    probability 1/2, else it takes the place of a random older one, which is used instead. Saved with the networks.

    size: how many are kept (50 in the paper); 0 always uses the new ones. shape: of one sample.
    """

    def __init__(self, size: int, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("kept", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def forward(self, new: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        """new [N, ...]; choice [N, 2] uniform on [0, 1): whether to swap, and with which -> [N, ...], detached."""
        new, size, out = new.detach(), len(self.kept), []
        if not size:
            return new
        for sample, (swap, which) in zip(new, choice.tolist(), strict=True):
            if int(self.filled) < size:
                self.kept[int(self.filled)] = sample
                self.filled += 1
                out.append(sample)
            elif swap < 0.5:
                out.append(sample)
            else:
                out.append(self.kept[int(which * size)].clone())
                self.kept[int(which * size)] = sample
        return torch.stack(out)
