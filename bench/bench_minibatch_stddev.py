"""minibatch_stddev against the same formula with torch.var, in eager mode and under torch.compile."""

import pytest
import torch

from fastgan.ops import minibatch_stddev

SHAPES = {"64x512x4x4": (64, 512, 4, 4), "16x512x4x4": (16, 512, 4, 4)}


def reference(x, group_size=4):
    n, c, h, w = x.shape
    variance = x.reshape(group_size, n // group_size, c, h, w).var(0, correction=0)
    deviation = (variance + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, deviation.repeat(group_size)[:, None, None, None].expand(-1, 1, h, w)], 1)


@pytest.mark.parametrize("shape", SHAPES)
def bench_forward(compare, device, shape):
    x = torch.randn(SHAPES[shape], device=device)
    compare(f"forward {shape}", lambda f: f(x), reference=reference, fastgan=minibatch_stddev)


def bench_forward_backward(compare, device):
    x = torch.randn(SHAPES["64x512x4x4"], device=device, requires_grad=True)
    dy = torch.randn(64, 513, 4, 4, device=device)
    compare(
        "forward + backward 64x512x4x4",
        lambda f: torch.autograd.grad(f(x), x, dy),
        reference=reference,
        fastgan=minibatch_stddev,
    )
