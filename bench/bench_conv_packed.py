"""Convolutions with packed weights, as a frozen network has them (fastgan/patch/frozen), against torch's on channels-last images.

The floor is the products at the rate of a loop of nothing but multiply-adds; `conv3x3_packed`, Winograd's F(4x4, 3x3), makes a
quarter of them, and its floor is that of this quarter.
"""

import pytest
import torch
from machine import fma_peak

import fastgan.patch.frozen  # noqa: F401  (the ops)
from fastgan.ops import conv_packed

# images, inputs, height, width, outputs, kernel, stride, transposed
CASES = {
    "HiFi-GAN, 256 channels, kernel 11": (1, 256, 1, 800, 256, (1, 11), (1, 1), False),
    "HiFi-GAN, 32 channels, kernel 7": (1, 32, 1, 25600, 32, (1, 7), (1, 1), False),
    "U-Net, 64 to 128 channels, 4x4 stride 2": (1, 64, 128, 128, 128, (4, 4), (2, 2), False),
    "DCGAN, 256 to 128 channels, transposed 4x4 stride 2": (16, 256, 8, 8, 128, (4, 4), (2, 2), True),
    "3x3, 64 channels, 128 px": (1, 64, 128, 128, 64, (3, 3), (1, 1), False),
    "3x3, 512 channels, 84 px": (1, 512, 84, 84, 512, (3, 3), (1, 1), False),
    "3x3, 1024 channels, 36 px": (1, 1024, 36, 36, 1024, (3, 3), (1, 1), False),
}


@pytest.mark.parametrize("name", CASES)
def bench_packed(compare, name):
    n, inputs, height, width, outputs, kernel, stride, transposed = CASES[name]
    torch.manual_seed(0)
    x = torch.randn(n, inputs, height, width).contiguous(memory_format=torch.channels_last)
    weight = (
        torch.randn(*((inputs, outputs) if transposed else (outputs, inputs)), *kernel) / (inputs * kernel[1]) ** 0.5
    )
    bias, slope = torch.randn(outputs), torch.full([outputs], 0.2)
    padding = [(k - 1) // 2 for k in kernel]
    form = [list(stride), padding, [1, 1], transposed]

    def plain(x):
        y = torch.ops.aten.convolution(x, weight, bias, *form, [0, 0], 1)
        return torch.nn.functional.leaky_relu_(y, 0.2)

    y = plain(x).contiguous(memory_format=torch.channels_last)
    winograd = kernel == (3, 3)
    pack = torch.ops.fastgan.conv3x3_pack if winograd else conv_packed.pack
    packed = pack(weight, *(() if winograd else (stride, padding, 1, transposed)))

    def ours(x):
        if winograd:
            return torch.ops.fastgan.conv3x3_packed(y, x, packed, bias, slope, None, 1)
        return torch.ops.fastgan.conv_packed(y, x, packed, bias, slope, None, 1, list(kernel), *form)

    products = weight.numel() * n * (height * width if transposed else y.shape[2] * y.shape[3])
    peak = fma_peak(torch.get_num_threads())
    floor = 2 * products / (4 if winograd else 1) / peak if peak else None
    compare(name, lambda f: f(x), reference=plain, fastgan=ours, compiled=False, floor=floor)
