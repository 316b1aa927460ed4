"""filtered_lrelu and upfirdn2d on tensor cores, emulated: in every phase that a padding can give, over the edges of strips,
pieces and words of the mask, their values are the definition's to a rounding of the type; what is not finite stays near."""

import pytest
import torch
from cuda_emulation import emulated
from device import seeded
from tolerances import assert_close

from fastgan.ops import filtered_lrelu, upfirdn2d
from fastgan.ops.filtered_lrelu import _reference

pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="g++ is not installed")
TYPES = (torch.bfloat16, torch.float16)
FD = torch.rand(12, generator=seeded(12)) / 9 + 0.02
FU = {up: torch.rand(6 * up, generator=seeded(up)) / 9 + 0.02 for up in (2, 4)}
# (height, width): of one element, of strips and pieces that end early, of two strips
SHAPES = [(1, 2), (9, 18), (37, 34), (70, 24), (13, 276)]
# before and after, of x and y: every phase of a factor of 4, cropping too; widths stay even
PADDINGS = [[18 + p, 17 + p, 18 + p, 17 + 2 * p] for p in range(4)] + [[-1, 38, 34, -2], [40, -3, -1, 34]]
# channels_last: (channels, height, width), of blocks of 8 channels and of single ones, of odd widths and three strips
PIXELS = [(8, 1, 1), (9, 9, 17), (8, 37, 34), (3, 13, 138)]
PIXEL_PADDINGS = [PADDINGS[1], PADDINGS[4]]


@pytest.fixture(scope="module", autouse=True)
def kernels():
    emulated.load()


def tensor(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=seeded(seed)).to(dtype)


def padded(up, padding):
    """The same with an even width of y."""
    odd = (padding[0] + padding[1] - 6 * up + 1) // 2 % 2 == 0
    return [padding[0], padding[1] + 2 * odd, *padding[2:]]


def arguments(up, shape, padding, dtype, index=0):
    """x is contiguous, or of a shape with channels in channels_last."""
    options = dict(up=up, down=2, flip_filter=index % 2 == 1, clamp=0.7 if index % 3 else None)
    options |= dict(slope=(0.2, 0.0, 1.0, -0.5)[index % 4], gain=(2**0.5, 0.3)[index % 2])
    if len(shape) == 2:
        x, options["padding"] = tensor(1, 3, *shape, dtype=dtype), padded(up, padding)
    else:
        x, options["padding"] = tensor(2, *shape, dtype=dtype).to(memory_format=torch.channels_last), padding
    return x, tensor(x.shape[1], dtype=dtype, seed=1), FU[up], FD, options


def check_rounded(actual, wanted):
    """To the tolerance of the type, and on the average to a rounding of it and a fifth."""
    assert_close(actual, wanted, {torch.bfloat16: 1e-2, torch.float16: 1e-3}[actual.dtype])
    if wanted.numel() > 100:
        rounding = (wanted.to(actual.dtype).double() - wanted).square().mean().sqrt()
        assert (actual.double() - wanted).square().mean().sqrt() <= 1.2 * rounding


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("up", FU)
@pytest.mark.parametrize("shape", SHAPES + PIXELS)
def test_values(shape, up, dtype):
    for index, padding in enumerate(PADDINGS if len(shape) == 2 else PIXEL_PADDINGS):
        x, b, fu, fd, options = arguments(up, shape, padding, dtype, index)
        y = filtered_lrelu(x, fu, fd, b, **options, impl="cuda")
        assert y.shape[3] % 2 == 0 or len(shape) == 3, "rows of odd widths are another kernel's"
        assert y.is_contiguous(memory_format=torch.contiguous_format if len(shape) == 2 else torch.channels_last)
        check_rounded(y, filtered_lrelu(x.double(), fu, fd, b.double(), **options, impl="reference"))
        without = filtered_lrelu(x, fu, fd, None, **options, impl="cuda")
        check_rounded(without, filtered_lrelu(x.double(), fu, fd, None, **options, impl="reference"))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("up", FU)
