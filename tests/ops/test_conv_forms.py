"""conv_forms: which convolutions on the CPU are computed in another form, and that its numbers are torch's."""

import pytest
import torch
import torch.nn.functional as F
from device import DEVICE
from tolerances import assert_close
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan.ops import conv2d, conv_forms, conv_transpose2d

CPU = DEVICE.type == "cpu"
kernels_are_fast = conv_forms.is_fast("conv3x3") and conv_forms.is_fast("conv_to_image")
fast = pytest.mark.skipif(not CPU or not kernels_are_fast, reason="no AVX2 or AVX-512 kernels under test")
linear = pytest.mark.skipif(
    not CPU or not conv_forms.has_turned_product(), reason="no linear layer of oneDNN under test"
)

# What conv_forms computes in a form of its own: function, x, weight, options, and the call that shows it
THREE, COLUMNS, FOLD, IMAGE = "fastgan::conv3x3", "aten::convolution", "aten::col2im", "fastgan::conv_to_image"
CHOSEN = {
    "3x3": (conv2d, (1, 64, 17, 16), (80, 64, 3, 3), dict(padding=1), (THREE, (80, 64, 3, 3))),
    "3x3, by weight too": (conv2d, (1, 128, 16, 17), (144, 128, 3, 3), {}, (THREE, (144, 128, 3, 3))),
    "transposed, by weight too": (conv_transpose2d, (1, 144, 16, 17), (144, 128, 3, 3), {}, (THREE, (144, 128, 3, 3))),
    "transposed": (conv_transpose2d, (1, 80, 16, 17), (80, 64, 3, 3), dict(padding=1), (THREE, (80, 64, 3, 3))),
    "to an image": (conv2d, (2, 16, 13, 12), (3, 16, 7, 7), dict(padding=(0, 2)), (COLUMNS, (21, 16, 7, 1))),
    "few outputs": (conv2d, (2, 17, 9, 12), (5, 17, 3, 5), {}, (COLUMNS, (25, 17, 3, 1))),
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
@fast
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


@fast
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


@linear
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


@linear
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
    monkeypatch.setattr(conv_forms, "has_turned_product", lambda: False)
    with Calls() as calls:
        conv_transpose2d(torch.randn(1, 256, 4, 4), weight, stride=2, padding=1)
    assert ROWS not in [name for name, _ in calls.seen]


PLAIN = dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1), transposed=False, output_padding=(0, 0), groups=1)
SPREAD = {**PLAIN, "stride": (2, 2), "transposed": True}
LAST = {**SPREAD, "last": True}  # weights in channels_last
AT_THE_LIMIT = {  # what it is computed by, images, weight, options; and changes that each leave it to torch
    "conv3x3": (
        (1, 64, 4, 64), (64, 64, 3, 3), PLAIN,
        [dict(x=(1, 64, 3, 90)), dict(x=(1, 64, 4, 63)), dict(w=(63, 64, 3, 3)), dict(x=(1, 63, 4, 64), w=(64, 63, 3, 3)),
         dict(w=(64, 64, 3, 2)), dict(padding=(3, 3)), dict(padding=(1, 0)), dict(stride=(2, 2)), dict(dilation=(2, 2)),
         dict(groups=2), dict(dtype=torch.float64)],
    ),
    "columns": (
        (1, 16, 34, 6), (8, 16, 1, 4), PLAIN,
        [dict(x=(1, 16, 41, 5)), dict(x=(1, 16, 33, 6)), dict(w=(9, 16, 1, 4)), dict(x=(1, 15, 34, 6), w=(8, 15, 1, 4)),
         dict(w=(8, 16, 1, 3)), dict(stride=(2, 2)), dict(transposed=True), dict(x=(0, 16, 34, 6))],
    ),
    "fold": (
        (1, 16, 16, 16), (16, 4, 4, 4), SPREAD,
        [dict(x=(1, 16, 15, 17)), dict(w=(16, 5, 3, 3)), dict(w=(16, 4, 4, 5)), dict(x=(1, 15, 16, 16), w=(15, 4, 4, 4)),
         dict(stride=(1, 2)), dict(transposed=False), dict(dilation=(2, 2)), dict(groups=2), dict(padding=(17, 1))],
    ),
    "rows": (
        (64, 256, 4, 4), (256, 128, 4, 4), LAST,
        [dict(x=(65, 256, 4, 4)), dict(x=(1, 256, 4, 5)), dict(w=(255, 129, 4, 4), x=(64, 255, 4, 4)), dict(w=(256, 127, 4, 4)),
         dict(w=(256, 2048, 1, 1)), dict(w=(8192, 4, 4, 4), x=(1, 8192, 4, 4)), dict(last=False), dict(stride=(2, 1)),
         dict(padding=(9, 1))],
    ),
}  # fmt: skip


@fast
@linear
@pytest.mark.parametrize("name", AT_THE_LIMIT)
def test_which_algorithm_takes_a_convolution(name):
    images, weight, options, changes = AT_THE_LIMIT[name]

    def taken(x=images, w=weight, last=False, dtype=torch.float32, **form):
        w = torch.empty(w, dtype=dtype).contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )
        return conv_forms.choose(torch.empty(x, dtype=dtype), w, conv_forms.Form(**form))

    assert taken(**options).name == name
    assert [change for change in changes if taken(**{**options, **change}) is not None] == []
