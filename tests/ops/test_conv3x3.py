"""conv3x3: torch's convolution and its derivatives of three orders, by Winograd's algorithm; who uses it."""

import pytest
import torch
import torch.nn.functional as F
from cpu_levels import LEVELS
from device import DEVICE, kernels
from tolerances import assert_close
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan.ops import conv2d, conv_forms, conv_transpose2d

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


# What conv_forms computes in a form of its own: function, x, weight, options, and the call that shows it
THREE, COLUMNS, FOLD, IMAGE = "fastgan::conv3x3", "aten::convolution", "aten::col2im", "fastgan::conv_to_image"
CHOSEN = {
    "3x3": (conv2d, (1, 64, 17, 16), (80, 64, 3, 3), dict(padding=1), (THREE, (80, 64, 3, 3))),
    "3x3, by weight too": (conv2d, (1, 128, 16, 17), (144, 128, 3, 3), {}, (THREE, (144, 128, 3, 3))),
    "transposed, by weight too": (conv_transpose2d, (1, 144, 16, 17), (144, 128, 3, 3), {}, (THREE, (144, 128, 3, 3))),
    "transposed": (conv_transpose2d, (1, 80, 16, 17), (80, 64, 3, 3), dict(padding=1), (THREE, (80, 64, 3, 3))),
    "to an image": (conv2d, (2, 16, 13, 12), (3, 16, 7, 7), dict(padding=(0, 2)), (COLUMNS, (21, 16, 7, 1))),
    "few outputs": (conv2d, (2, 17, 9, 10), (5, 17, 3, 5), {}, (COLUMNS, (25, 17, 3, 1))),
    "to a larger image": (conv_transpose2d, (2, 17, 11, 13), (17, 3, 4, 4), dict(stride=2, padding=1), (IMAGE, (17, 3, 4, 4))),
    "to an odd size": (
        conv_transpose2d, (1, 16, 16, 17), (16, 2, 5, 3), dict(stride=(2, 3), padding=(1, 0), output_padding=(1, 2)),
        (FOLD, None),
    ),
}  # fmt: skip


class Calls(TorchDispatchMode):
    """Names of what is called, and the shape of a second tensor, which is a weight's."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        weight = tuple(args[1].shape) if len(args) > 1 and isinstance(args[1], torch.Tensor) else None
        self.seen.append((func.name().removesuffix(".default"), weight))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("weight_layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CHOSEN)
@compiled
def test_conv2d_in_another_form_is_torchs(case, layout, weight_layout):
    f, shape, weight_shape, options, shown = CHOSEN[case]
    plain = F.conv2d if f is conv2d else F.conv_transpose2d
    x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    weight = (torch.randn(weight_shape) * 0.1).contiguous(memory_format=weight_layout).requires_grad_()
    bias = torch.randn(weight_shape[1 if f is conv_transpose2d else 0], requires_grad=True)
    wanted = plain(x, weight, bias, **options)
    with Calls() as calls:
        found = f(x, weight, bias, **options)
    assert shown in calls.seen
    assert_close(found, wanted)
    assert found.stride() == wanted.stride()
    with torch.no_grad():
        assert torch.equal(f(x, weight, bias, **options), found)
    dy = torch.randn_like(wanted)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight, bias), dy) for y in (found, wanted)), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("height", [34, 35])
def test_gradient_by_an_image_is_torchs(layout, height):
    x = torch.randn(2, 3, height, 36).contiguous(memory_format=layout).requires_grad_()
    weight = (torch.randn(16, 3, 4, 4) * 0.1).contiguous(memory_format=layout).requires_grad_()
    found = []
    for f in (conv2d, F.conv2d):
        y = f(x, weight, stride=2, padding=1)
        torch.manual_seed(0)
        dy = torch.randn_like(y).requires_grad_()
        with Calls() as calls:
            first = torch.autograd.grad(y, (x, weight), dy, create_graph=True)
        assert ((IMAGE, (16, 3, 4, 4)) in calls.seen) == (f is conv2d)
        assert first[0].stride() == x.stride()
        second = torch.autograd.grad(first[0].square().sum(), (dy, weight))
        unrecorded = torch.autograd.grad(f(x, weight, stride=2, padding=1), (x, weight), dy.detach())
        found.append((*first, *second, *unrecorded))
    for a, b in zip(*found, strict=True):
        assert_close(a, b)


ROWS = "aten::_embedding_bag_forward_only"
SMALL = {  # of images up to 4x4, by weights that are channels_last
    "4x4, stride 2": ((3, 256, 4, 4), (256, 128, 4, 4), dict(stride=2, padding=1)),
    "odd": ((2, 257, 3, 5), (257, 137, 5, 3), dict(stride=(2, 3), padding=(1, 0), output_padding=(1, 2))),
    "holes between the taps": ((1, 512, 2, 1), (512, 257, 2, 2), dict(stride=3)),
}


@pytest.mark.skipif(DEVICE.type != "cpu" or not conv_forms._has_linear(), reason="torch without oneDNN's linear layer")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", SMALL)
def test_small_images_by_rows_are_torchs(case, layout):
    shape, weight_shape, options = SMALL[case]
    x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    weight = (torch.randn(weight_shape) * 0.1).contiguous(memory_format=torch.channels_last).requires_grad_()
    bias = torch.randn(weight_shape[1], requires_grad=True)
    wanted = F.conv_transpose2d(x, weight, bias, **options)
    conv_forms._places.cache_clear()
    with torch.inference_mode(), torch.device("meta"):
        conv_transpose2d(x, weight, bias, **options)  # the places it remembers serve training too, and everywhere
    with Calls() as calls:
        found = conv_transpose2d(x, weight, bias, **options)
    assert ROWS in [name for name, _ in calls.seen]
    assert_close(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)
    dy = torch.randn_like(wanted)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight, bias), dy) for y in (found, wanted)), strict=True):
        assert_close(a, b)
    for other in (weight.contiguous(), weight[:, :3]):  # another layout, and few outputs
        with Calls() as calls:
            conv_transpose2d(x, other, **options)
        assert ROWS not in [name for name, _ in calls.seen]


@pytest.mark.skipif(DEVICE.type != "cpu" or not conv_forms._has_linear(), reason="torch without oneDNN's linear layer")
def test_gradient_by_a_larger_image_by_rows_is_torchs():
    x = torch.randn(2, 128, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = (torch.randn(256, 128, 4, 4) * 0.1).contiguous(memory_format=torch.channels_last).requires_grad_()
    found = []
    for f in (conv2d, F.conv2d):
        y = f(x, weight, stride=2, padding=1)
        with Calls() as calls:
            first = torch.autograd.grad(y.square().sum(), (x, weight), create_graph=True)
        assert (ROWS in [name for name, _ in calls.seen]) == (f is conv2d)
        found.append((*first, *torch.autograd.grad(first[0].square().sum(), (x, weight))))
    for a, b in zip(*found, strict=True):
        assert_close(a, b, 1e-4)


def test_rows_need_real_numbers_and_that_torch_has_the_product(monkeypatch):
    weight = torch.randn(256, 128, 4, 4).contiguous(memory_format=torch.channels_last)
    with FakeTensorMode() as mode:
        y = conv_transpose2d(torch.empty(1, 256, 4, 4), mode.from_tensor(weight), stride=2, padding=1)
    assert y.shape == (1, 128, 8, 8)
    monkeypatch.setattr(conv_forms, "_has_linear", lambda: False)
    with Calls() as calls:
        conv_transpose2d(torch.randn(1, 256, 4, 4), weight, stride=2, padding=1)
    assert ROWS not in [name for name, _ in calls.seen]
