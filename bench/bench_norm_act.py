"""norm_act: instance normalisation, activation and residual in one visit, against its reference in eager mode and under
torch.compile, and against torch's own F.instance_norm followed by the activation. Floors: every tensor read or written once.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from machine import copy_rate

from fastgan.ops import available, norm_act

reference = partial(norm_act, impl="reference")
SHAPES = {
    "1x64x256x256": (1, 64, 256, 256),
    "1x256x64x64": (1, 256, 64, 64),
    "8x64x32x32": (8, 64, 32, 32),
    "1x3x512x512": (1, 3, 512, 512),
}
needs_kernel = pytest.mark.skipif(not available()["norm_act"]["cpp"], reason="not compiled")


def instance_norm(x, weight=None, bias=None, residual=None, act="relu"):
    y = F.instance_norm(x, weight=weight, bias=bias)
    y = F.relu(y) if act == "relu" else y
    return y if residual is None else y + residual


def image(shape, device, memory_format=torch.contiguous_format, grad=False):
    return torch.randn(shape, device=device).to(memory_format=memory_format).requires_grad_(grad)


@pytest.mark.parametrize("shape", SHAPES)
def bench_forward(compare, device, shape):
    x = image(SHAPES[shape], device)
    compare(
        f"forward {shape} relu",
        lambda f: f(x),
        reference=reference,
        fastgan=norm_act,
        others={"F.instance_norm": instance_norm},
        floor=2 * x.nbytes / copy_rate(device),
    )


@pytest.mark.parametrize("act", ["linear", "relu"])
def bench_residual(compare, device, act):
    x, residual = (image(SHAPES["1x64x256x256"], device) for _ in range(2))
    compare(
        f"forward 1x64x256x256 {act} + residual",
        lambda f: f(x, None, None, residual, act),
        reference=reference,
        fastgan=norm_act,
        others={"F.instance_norm": instance_norm},
        floor=3 * x.nbytes / copy_rate(device),
    )


def bench_channels_last(compare, device):
    """`NCHW` is the same op on the same numbers the other way round: what the layout costs."""
    x = image(SHAPES["1x64x256x256"], device, torch.channels_last)
    planes = x.contiguous()
    compare(
        "forward 1x64x256x256 relu channels_last",
        lambda f: f(x),
        reference=reference,
        fastgan=norm_act,
        others={"NCHW": lambda _: norm_act(planes)},
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("shape", ["1x64x256x256", "1x256x64x64"])
def bench_forward_backward(compare, device, shape, layout):
    x = image(SHAPES[shape], device, layout, grad=True)
    dy = torch.randn(x.shape, device=device).to(memory_format=layout)
    compare(
        f"forward + backward {shape} relu{'' if layout == torch.contiguous_format else ' channels_last'}",
        lambda f: torch.autograd.grad(f(x), x, dy),
        reference=reference,
        fastgan=norm_act,
        others={"F.instance_norm": instance_norm},
    )


def bench_affine_forward_backward(compare, device):
    x = image(SHAPES["1x64x256x256"], device, grad=True)
    weight, bias = (torch.randn(x.shape[1], device=device).requires_grad_() for _ in range(2))
    dy = torch.randn(x.shape, device=device)
    compare(
        "forward + backward 1x64x256x256 relu, weight and bias",
        lambda f: torch.autograd.grad(f(x, weight, bias), (x, weight, bias), dy),
        reference=reference,
        fastgan=norm_act,
        others={"F.instance_norm": instance_norm},
        tolerance=1e-4,  # of sums over 65536 pixels
    )


def at_level(level):
    def run(x):
        before = torch.ops.fastgan.cpu_level("")
        torch.ops.fastgan.cpu_level(level)
        try:
            return norm_act(x)
        finally:
            torch.ops.fastgan.cpu_level(before)

    return run


@needs_kernel
@pytest.mark.skipif(torch.ops.fastgan.cpu_level("") != "avx512", reason="needs AVX-512")
def bench_cpu_levels(compare, device):
    x = image(SHAPES["1x256x64x64"], device)
    compare(
        "instruction sets 1x256x64x64 relu",
        lambda f: f(x),
        reference=reference,
        fastgan=at_level("avx512"),
        others={"avx2": at_level("avx2"), "portable": at_level("portable")},
        compiled=False,
    )
