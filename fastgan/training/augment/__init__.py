"""Augmentation of what the discriminator sees: real and generated images alike, with gradients of any order.

`fastgan.recipes.augmented.Augmented` is the recipe that has one.

An augmentation that is undone in distribution does not leak into the generator as long as p stays below about 0.8 (Karras
et al., "Training Generative Adversarial Networks with Limited Data", 2020, section 2 and appendix C).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from fastgan.ops._autocast import without_autocast
from fastgan.training.augment import geometry, pixels
from fastgan.training.augment.diffaugment import diffaugment
from fastgan.training.augment.draws import Draws
from fastgan.training.batch import Batch

__all__ = ["POLICIES", "Augment", "Policy"]

_MAIN = (geometry.blit, geometry.geometric, pixels.color)
Policy = Literal["none", "ada", "ada-full", "diffaugment"]
POLICIES = {
    "none": (),
    "ada": _MAIN,
    "ada-full": (*_MAIN, pixels.frequencies, pixels.noise, pixels.cutout),
    "diffaugment": (diffaugment,),
}
INTERVAL = 4  # steps between adjustments of p (Karras et al. 2020, section 3)


class Augment(nn.Module):
    """images [N, C, H, W] in [-1, 1] -> augmented images of the same shape and dtype, each by its own random draw.

    Any sides and any number of channels: quarter turns are left out for rectangles, and colours change where channels are
    known to be colours, of grey, RGB and RGBA images (whose opacity is moved and cut out, never recoloured).

    Args:
        policy: "none"; "ada": pixel blits, geometry and colour, each applied with probability p, which is adapted to how
            much the discriminator overfits; "ada-full": filtering, noise and cutout too; "diffaugment": colour,
            translation and cutout on every image (Zhao et al., "Differentiable Augmentation", 2020), nothing adapted.
        p: initial probability.
        target: of the overfitting heuristic r = E sign D(x) over real images x, which is 0 where D tells nothing and 1
            where it knows every training image: p rises while r is above it and falls while it is below.
        images: how many it takes to move p from 0 to 1.

    Attributes: buffers `p`, `overfitting` (r of the last interval), `signs` and `count` (of the running one); `running`,
    those that the engine averages over processes.

    Raises ValueError for an unknown policy, or p outside [0, 1].
    """

    def __init__(self, policy: str = "ada", p: float = 0.0, target: float = 0.6, images: int = 500_000):
        super().__init__()
        if policy not in POLICIES:
            raise ValueError(f"augmentation {policy!r} is unknown; expected one of {', '.join(POLICIES)}")
        if not 0 <= p <= 1:
            raise ValueError(f"augmentation: p is {p}, expected a probability")
        self.policy, self.target, self.images = policy, target, images
        self.adaptive = policy.startswith("ada")
        for name, value in {"p": p, "overfitting": 0.0, "signs": 0.0, "count": 0.0}.items():
            self.register_buffer(name, torch.tensor(value))

    def extra_repr(self) -> str:
        return repr(self.policy)

    @property
    def running(self) -> list[torch.Tensor]:
        # signs and count are kept as totals over all processes and pieces: their mean over these is exact.
        return [self.signs, self.count] if self.adaptive else []

    def forward(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Augment `images`, batch.size of them or a multiple (real and generated together)."""
        if self.policy == "none":
            return images
        if images.dim() != 4 or len(images) % batch.size:
            raise ValueError(
                f"augmentation: images is {tuple(images.shape)}, expected [N, C, H, W] with N a multiple of {batch.size}"
            )
        draws = Draws(batch, len(images) // batch.size)
        dtype = torch.promote_types(images.dtype, torch.float32)
        with without_autocast(images):
            x = images.to(dtype)
            for function in POLICIES[self.policy]:
                x = function(x, draws, self.p.to(dtype))
            return x.to(images.dtype)

    @torch.no_grad()
    def observe(self, real_logits: torch.Tensor, batch: Batch) -> None:
        """Count the signs of D(real), [N, ...]; a patch discriminator's map is averaged. Of a relativistic loss, which leaves the
        logits' middle open, give them less that middle."""
        if self.adaptive:
            total = batch.size * batch.pieces * batch.processes
            self.signs += real_logits.float().sign().mean() * total
            self.count += total

    @torch.no_grad()
    def adjust(self, step: int) -> None:
        """Every INTERVAL steps, p += sign(r - target) * count / images; call it once before each step."""
        if not self.adaptive or step % INTERVAL:
            return
        counted = self.count > 0  # not before the first step, nor where a recipe pre-trains
        r = self.signs / self.count.clamp(min=1)
        self.overfitting.copy_(torch.where(counted, r, self.overfitting))
        move = torch.sign(r - self.target) * self.count / self.images
        self.p.copy_((self.p + move).clamp(0, 1))
        self.signs.zero_()
        self.count.zero_()

    def logs(self) -> dict[str, torch.Tensor]:
        """`augment_p` and `overfitting`, for the values that a loss returns; nothing where nothing is adapted."""
        return {"augment_p": self.p.clone(), "overfitting": self.overfitting.clone()} if self.adaptive else {}
