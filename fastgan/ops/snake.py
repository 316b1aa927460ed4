"""Snake: x + sin^2(alpha x) / (beta + eps), the pass of `filtered_snake` without filters."""

import torch

from fastgan.ops import _library
from fastgan.ops._checks import check_floating
from fastgan.ops.filtered_snake import frequency_and_amplitude


def snake(
    x: torch.Tensor,
    alpha: torch.Tensor,
    beta: torch.Tensor | None = None,
    logscale: bool = False,
    eps: float = 1e-9,
    *,
    impl: str = "auto",
) -> torch.Tensor:
    """x + sin^2(alpha x) / (beta + eps), alpha and beta per channel.

    Args:
        x: [N, C, ...]; float16, bfloat16, float32 or float64 (16-bit types are computed in float32).
        alpha, beta: [C] or [1, C, 1], of the dtype of x or that it is computed in; beta None is alpha. Any sign.
        logscale: alpha and beta are logarithms.
        eps: added to beta, after the exponential.
        impl: "auto", "reference", "cpp" (CPU) or "cuda".

    Returns: a contiguous tensor of the shape and dtype of x. Differentiable to any order in x, alpha and beta.

    Raises: TypeError, ValueError for wrong arguments; RuntimeError for an implementation that is not available here.

    Source: Ziyin et al. 2020 ("Neural Networks Fail to Learn Periodic Functions"), equation 3; beta: Lee et al. 2023
    ("BigVGAN"), section 3.

    Examples:
        >>> snake(torch.zeros(2, 8, 5), torch.ones(8)).sum()
        tensor(0.)
    """
    check_floating("snake", "x", x)
    if x.dim() < 2:
        raise ValueError(f"snake: x has shape {tuple(x.shape)}; expected [N, C, ...]")
    a, c = frequency_and_amplitude("snake", x, alpha, beta, logscale, eps)
    rows = x.flatten(2) if x.dim() > 2 else x[..., None]
    return _library.select("filtered_snake", impl, x)(rows, a, c, None, None, 1, 1).reshape(x.shape)
