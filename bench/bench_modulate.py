"""modulate: the scaling before the convolution of a StyleGAN2 layer, with its two gradients, against PyTorch's product. On a CPU
both are PyTorch's: there the bench says only that nothing is lost. Floors are bytes moved (8 per element forward, 12
backward, in float32) at the copy rate of the machine.
"""

import pytest
import torch
from machine import copy_rate

from fastgan.ops import modulate

SHAPES = {"16x512x16x16": (16, 512, 16, 16), "8x256x64x64": (8, 256, 64, 64)}


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_forward_backward(compare, device, shape, last):
    x = torch.randn(SHAPES[shape], device=device)
    x = (x.contiguous(memory_format=torch.channels_last) if last else x).requires_grad_()
    scale = torch.randn(SHAPES[shape][:2], device=device).requires_grad_()
    dy = torch.randn_like(x)

    def step(f):
        return torch.autograd.grad(f(x, scale), (x, scale), dy)

    compare(f"forward + backward {shape}{' channels_last' * last}", step, reference=lambda x, s: x * s[:, :, None, None],
            fastgan=modulate.apply, compiled=False, floor=5 * x.nbytes / copy_rate(device), tolerance=1e-4)  # fmt: skip
