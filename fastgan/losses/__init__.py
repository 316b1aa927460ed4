"""Losses, per sample: means, weights and schedules belong to the recipe.

`adversarial` pairs of losses for discriminator and generator; `penalty` on gradients and logits; `batch` on
statistics of a whole minibatch; `cycle` for image translation.
"""

from fastgan.losses import adversarial, batch, cycle, penalty

__all__ = ["adversarial", "batch", "cycle", "penalty"]
