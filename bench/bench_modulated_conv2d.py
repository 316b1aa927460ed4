"""modulated_conv2d: the form that is chosen against both, over the layers of StyleGAN2 generators. `reference` is the grouped
form (per-sample weights, one grouped convolution) in torch operations.
"""

from functools import partial

import pytest
import torch

from fastgan.ops import conv2d_resample, modulated_conv2d, setup_filter

# (N, I, O, k, resolution, up)
GRID = [
    (8, 512, 512, 3, 16, 1),
    (1, 512, 512, 3, 4, 1),
    (1, 512, 512, 3, 32, 1),
    (1, 128, 128, 3, 128, 1),
    (1, 64, 64, 3, 256, 1),
    (2, 256, 256, 3, 64, 1),
    (4, 512, 512, 3, 8, 1),
    (4, 128, 128, 3, 64, 1),
    (1, 512, 512, 3, 16, 2),
    (4, 512, 256, 3, 16, 2),
    (1, 512, 3, 1, 32, 1),
    (4, 128, 3, 1, 128, 1),
    (1, 512, 512, 1, 64, 1),
    (4, 512, 512, 1, 36, 1),
]
FILTER = setup_filter([1, 3, 3, 1])


def shared(x, weight, styles, up, padding, resample_filter):
    """Scaled activations, one weight, demodulated output."""
    d = (styles.square() @ weight.square().sum((2, 3)).t() + 1e-8).rsqrt()
    x = x * styles[:, :, None, None]
    y = conv2d_resample(x, weight, resample_filter, up=up, padding=padding)
    return y * d[:, :, None, None]


grouped = partial(modulated_conv2d, impl="reference")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("shape", GRID, ids=lambda s: "x".join(map(str, s)))
def bench_forms(compare, device, shape, layout):
    n, channels, out, k, resolution, up = shape
    if layout == torch.channels_last and k == 3 and (n, up) != (1, 1):
        pytest.skip("the same picture as NCHW")
    x = torch.randn(n, channels, resolution, resolution, device=device).contiguous(memory_format=layout)
    weight, styles = torch.randn(out, channels, k, k, device=device), torch.randn(n, channels, device=device)
    options = dict(up=up, padding=k // 2, resample_filter=FILTER.to(device) if up > 1 else None)

    name = "" if layout == torch.contiguous_format else " channels_last"
    with torch.no_grad():
        compare(
            f"{n}x{channels}->{out} {k}x{k} {resolution}x{resolution}{' up 2' if up > 1 else ''}{name}",
            lambda f: f(x, weight, styles, **options),
            reference=grouped,
            fastgan=modulated_conv2d,
            others={"shared": shared},
            compiled=False,
            tolerance=1e-4,
        )
