"""Whether a transform of `torch.func` is active, and what an op then leaves out.

Under one, an op is its reference (`_library.select`): torch operations, which have every rule of batching and
differentiation. Memory formats are not theirs to know: a batched tensor's strides are those of the whole batch.
"""

import torch
from torch.autograd import forward_ad

# Private to torch. Without it a transform meets the registered op, of which torch then says that it has no rule.
_functorch_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


def transforming() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp and what is made of them) or forward-mode AD is active."""
    return _functorch_active() or getattr(forward_ad, "_current_level", -1) >= 0


def in_layout_of(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """t with the strides of torch.empty_like(x), those of a result in the memory format of x."""
    if transforming():
        return t
    out = torch.empty_like(x, dtype=t.dtype)
    # The functional copy, which export needs, has no derivative.
    return out.copy_(t) if t.requires_grad else torch.ops.aten.copy(out, t)
