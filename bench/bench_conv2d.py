"""conv2d and conv_transpose2d against torch's own: a gradient penalty's passes (double backward), and a backward pass without
weight gradients. Forward and first backward call the same operators as torch's: nothing to win there.
"""

import pytest
import torch
import torch.nn.functional as F

from fastgan.ops import conv2d, conv_transpose2d, no_weight_gradients

# name: x, weight, options, transposed
CASES = {
    "3x3 8x64x32x32": ((8, 64, 32, 32), (64, 64, 3, 3), dict(padding=1), False),
    "3x3 32x128x16x16": ((32, 128, 16, 16), (128, 128, 3, 3), dict(padding=1), False),
    "4x4 stride 2 32x64x32x32": ((32, 64, 32, 32), (128, 64, 4, 4), dict(stride=2, padding=1), False),
    "1x1 8x128x32x32": ((8, 128, 32, 32), (128, 128, 1, 1), {}, False),
    "3x3 groups 8 8x64x32x32": ((8, 64, 32, 32), (64, 8, 3, 3), dict(padding=1, groups=8), False),
    "3x3 groups 64 8x64x32x32": ((8, 64, 32, 32), (64, 1, 3, 3), dict(padding=1, groups=64), False),
    "modulated groups 4 1x256x32x32": ((1, 256, 32, 32), (256, 64, 3, 3), dict(padding=1, groups=4), False),
    "transposed 4x4 stride 2 16x64x16x16": ((16, 64, 16, 16), (64, 64, 4, 4), dict(stride=2, padding=1), True),
    "transposed groups 4 4x64x16x16": ((4, 64, 16, 16), (64, 16, 4, 4), dict(stride=2, padding=1, groups=4), True),
}


def tensors(case, device):
    x_shape, w_shape, options, transposed = CASES[case]
    x, w = (torch.randn(s, device=device, requires_grad=True) for s in (x_shape, w_shape))
    pair = (F.conv_transpose2d, conv_transpose2d) if transposed else (F.conv2d, conv2d)
    return x, w, [lambda *t, f=f: f(*t, None, **options) for f in pair]


@pytest.mark.parametrize("case", CASES)
def bench_double_backward(compare, device, case):
    """By x too, as every layer of a network but the first needs it."""
    x, w, (reference, fastgan) = tensors(case, device)

    def step(f):
        with no_weight_gradients():
            (g,) = torch.autograd.grad(f(x, w).sin().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), (x, w))

    compare(f"penalty {case}", step, reference=reference, fastgan=fastgan, compiled=False, tolerance=1e-4)


@pytest.mark.parametrize("case", ["3x3 32x128x16x16", "transposed 4x4 stride 2 16x64x16x16"])
def bench_no_weight_gradients(compare, device, case):
    """The penalty's first pass needs the gradient by x alone; `w` still requires one, as a network's weights do."""
    x, w, (reference, fastgan) = tensors(case, device)

    def step(f):
        h = f(x * 1, w)
        with no_weight_gradients():
            x.grad = None
            h.backward(torch.ones_like(h))
        w.grad = None
        return x.grad.clone()

    compare(f"backward, no weight gradient {case}", step, reference=reference, fastgan=fastgan, compiled=False)
