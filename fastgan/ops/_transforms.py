"""What an op leaves out under a transform of `torch.func`.

Under one, an op is its reference (`_library.select`): torch operations, which have every rule of batching and
differentiation. Memory formats are not theirs to know: a batched tensor's strides are those of the whole batch.
"""

import torch

from fastgan._torch_private import transforming


def in_layout_of(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """t with the strides of torch.empty_like(x), those of a result in the memory format of x."""
    if transforming():
        return t
    out = torch.empty_like(x, dtype=t.dtype)
    # The functional copy, which export needs, has no derivative.
    return out.copy_(t) if t.requires_grad else torch.ops.aten.copy(out, t)
