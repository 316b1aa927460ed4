"""More than 2^31 elements: the emulated kernels read the far end of tensors of 4.3 GB, of which all but the end is memory that
was never touched (calloc), and write little."""

import numpy as np
import pytest
import torch
from cuda_emulation import emulated

from fastgan.ops import filtered_lrelu, upfirdn2d

pytestmark = pytest.mark.slow

SHAPE = (2, 1, 46400, 23200)
END = 20  # rows and columns that are not zero
ROWS, COLUMNS = END - SHAPE[2], END - SHAPE[3]  # paddings that crop to them
F = torch.tensor([1.0, 2.0, 3.0, 1.0])


@pytest.fixture(scope="module", autouse=True)
def kernels():
    emulated.load()


@pytest.fixture(scope="module")
def end():
    return torch.randn(2, 1, END, END, generator=torch.Generator().manual_seed(0)).half()


@pytest.fixture(scope="module")
def large(end):
    x = torch.from_numpy(np.zeros(SHAPE, np.float16))
    assert x.numel() > 2**31
    x[:, :, -END:, -END:] = end
    return x


def test_upfirdn2d(large, end):
    y = upfirdn2d(large, F, padding=[COLUMNS, 0, ROWS, 0], impl="cuda")
    assert y.any() and torch.equal(y, upfirdn2d(end, F, impl="cuda"))


def test_upfirdn2d_64_bit_indices(large, end):
    last = large.reshape(1, SHAPE[2], SHAPE[3], 2).permute(0, 3, 1, 2)  # channels_last
    last_end = last[:, :, -END:, -END:].contiguous(memory_format=torch.channels_last)
    y = upfirdn2d(last, F, padding=[COLUMNS, 0, ROWS, 0], impl="cuda")
    assert y.any() and torch.equal(y, upfirdn2d(last_end, F, impl="cuda"))


def test_upfirdn2d_filter_gradient(large, end):
    grads = []
    for x, padding in ((large, [COLUMNS, 0, ROWS, 0]), (end, 0)):
        f = F.clone().requires_grad_()
        y = upfirdn2d(x, f, padding=padding, impl="cuda")
        grads += torch.autograd.grad(y, f, torch.ones_like(y))
    assert grads[0].any() and torch.equal(*grads)


def test_filtered_lrelu(large, end):
    y = filtered_lrelu(large, F, F, up=2, padding=[2 * COLUMNS + 3, 2, 2 * ROWS + 3, 2], impl="cuda")
    # The crop begins where the filter still meets the sample before, which is zero.
    assert y.any() and torch.equal(y, filtered_lrelu(end, F, F, up=2, padding=[3, 2, 3, 2], impl="cuda"))
