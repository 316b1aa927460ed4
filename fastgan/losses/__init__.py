"""Losses, per sample: means, weights and schedules belong to the recipe.

`adversarial` pairs of losses for discriminator and generator; `penalty` on gradients and logits; `batch` on
statistics of a whole minibatch; `cycle` for image translation.

`--loss NAME` of a recipe takes an adversarial loss of your own as well, once it is registered:

    fastgan.losses.register("mine", Adversarial("mine", "D: ...; G: ...", lambda r, f: ..., lambda r, f: ...))

or by a package's entry point `fastgan.losses`. Anything with `d_loss`, `g_loss`, `relativistic` and `averaging` will do.
"""

from fastgan.losses import adversarial, batch, cycle, penalty
from fastgan.registry import Registry

LOSSES = Registry("loss", "fastgan.losses").own(
    {
        name.replace("_", "-"): f"fastgan.losses.adversarial:{name}"
        for name in adversarial.__all__
        if name != "Adversarial"
    }
)
register = LOSSES.register

__all__ = ["LOSSES", "adversarial", "batch", "cycle", "penalty", "register"]
