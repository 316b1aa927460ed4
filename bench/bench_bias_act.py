"""bias_act: fused against its reference in eager mode and under torch.compile.

Floors are bytes moved (8 per element forward, 12 backward, in float32) at the copy rate of the machine.
"""

from functools import partial

import pytest
import torch
from machine import copy_rate

from fastgan.ops import available, bias_act

fused = partial(bias_act, act="lrelu", clamp=256.0)
reference = partial(bias_act, act="lrelu", clamp=256.0, impl="reference")
SHAPES = {
    "8x256x64x64": (8, 256, 64, 64),
    "8x512x16x16": (8, 512, 16, 16),
    "64x512": (64, 512),
}


def tensors(shape, device, memory_format=torch.contiguous_format, grad=False):
    x = torch.randn(shape, device=device)
    x = x.to(memory_format=memory_format) if x.dim() == 4 else x
    return x.requires_grad_(grad), torch.randn(shape[1], device=device).requires_grad_(grad)


@pytest.mark.parametrize("shape", SHAPES)
def bench_forward(compare, device, shape):
    """`clone` copies x and computes nothing: no kernel of one pass is much faster."""
    x, b = tensors(SHAPES[shape], device)
    copy = {"clone": lambda x, b: x.clone()}
    compare(f"forward {shape}", lambda f: f(x, b), reference=reference, fastgan=fused, unchecked=copy,
            floor=2 * x.nbytes / copy_rate(device))  # fmt: skip


def bench_forward_channels_last(compare, device):
    """`NCHW` is the same op on the same numbers the other way round: what the layout costs."""
    x, b = tensors(SHAPES["8x256x64x64"], device, torch.channels_last)
    planes = x.contiguous()
    compare(
        "forward 8x256x64x64 channels_last",
        lambda f: f(x, b),
        reference=reference,
        fastgan=fused,
        others={"NCHW": lambda _, b: fused(planes, b)},
        floor=2 * x.nbytes / copy_rate(device),
    )


@pytest.mark.parametrize("shape", ["8x256x64x64", "8x512x16x16"])
def bench_forward_backward(compare, device, shape):
    x, b = tensors(SHAPES[shape], device, grad=True)
    dy = torch.randn(x.shape, device=device)

    def step(f):
        return torch.autograd.grad(f(x, b), (x, b), dy)

    floor = 5 * x.nbytes / copy_rate(device)
    compare(f"forward + backward {shape}", step, reference=reference, fastgan=fused, floor=floor)


def bench_double_backward(compare, device):
    """A gradient penalty's three passes; torch.compile cannot differentiate twice."""
    x, b = tensors(SHAPES["8x256x64x64"], device, grad=True)
    dy = torch.randn(x.shape, device=device).requires_grad_()

    def step(f):
        (dx,) = torch.autograd.grad(f(x, b), x, dy, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), dy)

    compare("double backward 8x256x64x64", step, reference=reference, fastgan=fused, compiled=False, tolerance=5e-5)


@pytest.mark.parametrize("act", ["relu", "tanh", "sigmoid", "elu", "softplus", "swish"])
def bench_activations(compare, device, act):
    x, b = tensors(SHAPES["8x512x16x16"], device)
    compare(
        f"forward 8x512x16x16 {act}",
        lambda f: f(x, b, act=act),
        reference=partial(bias_act, impl="reference"),
        fastgan=bias_act,
    )


def at_level(level):
    def run(x, b):
        before = torch.ops.fastgan.cpu_level("")
        torch.ops.fastgan.cpu_level(level)
        try:
            return fused(x, b)
        finally:
            torch.ops.fastgan.cpu_level(before)

    return run


@pytest.mark.skipif(
    not available()["bias_act"]["cpp"] or torch.ops.fastgan.cpu_level("") != "avx512", reason="needs AVX-512"
)
@pytest.mark.parametrize("shape", ["8x256x64x64", "8x512x16x16"])
def bench_cpu_levels(compare, device, shape):
    x, b = tensors(SHAPES[shape], device)
    compare(
        f"instruction sets {shape}",
        lambda f: f(x, b),
        reference=reference,
        fastgan=at_level("avx512"),
        others={"avx2": at_level("avx2"), "portable": at_level("portable")},
        compiled=False,
    )


def on_threads(threads):
    def run(x, b):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return fused(x, b)
        finally:
            torch.set_num_threads(before)

    return run


@pytest.mark.skipif(not available()["bias_act"]["cpp"], reason="not compiled")
def bench_threads_in_cache(compare, device):
    x, b = tensors((8, 512, 16, 16), device)
    compare(
        "threads 8x512x16x16",
        lambda f: f(x, b),
        reference=reference,
        fastgan=on_threads(2),
        others={"one thread": on_threads(1)},
        compiled=False,
    )
