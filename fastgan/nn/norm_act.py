"""Instance normalisation, activation and residual as a module over `fastgan.ops.norm_act`."""

import torch
from torch import nn

from fastgan.ops import norm_act
from fastgan.ops._checks import check_rank


class InstanceNormAct2d(nn.Module):
    """act(instance_norm(x) weight + bias) + residual: `torch.nn.InstanceNorm2d`, an activation and a sum in one pass.

    Args: num_features: C; act, alpha, eps: as of `fastgan.ops.norm_act`; affine: True for weight and bias.
    state_dict: that of `torch.nn.InstanceNorm2d` without running statistics: `weight` [C], `bias` [C], or nothing.
    """

    def __init__(
        self,
        num_features: int,
        act: str = "relu",
        alpha: float | None = None,
        eps: float = 1e-5,
        affine: bool = False,
    ) -> None:
        super().__init__()
        self.act, self.alpha, self.eps = act, alpha, eps
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x, residual [N, C, H, W] -> [N, C, H, W]. Raises ValueError for another rank: [C, H, W] could be [N, C, T]."""
        check_rank("InstanceNormAct2d", "x", x, 4)
        return norm_act(x, self.weight, self.bias, residual, self.act, self.alpha, self.eps)

    def extra_repr(self) -> str:
        return f"act={self.act!r}, eps={self.eps}, affine={self.weight is not None}"
