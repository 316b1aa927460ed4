"""NaN and Inf: kernels at every CPU level have them where the reference has them, in values and two orders of gradients."""

import math

import pytest
import torch
from cpu_levels import LEVELS
from device import kernels, seeded
from tolerances import TOLERANCE

from fastgan import ops
from fastgan.ops.bias_act import ACTIVATIONS

SPECIAL = (math.nan, math.inf, -math.inf)
VALUES = torch.tensor([*SPECIAL, 0.0, -0.0, 1e-3, -1e-3, 1.0, -2.0, 30.0, -30.0, 0.7])
DTYPES = [torch.float32, torch.bfloat16]


def computed(function, tensors, gy, v, **impl):
    """y, first gradients, and second ones of sum <first, v> by the tensors and gy."""
    tensors = [t.clone().requires_grad_() for t in tensors]
    gy = gy.clone().requires_grad_()
    y = function(*tensors, **impl)
    first = torch.autograd.grad(y, tensors, gy, create_graph=True)
    s = sum((g * w).sum() for g, w in zip(first, v, strict=True))
    second = torch.autograd.grad(s, [*tensors, gy], allow_unused=True)
    filled = (torch.zeros_like(t) if g is None else g for g, t in zip(second, (*tensors, gy), strict=True))
    return [y, *first], list(filled)


def assert_same(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.isnan(), b.isnan()), "NaN elsewhere"
        assert torch.equal(a.isinf(), b.isinf()) and torch.equal(a[a.isinf()], b[b.isinf()]), "Inf elsewhere"
        a, b = (t.detach().double()[t.isfinite()] for t in (a, b))
        assert torch.all((a - b).abs() <= tolerance * (1 + b.abs()))


def check(op, function, tensors, gy, v, cpu_level, tolerance, second=True):
    expected = computed(function, tensors, gy, v, impl="reference")
    runs = [
        ("auto", None),
        *((impl, level) for impl in kernels(op) for level in (LEVELS if impl == "cpp" else (None,))),
    ]
    for impl, level in runs:
        if level:
            cpu_level(level)
        found = computed(function, tensors, gy, v, impl=impl)
        assert_same(found[0], expected[0], tolerance)
        if second:
            assert_same(found[1], expected[1], tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_bias_act(act, clamp, dtype, cpu_level):
    def function(x, b, impl):
        return ops.bias_act(x, b, act=act, clamp=clamp, impl=impl)

    x = VALUES.repeat(2, 3, 5).to(dtype)  # in vectors and in what is left after them
    gy, v, bias = torch.randn_like(x), [torch.randn_like(x), torch.zeros(3, dtype=dtype)], torch.zeros(3, dtype=dtype)
    check("bias_act", function, [x, bias], gy, v, cpu_level, 4 * TOLERANCE[dtype], second=clamp is None)
    for value in SPECIAL:  # of an upstream gradient; near 0 alone, as a saved output may round to the end of its range
        x = torch.tensor([0.5, -0.5, 0.0, 2.0]).repeat(2, 3, 5).to(dtype)
        gy = torch.full_like(x, value)
        check("bias_act", function, [x, bias], gy, [x, bias], cpu_level, 4 * TOLERANCE[dtype], second=False)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_norm_act(act, layout, cpu_level):
    def function(x, weight, bias, impl):
        return ops.norm_act(x, weight, bias, act=act, impl=impl)

    generator = seeded(0)
    for value in SPECIAL:
        for where in range(4):
            tensors = [torch.randn(s, generator=generator) for s in ((2, 3, 4, 5), (3,), (3,))]
            gy, v = torch.randn(2, 3, 4, 5, generator=generator), [torch.randn(t.shape) for t in tensors]
            (*tensors, gy)[where].view(-1)[1] = value
            tensors[0] = tensors[0].contiguous(memory_format=layout)
            check("norm_act", function, tensors, gy, v, cpu_level, 1e-3, second=where == 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["r1", "wgan-gp", "one-sided"])
def test_grad_penalty(kind, dtype, cpu_level):
    def function(grad, impl):
        return ops.grad_penalty(grad, kind, 1.0, impl=impl)

    for value in (*SPECIAL, 1e30):
        grad = torch.randn(4, 70, generator=seeded(1))
        grad[0] *= 0.1 / grad[0].norm()
        grad[3] = 0
        for row in range(4):
            for of_gy in (False, True):
                x, gy = grad.to(dtype), torch.randn(4, generator=seeded(2))
                (gy if of_gy else x[row])[row if of_gy else 5] = value
                v = [torch.randn(4, 70, generator=seeded(3)).to(dtype)]
                check("grad_penalty", function, [x], gy, v, cpu_level, 8 * TOLERANCE[dtype], second=not of_gy)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gumbel_softmax(dtype, cpu_level):
    def function(logits, impl):
        return ops.gumbel_softmax(logits, 0.7, seed=3, impl=impl)

    for value in SPECIAL:
        for columns in (5, 70):
            logits = torch.randn(3, columns, generator=seeded(1)).to(dtype)
            logits[1, 2] = value
            gy, v = torch.randn_like(logits), [torch.randn_like(logits)]
            check("gumbel_softmax", function, [logits], gy, v, cpu_level, 4 * TOLERANCE[dtype])
    logits = torch.full((2, 5), -math.inf, dtype=dtype)
    check("gumbel_softmax", function, [logits], torch.ones_like(logits), [logits], cpu_level, 0.0, second=False)


@pytest.mark.parametrize("value", SPECIAL)
def test_modulated_conv2d(value, cpu_level):
    def function(x, weight, styles, impl):
        return ops.modulated_conv2d(x, weight, styles, padding=1, impl=impl)

    for where in range(3):
        tensors = [torch.randn(s, generator=seeded(where)) for s in ((2, 3, 6, 6), (4, 3, 3, 3), (2, 3))]
        tensors[where].view(-1)[7 % tensors[where].numel()] = value
        finite = [ops.modulated_conv2d(*tensors, padding=1, impl=impl).isfinite() for impl in ("auto", "reference")]
        assert torch.equal(*finite)


@pytest.mark.parametrize("value", SPECIAL)
def test_grid_sample_as_torch_has_it(value):
    image, grid = torch.randn(2, 3, 5, 6), torch.rand(2, 4, 4, 2) * 2.4 - 1.2
    image[0, 1, 2, 3] = value
    expected = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    for found in (ops.grid_sample(image, grid), torch.vmap(ops.grid_sample, in_dims=(0, None))(image[None], grid)[0]):
        assert torch.equal(found.isnan(), expected.isnan()) and torch.equal(found.isinf(), expected.isinf())
