"""to_pixels, and the ops that bring the channels of a pixel apart: the same numbers, wherever they lie."""

import pytest
import torch

from fastgan.ops import conv3x3, filtered_lrelu, filtered_snake, setup_filter

SIZES = [
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (1, 16, 1, 16),
    (3, 17, 9, 31),
    (2, 64, 33, 40),
    (1, 130, 1, 77),
    (0, 3, 4, 5),
    (2, 5, 0, 3),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("reference", [False, True])
def test_to_pixels(size, last, reference):
    x = torch.randn(size)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    y = conv3x3._to_pixels(x) if reference else torch.ops.fastgan.to_pixels(x)
    assert torch.equal(y, x) and y.permute(0, 2, 3, 1).is_contiguous()
    assert (y.stride(1), y.stride(3)) == (1, size[1])
    assert y.numel() == 0 or y.data_ptr() != x.data_ptr()


def test_to_pixels_refuses_what_it_would_misread():
    with pytest.raises(RuntimeError, match="float32"):
        torch.ops.fastgan.to_pixels(torch.zeros(1, 2, 3, 4, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="float32"):
        torch.ops.fastgan.to_pixels(torch.zeros(2, 3, 4))


@pytest.mark.parametrize("size", [(1, 1, 9), (2, 3, 5), (3, 17, 31), (1, 64, 300), (0, 3, 4), (2, 5, 0)])
def test_signals_in_pixels(size):
    """Transposed, sliced and in order: one result, and one gradient."""
    n, c, t = size
    wide = torch.randn(n, t, c + 2)
    a = torch.rand(c) + 0.5
    for x in (wide[..., :c].contiguous().transpose(1, 2), wide[..., 1:-1].transpose(1, 2)):
        plain = x.contiguous().requires_grad_()
        x = x.detach().requires_grad_()
        y, expected = filtered_snake(x, a), filtered_snake(plain, a)
        assert torch.equal(y, expected)
        dy = torch.randn(n, y.shape[2], c).transpose(1, 2)
        found, wanted = torch.autograd.grad(y, x, dy), torch.autograd.grad(expected, plain, dy.contiguous())
        assert torch.equal(found[0], wanted[0])


@pytest.mark.parametrize("size", [(1, 2, 9, 11), (2, 17, 8, 8), (1, 64, 20, 13)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_images_in_pixels(size, dtype):
    f = setup_filter(torch.tensor([1.0, 3, 3, 1]))
    wide = torch.randn(size[0], size[1] + 3, *size[2:]).to(dtype).contiguous(memory_format=torch.channels_last)
    for x in (wide[:, :-3].contiguous(memory_format=torch.channels_last), wide[:, 1:-2]):
        y = filtered_lrelu(x, f, f, up=2, down=2, padding=3)
        assert torch.equal(y, filtered_lrelu(x.contiguous(), f, f, up=2, down=2, padding=3))
