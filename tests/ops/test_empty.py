"""No images, no channels, no pixels, no outputs: convolutions answer as torch's do, filters with as many numbers as there are."""

import pytest
import torch
import torch.nn.functional as F
from cpu_levels import LEVELS
from device import kernels

from fastgan.ops import conv2d, conv2d_resample, conv_transpose2d, filtered_lrelu
from fastgan.ops.upfirdn2d import upfirdn2d

compiled = pytest.mark.skipif("cpp" not in kernels("conv3x3"), reason="no CPU kernel under test")


def answer(f, *inputs):
    """Shapes of the result, which is empty or zero, and shapes and sums of its gradients; or that it raises."""
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    try:
        y = f(*inputs)
        gradients = torch.autograd.grad(y.sum(), inputs)
    except (RuntimeError, ValueError):  # torch's; ours, which is raised before any kernel runs
        return "refused"
    assert y.numel() == 0 or not y.any()
    with torch.no_grad():
        assert f(*inputs).shape == y.shape
    return y.shape, *((g.shape, g.sum().item()) for g in gradients)


CASES = [  # x; outputs, kernel; options
    ((0, 64, 16, 16), (64, 3), dict(padding=1)),
    ((0, 64, 2, 2), (64, 3), {}),
    ((0, 16, 20, 20), (3, 7), dict(padding=3)),
    ((0, 128, 4, 4), (512, 4), dict(stride=2, padding=1)),
    ((0, 4, 5, 5), (4, 3), dict(padding=1, groups=2)),
    ((2, 0, 5, 5), (4, 3), dict(padding=1)),
    ((2, 64, 0, 16), (64, 3), dict(padding=1)),
    ((2, 16, 16, 16), (0, 4), dict(stride=2, padding=1)),
    ((2, 16, 16, 16), (0, 7), {}),
    ((2, 4, 5, 5), (0, 3), dict(groups=2)),
    ((256, 16, 1, 1), (3, 2), dict(stride=2, padding=1)),  # a transposed convolution of no output: by a fold
    ((4, 512, 1, 1), (512, 2), dict(stride=2, padding=1)),  # by rows
    ((256, 3, 0, 6), (16, 4), dict(stride=2, padding=2)),
    ((2, 64, 2, 16), (64, 3), {}),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions(case, layout):
    shape, (outputs, k), options = case
    groups = options.get("groups", 1)
    x = torch.zeros(shape).contiguous(memory_format=layout)
    for f, torchs, sizes in (
        (conv2d, F.conv2d, (outputs, shape[1] // groups, k, k)),
        (conv_transpose2d, F.conv_transpose2d, (shape[1], outputs // groups, k, k)),
    ):
        w = torch.zeros(sizes).contiguous(memory_format=layout)
        for bias in ((), (torch.zeros(outputs),)):

            def call(op, x, w, b=None):
                return op(x, w, b, **options)

            found = answer(lambda *t, f=f: call(f, *t), x, w, *bias)
            assert found == answer(lambda *t, f=torchs: call(f, *t), x, w, *bias)


@compiled
def test_kernels_answer_as_their_references():
    ops = torch.ops.fastgan
    for (n, c, size), outputs, padding, transposed in [
        ((0, 3, 4), 2, 1, False),
        ((0, 3, 2), 2, 0, False),
        ((1, 3, 2), 2, 0, False),
        ((1, 3, 2), 2, 2, True),
        ((2, 0, 4), 2, 1, False),
        ((2, 3, 4), 0, 1, False),
        ((2, 0, 4), 2, 1, True),
    ]:
        x, w = torch.zeros(n, c, size, size), torch.zeros(*((c, outputs) if transposed else (outputs, c)), 3, 3)
        plain = F.conv_transpose2d if transposed else F.conv2d
        try:
            wanted = plain(x, w, padding=padding)
        except RuntimeError:
            with pytest.raises(RuntimeError):
                ops.conv3x3(x, w, None, padding, transposed)
        else:
            assert ops.conv3x3(x, w, None, padding, transposed).shape == wanted.shape
    for x, w, size in (((2, 3, 1, 1), (3, 2, 2, 2), [0, 0]), ((0, 3, 4, 4), (3, 2, 4, 4), [8, 8])):
        y = ops.conv_to_image(torch.zeros(x), torch.zeros(w), [1, 1], size)
        assert y.shape == (x[0], w[1], *size)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8)])
def test_filters(cpu_level, shape):
    f = torch.ones(4)
    x = torch.zeros(shape)
    for level in LEVELS:
        cpu_level(level)
        for call, size in (
            (lambda x: upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1]), 16),
            (lambda x: upfirdn2d(x, f, down=2, padding=1), 4),
            (lambda x: filtered_lrelu(x, f, f, up=2, down=2, padding=[4, 2, 4, 2]), 8),
        ):
            assert answer(call, x) == ((*shape[:2], size, size), (shape, 0))


def test_resampled_convolutions():
    f, x, w = torch.ones(4), torch.zeros(0, 3, 8, 8), torch.zeros(5, 3, 3, 3)
    for options, size in ((dict(up=2), 16), (dict(down=2), 4), ({}, 8)):
        found = answer(lambda x, w, o=options: conv2d_resample(x, w, f, padding=1, **o), x, w)
        assert found == ((0, 5, size, size), (x.shape, 0), (w.shape, 0))
