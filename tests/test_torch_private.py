"""Each private name of torch that fastgan uses is still there and means the same; without it, the fallback holds.

A failure here after an upgrade of torch names what changed: read torch's release notes, then fastgan/_torch_private.py.
"""

import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import fastgan
from fastgan import _torch_private as private


def test_nothing_else_reads_private_names_of_torch():
    root = Path(fastgan.__file__).parent
    names = re.compile(
        r"torch\.(_C|_foreach|_functorch|_inductor|_subclasses|_higher)|_has_any_global_hook|torch.* import _[A-Z]|"
        r"torch\.ops\.\w+\._|\btorch\._[a-z]+_|"
        r"torch\._dynamo\.(?!config\.trace_autograd_ops is missing)"
    )
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in root.rglob("*.py")
        if path.name not in ("_torch_private.py", "torch_file.py")  # the latter: names in other people's pickles
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if names.search(line) and "`torch._" not in line
    ]
    assert not found


class Asking(torch.autograd.Function):
    answers: list = []  # noqa: RUF012

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        Asking.answers.append([private.backward_wants(node) for node, _ in ctx.next_functions])
        return dy * w, dy * x


def test_backward_wants_only_what_is_asked_for(monkeypatch):
    x, w = (torch.ones(2, requires_grad=True) * 1 for _ in range(2))  # not leaves
    Asking.answers = []
    torch.autograd.grad(Asking.apply(x, w).sum(), x)
    assert Asking.answers == [[True, False]]
    monkeypatch.delattr(torch._C, "_will_engine_execute_node")
    torch.autograd.grad(Asking.apply(x, w).sum(), x)
    assert Asking.answers[-1] == [True, True]


def test_has_kernel(monkeypatch):
    assert private.has_kernel("aten::add.Tensor", "CPU")
    assert not private.has_kernel("aten::add.Tensor", "XLA")
    monkeypatch.delattr(torch._C, "_dispatch_has_kernel_for_dispatch_key")
    assert not private.has_kernel("aten::add.Tensor", "CPU")


def test_transforming():
    assert private._functorch_active is torch._C._are_functorch_transforms_active
    assert forward_ad._current_level == -1
    assert not private.transforming()
    seen = []

    def look(x):
        seen.append(private.transforming())
        return x.sum()

    torch.func.grad(look)(torch.ones(2))
    torch.vmap(look)(torch.ones(2, 2))
    with forward_ad.dual_level():
        look(torch.ones(2))
    assert seen == [True] * 3


def test_eager_sees_modes_of_dispatch():
    assert private._dispatch_modes is torch._C._len_torch_dispatch_stack
    assert private.eager()
    with TorchDispatchMode():
        assert not private.eager()
    assert not torch.vmap(lambda x: x * private.eager())(torch.ones(2)).any()
    assert torch.compile(lambda x: x * private.eager(), backend="eager", fullgraph=True)(torch.ones(1)) == 0


def test_below_autograd():
    x = torch.ones(2, requires_grad=True)
    with private.below_autograd():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_tracing():
    assert not private.tracing()
    seen = []
    torch.jit.trace(lambda x: (seen.append(private.tracing()), x + 1)[1], torch.ones(1), check_trace=False)
    assert seen == [True] and private.tracing is torch._C._is_tracing


def test_autocast_anywhere():
    assert not private.autocast_anywhere()
    for device in ("cpu", "cuda"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there may be no such device
            with torch.autocast(device, dtype=torch.bfloat16):
                assert private.autocast_anywhere() == torch.is_autocast_enabled(device)
    assert private.autocast_anywhere is torch._C._is_any_autocast_enabled


def test_storage_uses(monkeypatch):
    x = torch.ones(3)
    storage = x.untyped_storage()
    assert private.storage_uses(storage) == 2
    view = x[1:]
    assert private.storage_uses(storage) == 3
    del view
    assert private.storage_uses(storage) == 2
    monkeypatch.delattr(torch._C, "_storage_Use_Count")
    assert private.storage_uses(storage) == 0


@pytest.mark.parametrize("there", [True, False])
def test_softmax_backward(there, monkeypatch):
    if not there:
        monkeypatch.delattr(torch, "_softmax_backward_data")
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    y, dy = logits.softmax(-1), torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(y, logits, dy, retain_graph=True)
    torch.testing.assert_close(private.softmax_backward(dy, y), expected)
    detached = y.detach().requires_grad_()
    assert torch.autograd.gradcheck(private.softmax_backward, (dy, detached))


@pytest.mark.parametrize("there", [True, False])
def test_weight_norm(there, monkeypatch):
    if not there:
        monkeypatch.delattr(torch, "_weight_norm")
    v, g = torch.randn(3, 2, 4, dtype=torch.float64), torch.rand(3, 1, 1, dtype=torch.float64)
    norms = v.square().sum((1, 2), keepdim=True).sqrt()
    torch.testing.assert_close(private.weight_norm(v, g), v * g / norms)
    assert torch.autograd.gradcheck(private.weight_norm, (v.requires_grad_(), g.requires_grad_()))


def test_turned_product():
    assert private.has_turned_product()
    x, w = torch.randn(5, 7), torch.randn(7, 3)
    torch.testing.assert_close(private.turned_product(x, w.t()), x @ w)


@pytest.mark.parametrize("there", [True, False])
def test_grouped_lerp_and_copy(there, monkeypatch):
    if not there:
        monkeypatch.delattr(torch, "_foreach_lerp_")
        monkeypatch.delattr(torch, "_foreach_copy_")
    old, new = [torch.zeros(2), torch.ones(3)], [torch.ones(2), torch.zeros(3)]
    private.lerp_(old, new, 0.25)
    assert [t.tolist() for t in old] == [[0.25] * 2, [0.75] * 3]
    private.copy_(old, new)
    assert all(map(torch.equal, old, new))


def test_gradients_within_a_compiled_step():
    """That the flag is needed, and enough: tests/training/test_compiled.py."""
    assert private.traces_gradients()
    with private.tracing_gradients():
        assert torch._dynamo.config.trace_autograd_ops is True
    assert torch._dynamo.config.trace_autograd_ops is False

    def untraceable(x):
        torch._dynamo.graph_break()
        return x

    with pytest.raises(private.compile_error()):
        torch.compile(untraceable, fullgraph=True, backend="eager")(torch.ones(1))


def test_the_bases_of_layers_that_draw_or_take_statistics():
    assert all(issubclass(c, private.BatchNorm) for c in (nn.BatchNorm1d, nn.BatchNorm3d, nn.SyncBatchNorm))
    assert all(issubclass(c, private.Dropout) for c in (nn.Dropout, nn.Dropout3d, nn.AlphaDropout))


def test_hooks():
    assert private.hooks(nn.ReLU()) == ""
    for register, name in (
        ("register_forward_hook", "forward hooks"),
        ("register_forward_pre_hook", "forward pre-hooks"),
        ("register_full_backward_hook", "backward hooks"),
        ("register_full_backward_pre_hook", "backward hooks"),
    ):
        module = nn.ReLU()
        handle = getattr(module, register)(lambda *args: None)
        assert private.hooks(module) == name
        handle.remove()
        assert private.hooks(module) == ""
    module = nn.ReLU()
    module.forward = lambda x: x
    assert private.hooks(module) == "a forward of its own"
    handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
    assert private.hooks(nn.ReLU()) == "global hooks"
    handle.remove()
    assert private.hooks(nn.ReLU()) == ""


def test_aotinductor():
    """tests/export makes and runs packages."""
    assert callable(torch._inductor.aoti_compile_and_package) and callable(torch._inductor.aoti_load_package)
