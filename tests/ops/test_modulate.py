"""modulate in every implementation that runs here: values, gradients of three orders, layouts, dtypes."""

import pytest
import torch
from device import DEVICE, kernels, seeded
from layouts import LAYOUTS
from tolerances import TOLERANCE, assert_close

from fastgan.ops import _library, modulate

# "auto": the reference under the formulas of the derivatives, which `modulate.apply` takes on a GPU alone.
IMPLS = ["reference", "auto", *kernels("modulate")]
# Pixels and channels: one, odd, prime, a plane of several programs, none.
SHAPES = [
    (2, 3, 5, 7),
    (3, 5, 1, 1),
    (2, 1, 8, 8),
    (1, 67, 3, 3),
    (1, 2, 131, 131),
    (1, 70, 2, 2),
    (0, 3, 4, 4),
    (2, 3, 0, 4),
]


def tensors(shape, dtype=torch.float64, layout="NCHW"):
    generator = seeded(1)
    x, scale = (torch.randn(s, generator=generator, dtype=torch.float64, device=DEVICE) for s in (shape, shape[:2]))
    return LAYOUTS[layout](x.to(dtype)), scale.to(dtype)


def apply(impl, x, scale):
    return _library.select("modulate", impl, x)(x, scale) if impl == "auto" else modulate.apply(x, scale, impl)


def every_output(f, given):
    """y, its gradients, and theirs along a fixed direction"""
    leaves = [v.detach().requires_grad_() for v in given]
    y = f(*leaves)
    dy, *directions = (
        torch.randn(v.shape, generator=seeded(2 + i), dtype=torch.float64, device=DEVICE).to(v.dtype)
        for i, v in enumerate((y, *leaves))
    )
    dy.requires_grad_()
    first = torch.autograd.grad(y, leaves, dy, create_graph=True)
    return y, *first, *torch.autograd.grad(first, [*leaves, dy], directions)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_values_and_gradients(impl, dtype, layout):
    given = tensors((2, 5, 7, 9), dtype, layout)
    found = every_output(lambda *v: apply(impl, *v), given)
    expected = every_output(lambda x, s: x * s[:, :, None, None], [v.double() for v in given])
    assert found[0].stride() == torch.empty_like(given[0]).stride()
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == dtype
        assert_close(f, e, 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("impl", IMPLS[1:])
def test_sizes(impl, shape, layout):
    given = tensors(shape, torch.float32, layout)
    expected = every_output(lambda x, s: x * s[:, :, None, None], [v.double() for v in given])
    for f, e in zip(every_output(lambda *v: apply(impl, *v), given), expected, strict=True):
        assert_close(f, e)


@pytest.mark.parametrize("impl", IMPLS)
def test_gradcheck_of_three_orders(impl):
    given = [v.requires_grad_() for v in tensors((2, 3, 2, 3))]
    f = lambda *v: apply(impl, *v)  # noqa: E731
    assert torch.autograd.gradcheck(f, given, fast_mode=impl == "triton")
    assert torch.autograd.gradgradcheck(f, given, fast_mode=True)
    weights = torch.randn(2, 3, 2, 3, generator=seeded(9), dtype=torch.float64, device=DEVICE)

    def gradient(*v):
        return torch.autograd.grad((f(*v) ** 3 * weights).sum(), v, create_graph=True)

    assert torch.autograd.gradgradcheck(gradient, given, fast_mode=True)


@pytest.mark.parametrize("second", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("wanted", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_of_some(impl, wanted, second):
    """Each alone, and of the second order of each alone, as where styles or pictures are frozen."""
    given = tensors((2, 3, 4, 5))

    def both(f):
        leaves = [v.detach().requires_grad_(i in wanted) for i, v in enumerate(given)]
        dy = torch.ones_like(leaves[0]).requires_grad_()
        chosen = [leaves[i] for i in wanted]
        first = torch.autograd.grad(f(*leaves), chosen, dy, create_graph=True)
        some = [g for i, g in zip(wanted, first, strict=True) if i in second]
        return first, torch.autograd.grad(
            sum(g.square().sum() for g in some), [*chosen, dy], allow_unused=True
        ) if some else ()

    found, expected = both(lambda *v: apply(impl, *v)), both(lambda x, s: x * s[:, :, None, None])
    for f, e in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        assert (f is None or not f.any()) if e is None else torch.allclose(f, e)


@pytest.mark.parametrize("impl", IMPLS[1:])
def test_not_finite(impl):
    x, scale = tensors((2, 3, 4, 5), torch.float32)
    x[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    scale[1, 2] = float("inf")
    found, expected = (every_output(lambda *v, i=i: apply(i, *v), (x, scale)) for i in (impl, "reference"))
    for f, e in zip(found, expected, strict=True):
        assert torch.equal(f.isnan(), e.isnan()) and torch.equal(f.isposinf(), e.isposinf())


def test_opcheck():
    for layout in ("NCHW", "NHWC", "samples last"):
        x, scale = (v.requires_grad_() for v in tensors((2, 3, 4, 5), layout=layout))
        torch.library.opcheck(torch.ops.fastgan.modulate.default, (x, scale))
        torch.library.opcheck(
            torch.ops.fastgan.modulate_backward.default, (torch.ones_like(x).requires_grad_(), x, scale)
        )


def test_a_compiler_sees_the_product():
    given = tensors((2, 3, 4, 5))
    seen = []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    y = torch.compile(lambda *v: modulate.apply(*v), fullgraph=True, backend=backend)(*given)
    assert_close(y, given[0] * given[1][:, :, None, None])
    assert seen and not any("fastgan" in name for name in seen)
