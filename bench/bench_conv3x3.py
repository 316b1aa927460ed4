"""3x3 convolutions of stride 1 by Winograd's algorithm, against torch's (oneDNN, direct) and its gradients; last layers of image
generators: 7x7 to 3 channels by columns; the first layer of stride 2 of a DCGAN generator by rows.

Floor: 2 * 9 / 2.25 products per output and input channel at the peak of the FMA units. Times it, on two cores: Zen 4 (232 GFLOPS)
1.2 to 1.4 for 256 channels, 1.4 to 2.5 for 64 channels or few tiles; Xeon (430 GFLOPS) 1.8 for 256 channels, else 2 to 2.8; Zen 3
without AVX-512 (172 GFLOPS) 2 to 2.5. The rest is the transforms and, on the Xeon, the kernels from the L3 cache.
"""

import pytest
import torch
import torch.nn.functional as F
from machine import fma_peak

from fastgan.ops import available, conv2d, conv_transpose2d

CASES = {  # x, outputs
    "1x256x66x66": ((1, 256, 66, 66), 256),
    "2x256x34x34": ((2, 256, 34, 34), 256),
    "8x64x34x34": ((8, 64, 34, 34), 64),
    "8x512x10x10": ((8, 512, 10, 10), 512),
}
compiled = pytest.mark.skipif(not available()["conv3x3"]["cpp"], reason="not compiled")


def operands(case, layout):
    shape, outputs = CASES[case]
    x = torch.randn(shape).contiguous(memory_format=layout)
    weight, bias = torch.randn(outputs, shape[1], 3, 3), torch.randn(outputs)
    flops = 2 * 4 * outputs * shape[0] * shape[1] * (shape[2] - 2) * (shape[3] - 2)
    peak = fma_peak(torch.get_num_threads())
    return x, weight, bias, flops / peak if peak else None


@compiled
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels last", "NCHW"])
@pytest.mark.parametrize("case", CASES)
def bench_forward(compare, case, layout):
    x, weight, bias, floor = operands(case, layout)
    name = f"forward {case} {str(layout).removeprefix('torch.')}"
    compare(name, lambda f: f(x, weight, bias), reference=F.conv2d, fastgan=conv2d, floor=floor)


@compiled
@pytest.mark.parametrize("by", ["x", "weight", "x and weight"])
@pytest.mark.parametrize("case", CASES)
def bench_gradient(compare, case, by):
    x, weight, bias, floor = operands(case, torch.channels_last)
    wanted = {"x": [x], "weight": [weight], "x and weight": [x, weight]}[by]
    for t in wanted:
        t.requires_grad_()
    outputs = {f: f(x, weight, bias) for f in (F.conv2d, conv2d)}
    dy = torch.randn_like(outputs[conv2d])

    def step(f):
        return torch.autograd.grad(outputs[f], wanted, dy, retain_graph=True)

    compare(
        f"gradient by {by} {case}",
        step,
        reference=F.conv2d,
        fastgan=conv2d,
        compiled=False,
        floor=floor and floor * len(wanted),
        tolerance=1e-4,
    )


@pytest.mark.parametrize("size", [256, 128])
def bench_to_an_image(compare, size):
    x, weight, bias = torch.randn(1, 64, size + 6, size + 6), torch.randn(3, 64, 7, 7), torch.randn(3)
    case = f"forward 1x64x{size + 6}x{size + 6}, 7x7 to 3 channels"
    compare(case, lambda f: f(x, weight, bias), reference=F.conv2d, fastgan=conv2d)


@pytest.mark.parametrize(("batch", "channels"), [(1, 512), (8, 512), (32, 512), (8, 1024)])
def bench_transposed_of_small_images(compare, batch, channels):
    x, weight = torch.randn(batch, channels, 4, 4), torch.randn(channels, channels // 2, 4, 4)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    compare(
        f"forward {batch}x{channels}x4x4, transposed 4x4 to {channels // 2} channels",
        lambda f: f(x, weight, stride=2, padding=1),
        reference=F.conv_transpose2d,
        fastgan=conv_transpose2d,
        tolerance=1e-4,
    )
