"""A generator in parts (`--shard-generator`): of each of its tensors, of their average, gradient and optimiser's state a
process keeps one part in n, by torch's FSDP2 (`fully_shard`). A block is whole only while it computes.

FSDP2 averages gradients over processes in hooks that `backward` calls and `torch.autograd.grad` does not, and no gradient
of a gradient passes through it. So networks that a penalty differentiates twice, all discriminators, stay whole.

Checked with gloo between processes on CPUs; with NCCL it is not verified on hardware yet.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn

from fastgan.training.compiled import Step
from fastgan.training.recipe import Recipe
from fastgan.training.run import RunOptions


def check(recipe: Recipe, run: RunOptions) -> None:
    """ValueError if the generator of this run cannot be split, with the reason."""
    reasons = {
        "torch.compile cannot look into it: leave out --compile": run.compile,
        "float16's loss scale would need all gradients: use --precision bf16": run.precision == "fp16",
        "it keeps weights contiguous: leave out --channels-last": run.channels_last,
        recipe.whole_generator: bool(recipe.whole_generator),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"--shard-generator: {recipe.name}'s generator cannot be split here; {reason}")


def is_shard(tensor: torch.Tensor) -> bool:
    """Whether other processes hold the rest of `tensor`."""
    return hasattr(tensor, "full_tensor")  # a DTensor; importing it takes a second


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of `tensor`, sharing its memory."""
    return tensor.to_local() if is_shard(tensor) else tensor


def blocks(network: nn.Module) -> list[nn.Module]:
    """The modules that are made whole one at a time, inner ones first: those that stand beside others of their class
    (layers of a list, stages of a pyramid), and, for what is left, the network itself, or mapping and synthesis, which
    recipes call by themselves."""
    styled = hasattr(network, "mapping") and hasattr(network, "synthesis")
    found = []

    def visit(module: nn.Module) -> None:
        children = [child for child in module.children() if any(True for _ in child.parameters())]
        kinds = Counter(map(type, children))
        for child in children:
            if kinds[type(child)] > 1 and not isinstance(child, nn.ModuleList | nn.ModuleDict):
                found.append(child)
            else:
                visit(child)

    for entry in (network.mapping, network.synthesis) if styled else (network,):
        visit(entry)
        found.append(entry)
    return found


def split(networks: Iterable[nn.Module], optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
    """Keep this process's part of `networks` on `device`, and let `optimizers`, which have no state yet, hold the parts.

    The networks are the same on every process, and may be on the CPU: no more than a block of one is ever whole on the
    device. Scalars cannot be split and stay whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    part = {}
    for network in networks:
        before = dict(network.named_parameters())
        scalars = {p for p in before.values() if p.dim() == 0}
        for block in blocks(network) if before else ():
            # Parts are what the optimiser and the average change: no block may stay whole after a pass without backward.
            fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
        network.to(device)
        part |= {before[name]: parameter for name, parameter in network.named_parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["params"] = [part.get(p, p) for p in group["params"]]


def portion(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of the whole `tensor`, split as `like` is; `tensor` itself where `like` is not or differs in
    shape."""
    if not is_shard(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    parts = distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    # A copy, as `parts` may be a view that keeps the whole.
    return torch.empty_like(like, requires_grad=False).copy_(parts)


def gather(tensors: dict[str, torch.Tensor], keep: bool) -> dict[str, torch.Tensor]:
    """`tensors` with parts made whole, one by one, and moved to the CPU; every process must call it. Empty unless `keep`."""
    found = {}
    for name, tensor in tensors.items():
        tensor = tensor.full_tensor().cpu() if is_shard(tensor) else tensor
        if keep:
            found[name] = tensor
    return found


@contextlib.contextmanager
def whole(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Within it each process holds the networks whole and calls them as often as it likes, without the others."""
    sharded = [module for network in networks for module in network.modules() if hasattr(module, "unshard")]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


def backward_step(loss: Callable[..., dict[str, torch.Tensor]], parameters: Sequence[torch.Tensor]) -> Step:
    """`compiled.gradient_step` for parameters that are parts: their gradients are parts too, of means over processes.
    Those of scalars, which are whole, are this process's."""

    def step(*args, weight: torch.Tensor | None = None):
        for parameter in parameters:
            parameter.grad = None
        values = loss(*args)
        values["loss"].backward(None if weight is None else weight.to(values["loss"].dtype))
        gradients = tuple(parameter.grad for parameter in parameters)
        return {name: value.detach() for name, value in values.items()}, gradients

    return step
