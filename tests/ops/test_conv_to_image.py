"""conv_to_image: torch's transposed convolution of stride 2 to few channels, and its derivatives."""

import pytest
import torch
import torch.nn.functional as F
from cpu_levels import LEVELS
from device import kernels
from tolerances import assert_close

from fastgan.ops import conv2d, conv_transpose2d

compiled = pytest.mark.skipif("cpp" not in kernels("conv_to_image"), reason="no CPU kernel under test")
# x; channels, kernel; padding, output_padding: odd and prime sizes, one pixel, several strips of rows, taps left and right of all
CASES = [
    ((2, 5, 4, 5), (3, 4, 4), (1, 1), (0, 0)),
    ((1, 17, 7, 33), (1, 3, 2), (0, 0), (1, 0)),
    ((3, 64, 37, 31), (3, 4, 4), (1, 1), (0, 1)),
    ((1, 2, 70, 65), (4, 7, 4), (2, 3), (1, 1)),
    ((1, 1, 1, 1), (2, 2, 2), (0, 0), (0, 0)),
    ((1, 20, 3, 40), (2, 5, 4), (1, 0), (1, 1)),
    ((2, 3, 1, 2), (1, 1, 4), (0, 1), (0, 1)),
    ((1, 9, 6, 9), (4, 1, 2), (0, 8), (1, 0)),
    ((1, 1, 1, 1), (1, 1, 2), (0, 1), (0, 1)),  # one output, of no tap
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def operands(case, dtype=torch.float64, layout=torch.contiguous_format):
    shape, (channels, *kernel), padding, more = case
    x = torch.randn(shape, dtype=torch.float64).to(dtype).contiguous(memory_format=layout)
    weight = torch.randn(shape[1], channels, *kernel, dtype=torch.float64).to(dtype)
    parts = zip(shape[2:], padding, kernel, more, strict=True)
    return x, weight, list(padding), [(n - 1) * 2 - 2 * pad + k + m for n, pad, k, m in parts]


def torchs(case, x, weight):
    return F.conv_transpose2d(x, weight, None, 2, *case[2:])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@cases
@compiled
def test_equals_torch(cpu_level, case, dtype, level):
    cpu_level(level)
    for layout in (torch.contiguous_format, torch.channels_last):
        x, weight, *rest = operands(case, dtype, layout)
        y = torch.ops.fastgan.conv_to_image(x, weight, *rest)
        assert y.is_contiguous()
        assert_close(y, torchs(case, x, weight))
        strided = torch.randn(*x.shape[:3], 2 * x.shape[3], dtype=dtype)[..., ::2]
        turned = weight.contiguous(memory_format=torch.channels_last)
        assert_close(torch.ops.fastgan.conv_to_image(strided, turned, *rest), torchs(case, strided, weight))


@cases
@compiled
def test_neither_threads_nor_the_batch_nor_what_lay_in_memory_change_a_number(case):
    x, weight, *rest = operands(case, torch.float32)
    x = torch.cat([x, x])
    y = torch.ops.fastgan.conv_to_image(x, weight, *rest)
    torch.ops.fastgan.conv_to_image(torch.full_like(x, torch.nan), weight, *rest)  # leaves its scratch memory behind
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(torch.ops.fastgan.conv_to_image(x, weight, *rest), y)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(
        torch.cat([torch.ops.fastgan.conv_to_image(x[i : i + 1], weight, *rest) for i in range(len(x))]), y
    )


@pytest.mark.parametrize("case", CASES[:1] + CASES[5:6], ids=str)
def test_gradcheck_of_both_orders(case):
    x, weight, *rest = operands(case)
    inputs = (x.requires_grad_(), weight.requires_grad_())

    def f(*t):
        return torch.ops.fastgan.conv_to_image(*t, *rest)

    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(layout):
    x, weight, *rest = operands(CASES[0], layout=layout)
    torch.library.opcheck(torch.ops.fastgan.conv_to_image, (x.requires_grad_(), weight.requires_grad_(), *rest))


@pytest.mark.parametrize("channels", range(1, 9))
def test_images_of_any_channels(channels):
    """What a network calls, whatever computes it: a generator's last layer, and the gradient by images of a first one."""
    x = torch.randn(2, 16, 12, 20, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(16, channels, 4, 4, requires_grad=True)
    y = conv_transpose2d(x, weight, stride=2, padding=1)
    expected = F.conv_transpose2d(x, weight, stride=2, padding=1)
    assert_close(y, expected)
    dy = torch.randn_like(y)
    for found, other in zip(*(torch.autograd.grad(out, (x, weight), dy) for out in (y, expected)), strict=True):
        assert_close(found, other, 1e-5)
    images = torch.randn(2, channels, 24, 40, requires_grad=True)
    features, same = (f(images, weight, stride=2, padding=1) for f in (conv2d, F.conv2d))
    dy = torch.randn_like(same)
    (found,), (other,) = (torch.autograd.grad(out, images, dy) for out in (features, same))
    assert_close(found, other)


@compiled
def test_no_images_and_no_inputs():
    weight = torch.randn(3, 2, 4, 4)
    assert torch.ops.fastgan.conv_to_image(torch.randn(0, 3, 4, 5), weight, [1, 1], [8, 10]).shape == (0, 2, 8, 10)
    y = torch.ops.fastgan.conv_to_image(torch.randn(2, 0, 4, 5), weight[:0], [1, 1], [8, 10])
    assert torch.equal(y, torch.zeros(2, 2, 8, 10))


@compiled
def test_a_wrong_call_raises():
    x, weight = torch.randn(1, 3, 5, 5), torch.randn(3, 2, 4, 4)
    for arguments in [
        (x[0], weight, [1, 1], [10, 10]),
        (x, weight[:2], [1, 1], [10, 10]),
        (x, weight.double(), [1, 1], [10, 10]),
        (x.half(), weight.half(), [1, 1], [10, 10]),
        (x, torch.randn(3, 5, 4, 4), [1, 1], [10, 10]),
        (x, torch.randn(3, 2, 4, 3), [1, 1], [10, 9]),
        (x, weight, [1], [10, 10]),
        (x, weight, [-1, 1], [14, 10]),
        (x, weight, [1, 1], [12, 10]),
        (x, weight, [1, 1], [10, 9]),
    ]:
        with pytest.raises(RuntimeError, match="conv_to_image"):
            torch.ops.fastgan.conv_to_image(*arguments)