@pytest.mark.parametrize("shape", SHAPES + PIXELS)
def test_mask_and_gradients(shape, up, dtype):
    """The gradients are those of the mask that was written, in which a number may have been rounded over a kink."""
    ops = torch.ops.fastgan_cuda
    for index, padding in enumerate(PADDINGS if len(shape) == 2 else PIXEL_PADDINGS):
        x, b, fu, fd, options = arguments(up, shape, padding, dtype, index)
        given = [
            options["padding"],
            options["gain"],
            options["slope"],
            options["clamp"] or -1.0,
            options["flip_filter"],
            True,
        ]
        y, mask = ops.filtered_lrelu(x, b, fu, fd, up, 2, *given)
        assert torch.equal(y, filtered_lrelu(x, fu, fd, b, **options, impl="cuda"))
        wanted = _reference(x.double(), b.double(), fu.double(), fd.double(), up, 2, *given)[1]
        assert mask.shape == wanted.shape and (mask ^ wanted).ne(0).sum() <= 1 + 1e-3 * mask.numel()
        assert torch.equal(ops.filtered_lrelu(x, b, fu, fd, up, 2, *given)[1], mask)

        grid = [x.shape[3 - a] * up + sum(given[0][2 * a : 2 * a + 2]) - len(fu) + 1 for a in (0, 1)]
        before = [len(fu) - 1 - given[0][0], len(fu) - 1 - given[0][2]]
        backward = (
            mask,
            fd,
            fu,
            2,
            up,
            [11, 11, *before],
            [*grid, x.shape[3], x.shape[2]],
            1.3,
            options["slope"],
            True,
        )
        forward = (
            mask,
            fu,
            fd,
            up,
            2,
            [given[0][0], given[0][2], 0, 0],
            [*grid, y.shape[3], y.shape[2]],
            1.3,
            options["slope"],
            False,
        )
        for x_or_dy, rest in (
            (torch.empty_like(y).copy_(tensor(*y.shape, seed=2)), backward),
            (torch.empty_like(x).copy_(tensor(*x.shape, seed=3)), forward),
        ):
            wide = [t.double() if t.is_floating_point() else t for t in rest[:3]]
            expected = torch.ops.fastgan.filtered_lrelu_backward(x_or_dy.double(), *wide, *rest[3:])
            check_rounded(ops.filtered_lrelu_backward(x_or_dy, *rest), expected)


@pytest.mark.parametrize("dtype", TYPES)
def test_double_backward(dtype):
    x, b, fu, fd, options = arguments(2, (19, 22), PADDINGS[1], dtype, 1)

    def second(x, b, impl):
        x, b = x.requires_grad_(), b.requires_grad_()
        y = filtered_lrelu(x, fu, fd, b, **options, impl=impl)
        gy = tensor(*y.shape, dtype=dtype, seed=2).to(y).requires_grad_()
        gx, gb = torch.autograd.grad(y, [x, b], gy, create_graph=True)
        return torch.autograd.grad((gx * tensor(*x.shape, seed=3).to(gx)).sum(), gy)[0], gx.detach(), gb.detach()

    wide = second(x.double(), b.double(), "reference")
    for actual, wanted in zip(second(x, b, "cuda"), wide, strict=True):
        assert_close(actual, wanted)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("slope, gain, width", [(2.0, 1.0, 18), (0.2, -1.0, 18), (0.2, 1.0, 17)])
def test_what_it_does_not_take_is_right(slope, gain, width, dtype):
    x, _, fu, fd, options = arguments(2, (9, width), PADDINGS[0], dtype)
    options |= dict(slope=slope, gain=gain)
    y = filtered_lrelu(x, fu, fd, None, **options, impl="cuda")
    check_rounded(y, filtered_lrelu(x.double(), fu, fd, None, **options, impl="reference"))


