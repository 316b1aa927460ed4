"""modulated_activation: what follows the convolution of a StyleGAN2 layer in one pass, against two: demodulation and noise, then
`bias_act`. Floors are bytes moved (8 per element forward, 16 backward, in float32) at the copy rate of the machine.
"""

import pytest
import torch
from machine import copy_rate

from fastgan.ops import bias_act, modulated_activation

SHAPES = {"16x256x16x16": (16, 256, 16, 16), "8x64x64x64": (8, 64, 64, 64), "4x32x256x256": (4, 32, 256, 256)}


def fused(x, scale, noise, bias):
    return modulated_activation.apply(x, scale, noise, bias, "lrelu", None, 256.0)


def two_passes(x, scale, noise, bias):
    return bias_act(torch.addcmul(noise, x, scale[:, :, None, None]), bias, act="lrelu", clamp=256.0)


def tensors(shape, device, last=False):
    """Both sides round t alike, as scales are powers of two and biases 0: at a kink a gradient would else tell them apart."""
    n, c, h, w = shape
    x = torch.randn(shape, device=device)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    scale = 2.0 ** torch.randint(-2, 3, (n, c), device=device)
    return [
        t.requires_grad_() for t in (x, scale, torch.randn(n, 1, h, w, device=device), torch.zeros(c, device=device))
    ]


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_forward(compare, device, shape, last):
    given = [t.detach() for t in tensors(SHAPES[shape], device, last)]
    compare(f"forward {shape}{' channels_last' * last}", lambda f: f(*given), reference=two_passes, fastgan=fused, compiled=False,
            floor=2 * given[0].nbytes / copy_rate(device))  # fmt: skip


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES)
def bench_forward_backward(compare, device, shape, last):
    given = tensors(SHAPES[shape], device, last)
    dy = torch.randn_like(given[0])

    def step(f):
        return torch.autograd.grad(f(*given), given, dy)

    name, floor = f"forward + backward {shape}{' channels_last' * last}", 6 * dy.nbytes / copy_rate(device)
    compare(name, step, reference=two_passes, fastgan=fused, compiled=False, floor=floor, tolerance=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def bench_double_backward(compare, device, shape):
    """As the path length's penalty takes it: gradients of those of x and scale."""
    given = tensors(SHAPES[shape], device)
    dy = torch.randn_like(given[0]).requires_grad_()

    def step(f):
        first = torch.autograd.grad(f(*given), given[:2], dy, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (*given[:2], dy))

    compare(f"double backward {shape}", step, reference=two_passes, fastgan=fused, compiled=False, tolerance=1e-3)
