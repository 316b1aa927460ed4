import pytest
import torch
from derivatives import derivatives
from golden import golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE, assert_close

from fastgan.ops import minibatch_stddev


def formula(x, group_size, num_channels):
    """The docstring, sample by sample, group by group."""
    n, c, h, w = x.shape
    groups = n // (n if group_size is None else min(group_size, n))
    y = x.new_zeros(n, c + num_channels, h, w)
    y[:, :c] = x
    for sample in range(n):
        members = x[sample % groups :: groups]
        deviation = ((members - members.mean(0)).square().mean(0) + 1e-8).sqrt()
        for f, block in enumerate(deviation.chunk(num_channels)):
            y[sample, c + f] = block.mean()
    return y


@pytest.mark.parametrize(("case", "tensors"), golden_cases("stylegan_misc", "minibatch_std"))
def test_golden(case, tensors):
    found = derivatives(
        lambda x: minibatch_stddev(x, **case["kwargs"]), {"x": tensors["x"]}, tensors["gy"], tensors["v"], "x"
    )
    for name, value in found.items():
        assert_close(value, tensors[name])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_generated_arguments(data):
    group, groups, f, blocks, h, w = (data.draw(st.integers(1, 4)) for _ in range(6))
    x = torch.randn(group * groups, f * blocks, h, w, dtype=torch.float64)
    if data.draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    size = data.draw(st.sampled_from([group, None if groups == 1 else group]))
    assert_close(minibatch_stddev(x, size, f), formula(x, size, f))


@pytest.mark.parametrize("group_size", [2, None])
def test_gradcheck_of_both_orders(group_size):
    x = torch.randn(4, 4, 2, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: minibatch_stddev(x, group_size, 2), x)
    assert torch.autograd.gradgradcheck(lambda x: minibatch_stddev(x, group_size, 2), x)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes(dtype):
    x = (torch.randn(8, 6, 5, 3) * 3 + 20).to(dtype)
    y = minibatch_stddev(x, 4, 3)
    assert y.dtype == dtype and torch.equal(y[:, :6], x)
    assert_close(y[:, 6:], formula(x.double(), 4, 3)[:, 6:])


def test_equal_samples_have_a_finite_gradient():
    x = torch.ones(4, 3, 2, 2, requires_grad=True)
    y = minibatch_stddev(x)
    assert_close(y[:, 3:], torch.full((4, 1, 2, 2), 1e-4))
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(g.square().sum(), x)
    assert g.isfinite().all() and second.isfinite().all()


def test_empty_batch():
    x = torch.randn(0, 4, 3, 3, requires_grad=True)
    y = minibatch_stddev(x, 4, 2)
    assert y.shape == (0, 6, 3, 3)
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_compiles_without_a_graph_break():
    x = torch.randn(4, 3, 5, 2, requires_grad=True)
    y = torch.compile(minibatch_stddev, fullgraph=True, backend="aot_eager")(x)
    expected = formula(x, 4, 1)
    assert_close(y, expected)
    assert_close(torch.autograd.grad(y.sin().sum(), x)[0], torch.autograd.grad(expected.sin().sum(), x)[0])


X = torch.zeros(6, 4, 3, 3)
BAD = {
    "no tensor": (([1.0],), TypeError, "x is list"),
    "integer": ((X.long(),), TypeError, "x has dtype torch.int64"),
    "a vector": ((X[0, 0, 0],), ValueError, r"x has shape \(3,\); expected 4 dimensions"),
    "group size": ((X, 4), ValueError, "group_size=4; expected None or a divisor of the batch size 6"),
    "no group": ((X, 0), ValueError, "group_size=0; expected None or a divisor"),
    "negative group": ((X, -2), ValueError, "group_size=-2; expected None or a divisor"),
    "channels": ((X, 3, 3), ValueError, "num_channels=3; expected a divisor of the 4 channels"),
    "no channels": ((X, 3, 0), ValueError, "num_channels=0; expected a divisor"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    args, error, match = BAD[name]
    with pytest.raises(error, match=match):
        minibatch_stddev(*args)