@pytest.mark.parametrize("dtype", TYPES)
def test_views(dtype):
    """Rows, planes and samples that begin anywhere even, pixels that begin anywhere."""
    _, b, fu, fd, options = arguments(2, (9, 18), PADDINGS[0], dtype)
    of_rows = tensor(2, 7, 3, 40, dtype=dtype)[:, :, :, 6:24].transpose(1, 2)
    pixels = [tensor(2, 7, 20, channels, dtype=dtype)[:, :, 2:, at : at + 3] for channels, at in ((16, 8), (5, 1))]
    for x in (of_rows, *(t.permute(0, 3, 1, 2) for t in pixels)):
        expected = filtered_lrelu(x.contiguous(), fu, fd, b, **options, impl="cuda")
        assert torch.equal(filtered_lrelu(x, fu, fd, b, **options, impl="cuda"), expected)


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**-6, 2.0**6])
@pytest.mark.parametrize("dtype", TYPES)
def test_any_magnitude(dtype, scale):
    """Of x (bfloat16) or of the taps, which are met twice: nothing between the products has the range of float16."""
    x, _, fu, fd, options = arguments(2, (19, 22), PADDINGS[2], dtype)
    options["clamp"] = None
    scaled = (x, fu * scale) if dtype == torch.float16 else (x * scale**2, fu)
    y = filtered_lrelu(*scaled, fd / scale, None, **options, impl="cuda")
    check_rounded(y, filtered_lrelu(x.double(), fu, fd, None, **options, impl="reference"))


@pytest.mark.parametrize("up, rows, columns", [(2, 12, 20), (4, 23, 31)])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_near(value, dtype, up, rows, columns):
    """It makes NaN of outputs that many rows and columns around its own."""
    for at in ((20, 40), (23, 43), (26, 45), (29, 38)):
        x, b, fu, fd, options = arguments(up, (56, 88), PADDINGS[0], dtype)
        clean = filtered_lrelu(x, fu, fd, b, **options, impl="cuda")
        spoiled = x.clone()
        spoiled[0, 1][at] = value
        y = filtered_lrelu(spoiled, fu, fd, b, **options, impl="cuda")
        own = ~filtered_lrelu(spoiled.float(), fu, fd, b.float(), **options, impl="reference").isfinite()[0, 1]
        assert own.any() and not y[0, 1][own].isfinite().any()
        inside = torch.zeros_like(own)
        first, last = own.nonzero().amin(0), own.nonzero().amax(0)
        inside[first[0] - rows : last[0] + rows + 1, first[1] - columns : last[1] + columns + 1] = True
        assert torch.equal(y[0, 1][~inside], clean[0, 1][~inside])
        assert torch.equal(y[0, [0, 2]], clean[0, [0, 2]])


def test_a_clamp_catches_what_float16_could_not_hold():
    x, b, fu, fd, options = arguments(2, (19, 22), PADDINGS[0], torch.float16, 1)
    x[0, 0, 5, 6], x[0, 1, 7, 8] = float("inf"), -float("inf")
    for leaf in (x, x.clone().requires_grad_()):
        y = filtered_lrelu(leaf, fu, fd, b, **options, impl="cuda").detach()
        check_rounded(
            y, filtered_lrelu(x.double().clamp(-65504, 65504), fu, fd, b.double(), **options, impl="reference")
        )


# (up, down), and how many columns around its own what is not finite may reach
FACTORS = {(1, 1): 15, (2, 1): 31, (1, 2): 15}
LAYOUTS = (torch.contiguous_format, torch.channels_last)
TWELVE = torch.randn(12, generator=seeded(12)) / 3
EXACT = [torch.tensor([1.0, 3, 3, 1]) / 8, torch.tensor([1.0, 2, 1]) / 4]
FILTERS = [torch.randn(n, generator=seeded(sum(n))) / 3 for n in ((4, 4), (4,), (2, 3), (1,))] + EXACT
# of one pixel; of words and packs and neither; of strips and pieces that end early; of two strips and many pieces
IMAGES = [(1, 8, 1, 1), (2, 8, 9, 18), (1, 24, 37, 33), (1, 16, 13, 75), (1, 8, 140, 40), (1, 8, 3, 272)]
CROPS = [[p + 2, 3 - p, q + 1, 4 - q] for p, q in ((0, 1), (1, 0), (2, 3), (3, 2))]
CROPS += [[2, 1, 2, 1], [1, 2, 1, 2], [-1, 7, 9, -2], [19, 22, 20, 23]]


