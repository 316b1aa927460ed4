"""filtered_lrelu on tensor cores, emulated: in every phase that a padding can give, over the edges of strips, pieces and words of
the mask, its values are the definition's to a rounding of the type; what is not finite stays near where it is."""

import pytest
import torch
from cuda_emulation import emulated
from device import seeded
from tolerances import assert_close

from fastgan.ops import filtered_lrelu
from fastgan.ops.filtered_lrelu import _reference

pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="g++ is not installed")
TYPES = (torch.bfloat16, torch.float16)
FD = torch.rand(12, generator=seeded(12)) / 9 + 0.02
FU = {up: torch.rand(6 * up, generator=seeded(up)) / 9 + 0.02 for up in (2, 4)}
# (height, width): of one element, of strips and pieces that end early, of two strips
SHAPES = [(1, 2), (9, 18), (37, 34), (70, 24), (13, 276)]
# before and after, of x and y: every phase of a factor of 4, cropping too; widths stay even
PADDINGS = [[18 + p, 17 + p, 18 + p, 17 + 2 * p] for p in range(4)] + [[-1, 38, 34, -2], [40, -3, -1, 34]]


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
    options = dict(
        up=up, down=2, padding=padded(up, padding), flip_filter=index % 2 == 1, clamp=0.7 if index % 3 else None
    )
    options |= dict(slope=(0.2, 0.0, 1.0, -0.5)[index % 4], gain=(2**0.5, 0.3)[index % 2])
    return tensor(1, 3, *shape, dtype=dtype), tensor(3, dtype=dtype, seed=1), FU[up], FD, options


def check_rounded(actual, wanted):
    """To the tolerance of the type, and on the average to a rounding of it and a fifth."""
    assert_close(actual, wanted, {torch.bfloat16: 1e-2, torch.float16: 1e-3}[actual.dtype])
    if wanted.numel() > 100:
        rounding = (wanted.to(actual.dtype).double() - wanted).square().mean().sqrt()
        assert (actual.double() - wanted).square().mean().sqrt() <= 1.2 * rounding


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("up", FU)
@pytest.mark.parametrize("shape", SHAPES)
def test_values(shape, up, dtype):
    for index, padding in enumerate(PADDINGS):
        x, b, fu, fd, options = arguments(up, shape, padding, dtype, index)
        y = filtered_lrelu(x, fu, fd, b, **options, impl="cuda")
        assert y.shape[3] % 2 == 0, "odd widths are another kernel's"
        check_rounded(y, filtered_lrelu(x.double(), fu, fd, b.double(), **options, impl="reference"))
        without = filtered_lrelu(x, fu, fd, None, **options, impl="cuda")
        check_rounded(without, filtered_lrelu(x.double(), fu, fd, None, **options, impl="reference"))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("up", FU)
@pytest.mark.parametrize("shape", SHAPES)
def test_mask_and_gradients(shape, up, dtype):
    """The gradients are those of the mask that was written, in which a number may have been rounded over a kink."""
    ops = torch.ops.fastgan_cuda
    for index, padding in enumerate(PADDINGS):
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
            (tensor(*y.shape, dtype=dtype, seed=2), backward),
            (tensor(*x.shape, dtype=dtype, seed=3), forward),
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
    """Rows, planes and samples that begin anywhere even."""
    _, b, fu, fd, options = arguments(2, (9, 18), PADDINGS[0], dtype)
    x = tensor(2, 7, 3, 40, dtype=dtype)[:, :, :, 6:24].transpose(1, 2)
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
