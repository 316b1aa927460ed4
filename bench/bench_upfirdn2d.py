"""upfirdn2d with the 4 taps of StyleGAN2: fused against its reference in eager mode and under torch.compile.

The floor of a forward is x read and y written once at the rate of `torch.Tensor.copy_` between tensors that exist already.
"""

import pytest
import torch
from machine import copy_rate

from fastgan.ops import setup_filter, upfirdn2d

CASES = {  # input; up, down, padding
    "blur 8x256x65x65": ((8, 256, 65, 65), 1, 1, [1, 1, 1, 1]),
    "up2 8x256x64x64": ((8, 256, 64, 64), 2, 1, [2, 1, 2, 1]),
    "down2 8x256x64x64": ((8, 256, 64, 64), 1, 2, [1, 1, 1, 1]),
    "up2 8x3x128x128": ((8, 3, 128, 128), 2, 1, [2, 1, 2, 1]),
}
cases = pytest.mark.parametrize("name", CASES)


def filtering(name, device, impl):
    _, up, down, padding = CASES[name]
    f = setup_filter([1, 3, 3, 1], device=device)

    def function(x):
        return upfirdn2d(x, f, up, down, padding, gain=up * up, impl=impl)

    return function


def image(name, device, memory_format=torch.contiguous_format):
    return torch.randn(CASES[name][0], device=device).contiguous(memory_format=memory_format)


def implementations(name, device):
    return {"reference": filtering(name, device, "reference"), "fastgan": filtering(name, device, "auto")}


@cases
def bench_forward(compare, device, name):
    x, functions = image(name, device), implementations(name, device)
    traffic = x.nbytes + functions["fastgan"](x).nbytes
    compare(f"forward {name}", lambda f: f(x), **functions, floor=traffic / copy_rate(device))


@cases
def bench_forward_backward(compare, device, name):
    x, functions = image(name, device).requires_grad_(), implementations(name, device)
    dy = torch.randn_like(functions["fastgan"](x))
    compare(f"forward + backward {name}", lambda f: torch.autograd.grad(f(x), x, dy), **functions)


@cases
def bench_forward_channels_last(compare, device, name):
    """`NCHW` is the same op on the same numbers the other way round: what the layout costs."""
    x, functions = image(name, device, torch.channels_last), implementations(name, device)
    planes = x.contiguous()
    compare(
        f"forward {name} channels_last",
        lambda f: f(x),
        **functions,
        others={"NCHW": lambda _: functions["fastgan"](planes)},
    )
