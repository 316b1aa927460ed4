"""filtered_lrelu at the layers of a 256-pixel alias-free generator: 12 taps per factor of 2, clamp 256, 15 to 17 of padding.

The floor is arithmetic: the multiply-adds that remain without inserted zeros and dropped outputs, two flops each, over the
rate of a loop of nothing but multiply-adds on the same threads. The backward pass is the same with the filters' roles
exchanged, as the forward keeps its signs. On a GPU the floor is memory: x read and y written once.
"""

import pytest
import torch
from machine import copy_rate, fma_peak

from fastgan.ops import filtered_lrelu

SHAPES = {  # input, taps of fu and fd, up, down, padding
    "up2 down2 2x512x86x86": ((2, 512, 86, 86), (12,), (12,), 2, 2, [9, 8, 9, 8]),
    "up2 down2 2x256x150x150": ((2, 256, 150, 150), (12,), (12,), 2, 2, [9, 8, 9, 8]),
    "up4 down2 2x362x86x86": ((2, 362, 86, 86), (24,), (12,), 4, 2, [17, 16, 17, 16]),
    "up4 down2 2x128x150x150": ((2, 128, 150, 150), (24,), (12,), 4, 2, [17, 16, 17, 16]),
    "radial up2 down2 2x128x86x86": ((2, 128, 86, 86), (12,), (12, 12), 2, 2, [9, 8, 9, 8]),
}
shapes = pytest.mark.parametrize("name", SHAPES)


def useful_flops(shape, fu, fd, up, down, padding, backward: bool = False) -> int:
    """Of a forward pass on square images: across x, along to t, along to the rows of y, across to y; 2-D filters at once."""
    n, c, h, _ = shape
    m = h * up + padding[0] + padding[1] - fu[0] + 1
    o = (m - fd[0]) // down + 1
    (h, fu, up), (o, fd, down) = ((o, fd, down), (h, fu, up)) if backward else ((h, fu, up), (o, fd, down))
    tu, td = fu[0], fd[0]
    first = h * m * (tu // up) + m * m * (tu // up) if len(fu) == 1 else m * m * (tu // up) ** 2
    second = o * m * td + o * o * td if len(fd) == 1 else o * o * td**2
    return 2 * n * c * (first + second)


def inputs(name, device):
    shape, fu, fd, up, down, padding = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    x, b = torch.randn(shape, generator=generator), torch.randn(shape[1], generator=generator)
    fu, fd = (torch.rand(f, generator=generator) for f in (fu, fd))
    arguments = [fu / fu.sum(), fd / fd.sum(), up, down, padding]
    return x.to(device), b.to(device), [a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments]


def with_impl(fu, fd, up, down, padding, impl):
    def function(x, b):
        return filtered_lrelu(x, fu, fd, b, up, down, padding, clamp=256.0, impl=impl)

    return function


@shapes
def bench_forward(compare, device, name):
    x, b, arguments = inputs(name, device)
    if device.type == "cpu":
        peak = fma_peak(torch.get_num_threads())
        floor = useful_flops(*SHAPES[name]) / peak if peak else None
    else:
        floor = (x.nbytes + with_impl(*arguments, "auto")(x, b).nbytes) / copy_rate(device)
    compare(
        f"forward {name}",
        lambda f: f(x, b),
        reference=with_impl(*arguments, "reference"),
        fastgan=with_impl(*arguments, "auto"),
        floor=floor,
    )


@shapes
def bench_forward_backward(compare, device, name):
    x, b, arguments = inputs(name, device)
    x.requires_grad_(), b.requires_grad_()
    useful = useful_flops(*SHAPES[name]) + useful_flops(*SHAPES[name], backward=True)

    def step(f):
        y = f(x, b)
        return (y, *torch.autograd.grad(y, [x, b], y.detach()))

    compare(
        f"forward+backward {name}",
        step,
        reference=with_impl(*arguments, "reference"),
        fastgan=with_impl(*arguments, "auto"),
        compiled=False,
        floor=useful / peak if device.type == "cpu" and (peak := fma_peak(torch.get_num_threads())) else None,
        tolerance=1e-4,  # sums of n h w numbers of both signs in the gradient of b
    )


def peak_bytes(function) -> int:
    """Greatest sum of live bytes that torch's CPU allocator gave out while `function` ran."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = function()
    del result
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.parametrize("name", ["up2 down2 2x512x86x86", "up2 down2 2x256x150x150"])
def bench_memory_of_training(name, record_property):
    """The forward with what it saves for the backward; threads' own rows (under 100 KB each) are not counted."""
    x, b, arguments = inputs(name, "cpu")
    x.requires_grad_(), b.requires_grad_()
    peaks = {impl: peak_bytes(lambda: with_impl(*arguments, impl)(x, b)) for impl in ("reference", "auto")}  # noqa: B023
    ratio = peaks["reference"] / peaks["auto"]
    text = ", ".join(f"{impl} {peak / 2**20:.0f} MiB" for impl, peak in peaks.items())
    print(f"\nfiltered_lrelu: peak of training forward {name}: {text}, ratio {ratio:.1f}")
    record_property("peak_ratio", ratio)
    assert ratio >= 8
