"""The op of `accelerate`'s PReLU: torch's numbers and gradients of any order, in every layout, at every level."""

import pytest
import torch
import torch.nn.functional as F
from cpu_levels import LEVELS
from device import kernels
from tolerances import assert_close

from fastgan.ops import _library

IMPLS = ["reference", *kernels("prelu")]
# x, slopes: planes of some pixels, longer than a unit (16384), of one; linear layers, signals; one slope; no numbers
CASES = [
    ((2, 3, 5, 7), 3), ((1, 2, 130, 127), 2), ((3, 5, 1, 1), 5), ((4, 6), 6), ((2, 300), 300), ((2, 3, 11), 3),
    ((2, 3, 5, 7), 1), ((7,), 1), ((), 1), ((1, 1, 200, 200), 1), ((0, 3, 4, 4), 3), ((2, 0, 4), 1),
]  # fmt: skip


def prelu(x, slope, impl="auto"):
    return _library.select("prelu", impl, x)(x, slope)


def operands(shape, slopes, dtype=torch.float64):
    x, dy = torch.randn(2, *shape, dtype=dtype).unbind()
    return x, torch.randn(slopes, dtype=dtype), dy


def layouts(t):
    yield t
    yield torch.stack([t, t], -1)[..., 0]
    yield t.movedim(0, -1).contiguous().movedim(-1, 0) if t.dim() else t
    if t.dim() == 4:
        yield t.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("shape", "slopes"), CASES, ids=str)
def test_equals_torch(cpu_level, shape, slopes, dtype, level):
    cpu_level(level)
    x, slope, dy = operands(shape, slopes, dtype)
    for given in layouts(x):
        for g in (dy, given.clone().copy_(dy)):
            results = []
            for function in (prelu, F.prelu):
                tensors = given.detach().requires_grad_(), slope.clone().requires_grad_()
                y = function(*tensors)
                results.append([y, *torch.autograd.grad(y, tensors, g)])
            for found, expected in zip(*results, strict=True):
                assert found.shape == expected.shape and found.dtype == expected.dtype
                assert_close(found, expected)
            assert results[0][0].stride() == torch.empty_like(given).stride()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("shape", "slopes"), [((2, 3, 2, 3), 3), ((2, 3, 2), 1), ((3, 4), 4)])
def test_gradients_of_both_orders(impl, shape, slopes):
    x, slope, dy = operands(shape, slopes)
    x = torch.where(x.abs() < 0.01, 0.5, x).requires_grad_()
    tensors = x, slope.requires_grad_()
    assert torch.autograd.gradcheck(lambda *t: prelu(*t, impl), tensors)
    assert torch.autograd.gradgradcheck(lambda *t: prelu(*t, impl), tensors, dy.requires_grad_())


@pytest.mark.parametrize("wanted", ["x", "slope", "both"])
def test_second_and_third_derivatives_are_torchs(wanted):
    """Each path alone, what is zero being zeros and not None, and a kink."""
    x, slope, dy = operands((2, 3, 4, 5), 3)
    x[0, :, 0, 0] = 0
    results = []
    for function in (prelu, F.prelu):
        given = [t.clone().requires_grad_() for t in (x, slope, dy)]
        first = torch.autograd.grad(
            function(*given[:2]), given[: 2 if wanted != "x" else 1], given[2], create_graph=True
        )
        s = sum(g.square().sum() for g in (first[1:] if wanted == "slope" else first))
        second = torch.autograd.grad(s, given, create_graph=True, allow_unused=True)
        assert None not in second
        third = torch.autograd.grad(sum(g.pow(3).sum() for g in second), given, allow_unused=True)
        results.append(
            [*first, *second, *(torch.zeros_like(t) if g is None else g for g, t in zip(third, given, strict=True))]
        )
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("slopes", [1, 4])
def test_not_finite(cpu_level, slopes, level):
    """Where x is above 0 neither it nor dy reaches the slope, whatever they are."""
    cpu_level(level)
    special = torch.tensor([float("nan"), float("inf"), float("-inf"), 1.0, -1.0, 0.0, -0.0])
    x, dy = torch.cartesian_prod(special, special).repeat(4, 1).unbind(1)
    for layout in (torch.contiguous_format, torch.channels_last):
        results = []
        for function in (prelu, F.prelu):
            t = x.view(1, 4, 7, 7).contiguous(memory_format=layout).requires_grad_()
            y = function(t, slope := torch.rand(slopes).requires_grad_())
            slope.data.fill_(0.25)
            results.append([y, *torch.autograd.grad(y, (t, slope), dy.view(1, 4, 7, 7))])
        assert torch.equal(results[0][1].isnan(), results[1][1].isnan())
        assert torch.equal(results[0][2].isnan(), results[1][2].isnan())
        assert_close(results[0][1].nan_to_num(), results[1][1].nan_to_num())
    finite = torch.where(x > 0, x, -1.0)
    t, slope = finite.view(1, 4, 7, 7).requires_grad_(), torch.rand(slopes, requires_grad=True)
    g = torch.where(finite > 0, dy, 1.0).view(1, 4, 7, 7)
    assert torch.autograd.grad(prelu(t, slope), slope, g)[0].isfinite().all()


def test_threads_change_no_number():
    x, slope, dy = operands((3, 5, 90, 91), 5, torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(torch.ops.fastgan.prelu_backward(dy, x, slope))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


def test_opcheck_and_compile():
    x, slope, dy = (t.requires_grad_() for t in operands((2, 3, 4, 4), 3, torch.float32))
    torch.library.opcheck(torch.ops.fastgan.prelu.default, (x, slope))
    torch.library.opcheck(torch.ops.fastgan.prelu_backward.default, (dy, x, slope))
    y = torch.compile(prelu, fullgraph=True, backend="aot_eager")(x, slope)
    for found, expected in zip(
        *(torch.autograd.grad(z.sum(), (x, slope)) for z in (y, F.prelu(x, slope))), strict=True
    ):
        assert_close(found, expected)


@pytest.mark.skipif(not LEVELS, reason="no CPU kernel under test")
@pytest.mark.parametrize(
    ("x", "slope"),
    [
        (torch.zeros(2, 3), torch.zeros(2)),
        (torch.zeros(3), torch.zeros(3)),
        (torch.zeros(2, 3), torch.zeros(1, 3)),
        (torch.zeros(2, 3), torch.zeros(3).double()),
        (torch.zeros(2, 3).half(), torch.zeros(3).half()),
    ],
)
def test_wrong_arguments(x, slope):
    for call in (torch.ops.fastgan.prelu, lambda *t: torch.ops.fastgan.prelu_backward(x, *t)):
        with pytest.raises(RuntimeError, match=r"prelu: (slope|x) must be"):
            call(x, slope)
