"""Transposed convolutions of stride 2 to few channels: the last layer of a DCGAN generator, and the gradient by the images of a
discriminator's first layer. Floor: the products at the peak of the FMA units.
"""

import pytest
import torch
import torch.nn.functional as F
from machine import fma_peak

from fastgan.ops import conv_transpose2d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels last"])
@pytest.mark.parametrize("batch", [1, 32])
def bench_forward(compare, batch, layout):
    x = torch.randn(batch, 64, 32, 32).contiguous(memory_format=layout)
    weight = torch.randn(64, 3, 4, 4, requires_grad=True)
    peak = fma_peak(torch.get_num_threads())
    compare(
        f"{batch}x64x32x32, 4x4 to 3 channels {str(layout).removeprefix('torch.')}",
        lambda f: f(x, weight, stride=2, padding=1),
        reference=F.conv_transpose2d,
        fastgan=conv_transpose2d,
        floor=2 * 16 * x.numel() * 3 / peak if peak else None,
    )
