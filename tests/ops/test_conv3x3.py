"""conv3x3: torch's convolution and its derivatives of three orders, by Winograd's algorithm."""

import pytest
import torch
import torch.nn.functional as F
from cpu_levels import LEVELS
from device import kernels
from tolerances import assert_close

compiled = pytest.mark.skipif("cpp" not in kernels("conv3x3"), reason="no CPU kernel under test")
# x, outputs, padding, transposed: odd and prime sizes, one tile, panels of 32 channels and what is left of them
CASES = [
    ((2, 3, 5, 4), 2, 1, False),
    ((1, 37, 7, 6), 33, 0, False),
    ((2, 33, 4, 5), 64, 2, False),
    ((1, 1, 3, 3), 1, 0, False),
    ((2, 5, 6, 5), 3, 1, True),
    ((1, 34, 3, 7), 35, 0, True),
    ((1, 3, 4, 3), 2, 2, True),
    ((3, 32, 23, 21), 32, 1, False),  # several blocks
]


def operands(case, dtype=torch.float64, layout=torch.contiguous_format):
    shape, outputs, padding, transposed = case
    channels = (shape[1], outputs) if transposed else (outputs, shape[1])
    x = torch.randn(shape, dtype=torch.float64).to(dtype).contiguous(memory_format=layout)
    weight = torch.randn(*channels, 3, 3, dtype=torch.float64).to(dtype)
    return x, weight, torch.randn(outputs, dtype=torch.float64).to(dtype), padding, transposed


def torchs(x, weight, bias, padding, transposed):
    return (F.conv_transpose2d if transposed else F.conv2d)(x, weight, bias, padding=padding)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@compiled
def test_kernels_equal_torch(cpu_level, case, dtype, level):
    cpu_level(level)
    for layout in (torch.contiguous_format, torch.channels_last):
        x, weight, *rest = operands(case, dtype, layout)
        found, wanted = torch.ops.fastgan.conv3x3(x, weight, *rest), torchs(x, weight, *rest)
        assert_close(found, wanted)
        dy = torch.randn_like(wanted)
        large, small = (dy, x) if case[3] else (x, dy)
        form = ([1, 1], [case[2]] * 2, [1, 1], case[3], [0, 0], 1)
        dw = torch.ops.aten.convolution_backward(dy, x, weight, None, *form, [False, True, False])[1]
        assert_close(torch.ops.fastgan.conv3x3_weight(small, large, case[2]), dw)


@pytest.mark.parametrize("threads", [1, 2, 3])
@compiled
def test_neither_threads_nor_the_batch_change_a_number(threads):
    x, weight, bias, *rest = operands(((3, 70, 21, 19), 40, 1, False), torch.float32)
    before = torch.get_num_threads()
    wanted = torch.ops.fastgan.conv3x3(x, weight, bias, *rest)
    gradient = torch.ops.fastgan.conv3x3_weight(wanted, x, 1)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(torch.ops.fastgan.conv3x3(x, weight, bias, *rest), wanted)
        assert torch.equal(torch.ops.fastgan.conv3x3(x[1:2], weight, bias, *rest), wanted[1:2])
        assert torch.equal(torch.ops.fastgan.conv3x3_weight(wanted, x, 1), gradient)
    finally:
        torch.set_num_threads(before)


@compiled
def test_images_whose_layout_changes_in_turns():
    """NCHW is turned 16 MiB at a time: here two of three images, then the last."""
    x, weight, bias, *rest = operands(((3, 34, 201, 203), 35, 1, False), torch.float32)
    wanted = torch.ops.fastgan.conv3x3(x.contiguous(memory_format=torch.channels_last), weight, bias, *rest)
    found = torch.ops.fastgan.conv3x3(x, weight, bias, *rest)
    assert found.is_contiguous() and torch.equal(found, wanted)
    gradient = torch.ops.fastgan.conv3x3_weight(wanted, x.contiguous(memory_format=torch.channels_last), 1)
    assert torch.equal(torch.ops.fastgan.conv3x3_weight(found, x, 1), gradient)


@compiled
def test_errors_are_those_of_summing_in_another_order():
    x, weight, bias, *rest = operands(((1, 256, 18, 18), 64, 0, False))
    wanted = torchs(x, weight, bias, *rest)
    found = torch.ops.fastgan.conv3x3(x.float(), weight.float(), bias.float(), *rest)
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("case", CASES[:1] + CASES[4:5], ids=str)
def test_gradcheck_of_three_orders(case):
    x, weight, bias, *rest = operands(case)
    inputs = [t.requires_grad_() for t in (x, weight, bias)]

    def f(*t):
        return torch.ops.fastgan.conv3x3(*t, *rest)

    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)

    def gradient(x, w):
        return torch.autograd.grad(f(x, w, bias).square().sum(), (x, w), create_graph=True)

    assert torch.autograd.gradgradcheck(gradient, inputs[:2], fast_mode=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(layout):
    x, weight, bias, *rest = operands(CASES[1], layout=layout)
    torch.library.opcheck(torch.ops.fastgan.conv3x3, (x.requires_grad_(), weight.requires_grad_(), bias, *rest))
    torch.library.opcheck(torch.ops.fastgan.conv3x3_weight, (torch.randn(1, 33, 5, 4), torch.randn(1, 37, 7, 6), 0))


def test_no_images_make_none_and_no_gradient():
    x, weight = torch.randn(0, 3, 4, 5), torch.randn(2, 3, 3, 3)
    y = torch.ops.fastgan.conv3x3(x, weight, None, 1, False)
    assert y.shape == (0, 2, 4, 5)
    assert torch.equal(torch.ops.fastgan.conv3x3_weight(y, x, 1), torch.zeros(2, 3, 3, 3))


@compiled
def test_a_wrong_call_raises():
    x, weight = torch.randn(1, 3, 5, 5), torch.randn(2, 3, 3, 3)
    for arguments in [
        (x, weight[:, :2], None, 1, False),
        (x, weight[..., :2], None, 1, False),
        (x, weight, torch.randn(3), 1, False),
        (x, weight.double(), None, 1, False),
        (x, weight, None, 3, False),
        (x[:, :, :2, :2], weight, None, 0, False),
        (x.half(), weight.half(), None, 1, False),
    ]:
        with pytest.raises(RuntimeError, match="conv3x3"):
            torch.ops.fastgan.conv3x3(*arguments)
    with pytest.raises(RuntimeError, match="size of the convolution's output"):
        torch.ops.fastgan.conv3x3_weight(x, x, 0)
