"""conv2d and conv_transpose2d: torch's numbers and derivatives of three orders, and weight gradients that can be switched off."""

import pytest
import torch
import torch.nn.functional as F
from derivatives import derivatives
from device import DEVICE
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE, assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan.ops import conv2d, conv_transpose2d, no_weight_gradients

# (function, torch's, x, weight, bias size, options)
CASES = {
    "plain": (conv2d, F.conv2d, (2, 3, 5, 4), (4, 3, 3, 2), 4, {}),
    "strided": (conv2d, F.conv2d, (2, 2, 7, 6), (3, 2, 3, 3), 3, dict(stride=(2, 3), padding=(1, 2), dilation=(2, 1))),
    "groups": (conv2d, F.conv2d, (2, 4, 5, 4), (6, 2, 3, 3), 6, dict(padding=1, groups=2)),
    "depthwise": (conv2d, F.conv2d, (2, 3, 5, 4), (3, 1, 3, 3), 3, dict(padding=1, groups=3)),
    "transposed": (conv_transpose2d, F.conv_transpose2d, (2, 3, 4, 3), (3, 2, 3, 2), 2, {}),
    "transposed strided": (conv_transpose2d, F.conv_transpose2d, (2, 2, 3, 4), (2, 3, 4, 3), 3,
                           dict(stride=(2, 3), padding=(1, 0), output_padding=(1, 2), dilation=(1, 2))),
    "transposed groups": (conv_transpose2d, F.conv_transpose2d, (2, 4, 4, 3), (4, 3, 3, 3), 6,
                          dict(stride=2, padding=1, groups=2)),
}  # fmt: skip


def operands(case, dtype=torch.float64, layout=torch.contiguous_format):
    f, plain, x, w, b, options = CASES[case]
    tensors = [torch.randn(s, dtype=torch.float64).to(dtype) for s in (x, w, b)]
    tensors[0] = tensors[0].contiguous(memory_format=layout)
    return f, plain, dict(zip(("input", "weight", "bias"), tensors, strict=True)), options


