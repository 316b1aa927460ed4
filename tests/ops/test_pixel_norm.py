import pytest
import torch
from derivatives import derivatives
from golden import golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE, assert_close

from fastgan.ops import pixel_norm


@pytest.mark.parametrize(("case", "tensors"), golden_cases("stylegan_misc", "normalize_2nd_moment"))
def test_golden(case, tensors):
    found = derivatives(
        lambda x: pixel_norm(x, **case["kwargs"]), {"x": tensors["x"]}, tensors["gy"], tensors["v"], "x"
    )
    for name, value in found.items():
        # of an all-zero input, derivatives are powers of 1/sqrt(eps) = 1e4: relative to their size
        assert_close(value, tensors[name])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_generated_arguments(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    eps = data.draw(st.sampled_from([1e-8, 1e-2, 1.0]))
    x = torch.randn(shape, dtype=torch.float64)
    y = pixel_norm(x, dim, eps)
    lines = (t.movedim(dim, -1).reshape(-1, shape[dim]) for t in (x, y))
    for line, found in zip(*lines, strict=True):
        assert_close(found, line / (line.square().sum() / shape[dim] + eps) ** 0.5)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gradcheck_of_both_orders(dim):
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pixel_norm(x, dim), x)
    assert torch.autograd.gradgradcheck(lambda x: pixel_norm(x, dim), x)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes_and_range(dtype):
    x = (torch.randn(4, 64) * 3000).to(dtype)  # squares beyond the range of float16
    y = pixel_norm(x)
    assert y.dtype == dtype
    assert_close(y, x.double() / x.double().square().mean(1, keepdim=True).sqrt())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layout_is_kept(memory_format):
    x = torch.randn(2, 5, 3, 7).contiguous(memory_format=memory_format)
    assert pixel_norm(x).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 2)])
def test_empty(shape):
    x = torch.randn(shape, requires_grad=True)
    y = pixel_norm(x)
    assert y.shape == shape and torch.autograd.grad(y.sum(), x)[0].shape == shape


def test_compiles_without_a_graph_break():
    x = torch.randn(4, 7, requires_grad=True)
    y = torch.compile(pixel_norm, fullgraph=True, backend="aot_eager")(x)
    assert_close(y, pixel_norm(x))
    (g,), (e,) = (torch.autograd.grad(f(x).sin().sum(), x) for f in (lambda _: y, pixel_norm))
    assert_close(g, e)


BAD = {
    "no tensor": (([1.0],), TypeError, "x is list"),
    "integer": ((torch.zeros(2, 3).long(),), TypeError, "x has dtype torch.int64"),
    "dim": ((torch.zeros(2, 3), 2), ValueError, r"dim=2; expected a dimension of x, which has shape \(2, 3\)"),
    "a vector": ((torch.zeros(2),), ValueError, "dim=1; expected a dimension"),
    "eps": ((torch.zeros(2, 3), 1, 0.0), ValueError, "eps=0.0; expected a number > 0"),
    "eps is NaN": ((torch.zeros(2, 3), 1, float("nan")), ValueError, "eps=nan; expected a number > 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    args, error, match = BAD[name]
    with pytest.raises(error, match=match):
        pixel_norm(*args)
