"""One draw per row from a categorical distribution, by inversion of its cumulative sum."""

import torch
from torch import Tensor

from fastgan.ops._checks import accumulation_dtype


def sample_categorical(
    logits: Tensor, generator: torch.Generator | None = None, *, uniform: Tensor | None = None
) -> Tensor:
    """Draws from softmax(logits) over the last dimension: [..., V] float -> int64 [...]. No gradient.

    One uniform number per row, from `generator` or given as `uniform` ([...], in [0, 1)); `torch.multinomial` draws V
    exponentials per row and takes 90 ms where this takes 3.2 (1000 x 5000, float32), of which softmax and
    cumulative sum are 3.1: no kernel is offered. Probabilities are resolved to 2^-24 of their sum: 16-bit logits are computed
    in float32. Rows of -inf alone, NaN or an empty last dimension have no meaning.
    """
    total = logits.detach().softmax(-1, dtype=accumulation_dtype(logits.dtype)).cumsum_(-1)
    if uniform is None:
        u = torch.rand(*total.shape[:-1], 1, generator=generator, device=total.device, dtype=total.dtype)
    else:
        u = uniform.to(total).unsqueeze(-1)
    # Rounding may lift u * sum to the sum itself, which no entry exceeds.
    u = torch.minimum(u * total[..., -1:], torch.nextafter(total[..., -1:], torch.zeros_like(u)))
    return torch.searchsorted(total, u, right=True).squeeze(-1)
