"""What fastgan's frozen networks use of torch that torch does not promise: the packed convolutions of oneDNN that its compiler
calls, with the activation and the sum inside, and the mode of dispatch that sees every operation.

Beside _torch_private.py, under its rule: tests/test_torch_packed.py fails where a new torch changes one of these.
"""

from __future__ import annotations

import functools

import torch
from torch.utils._python_dispatch import TorchDispatchMode as DispatchMode  # noqa: F401 - nothing is frozen without it
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten  # noqa: F401


def keeps_nan(act: str, numbers) -> bool:
    """Whether oneDNN gives what torch gives at NaN and infinities: its maximum and minimum make a number of NaN."""
    return act not in ("relu", "hardtanh") and not (act == "leaky_relu" and numbers[0] == 0)


@functools.cache
def has_packed() -> bool:
    """Whether packed convolutions are there and mean what they say. Without them torch's own run, the activation after them."""
    made = {"device": "cpu", "dtype": torch.float32}  # whatever the defaults are just now: the answer is kept
    x, w = torch.ones(1, 2, 3, 3, **made), torch.full((4, 2, 3, 3), -1.0, **made)
    form = ((1, 1), (1, 1), (1, 1), 1)
    try:
        packed = pack(w, (0, 0), *form, False, x.shape)
        plain = convolve(x, packed, None, (0, 0), *form, False, "leaky_relu", (0.5,))
        total = convolve_add(x, torch.full_like(plain, 20.0), packed, None, *form, False)
        turned = pack(w.transpose(0, 1).contiguous(), (0, 0), *form, True, x.shape)
        back = convolve(x, turned, None, (0, 0), *form, True, "none", ())
    except (AttributeError, RuntimeError, TypeError):
        return False
    return [t[0, 0, 1, 1].item() for t in (plain, total, back)] == [-9.0, 2.0, -18.0]


def pack(w, output_padding, stride, padding, dilation, groups: int, transposed: bool, size) -> torch.Tensor:
    """Weight w in the layout that oneDNN likes for images of `size` [N, C, H, W]; an opaque tensor."""
    mkldnn = torch.ops.mkldnn
    if transposed:
        return mkldnn._reorder_convolution_transpose_weight(w, padding, output_padding, stride, dilation, groups, size)
    return mkldnn._reorder_convolution_weight(w, padding, stride, dilation, groups, size)


def convolve(x, packed, bias, output_padding, stride, padding, dilation, groups, transposed, act: str, numbers):
    """act(convolution of x with packed weights + bias)."""
    mkldnn = torch.ops.mkldnn
    if transposed:
        rest = (padding, output_padding, stride, dilation, groups, act, numbers, "")
        return mkldnn._convolution_transpose_pointwise(x, packed, bias, *rest)
    return mkldnn._convolution_pointwise(x, packed, bias, padding, stride, dilation, groups, act, numbers, "")


def convolve_add(x, other, packed, bias, stride, padding, dilation, groups, over: bool):
    """other + convolution of x with packed weights + bias; `over`: written over `other`."""
    mkldnn = torch.ops.mkldnn
    form = (padding, stride, dilation, groups)
    if over:
        return mkldnn._convolution_pointwise_.binary(other, x, packed, bias, *form, "add", 1.0, None, (), "")
    return mkldnn._convolution_pointwise.binary(x, other, packed, bias, *form, "add", 1.0, None, (), "")
