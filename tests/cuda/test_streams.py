"""The streaming kernels of upfirdn2d and filtered_lrelu in every phase that a padding can give, over the edges of tiles, batches
of rows and blocks, in every layout and type: their values are the reference's."""

import pytest
import torch
from cuda_emulation import emulated
from device import seeded
from tolerances import assert_close

from fastgan.ops import filtered_lrelu, upfirdn2d

pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="g++ is not installed")
RESAMPLED = [
    (1, 1, 4, 4),
    (2, 1, 4, 4),
    (1, 2, 4, 4),
    (1, 1, 4, 0),
    (2, 1, 4, 0),
    (1, 2, 4, 0),
    (2, 1, 12, 0),
    (1, 2, 12, 0),
]
ACTIVATED = [(2, 2, 12, 12), (4, 2, 24, 12), (2, 4, 12, 24)]
# [x_before, x_after, y_before, y_after]: with factors of up to 4, phases of either axis, cropping too
PADDINGS = [[p + 20, 23 - p, q + 18, 21 - q] for p, q in ((0, 1), (1, 0), (2, 3), (3, 2))] + [[-1, 30, 31, -2]]
# whole packs and not, along rows and along channels, one tile and more along either axis, strips that end blocks
SHAPES = [(2, 3, 9, 11), (1, 9, 13, 16), (1, 2, 70, 24), (1, 1, 7, 530), (1, 16, 9, 40)]
LAYOUTS = ["contiguous_format", "channels_last", "view", "channels of more", "channels off a pack"]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}


@pytest.fixture(scope="module", autouse=True)
def kernels():
    emulated.load()


def image(shape, dtype, layout, seed=0):
    x = torch.randn(shape, generator=seeded(seed)).to(dtype)
    if layout == "view":  # rows begin anywhere, columns are 2 apart
        return torch.randn(*shape[:3], 2 * shape[3] + 1, generator=seeded(seed)).to(dtype)[..., 1::2]
    if layout.startswith("channels o"):
        more = torch.randn(shape[0], *shape[2:], shape[1] + 8, generator=seeded(seed)).to(dtype).movedim(-1, 1)
        return more[:, 8:] if layout == "channels of more" else more[:, 1:-7]
    return x.contiguous(memory_format=getattr(torch, layout))


def both(f):
    results, wanted = f("cuda"), f("reference")
    y, expected = results[0], wanted[0]
    assert all(n == 1 or s == t for n, s, t in zip(y.shape, y.stride(), expected.stride(), strict=True))
    for actual, expected in zip(results, wanted, strict=True):
        assert_close(actual, expected, TOLERANCE[actual.dtype])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("up", "down", "taps", "rows"), RESAMPLED)
def test_upfirdn2d(up, down, taps, rows, layout):
    f = torch.rand((rows, taps) if rows else (taps,), generator=seeded(1))
    for index, (shape, padding) in enumerate((s, p) for s in SHAPES for p in PADDINGS):
        x = image(shape, list(TOLERANCE)[index % 3], layout)
        both(lambda impl: [upfirdn2d(x, f, up, down, padding, index % 2 == 1, 1.5, impl=impl)])  # noqa: B023


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("up", "down", "up_taps", "down_taps"), ACTIVATED)
def test_filtered_lrelu(up, down, up_taps, down_taps, layout):
    fu, fd = (torch.rand(n, generator=seeded(n)) / n for n in (up_taps, down_taps))

    def run(impl):
        y = filtered_lrelu(x, fu, fd, b, impl=impl, **options)
        leaf = x.detach().requires_grad_()
        saved = filtered_lrelu(leaf, fu, fd, b, impl=impl, **options)
        dy = image(y.shape, y.dtype, "contiguous_format" if layout == "view" else layout, seed=2)
        return y, saved.detach(), *torch.autograd.grad(saved, leaf, dy)

    for index, (shape, padding) in enumerate((s, p) for s in SHAPES for p in PADDINGS):
        dtype = list(TOLERANCE)[index % 3]
        x, b = image(shape, dtype, layout), torch.randn(shape[1], generator=seeded(3)).to(dtype)
        options = dict(up=up, down=down, padding=padding, flip_filter=index % 2 == 1, clamp=0.7 if index % 4 else None)
        both(run)


def test_every_element_of_the_mask_is_written():
    """Also rows and columns of the upsampled grid that no output needs, and the unused bits of the last word."""
    f, fd = torch.rand(12, generator=seeded(1)) / 6, torch.rand(24, generator=seeded(2)) / 12
    for shape in ((1, 1, 6, 9), (1, 1, 9, 140)):
        x = torch.randn(shape, generator=seeded(0))
        for after in range(4):  # 0 to 3 rows more than the last output needs
            arguments = (x, None, f, fd, 2, 4, [21, 20 + after, 22, 21 + after], 1.4, 0.2, 0.5, False, True)
            expected = torch.ops.fastgan.filtered_lrelu(*arguments)[1]
            for _ in range(2):
                assert torch.equal(torch.ops.fastgan_cuda.filtered_lrelu(*arguments)[1], expected)
