"""grid_sample: torch's values and first derivatives, and the higher ones that torch lacks, in both arguments."""

import pytest
import torch
import torch.nn.functional as F
from derivatives import derivatives
from device import DEVICE, seeded
from golden import golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE, assert_close

from fastgan.ops import grid_sample


def formula(image, grid):
    """Bilinear interpolation as a sum over all pixels of hat functions, independent of the package: O(pixels^2)."""
    h, w = image.shape[2:]
    x, y = ((grid[..., 0] + 1) * w - 1) / 2, ((grid[..., 1] + 1) * h - 1) / 2

    def hats(position, size):
        return (1 - (position[..., None] - torch.arange(size, dtype=position.dtype)).abs()).clamp(min=0)

    return torch.einsum("ncij,npqi,npqj->ncpq", image, hats(y, h), hats(x, w))


def points(n, rows, columns, h, w, reach=1.3, seed=0):
    """Points up to outside the image, at least 0.05 pixels from the centre lines, where the derivative jumps."""
    generator = seeded(seed)
    size = torch.tensor([w, h], dtype=torch.float64)
    pixels = (
        ((torch.rand(n, rows, columns, 2, generator=generator, dtype=torch.float64) * 2 - 1) * reach + 1) * size / 2
    )
    pixels = pixels.floor() + 0.05 + 0.9 * (pixels - pixels.floor())  # fractions from a pixel centre in [0.05, 0.95]
    return (2 * pixels + 1) / size - 1


def torchs(image, grid):
    return F.grid_sample(image, grid, "bilinear", "zeros", align_corners=False)


@pytest.mark.parametrize(("case", "tensors"), golden_cases("grid_sample"))
def test_golden(case, tensors):
    x, grid, gy = (tensors[n].clone().requires_grad_() for n in ("x", "grid", "gy"))
    y = grid_sample(x, grid)
    gx, ggrid = torch.autograd.grad(y, (x, grid), gy, create_graph=True)
    ds_x, ds_gy = torch.autograd.grad((gx * tensors["v"]).sum(), (x, gy), allow_unused=True)
    for name, value in (("y", y), ("gx", gx), ("ggrid", ggrid), ("ds_gy", ds_gy)):
        assert_close(value, tensors[name])
    assert_close(torch.zeros_like(x) if ds_x is None else ds_x, tensors["ds_x"])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 6), (13, 2)])
def test_two_orders_equal_those_of_the_formula(size, layout):
    image = torch.randn(2, 3, *size, dtype=torch.float64).to(memory_format=layout)
    inputs = {"input": image, "grid": points(2, 4, 3, *size)}
    gy = torch.randn(2, 3, 4, 3, dtype=torch.float64)
    for by in inputs:
        v = torch.randn_like(inputs[by])
        found = derivatives(grid_sample, inputs, gy, v, by)
        wanted = derivatives(lambda input, grid: formula(input, grid), inputs, gy, v, by)
        for name in wanted:
            assert_close(found[name], wanted[name])


def test_gradcheck_of_three_orders():
    image = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    grid = points(1, 2, 3, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(grid_sample, (image, grid))
    assert torch.autograd.gradgradcheck(grid_sample, (image, grid))
    v = torch.randn(1, 2, 2, 3, dtype=torch.float64)

    def gradient(image, grid):
        return torch.autograd.grad((grid_sample(image, grid) * v).sum(), (image, grid), create_graph=True)

    assert torch.autograd.gradgradcheck(gradient, (image, grid), fast_mode=True)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes(dtype):
    image, grid = torch.randn(2, 3, 8, 8).to(dtype).requires_grad_(), points(2, 5, 5, 8, 8).to(dtype).requires_grad_()
    y = grid_sample(image, grid)
    assert y.dtype == dtype
    expected = formula(image.detach().double(), grid.detach().double())
    # a coordinate of 8 bits is worth 8 * 2^-8 pixels
    assert_close(y, expected, {torch.float16: 2e-2, torch.bfloat16: 2e-1}.get(dtype))
    assert all(g.dtype == dtype for g in torch.autograd.grad(y.float().sum(), (image, grid)))


@pytest.mark.parametrize(
    "shapes", [((0, 2, 3, 3), (0, 4, 5, 2)), ((2, 0, 3, 3), (2, 4, 5, 2)), ((2, 3, 3, 3), (2, 0, 5, 2))]
)
def test_empty(shapes):
    image, grid = (torch.randn(s, requires_grad=True) for s in shapes)
    y = grid_sample(image, grid)
    assert y.shape == (*image.shape[:2], *grid.shape[1:3])
    dimage, dgrid = torch.autograd.grad(y.sum(), (image, grid))
    assert not dimage.any() and not dgrid.any()


def test_points_far_outside_and_not_a_number():
    image = torch.randn(1, 1, 3, 3, requires_grad=True)
    grid = torch.tensor([[[[1e30, 0.0], [-1e30, 1e30], [float("inf"), 0.0]]]], requires_grad=True)
    (g,) = torch.autograd.grad(grid_sample(image, grid)[..., :2].sum(), image, create_graph=True)
    assert not grid_sample(image, grid)[..., :2].any() and not g.any()
    torch.autograd.grad(g.sum(), grid, allow_unused=True)  # indices stay within the image


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=6, max_size=6), reach=st.floats(0.1, 3), seed=st.integers(0, 99))
def test_generated_arguments(sizes, reach, seed):
    n, c, h, w, rows, columns = sizes
    image = torch.randn(n, c, h, w, generator=seeded(seed), dtype=torch.float64)
    grid = points(n, rows, columns, h, w, reach, seed)
    assert_close(grid_sample(image, grid), formula(image, grid))


def test_compiles_without_a_graph_break():
    image, grid = torch.randn(2, 3, 5, 7, requires_grad=True), points(2, 4, 3, 5, 7).float().requires_grad_()
    y = torch.compile(lambda a, b: grid_sample(a, b).sin(), fullgraph=True, backend="aot_eager")(image, grid)
    expected = torchs(image, grid).sin()
    assert_close(y, expected)
    for g, e in zip(torch.autograd.grad(y.sum(), (image, grid)), torch.autograd.grad(expected.sum(), (image, grid)),
                    strict=True):  # fmt: skip
        assert_close(g, e)


def test_autocast_takes_the_wider_of_both():
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        y = grid_sample(torch.randn(1, 2, 4, 4).bfloat16(), points(1, 3, 3, 4, 4).float())
    assert y.dtype == torch.float32


X, G = torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 5, 2)
BAD = {
    "input is no tensor": (([1.0], G), TypeError, "input is list"),
    "integer input": ((X.long(), G), TypeError, "input has dtype torch.int64"),
    "grid of another dtype": ((X, G.double()), TypeError, "grid has dtype torch.float64; expected torch.float32"),
    "grid elsewhere": ((X, G.to("meta")), ValueError, f"grid is on meta; expected {DEVICE.type}"),
    "three dimensions": ((X[0], G), ValueError, r"input has shape \(3, 4, 4\); expected 4 dimensions"),
    "another batch": ((X, G[:1]), ValueError, r"grid has shape \(1, 5, 5, 2\); expected \(2, H', W', 2\)"),
    "points in space": ((X, torch.zeros(2, 5, 5, 3)), ValueError, r"grid has shape \(2, 5, 5, 3\)"),
    "no pixels": ((X[:, :, :0], G), ValueError, "expected at least one pixel"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    args, error, match = BAD[name]
    with pytest.raises(error, match=match):
        grid_sample(*args)
