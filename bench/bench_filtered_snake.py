"""filtered_snake at two layers of a vocoder, SnakeBeta in log scale with 12 taps each way, against the definition in PyTorch.

The floor is the slower of memory (x read and y written once) and arithmetic: 24 multiply-adds and two sines of 9 operations per
element, at the rate of a loop of nothing but multiply-adds on the same threads.
"""

import pytest
import torch
import torch.nn.functional as F
from machine import copy_rate, fma_peak

from fastgan.ops import filtered_snake, kaiser_sinc_filter, snake

SHAPES = {"1x256x4096": (1, 256, 4096), "1x24x65536": (1, 24, 65536)}
shapes = pytest.mark.parametrize("name", SHAPES)
OPERATIONS = 24 + 2 * 9


def definition(x, alpha, beta, f):
    """As its users write it: replicated ends, depthwise convolutions, the activation between."""
    channels = x.shape[1]
    filters = f.expand(channels, 1, -1)
    t = 2 * F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), filters, stride=2, groups=channels)[..., 15:-15]
    alpha, beta = alpha.exp()[:, None], beta.exp()[:, None]
    v = t + torch.sin(t * alpha).pow(2) * (1 / (beta + 1e-9))
    return F.conv1d(F.pad(v, (5, 6), mode="replicate"), filters, stride=2, groups=channels)


def fused(x, alpha, beta, f):
    return filtered_snake(x, alpha, beta, f, f, logscale=True)


def inputs(name, device):
    shape = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    x, alpha, beta = (
        torch.randn(s, generator=generator) * k for s, k in ((shape, 1), (shape[1], 0.4), (shape[1], 0.4))
    )
    return [t.to(device) for t in (x, alpha, beta, kaiser_sinc_filter(0.25, 0.3, 12))]


def floor(x, passes, device):
    memory = passes * x.nbytes / copy_rate(device)
    peak = fma_peak(torch.get_num_threads()) if device.type == "cpu" else None
    return max(memory, 2 * OPERATIONS * x.numel() / peak) if peak else memory


@shapes
def bench_forward(compare, device, name):
    tensors = inputs(name, device)
    compare(
        f"forward {name}",
        lambda f: f(*tensors),
        reference=definition,
        fastgan=fused,
        compiled=True,
        floor=floor(tensors[0], 2, device),
    )


@shapes
def bench_forward_backward(compare, device, name):
    tensors = inputs(name, device)
    trained = [t.requires_grad_() for t in tensors[:3]]
    dy = torch.randn_like(tensors[0])

    def step(f):
        y = f(*tensors)
        return (y, *torch.autograd.grad(y, trained, dy))

    compare(
        f"forward+backward {name}",
        step,
        reference=definition,
        fastgan=fused,
        compiled=True,
        tolerance=1e-4,
    )


@shapes
def bench_snake(compare, device, name):
    """The activation alone, as codecs have it."""
    x, alpha, beta, _ = inputs(name, device)
    alpha, beta = alpha.exp(), beta.exp()
    compare(
        f"snake alone {name}",
        lambda f: f(x, alpha, beta),
        reference=lambda x, a, b: x + (1 / (b[:, None] + 1e-9)) * torch.sin(a[:, None] * x).pow(2),
        fastgan=snake,
        compiled=True,
    )
