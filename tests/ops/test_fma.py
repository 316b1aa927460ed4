import pytest
import torch
from device import DEVICE
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE, assert_close

from fastgan.ops import fma


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_broadcasts_and_sums_gradients_back(data):
    full = data.draw(st.lists(st.integers(0, 4), max_size=4))
    operands = []
    for _ in range(3):
        shape = [data.draw(st.sampled_from([size, 1])) for size in full][data.draw(st.integers(0, len(full))) :]
        operands.append(torch.randn(shape, dtype=torch.float64, requires_grad=True))
    a, b, c = operands
    y, expected = fma(a, b, c), a * b + c
    assert_close(y, expected)
    dy = torch.randn_like(expected)
    for g, e in zip(torch.autograd.grad(y, operands, dy), torch.autograd.grad(expected, operands, dy), strict=True):
        assert_close(g, e)


def test_gradcheck_of_both_orders():
    shapes = ((2, 3), (3,), (2, 1))
    operands = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(fma, operands)
    assert torch.autograd.gradgradcheck(fma, operands)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtypes_and_layouts(dtype, memory_format):
    a, c = torch.randn(2, 2, 5, 3, 7).to(dtype)
    a, c = (t.contiguous(memory_format=memory_format) for t in (a, c))
    b = torch.randn(2, 5, 1, 1).to(dtype)
    y = fma(a, b, c)
    assert y.dtype == dtype and y.is_contiguous(memory_format=memory_format)
    assert_close(y, a.double() * b.double() + c.double())


def test_compiles_without_a_graph_break():
    operands = [torch.randn(s, requires_grad=True) for s in ((2, 3), (3,), (2, 1))]
    y = torch.compile(fma, fullgraph=True, backend="aot_eager")(*operands)
    for g, e in zip(torch.autograd.grad(y.sin().sum(), operands),
                    torch.autograd.grad(fma(*operands).sin().sum(), operands), strict=True):  # fmt: skip
        assert_close(g, e)


X = torch.zeros(2, 3)
BAD = {
    "no tensor": ((X, 2.0, X), TypeError, "b is float"),
    "integer": ((X, X, X.long()), TypeError, "c has dtype torch.int64"),
    "another dtype": ((X, X.double(), X), TypeError, "b has dtype torch.float64; expected torch.float32"),
    "elsewhere": ((X, X, X.to("meta")), ValueError, f"c is on meta; expected {DEVICE.type}"),
    "shapes": ((X, torch.zeros(2), X), ValueError, r"shapes \(2, 3\), \(2,\), \(2, 3\); expected broadcastable ones"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    args, error, match = BAD[name]
    with pytest.raises(error, match=match):
        fma(*args)
