"""Height and width exchanged, of inputs, filters and weights, are exchanged in what comes out and in its gradients: no operation
of images takes one for the other."""

import pytest
import torch
from tolerances import assert_close

from fastgan import nn, ops

TAPS = torch.tensor([1.0, 4, 2, 1])
PLANE = torch.tensor([[1.0, 2, 0], [3, 1, 1]])


def turn(f):
    return f if f is None or f.dim() == 1 else f.mT.contiguous()


# name -> shapes of the tensors that are differentiated, and f(turned, *tensors): the operation, or its mirror image if `turned`
CASES = {
    "upfirdn2d": (
        [(2, 3, 7, 12)],
        lambda t, x: ops.upfirdn2d(x, turn(PLANE) if t else PLANE, 2, 1, swap([1, 2, 0, 3], t)),
    ),
    "upfirdn2d of two factors": (
        [(2, 3, 9, 14)],
        lambda t, x: ops.upfirdn2d(x, TAPS, *([2, 1], [1, 2]) if t else ([1, 2], [2, 1]), padding=2),
    ),
    "blur": ([(2, 3, 7, 12)], lambda t, x: nn.Blur(turn(PLANE) if t else PLANE, [0, 1] if t else [1, 0]).double()(x)),
    "upsample": ([(2, 3, 5, 8)], lambda t, x: nn.Upsample(TAPS, [1, 3] if t else [3, 1]).double()(x)),
    "downsample": ([(2, 3, 9, 12)], lambda t, x: nn.Downsample(TAPS, [3, 2] if t else [2, 3]).double()(x)),
    "filtered_lrelu": (
        [(2, 3, 9, 14), (3,)],
        lambda t, x, b: ops.filtered_lrelu(x, TAPS, TAPS, b, up=2, down=2, padding=swap([3, 4, 2, 3], t), clamp=2),
    ),
    "norm_act": ([(2, 3, 7, 12), (3,), (3,)], lambda t, x, w, b: ops.norm_act(x, w, b, act="lrelu")),
    "grid_sample": (
        [(2, 3, 7, 12), (2, 5, 9, 2)],
        lambda t, x, g: ops.grid_sample(x, g.transpose(1, 2).flip(3)).mT if t else ops.grid_sample(x, g),
    ),
} | {
    f"modulated_conv2d up {up} down {down}": (
        [(2, 4, 8, 12), (5, 4, 3, 3), (2, 4), (1, 8 * up // down, 12 * up // down)],
        lambda t, x, w, s, n, up=up, down=down: ops.modulated_conv2d(
            x, w, s, n.expand(2, -1, -1)[:, None], up=up, down=down, padding=1, resample_filter=setup()
        ),
    )
    for up, down in ((1, 1), (2, 1), (1, 2))
}
PLAIN = {"grid_sample": {1}}  # tensors that the case itself turns


def setup():
    return ops.setup_filter(TAPS).double()


def swap(padding, turned):
    return padding[2:] + padding[:2] if turned else padding


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", CASES)
def test_turned(name, layout):
    shapes, function = CASES[name]
    values = [
        torch.randn(shape, dtype=torch.float64) * (0.4 if i and name == "grid_sample" else 1)
        for i, shape in enumerate(shapes)
    ]
    results, weights = [], None
    for turned in (False, True):
        inputs = []
        for i, value in enumerate(values):
            turns = turned and value.dim() > 2 and i not in PLAIN.get(name, ())
            value = value.mT if turns else value
            memory = layout if value.dim() == 4 else torch.contiguous_format
            inputs.append(value.clone(memory_format=memory).requires_grad_(True))
        y = function(turned, *inputs)
        y = y.mT if turned and name != "grid_sample" else y
        weights = torch.randn_like(y) if weights is None else weights
        gradients = torch.autograd.grad((y * weights).sum(), inputs)
        results.append(
            [
                y,
                *(
                    g.mT if turned and g.dim() > 2 and i not in PLAIN.get(name, ()) else g
                    for i, g in enumerate(gradients)
                ),
            ]
        )
    for one, other in zip(*results, strict=True):
        assert_close(other, one)
