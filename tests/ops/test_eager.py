"""The thin route of a plain eager call: the registered op's numbers and derivatives, and the registered op wherever something
else than autograd is to see it."""

import contextlib

import pytest
import torch
from op_cases import CASES
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from fastgan import _torch_private as private
from fastgan import ops
from fastgan.ops import _eager, _library

OPS = sorted({name.split()[0] for name in CASES} & set(ops.available()))
every_case = pytest.mark.parametrize("name", CASES)


def leaves(name):
    case = CASES[name]
    tensors = [t.clone() for t in case.tensors]
    return case.function, [t.requires_grad_(i < case.differentiable) for i, t in enumerate(tensors)]


def two_orders(function, tensors):
    """y, its gradients, and theirs."""
    wanted = [t for t in tensors if t.requires_grad]
    y = function(*tensors)
    v = torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape)
    first = torch.autograd.grad((y * v).sum(), wanted, create_graph=True)
    total = sum(g.square().sum() for g in first if g.requires_grad)
    second = torch.autograd.grad(total, wanted, allow_unused=True) if isinstance(total, torch.Tensor) else ()
    return y, *first, *second


@every_case
def test_equals_the_registered_op(name, monkeypatch):
    """Bit for bit: without gradients, and with both orders of derivatives."""
    function, tensors = leaves(name)

    def results():
        return *two_orders(function, tensors), torch.no_grad()(function)(*tensors)

    thin = results()
    monkeypatch.setattr(_library, "eager", lambda: False)
    for a, b in zip(thin, results(), strict=True):
        assert a is b is None or (torch.equal(a, b) and a.stride() == b.stride() and a.requires_grad == b.requires_grad)


def test_a_plain_call_takes_it(monkeypatch):
    """Not the dispatcher's route: the node of the gradient is the thin one's."""
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    thin = ops.bias_act(x).grad_fn
    monkeypatch.setattr(_library, "eager", lambda: False)
    assert type(thin) is not type(ops.bias_act(x).grad_fn)
    assert type(thin).__name__ == "fastgan::bias_actBackward"


class Seen(TorchDispatchMode):
    def __init__(self):
        self.ops = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.ops.add(str(function))
        return function(*args, **kwargs or {})


@every_case
def test_a_mode_sees_the_registered_op_and_its_backward(name):
    function, (x, *rest) = leaves(name)
    with Seen() as seen:
        two_orders(function, [x, *(t.detach() for t in rest)])
    if name.split()[0] in OPS and "grouped" not in name:
        assert any(op.startswith(f"fastgan.{name.split()[0]}") for op in seen.ops)


class Named(torch.Tensor):
    """A subclass, which the dispatcher knows how to treat."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        Named.called.add(str(function))
        return super().__torch_function__(function, types, args, kwargs or {})


def test_a_subclass_goes_to_the_registered_op():
    Named.called = set()
    x = torch.randn(2, 3, 4, 4)
    y = ops.bias_act(x.as_subclass(Named), torch.randn(3), act="tanh")
    assert type(y) is Named and "fastgan.bias_act.default" in Named.called
    p = torch.nn.Parameter(torch.randn(3))
    (g,) = torch.autograd.grad(ops.bias_act(x, p, act="tanh").sum(), p)
    assert type(g) is torch.Tensor


@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_a_traced_graph_holds_the_op(pre_dispatch):
    x, b = torch.randn(2, 3, 4, 4), torch.randn(3)
    graph = make_fx(lambda x, b: ops.bias_act(x, b, act="lrelu"), pre_dispatch=pre_dispatch)(x, b)
    assert [str(n.target) for n in graph.graph.nodes if n.op == "call_function"] == ["fastgan.bias_act.default"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::FutureWarning")
def test_torch_jit_traces_the_op():
    traced = torch.jit.trace(lambda x: ops.bias_act(x, act="lrelu"), torch.randn(2, 3))
    assert "fastgan::bias_act(" in str(traced.graph) and "PythonOp" not in str(traced.graph)


@every_case
def test_activation_checkpointing_of_two_orders(name):
    function, tensors = leaves(name)

    def checkpointed(*tensors):
        return checkpoint(function, *tensors, use_reentrant=False)

    for a, b in zip(two_orders(checkpointed, tensors), two_orders(function, tensors), strict=True):
        assert a is b is None or torch.equal(a, b)


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_activation_checkpointing(reentrant):
    x = torch.randn(2, 3, 4, 4, requires_grad=True)

    def two(x):
        return ops.bias_act(ops.norm_act(x), torch.ones(3), act="swish")

    (expected,) = torch.autograd.grad(two(x).sin().sum(), x)
    checkpoint(two, x, use_reentrant=reentrant).sin().sum().backward()
    assert torch.equal(x.grad, expected)


def test_without_torchs_private_names_it_is_the_same(monkeypatch):
    """`_torch_private` says what stands in for each."""
    function, tensors = leaves("bias_act swish")
    expected = two_orders(function, tensors)
    monkeypatch.setattr(_eager, "below_autograd", contextlib.nullcontext)
    monkeypatch.setattr(private, "_dispatch_modes", lambda: 0)
    for a, b in zip(two_orders(function, tensors), expected, strict=True):
        assert torch.equal(a, b)


def test_every_op_has_one():
    assert set(_library._STATE.calls["fastgan"]) == set(_library._STATE.ops)
