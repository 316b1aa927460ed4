"""Normalisation of the second moment along one dimension."""

import torch

from fastgan.ops._autocast import outside_autocast
from fastgan.ops._checks import check_floating, check_integer, check_number


@outside_autocast
def pixel_norm(x: torch.Tensor, dim: int = 1, eps: float = 1e-8) -> torch.Tensor:
    """x / sqrt(mean(x^2 along `dim`) + eps): the feature vector of every pixel (or latent) gets unit second moment.

    Args:
        x: any shape with dimension `dim`; float16, bfloat16, float32 or float64 (16-bit types are computed in float32).
        dim: the dimension of the features.
        eps: added to the mean square, > 0: the gradient at zero stays finite.

    Returns: a tensor of the shape and dtype of x, differentiable to any order.
    Raises: TypeError, ValueError for wrong arguments.
    Source: Karras et al. 2018 ("Progressive Growing of GANs"), section 4.2.
    """
    check_floating("pixel_norm", "x", x)
    check_integer("pixel_norm", "dim", dim)
    eps = check_number("pixel_norm", "eps", eps)
    if not -x.dim() <= dim < x.dim():
        raise ValueError(f"pixel_norm: dim={dim}; expected a dimension of x, which has shape {tuple(x.shape)}")
    if not eps > 0:
        raise ValueError(f"pixel_norm: eps={eps}; expected a number > 0")
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return (wide * (wide.square().mean(dim, keepdim=True) + eps).rsqrt()).to(x.dtype)
