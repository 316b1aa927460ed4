"""conv_packed: the convolution, whatever its form, wherever its pixels lie."""

import pytest
import torch
from cpu_levels import LEVELS
from tolerances import assert_close

from fastgan.ops import available, conv_packed

ops = torch.ops.fastgan
# images, inputs, height, width, outputs; kernel, stride, padding, dilation, groups, transposed
FORMS = [
    ((1, 1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 1, False),
    ((2, 3, 9, 7, 17), (3, 3), (1, 1), (1, 1), (1, 1), 1, False),
    ((1, 200, 5, 6, 16), (1, 1), (1, 1), (0, 0), (1, 1), 1, False),
    ((3, 24, 11, 10, 40), (4, 3), (2, 3), (1, 0), (1, 1), 2, False),
    ((2, 32, 12, 13, 64), (3, 3), (1, 1), (2, 1), (2, 1), 4, False),
    ((1, 40, 1, 130, 24), (1, 11), (1, 1), (0, 25), (1, 5), 1, False),
    ((1, 16, 2, 2, 16), (4, 4), (2, 2), (1, 1), (1, 1), 1, False),
    ((2, 20, 5, 6, 18), (4, 4), (2, 2), (1, 1), (1, 1), 1, True),
    ((1, 16, 4, 3, 8), (3, 3), (2, 2), (0, 1), (1, 1), 2, True),
    ((1, 16, 1, 20, 8), (1, 16), (1, 8), (0, 4), (1, 1), 1, True),
    ((1, 8, 3, 3, 5), (2, 1), (3, 2), (0, 0), (1, 1), 1, True),
    ((1, 230, 3, 4, 33), (5, 5), (1, 1), (2, 2), (1, 1), 1, True),
]


def pixels(*shape):
    n, c, h, w = shape
    return torch.randn(n, h, w, c).permute(0, 3, 1, 2)


def case(sizes, kernel, stride, padding, dilation, groups, transposed, more=(0, 0)):
    """The arguments of the op, and what it must give."""
    torch.manual_seed(0)
    n, inputs, height, width, outputs = sizes
    x = pixels(n, inputs, height, width)
    channels = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    weight = torch.randn(*channels, *kernel) / (inputs // groups * kernel[0] * kernel[1]) ** 0.5
    bias, slope = torch.randn(outputs), torch.rand(outputs)
    form = (stride, padding, dilation, transposed, more, groups)
    z = torch.ops.aten.convolution(x.double(), weight.double(), bias.double(), *form)
    other = pixels(*z.shape)
    packed = conv_packed.pack(weight, stride, padding, groups, transposed)
    rest = (groups, kernel, stride, padding, dilation, transposed)
    return x, packed, bias, slope, other, rest, z


def act(z, slope):
    return torch.where(z > 0, z, z * slope[:, None, None]).float()


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_numbers(form, adds, reference):
    x, packed, bias, slope, other, rest, z = case(*form)
    y = torch.full_like(other, float("nan"))
    op = conv_packed._convolve if reference else ops.conv_packed
    op(y, x, packed, bias, slope, other if adds else None, *rest)
    assert_close(y, act(z + other if adds else z, slope))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", FORMS[3:9:2])
def test_levels(form, level, cpu_level):
    cpu_level(level)
    x, packed, bias, slope, other, rest, z = case(*form)
    assert_close(ops.conv_packed(torch.empty_like(other), x, packed, bias, slope, None, *rest), act(z, slope))


def test_output_padding_of_transposed_ones():
    x, packed, bias, slope, other, rest, z = case(*FORMS[8], more=(1, 0))
    assert_close(ops.conv_packed(torch.empty_like(other), x, packed, bias, slope, None, *rest), act(z, slope))


def test_channels_of_wider_images_and_over_what_is_added():
    x, packed, bias, slope, other, rest, z = case(*FORMS[4])
    wide, target = pixels(2, 40, 12, 13), pixels(2, 70, *z.shape[2:])
    wide[:, 4:36], target[:, 3:67] = x, other
    outside, y = target.clone(), target[:, 3:67]
    result = ops.conv_packed(y, wide[:, 4:36], packed, bias, slope, y, *rest)
    assert result.data_ptr() == y.data_ptr()
    assert_close(y, act(z + other, slope))
    assert torch.equal(target[:, :3], outside[:, :3]) and torch.equal(target[:, 67:], outside[:, 67:])


@pytest.mark.parametrize("form", [((2, 32, 33, 9, 40), *FORMS[1][1:]), FORMS[7], FORMS[5]])
def test_neither_threads_nor_the_rest_of_a_batch_change_a_number(form):
    x, packed, bias, slope, other, rest, _ = case(*form)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(ops.conv_packed(torch.empty_like(other), x, packed, bias, slope, None, *rest))
    finally:
        torch.set_num_threads(before)
    alone = ops.conv_packed(torch.empty_like(other[-1:]), x[-1:], packed, bias, slope, None, *rest)
    assert all(torch.equal(results[0], y) for y in results)
    assert torch.equal(results[0][-1:], alone)


@pytest.mark.skipif(not available()["conv_packed"]["cpp"], reason="no compiled kernels")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (dict(x=torch.randn(2, 20, 5, 6)), "side by side"),
        (dict(x=pixels(2, 0, 5, 6), packed=torch.zeros(0)), "x has no channels"),
        (dict(packed=torch.zeros(20)), "packed for this form"),
        (dict(bias=torch.zeros(7)), "vectors of the outputs"),
        (dict(other=pixels(2, 18, 5, 5)), "other"),
        (dict(groups=7), "groups must divide"),
        (dict(dilation=(2, 2)), "no dilation"),
        (dict(stride=(2,)), "2 numbers"),
        (dict(kernel=(0, 4)), "must be positive"),
    ],
)
def test_what_does_not_fit_is_refused(change, why):
    x, packed, bias, slope, other, rest, _ = case(*FORMS[7])
    names = ("groups", "kernel", "stride", "padding", "dilation", "transposed")
    arguments = dict(y=torch.empty_like(other), x=x, packed=packed, bias=bias, slope=slope, other=None)
    arguments |= dict(zip(names, rest, strict=True)) | change
    with pytest.raises(RuntimeError, match=why):
        ops.conv_packed(*arguments.values())


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("level", LEVELS or [""])
def test_a_slope_of_zero_is_relus(cpu_level, level, reference):
    """0 at -inf, in whole vectors and in what is left of them, and NaN stays."""
    cpu_level(level)
    x, packed, bias, _, other, rest, z = case(*FORMS[1])
    slope = torch.tensor([0.0, 0.5]).repeat(9)[: other.shape[1]]
    op = conv_packed._convolve if reference else ops.conv_packed
    for value in (torch.nan, torch.inf, -torch.inf):
        other[0, :, 2, 3] = value
        y = op(torch.empty_like(other), x, packed, bias, slope, other, *rest)
        sums = (z + other).float()
        wanted = torch.where(slope[:, None, None] == 0, sums.relu(), torch.nn.functional.leaky_relu(sums, 0.5))
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)
