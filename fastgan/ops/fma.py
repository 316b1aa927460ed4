"""a * b + c with gradients summed back to broadcast arguments."""

import torch

from fastgan.ops._autocast import outside_autocast
from fastgan.ops._checks import check_floating, check_like


@outside_autocast
def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """a * b + c, broadcast. `torch.addcmul` is one pass over memory already, so there is no kernel of our own.

    Args:
        a, b, c: broadcastable tensors of one device and one dtype (float16, bfloat16, float32 or float64).

    Returns: a tensor of the broadcast shape, differentiable to any order.
    Raises: TypeError, ValueError for wrong arguments.
    """
    for name, t in (("a", a), ("b", b), ("c", c)):
        check_floating("fma", name, t)
        check_like("fma", name, t, a)
    try:
        torch.broadcast_shapes(a.shape, b.shape, c.shape)
    except RuntimeError as error:
        raise ValueError(
            f"fma: shapes {tuple(a.shape)}, {tuple(b.shape)}, {tuple(c.shape)}; expected broadcastable ones"
        ) from error
    return torch.addcmul(c, a, b)