@pytest.fixture(autouse=True)
def filled(monkeypatch):
    """What is not written is NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def check_nearest(actual, wanted, f):
    """Of almost all numbers it is the nearest of the type; of a filter that is exact in it, but for what float32 rounds."""
    check_rounded(actual, wanted)
    if wanted.numel() > 1000:
        most = 1e-3 if any(f is exact for exact in EXACT) else {torch.bfloat16: 2e-2, torch.float16: 5e-3}[actual.dtype]
        assert (actual != wanted.to(actual.dtype)).double().mean() <= most


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("up, down", FACTORS)
def test_upfirdn2d(up, down, dtype, layout):
    """And its gradient, which is of the factors exchanged."""
    for index, (shape, padding) in enumerate((s, p) for i, s in enumerate(IMAGES) for p in CROPS[i % 2 :: 2]):
        f, flip = FILTERS[index % 6], index % 4 < 2
        gain = 1.5 if any(f is exact for exact in EXACT) else (0.3, 4.0, 1.0)[index % 3]
        size = [shape[3 - a] * up + sum(padding[2 * a : 2 * a + 2]) for a in (0, 1)]
        if min(size) < 4:
            continue
        x = tensor(*shape, dtype=dtype, seed=index).contiguous(memory_format=layout).requires_grad_()
        wide = x.detach().double().requires_grad_()
        y = upfirdn2d(x, f, up, down, padding, flip, gain, impl="cuda")
        expected = upfirdn2d(wide, f, up, down, padding, flip, gain, impl="reference")
        assert y.stride() == expected.stride()
        check_nearest(y.detach(), expected.detach(), f)
        dy = tensor(*y.shape, dtype=dtype, seed=1).contiguous(memory_format=layout)
        check_nearest(torch.autograd.grad(y, x, dy)[0], torch.autograd.grad(expected, wide, dy.double())[0], f)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("up, down", [(2, 1), (1, 2)])
def test_upfirdn2d_of_12_taps(up, down, dtype, layout):
    """And its gradient. Of one pixel's height; of whole pixels and others; of strips and pieces that end early; of many steps."""
    images = [(1, 9, 1, 2), (2, 8, 9, 18), (1, 3, 37, 34), (1, 8, 13, 276), (1, 3, 140, 40)]
    for index, (shape, p) in enumerate((s, p) for s in images for p in range(4)):
        padding = [5 + p, 6 - p, 7 + p, 6 - 3 * p] if shape[2] > 1 else [6 + p, 5 - p, 9, 8]
        x = tensor(*shape, dtype=dtype, seed=index).contiguous(memory_format=layout).requires_grad_()
        wide, options = x.detach().double().requires_grad_(), (up, down, padding, p % 2 == 1, (0.3, 4.0)[index % 2])
        y, expected = (upfirdn2d(t, TWELVE, *options, impl=impl) for t, impl in ((x, "cuda"), (wide, "reference")))
        assert y.stride() == expected.stride()
        check_rounded(y.detach(), expected.detach())
        dy = tensor(*y.shape, dtype=dtype, seed=1).contiguous(memory_format=layout)
        check_rounded(torch.autograd.grad(y, x, dy)[0], torch.autograd.grad(expected, wide, dy.double())[0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("up, down", [(2, 1), (1, 2)])
def test_what_is_not_finite_stays_near_in_12_taps(up, down, dtype, layout):
    x = tensor(1, 16, 90, 96, dtype=dtype).contiguous(memory_format=layout)
    clean = upfirdn2d(x, TWELVE, up, down, 6, impl="cuda")
    x[0, 9, 43, 45] = float("nan")
    y = upfirdn2d(x, TWELVE, up, down, 6, impl="cuda")
    own = upfirdn2d(x.float(), TWELVE, up, down, 6, impl="reference").isnan()
    assert own.any() and y[own].isnan().all()
    first, last = own[0, 9].nonzero().amin(0), own[0, 9].nonzero().amax(0)
    own[0, 9, max(0, first[0] - 31) : last[0] + 32, max(0, first[1] - 31) : last[1] + 32] = True
    assert torch.equal(y[~own], clean[~own])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "up, down, f", [(*factors, FILTERS[0]) for factors in FACTORS] + [(2, 1, TWELVE), (1, 2, TWELVE)]
)
def test_magnitudes_of_upfirdn2d(up, down, f, dtype, layout):
    """Of every sample and channel of x, of the filter, of the gain."""
    x = tensor(2, 16, 19, 22, dtype=dtype)
    for gain in (2.0**-13, 2.0**11):  # taps that float16 has no normal numbers for
        scaled = (x / gain).contiguous(memory_format=layout)
        y = upfirdn2d(scaled, f, up, down, 4, gain=gain, impl="cuda")
        expected = upfirdn2d(scaled.double(), f, up, down, 4, gain=gain, impl="reference")
        check_rounded(y, expected) if f is TWELVE else check_nearest(y, expected, f)
    low, high = (-90, 90) if dtype == torch.bfloat16 else (-4, 12)
    x *= 2.0 ** torch.linspace(low, high, 32).round().view(2, 16, 1, 1).to(dtype)
    x = x.contiguous(memory_format=layout)
    for gain, scale in ((1.0, 1.0), (2.0**-30, 2.0**30), (2.0**20, 2.0**-21), (1.0, 2.0**-3)):
        gain /= scale if f is TWELVE else 1  # which is met twice
        y = upfirdn2d(x, f * scale, up, down, 4, gain=gain, impl="cuda")
        expected = upfirdn2d(x.double(), f * scale, up, down, 4, gain=gain, impl="reference")
        size = expected.abs().amax((2, 3), keepdim=True)
        for actual, wanted in zip((y.double() / size).flatten(0, 1), (expected / size).flatten(0, 1), strict=True):
            assert_close(actual, wanted, torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("up, down", FACTORS)
def test_views_of_upfirdn2d(up, down, dtype):
    """Rows, planes and samples that begin anywhere; some channels of more."""
    whole = tensor(2, 7, 3, 41, dtype=dtype)
    for first in (6, 7):
        x = whole[:, :, :, first : first + 19].transpose(1, 2)
        expected = upfirdn2d(x.contiguous(), FILTERS[0], up, down, 2, impl="cuda")
        assert torch.equal(upfirdn2d(x, FILTERS[0], up, down, 2, impl="cuda"), expected)
    whole = tensor(2, 40, 9, 21, dtype=dtype).contiguous(memory_format=torch.channels_last)
    for first in (8, 3):
        x = whole[:, first : first + 24, 1:, :-2]
        y = upfirdn2d(x, FILTERS[0], up, down, 2, impl="cuda")
        check_rounded(y, upfirdn2d(x.double(), FILTERS[0], up, down, 2, impl="reference"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("up, down", FACTORS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_near_in_upfirdn2d(value, up, down, dtype, layout):
    columns = FACTORS[up, down]
    for n, at in enumerate(((17, 40), (18, 43), (20, 45), (23, 50))):
        f, rows = (FILTERS[0], 1) if n % 2 else (EXACT[1], 2)
        x = tensor(1, 16, 40, 96, dtype=dtype).contiguous(memory_format=layout)
        clean = upfirdn2d(x, f, up, down, 2, impl="cuda")
        x[0, 9][at] = value
        y = upfirdn2d(x, f, up, down, 2, impl="cuda")
        own = ~upfirdn2d(x.float(), f, up, down, 2, impl="reference").isfinite()
        assert own.any() and not y[own].isfinite().any()
        first, last = own[0, 9].nonzero().amin(0), own[0, 9].nonzero().amax(0)
        own[0, 9, first[0] - rows : last[0] + rows + 1, first[1] - columns : last[1] + columns + 1] = True
        assert torch.equal(y[~own], clean[~own])
