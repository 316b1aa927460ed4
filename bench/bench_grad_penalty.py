"""grad_penalty: the tail of a penalty against its reference.

The floor is one read of the gradient (and for forward + backward one more, and one write): nothing here is worth more than
0.1% of a discriminator step on a CPU (see fastgan/ops/grad_penalty.py); the bench shows that the op costs none either.
"""

from functools import partial

import pytest
import torch

from fastgan.ops import grad_penalty

SHAPES = [(16, 64), (64, 512), (16, 3, 32, 32), (32, 3, 64, 64), (64, 3, 64, 64), (8, 3, 256, 256), (16, 64, 64, 64)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


@shapes
@pytest.mark.parametrize("kind", ["r1", "wgan-gp"])
def bench_forward(compare, device, shape, kind):
    g = torch.randn(shape, device=device)
    functions = {"reference": partial(grad_penalty, impl="reference"), "fastgan": grad_penalty}
    compare(f"forward {kind} {'x'.join(map(str, shape))}", lambda f: f(g, kind), **functions, compiled=False)


@shapes
@pytest.mark.parametrize("kind", ["r1", "wgan-gp"])
def bench_forward_backward(compare, device, shape, kind):
    g = torch.randn(shape, device=device, requires_grad=True)
    functions = {"reference": partial(grad_penalty, impl="reference"), "fastgan": grad_penalty}
    compare(
        f"forward + backward {kind} {'x'.join(map(str, shape))}",
        lambda f: torch.autograd.grad(f(g, kind).sum(), g),
        **functions,
        compiled=False,
    )
