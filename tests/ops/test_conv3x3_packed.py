"""conv3x3_packed: the convolution, whatever the size, wherever its pixels lie."""

import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close

from fastgan.ops import available, conv3x3_packed

ops = torch.ops.fastgan
CASES = [(1, 1, 1, 1, 1, 1), (2, 3, 5, 7, 17, 1), (1, 16, 13, 4, 32, 0), (3, 20, 6, 9, 16, 2), (2, 130, 8, 8, 33, 1)]


def case(n, inputs, height, width, outputs, padding):
    torch.manual_seed(0)
    x = torch.randn(n, inputs, height, width).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5)
    bias, slope = torch.randn(outputs), torch.rand(outputs)
    return x, weight, bias, slope, torch.randn(n, outputs, height + 2 * padding - 2, width + 2 * padding - 2)


def expected(x, weight, bias, slope, other, padding):
    y = F.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    y = y if other is None else y + other
    return torch.where(y > 0, y, y * slope[:, None, None])


@pytest.mark.parametrize("sizes", CASES[:1] + [c for c in CASES if min(c[2:4]) + 2 * c[5] >= 3][1:])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("adds", [False, True])
def test_numbers(sizes, reference, adds):
    x, weight, bias, slope, other = case(*sizes)
    other = other.contiguous(memory_format=torch.channels_last) if adds else None
    size = expected(x, weight, bias, slope, None, sizes[5]).shape
    y = torch.full(size, float("nan")).contiguous(memory_format=torch.channels_last)
    if reference:
        conv3x3_packed._packed(y, x, conv3x3_packed._pack(weight), bias, slope, other, sizes[5])
    else:
        ops.conv3x3_packed(y, x, ops.conv3x3_pack(weight), bias, slope, other, sizes[5])
    assert_close(y, expected(x, weight, bias, slope, other, sizes[5]).float())


def test_packed_weights_are_the_references():
    weight = torch.randn(18, 5, 3, 3)
    assert_close(ops.conv3x3_pack(weight), conv3x3_packed._pack(weight), 1e-6)


def test_channels_of_wider_images_and_over_what_is_added():
    x, weight, bias, slope, other = case(2, 16, 7, 6, 8, 1)
    wide, target = torch.randn(2, 7, 6, 40).permute(0, 3, 1, 2), torch.randn(2, 7, 6, 20).permute(0, 3, 1, 2)
    wide[:, 4:20], target[:, 3:11] = x, other
    outside = target.clone()
    y = target[:, 3:11]
    result = ops.conv3x3_packed(y, wide[:, 4:20], ops.conv3x3_pack(weight), bias, slope, y, 1)
    assert result.data_ptr() == y.data_ptr()
    assert_close(y, expected(x, weight, bias, slope, other, 1).float())
    assert torch.equal(target[:, :3], outside[:, :3]) and torch.equal(target[:, 11:], outside[:, 11:])


def test_threads_change_nothing():
    x, weight, bias, slope, _ = case(2, 32, 33, 35, 40, 1)
    u, before, results = ops.conv3x3_pack(weight), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = torch.empty(2, 40, 33, 35).contiguous(memory_format=torch.channels_last)
            results.append(ops.conv3x3_packed(y, x, u, bias, slope, None, 1).clone())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], y) for y in results)


@pytest.mark.skipif(not available()["conv3x3_packed"]["cpp"], reason="no compiled kernels")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (dict(x=torch.randn(1, 4, 6, 6)), "side by side"),
        (dict(x=torch.zeros(1, 6, 6, 0).permute(0, 3, 1, 2), u=torch.zeros(1, 36, 0, 16)), "x has no channels"),
        (dict(u=torch.zeros(1, 36, 4, 16)), "conv3x3_pack"),
        (dict(bias=torch.zeros(7)), "vectors of the outputs"),
        (dict(padding=2), "size of the convolution"),
        (dict(padding=3), "size of the convolution"),
        (dict(other=torch.zeros(1, 8, 5, 5).contiguous(memory_format=torch.channels_last)), "other"),
    ],
)
def test_what_does_not_fit_is_refused(change, why):
    x, weight, bias, slope, _ = case(1, 16, 6, 6, 8, 1)
    y = torch.empty(1, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    arguments = dict(y=y, x=x, u=ops.conv3x3_pack(weight), bias=bias, slope=slope, other=None, padding=1) | change
    with pytest.raises(RuntimeError, match=why):
        ops.conv3x3_packed(*arguments.values())
