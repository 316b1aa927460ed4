"""nn.PReLU's forward and backward with a slope for each channel, as upscalers train with it: one pass of the gradient against
torch's. Without gradients nothing is gained, and `fastgan.accelerate` leaves torch's."""

import pytest
import torch
import torch.nn.functional as F

from fastgan.ops import _library


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", [(1, 64, 64, 64), (1, 64, 128, 128), (16, 64, 24, 24)])
def bench_prelu(compare, device, shape, layout):
    if device.type != "cpu":
        pytest.skip("on a GPU torch's is left")
    x = torch.randn(shape).contiguous(memory_format=layout)
    dy, x, slope = torch.randn_like(x), x.requires_grad_(), torch.rand(shape[1], requires_grad=True)

    def both(f):
        y = f(x, slope)
        return y, *torch.autograd.grad(y, (x, slope), dy)

    name = f"{'x'.join(map(str, shape))} {str(layout).removeprefix('torch.')}, forward and backward"
    compare(name, both, reference=F.prelu, fastgan=_library.select("prelu", "auto", x), compiled=False)
