"""torch.func, forward-mode AD and batched gradients of every op: vmap is the loop, grad is autograd's, and nothing warns."""

import pytest
import torch
from op_cases import CASES, LEFT_OUT
from torch.autograd import forward_ad

from fastgan import ops

pytestmark = [
    pytest.mark.filterwarnings("error"),  # vmap falls back with one
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*"),  # torch's own, of jvp
]
every_op = pytest.mark.parametrize("name", CASES)


def of(name):
    """The function, its differentiable tensors, and what fixes the rest."""
    case = CASES[name]
    rest = case.tensors[case.differentiable :]
    return (lambda *tensors: case.function(*tensors, *rest)), case.tensors[: case.differentiable]


def close(a, b, tolerance=1e-9):
    return torch.allclose(a, b, tolerance, tolerance)


def test_every_public_op_has_a_case():
    assert {name.split()[0] for name in CASES} == set(ops.__all__) - LEFT_OUT


@every_op
def test_vmap_is_the_loop(name):
    function, tensors = of(name)
    batches = [torch.stack([t, t.flip(0), 0.9 * t]) for t in tensors]
    expected = torch.stack([function(*each) for each in zip(*batches, strict=True)])
    assert close(torch.vmap(function)(*batches), expected)
    last = [b.movedim(0, -1) for b in batches]
    assert close(torch.vmap(function, in_dims=-1, out_dims=1)(*last), expected.movedim(0, 1))
    for k in range(len(tensors)):  # one of them batched alone
        one = [batches[i] if i == k else t for i, t in enumerate(tensors)]
        expected = torch.stack([function(*(b[j] if i == k else b for i, b in enumerate(one))) for j in range(3)])
        assert close(
            torch.vmap(function, in_dims=tuple(0 if i == k else None for i in range(len(one))))(*one), expected
        )


@every_op
def test_grad_jvp_and_jacobians_are_those_of_autograd(name):
    function, tensors = of(name)
    leaves = [t.clone().requires_grad_() for t in tensors]
    y = function(*leaves)
    v, along = torch.randn_like(y), [torch.randn_like(t) for t in tensors]
    expected = torch.autograd.grad(y, leaves, v, create_graph=True)

    def loss(*tensors):
        return (function(*tensors) * v).sum()

    every = tuple(range(len(tensors)))
    found = torch.func.grad(loss, every)(*tensors)
    assert all(close(a, b) for a, b in zip(found, expected, strict=True))
    # <jvp(along), v> = <along, vjp(v)>
    value, tangent = torch.func.jvp(function, tensors, tuple(along))
    assert close(value, y)
    slope = sum((a * g).sum() for a, g in zip(along, expected, strict=True))
    assert close((tangent * v).sum(), slope)
    with forward_ad.dual_level():
        dual = function(*(forward_ad.make_dual(t, a) for t, a in zip(tensors, along, strict=True)))
        assert close(forward_ad.unpack_dual(dual).tangent, tangent)
    second = torch.autograd.grad(slope, leaves, allow_unused=True)
    found = torch.func.jvp(lambda *t: torch.func.grad(loss, every)(*t), tensors, tuple(along))[1]
    for a, b in zip(found, second, strict=True):
        assert close(a, torch.zeros_like(a) if b is None else b)
    found = torch.func.jacrev(function)(*tensors), torch.func.jacfwd(function)(*tensors)
    assert close(*found)
    by_first = torch.func.jvp(lambda x: function(x, *tensors[1:]), tensors[:1], (along[0],))[1]
    assert close((found[0] * along[0]).flatten(y.dim()).sum(-1), by_first)


@every_op
def test_hessian_and_gradients_per_sample(name):
    function, tensors = of(name)

    def loss(x):
        return function(x, *tensors[1:]).sin().sum()

    leaf = tensors[0].clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    v = torch.randn_like(first)
    (expected,) = torch.autograd.grad((first * v).sum(), leaf, allow_unused=True)
    hessian = torch.func.hessian(loss)(tensors[0])
    expected = torch.zeros_like(v) if expected is None else expected
    assert close((hessian * v).flatten(v.dim()).sum(-1), expected, 1e-8)
    batch = torch.stack([tensors[0], 0.9 * tensors[0]])
    each = torch.stack([torch.func.grad(loss)(x) for x in batch])
    assert close(torch.vmap(torch.func.grad(loss))(batch), each)


@every_op
def test_a_graph_recorded_before_is_differentiated_in_batches(name):
    function, tensors = of(name)
    leaves = [t.clone().requires_grad_() for t in tensors]
    y = function(*leaves)
    v = torch.randn(3, *y.shape, dtype=y.dtype)
    expected = [torch.autograd.grad(y, leaves, each, retain_graph=True) for each in v]
    found = torch.vmap(lambda each: torch.autograd.grad(y, leaves, each, retain_graph=True))(v)
    for a, b in zip(found, zip(*expected, strict=True), strict=True):
        assert close(a, torch.stack(b))


def test_a_transform_compiles():
    x, b = CASES["bias_act swish"].tensors

    def gradient(x, b):
        return torch.func.grad(lambda x: ops.bias_act(x, b, act="swish").sin().sum())(x)

    assert close(torch.compile(gradient, backend="aot_eager", fullgraph=True)(x, b), gradient(x, b))


def test_every_implementation_works_under_a_transform_and_an_unknown_one_is_named():
    x = torch.randn(2, 3, 4)
    expected = ops.bias_act(x, act="tanh")
    for impl in ("auto", "reference", "cpp", "triton"):
        found = torch.vmap(lambda x, impl=impl: ops.bias_act(x, act="tanh", impl=impl))(x)
        assert torch.allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match="impl='opencl' is unknown"):
        torch.vmap(lambda x: ops.bias_act(x, impl="opencl"))(x)
