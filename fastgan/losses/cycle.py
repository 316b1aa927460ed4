"""Losses of unpaired image translation (Zhu et al. 2017, CycleGAN)."""

from __future__ import annotations

import torch

from fastgan.ops._checks import accumulation_dtype, check_floating

__all__ = ["cycle", "identity"]


def _l1(name: str, real: torch.Tensor, image: torch.Tensor, weight: float) -> torch.Tensor:
    check_floating(name, "real", real)
    check_floating(name, "image", image)
    if real.shape != image.shape or real.dim() < 2:
        raise ValueError(
            f"{name}: images of shape {tuple(image.shape)} against {tuple(real.shape)}; expected the same [N, ...]"
        )
    dtype = accumulation_dtype(real.dtype)
    return weight * (image.to(dtype) - real.to(dtype)).abs().flatten(1).mean(1)


def cycle(real: torch.Tensor, reconstructed: torch.Tensor, weight: float = 10.0) -> torch.Tensor:
    """weight |F(G(x)) - x|_1, mean over pixels and channels (Zhu et al. 2017, eq. 2).

    Args:
        real: images [N, ...]; reconstructed: the same images there and back, same shape.
        weight: lambda of eq. 3.

    Returns: [N], float32 (float64 for float64). Raises: TypeError, ValueError for other types or unequal shapes.
    """
    return _l1("cycle", real, reconstructed, weight)


def identity(real: torch.Tensor, same: torch.Tensor, weight: float = 5.0) -> torch.Tensor:
    """weight |G(y) - y|_1, mean over pixels and channels (Zhu et al. 2017, section 5.2): what already belongs to the
    target domain should not change.

    Args:
        real: images [N, ...] of the target domain; same: G of them, same shape.
        weight: half of the cycle's weight in the paper.

    Returns: [N], float32 (float64 for float64). Raises: TypeError, ValueError for other types or unequal shapes.
    """
    return _l1("identity", real, same, weight)
