"""Second-moment normalisation as a module over `fastgan.ops.pixel_norm`."""

import torch
from torch import nn

from fastgan.ops import pixel_norm


class PixelNorm(nn.Module):
    """x / sqrt(mean(x^2 along `dim`) + eps), of the shape of x. Arguments: those of `fastgan.ops.pixel_norm`. No state."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pixel_norm(x, self.dim, self.eps)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, eps={self.eps}"