class Convolutions(TorchDispatchMode):
    """Records the gradients that every aten.convolution_backward was asked for: [by input, by weight]."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.asked.append(list(args[10][:2]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES)
def test_two_orders_equal_torchs(case, layout):
    f, plain, tensors, options = operands(case, layout=layout)
    gy = torch.randn_like(plain(*tensors.values(), **options))
    for by in ("input", "weight", "bias"):
        v = torch.randn_like(tensors[by])
        found = derivatives(lambda **t: f(**t, **options), tensors, gy, v, by)
        wanted = derivatives(lambda **t: plain(**t, **options), tensors, gy, v, by)
        for name in wanted:
            assert_close(found[name], wanted[name])


@pytest.mark.parametrize("case", CASES)
def test_gradcheck_of_three_orders(case):
    f, _, tensors, options = operands(case)
    inputs = tuple(t.requires_grad_() for t in tensors.values())

    def g(*t):
        return f(*t, **options)

    assert torch.autograd.gradcheck(g, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(g, inputs, fast_mode=True)
    v = torch.randn_like(g(*inputs))

    def gradient(x, w):
        return torch.autograd.grad((f(x, w, **options).square() * v).sum(), (x, w), create_graph=True)

    assert torch.autograd.gradgradcheck(gradient, inputs[:2], fast_mode=True)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", ["groups", "transposed strided"])
def test_dtypes(case, dtype):
    f, plain, tensors, options = operands(case, dtype)
    leaves = [t.requires_grad_() for t in tensors.values()]
    y = f(*leaves, **options)
    assert y.dtype == dtype
    assert_close(y, plain(*(t.double() for t in leaves), **options))
    assert all(g.dtype == dtype for g in torch.autograd.grad(y.float().sum(), leaves))


@pytest.mark.parametrize("case", ["groups", "transposed groups"])
def test_no_weight_gradients_skips_their_kernel_and_nothing_else(case):
    f, plain, tensors, options = operands(case)
    x, w, b = (t.requires_grad_() for t in tensors.values())
    y = f(x, w, b, **options)
    with Convolutions() as calls, no_weight_gradients():
        y.sum().backward()
    assert calls.asked == [[True, False]] and w.grad is None
    expected = torch.autograd.grad(plain(x, w, b, **options).sum(), (x, b))
    assert_close(x.grad, expected[0])
    assert_close(b.grad, expected[1])
    with Convolutions() as calls, no_weight_gradients(disable=False):
        f(x, w, b, **options).sum().backward()
    assert calls.asked == [[True, True]] and w.grad is not None


def test_only_the_gradients_that_are_used_are_computed():
    """A penalty's pass by the images makes no weight gradient, its pass by the weights none of images; if this fails, torch has
    changed `torch._C._will_engine_execute_node`."""
    x, w, other = torch.randn(2, 3, 5, 5), torch.randn(3, 3, 3, 3), torch.randn(4, 3, 3, 3)
    for t in (x, w, other):
        t.requires_grad_()

    def network():
        return conv2d(conv2d(x, w, padding=1), other).sum()

    y = network()
    with Convolutions() as calls:
        (g,) = torch.autograd.grad(y, x, create_graph=True)
    assert calls.asked == [[True, False]] * 2
    with Convolutions() as calls:
        torch.autograd.grad(g.square().sum(), [w, other])
    assert calls.asked == [[False, True]] * 2  # none through the forward pass: a convolution has no curvature
    with Convolutions() as calls:
        torch.autograd.grad(network(), other)
    assert calls.asked == [[False, True]]
    with Convolutions() as calls:
        network().backward()
    assert calls.asked == [[True, True]] * 2


def test_no_weight_gradients_nests_and_ends_with_an_error():
    x, w = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3, requires_grad=True)

    def has_gradient():
        w.grad = None
        conv2d(x, w).sum().backward()
        return w.grad is not None

    with pytest.raises(KeyError), no_weight_gradients():
        with no_weight_gradients(disable=False):
            assert not has_gradient()
        assert not has_gradient()
        raise KeyError
    assert has_gradient()


@pytest.mark.parametrize("case", CASES)
def test_a_penalty_under_no_weight_gradients_trains_the_weights(case):
    f, plain, tensors, options = operands(case)
    x, w, _ = (t.requires_grad_() for t in tensors.values())

    def penalty(f):
        (g,) = torch.autograd.grad(f(x, w, **options).sin().sum(), x, create_graph=True)
        return g

    with Convolutions() as calls, no_weight_gradients():
        g = penalty(f)
    assert calls.asked == [[True, False]]
    found = torch.autograd.grad(g.square().sum(), (x, w))
    wanted = torch.autograd.grad(penalty(plain).square().sum(), (x, w))
    for a, e in zip(found, wanted, strict=True):
        assert_close(a, e)


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 3, 5, 5)])
def test_zero_sizes(shape):
    x, w = torch.randn(shape, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    y = conv2d(x, w, padding=1)
    dx, dw = torch.autograd.grad(y.sum(), (x, w))
    assert y.shape == (shape[0], 4, 5, 5) and dx.shape == shape and dw.shape == w.shape
    assert bool(dw.any()) == bool(shape[0])


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_generated_arguments(data):
    def two(least, most):
        return tuple(data.draw(st.integers(least, most)) for _ in range(2))

    groups, per_in, per_out = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel, stride, dilation, padding = two(1, 3), two(1, 3), two(1, 2), two(0, 2)
    x = torch.randn(data.draw(st.integers(1, 2)), groups * per_in, *two(5, 8), dtype=torch.float64, requires_grad=True)
    if data.draw(st.booleans()):
        w = torch.randn(groups * per_in, per_out, *kernel, dtype=torch.float64, requires_grad=True)
        extra = tuple(min(e, max(s, d) - 1) for e, s, d in zip(two(0, 2), stride, dilation, strict=True))
        arguments = (None, stride, padding, extra, groups, dilation)
        pair = (conv_transpose2d, F.conv_transpose2d)
    else:
        w = torch.randn(groups * per_out, per_in, *kernel, dtype=torch.float64, requires_grad=True)
        arguments = (None, stride, padding, dilation, groups)
        pair = (conv2d, F.conv2d)
    try:
        wanted = pair[1](x, w, *arguments)
    except RuntimeError:  # a kernel or a cropping larger than the image
        return
    found = pair[0](x, w, *arguments)
    assert_close(found, wanted)
    for a, e in zip(torch.autograd.grad(found.sin().sum(), (x, w)), torch.autograd.grad(wanted.sin().sum(), (x, w)),
                    strict=True):  # fmt: skip
        assert_close(a, e)


@pytest.mark.parametrize("case", ["strided", "transposed groups"])
def test_compiles_without_a_graph_break(case):
    f, _, tensors, options = operands(case, torch.float32)
    leaves = [t.requires_grad_() for t in tensors.values()]

    def g(*t):
        return f(*t, **options).sin()

    torch._dynamo.reset()
    found, wanted = torch.compile(g, fullgraph=True, backend="aot_eager")(*leaves), g(*leaves)
    assert_close(found, wanted)
    for a, e in zip(torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(wanted.sum(), leaves), strict=True):
        assert_close(a, e)


def test_autocast_casts_and_keeps_the_gradients_of_float32():
    x, w, b = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(4, requires_grad=True)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        y = conv2d(x, w, b)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert w.grad.dtype == b.grad.dtype == torch.float32


X, W = torch.zeros(1, 4, 6, 6), torch.zeros(2, 4, 3, 3)
BAD = {
    "input is no tensor": (([1.0], W), {}, TypeError, "input is list"),
    "integer weight": ((X, W.long()), {}, TypeError, "weight has dtype torch.int64"),
    "three dimensions": ((X[0], W), {}, ValueError, r"input has shape \(4, 6, 6\); expected 4 dimensions"),
    "weight of another dtype": (
        (X, W.double()),
        {},
        TypeError,
        "weight has dtype torch.float64; expected torch.float32",
    ),
    "weight elsewhere": ((X, W.to("meta")), {}, ValueError, f"weight is on meta; expected {DEVICE.type}"),
    "channels": ((X[:, :3], W), {}, ValueError, "expected one for the 3 channels"),
    "groups": ((X, W), {"groups": 2}, ValueError, "with groups=2; expected one for the 4 channels"),
    "no groups": ((X, W), {"groups": 0}, ValueError, "groups=0; expected an integer >= 1"),
    "bias": ((X, W, torch.zeros(3)), {}, ValueError, r"bias has shape \(3,\); expected \(2,\)"),
    "stride": ((X, W), {"stride": 0}, ValueError, "stride=0; expected an integer >= 1, or two of them"),
    "padding": ((X, W), {"padding": (1, -1)}, ValueError, r"padding=\(1, -1\); expected an integer >= 0"),
    "dilation": ((X, W), {"dilation": (1, 2, 3)}, ValueError, r"dilation=\(1, 2, 3\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    args, kwargs, error, match = BAD[name]
    with pytest.raises(error, match=match):
        conv2d(*args, **kwargs)


def test_transposed_refuses():
    with pytest.raises(ValueError, match=r"weight has shape .*; expected one for the 4 channels"):
        conv_transpose2d(X, W)
    with pytest.raises(ValueError, match="output_padding=-1"):
        conv_transpose2d(X, torch.zeros(4, 2, 3, 3), output_padding=-1)


def test_sizes_that_torch_refuses_are_refused_by_name():
    with pytest.raises(ValueError, match="conv2d: height of input is 6 with padding=0; expected at least 9"):
        conv2d(X, torch.zeros(2, 4, 9, 3))
    with pytest.raises(ValueError, match="conv_transpose2d: output_padding=2; expected less than stride=2"):
        conv_transpose2d(X, torch.zeros(4, 2, 3, 3), stride=2, output_padding=2)


def test_float64_weight_to_one_channel_in_channels_last():
    x = torch.randn(1, 32, 13, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.empty_strided((1, 32, 3, 3), (96, 1, 96, 32), dtype=torch.float64).normal_().requires_grad_()
    found = torch.autograd.grad(conv2d(x, w, stride=2, padding=1).square().sum(), (x, w))
    plain = w.detach().contiguous().requires_grad_()
    expected = torch.autograd.grad(F.conv2d(x, plain, stride=2, padding=1).square().sum(), (x, plain))
    torch.testing.assert_close(found, expected)


def test_grouped_transposed_weight_with_a_side_of_1_and_odd_strides():
    """Where torch's own is wrong by more than the numbers are large."""
    x = torch.randn(1, 64, 7, 13).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.empty_strided((64, 32, 1, 3), (96, 1, 6144, 32)).normal_().requires_grad_()
    found = conv_transpose2d(x, w, padding=1, groups=2)
    wide = [t.detach().double().contiguous().requires_grad_() for t in (x, w)]
    expected = F.conv_transpose2d(*wide, padding=1, groups=2)
    assert_close(found, expected)
    gy = torch.randn(found.shape)
    for a, b in zip(
        torch.autograd.grad(found, (x, w), gy), torch.autograd.grad(expected, wide, gy.double()), strict=True
    ):
        assert_close(a, b)


def test_transposed_weight_of_one_channel_with_an_odd_stride():
    """A side of 1 may have any stride: torch 2.14's gradient of the weight refuses this one on a CPU."""
    x = torch.empty_strided((1, 1, 4, 4), (16, 1, 4, 1)).copy_(torch.randn(1, 1, 4, 4)).requires_grad_()
    w = torch.empty_strided((1, 3, 2, 3), (9, 1, 9, 3)).copy_(torch.randn(1, 3, 2, 3)).requires_grad_()
    wide = [t.detach().double().contiguous().requires_grad_() for t in (x, w)]
    y, expected = conv_transpose2d(x, w, stride=[2, 1]), F.conv_transpose2d(*wide, stride=[2, 1])
    assert_close(y, expected)
    for found, e in zip(
        torch.autograd.grad(y.sin().sum(), (x, w)), torch.autograd.grad(expected.sin().sum(), wide), strict=True
    ):
        assert_close(found, e)
