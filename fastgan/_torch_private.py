"""What fastgan uses of torch that torch does not promise: each name with its reason, and with what happens without it.

Nothing else in fastgan reads a private name of torch. tests/test_torch_private.py fails where a new torch changes one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import batchnorm, dropout
from torch.nn.modules import module as _module

# The bases, so that layers which others derive from them are seen; without them nothing is trained.
BatchNorm, Dropout = batchnorm._BatchNorm, dropout._DropoutNd


def backward_wants(node: torch.autograd.graph.Node) -> bool:
    """Whether the backward pass that is running will run `node`. torch's own nodes ask this of the engine in C++; a Python
    node has but a private function. Without it, or for a leaf that `autograd.grad` was asked for (RuntimeError: it will not
    say): yes, and a gradient is computed that nobody reads."""
    try:
        return torch._C._will_engine_execute_node(node)
    except (AttributeError, RuntimeError):
        return True


def has_kernel(op: str, key: str) -> bool:
    """Whether the dispatcher has a kernel of the registered `op` ("namespace::name") for `key` ("CPU", "CUDA"). Without the
    query no kernel is known to be there, and the reference runs."""
    query = getattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda op, key: False)
    return query(op, key)


# Without it a transform meets the registered op, of which torch then says that it has no rule.
_functorch_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


def transforming() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp and what is made of them) or forward-mode AD is active."""
    return _functorch_active() or getattr(forward_ad, "_current_level", -1) >= 0


# Without it modes of dispatch (fake tensors, make_fx, selective checkpointing) see the op beneath autograd.
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)

# Whether autocast is on for any type of device. Without it each op asks for its own.
autocast_anywhere = getattr(torch._C, "_is_any_autocast_enabled", lambda: True)

# Whether torch.jit.trace is running. torch.jit.is_tracing, which is called without it, asks the same in two functions of Python.
tracing = getattr(torch._C, "_is_tracing", torch.jit.is_tracing)

# Context manager: ops called within go past autograd, whose part the caller has taken. Without it autograd's own look costs time.
below_autograd = getattr(torch._C, "_AutoDispatchBelowAutograd", contextlib.nullcontext)


def eager() -> bool:
    """Whether an op that is called now runs for its result and autograd alone: no compiler, exporter or tracer, no transform of
    torch.func and no mode of dispatch is to see it."""
    return not (torch.compiler.is_compiling() or transforming() or _dispatch_modes() or torch.jit.is_tracing())


def storage_uses(storage: torch.UntypedStorage) -> int:
    """How many tensors and Python objects hold `storage`. Without the count 0: it is not known to be anybody's alone."""
    count = getattr(torch._C, "_storage_Use_Count", lambda _: 0)
    return count(storage._cdata)


def softmax_backward(dy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The gradient y (dy - sum(y dy)) of y = softmax(x, -1) in one kernel, itself differentiable. Without it: as written."""
    if hasattr(torch, "_softmax_backward_data"):
        return torch._softmax_backward_data(dy, y, -1, y.dtype)
    return y * (dy - (y * dy).sum(-1, keepdim=True))


def turned_product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """x @ w.t() for a contiguous w.t(), by oneDNN: torch.mm (MKL) takes 2.1 times as long on AMD's processors for a matrix that
    lies turned in memory. What the compiler calls for nn.Linear is the one way to it."""
    return torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")


@functools.cache
def has_turned_product() -> bool:
    """Whether `turned_product` is there and means what it says. Without it the algorithm that needs it is not chosen."""
    made = {"device": "cpu", "dtype": torch.float32}  # whatever the defaults are just now: the answer is kept
    x, w = torch.ones(1, 2, **made), torch.ones(2, 3, **made)
    try:
        return turned_product(x, w.t()).sum().item() == 6
    except (AttributeError, RuntimeError, TypeError):
        return False


def weight_norm(v: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The weight g v / |v|, |v| over all axes but the first, in one kernel. Without it: as written."""
    if hasattr(torch, "_weight_norm"):
        return torch._weight_norm(v, g, 0)
    return v * (g / torch.linalg.vector_norm(v, dim=tuple(range(1, v.dim())), keepdim=True))


def lerp_(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor], weight: float) -> None:
    """old += weight (new - old), for all tensors in a few kernels. Without the grouped form: one by one."""
    if hasattr(torch, "_foreach_lerp_"):
        torch._foreach_lerp_(old, new, weight)
    else:
        for a, b in zip(old, new, strict=True):
            a.lerp_(b, weight)


def copy_(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    """Copies all tensors in a few kernels. Without the grouped form: one by one."""
    if hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(targets, sources)
    else:
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def traces_gradients() -> bool:
    """Whether this torch can compile `autograd.grad` within a step: under a flag, in torch 2.13 and 2.14."""
    return hasattr(torch._dynamo.config, "trace_autograd_ops")


@contextlib.contextmanager
def tracing_gradients() -> Iterator[None]:
    """Compile `autograd.grad` within: only where `traces_gradients`, and nowhere else is the flag set."""
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        yield


def compile_error() -> type[Exception]:
    """What torch.compile raises for code that cannot be traced."""
    return torch._dynamo.exc.TorchDynamoException


def hooks(module: nn.Module) -> str:
    """What would see a call of the module, in words: "" where nobody would. There is no public way to ask; a torch that keeps
    its hooks elsewhere raises KeyError or AttributeError here, rather than have hooks missed."""
    own = module.__dict__
    before, after = own["_forward_pre_hooks"], own["_forward_hooks"]
    backward = own["_backward_hooks"] or own["_backward_pre_hooks"]
    if after or before or backward or "forward" in own or _module._has_any_global_hook():
        kinds = {"forward hooks": after, "forward pre-hooks": before, "backward hooks": backward}
        kinds |= {"a forward of its own": "forward" in own, "global hooks": True}
        return next(kind for kind, present in kinds.items() if present)
    return ""


def module_hooks(module: nn.Module | None, but_pre: bool = False) -> list[dict] | bool:
    """The dictionaries in which torch keeps who would see a call of the module (`but_pre`: without those before it); of None,
    whether somebody sees every module's. As `hooks`, an error rather than hooks missed."""
    if module is None:
        return _module._has_any_global_hook()
    own = module.__dict__
    kinds = ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks", *(() if but_pre else ("_forward_pre_hooks",)))
    return [own[kind] for kind in kinds]


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile made the module. Without its class no module is known to be one."""
    return isinstance(module, getattr(torch._dynamo, "OptimizedModule", ()))


def compile_aotinductor(program: torch.export.ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    """Writes the package of `program` for this CPU to `path` (.pt2). AOTInductor's only way in lies in a private module; without
    it AttributeError: there is no other compiler to fall back on."""
    options = {"aot_inductor.metadata": metadata}
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def load_aotinductor(path: Path) -> Any:
    """A package of `compile_aotinductor`, to be called as the module was; `get_metadata()` is what it was given."""
    return torch._inductor.aoti_load_package(str(path))
