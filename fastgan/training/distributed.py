"""Processes: who we are, and the one all-reduce per optimiser step.

torch's DDP averages gradients from hooks that `autograd.grad` inside a penalty does not trigger, so gradients are
averaged here, after backward, in one buffer that also carries the logged values and the request to stop.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import time
import uuid
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from fastgan._torch_private import copy_


class PeerLost(RuntimeError):
    """Another process of the group is gone or cannot be reached."""


@contextlib.contextmanager
def _talking():
    """Says of a failed collective what it means; torch's own message comes from a socket."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(error) from error


def _lost(error: RuntimeError) -> PeerLost:
    return PeerLost(f"another process has died or cannot be reached ({str(error).splitlines()[0]})")


@contextlib.contextmanager
def listening():
    """Where torch itself talks in the middle of other work (FSDP): an error of gloo or NCCL becomes PeerLost."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, PeerLost) or not (isinstance(error, dist.DistError) or "/gloo/" in str(error)):
            raise
        raise _lost(error) from error


class _AllReduce(torch.autograd.Function):
    """Sum over processes. What one process puts in enters the loss of all, so its gradient is the sum of theirs: the
    operation is its own adjoint, and derivatives of any order exist."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous().clone()
        with _talking():
            dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return _AllReduce.apply(gradient)


def all_reduce(x: torch.Tensor) -> torch.Tensor:
    """The sum of x over all processes, differentiable to any order."""
    return _AllReduce.apply(x)


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, computing on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """True on the one process that logs and writes."""
        return self.rank == 0

    def average(
        self, gradients: list[torch.Tensor], values: list[torch.Tensor], running: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Mean over all processes, in one all-reduce.

        Args:
            gradients: replaced in place by their mean; the same shapes in the same order on every process.
            values: scalars, any floating type, on the gradients' device.
            running: buffers, averaged in place as the gradients are.

        Returns: the values' means, float32 [len(values)]. Raises PeerLost.
        """
        packed = torch.stack([v.detach().float() for v in values])
        if self.size == 1:
            return packed
        shared = [*gradients, *(running or [])]
        flat = torch.cat([*[g.reshape(-1).float() for g in shared], packed])
        with _talking():
            dist.all_reduce(flat)
        flat /= self.size
        *means, packed = flat.split([*[g.numel() for g in shared], len(packed)])
        if shared:
            copy_(shared, [m.view_as(g) for m, g in zip(means, shared, strict=True)])
        return packed

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, ...] of all processes, [N * size, ...], taking turns as the data do; differentiable to any order."""
        if self.size == 1:
            return x
        zeros = torch.zeros_like(x)
        # A sum with zeros is exact, and gloo reduces without a reduce-scatter in backward.
        return all_reduce(torch.stack([x if r == self.rank else zeros for r in range(self.size)], 1).flatten(0, 1))

    def broadcast(self, tensors: list[torch.Tensor]) -> None:
        """Give every process rank 0's values, in place."""
        if self.size > 1:
            with _talking():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def agree(self, value: Any) -> Any:
        """Rank 0's value, on every process; sent as a pickle between processes of one run."""
        box = [value]
        if self.size > 1:
            with _talking():
                dist.broadcast_object_list(box, 0)
        return box[0]

    def collect(self, value: Any) -> list[Any]:
        """Each process's value, in order of ranks, on every process; sent as pickles between processes of one run."""
        values = [value] * self.size
        if self.size > 1:
            with _talking():
                dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            with _talking():
                dist.barrier()

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _this_attempt(store: dist.Store, rank: int, size: int, timeout: float) -> dist.Store:
    """The part of `store` that belongs to the processes now alive.

    torchrun keeps one store over all its restarts and gives each the same keys, so a process that starts early finds
    the addresses of the dead. Here each process takes a new name and says which names it sees for the others. A dead
    process has never seen a name of today; so once every name sees the same list, all on it are alive.
    """
    mine = uuid.uuid4().hex
    store.set(f"fastgan/name/{rank}", mine)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        names = [name.decode() for name in store.multi_get([f"fastgan/name/{r}" for r in range(size)])]
        store.set(f"fastgan/sees/{mine}", " ".join(names))
        sees = [f"fastgan/sees/{name}" for name in names]
        if store.check(sees) and {list_.decode() for list_ in store.multi_get(sees)} == {" ".join(names)}:
            return dist.PrefixStore(f"fastgan/{names[0]}", store)
        time.sleep(0.02)
    raise RuntimeError(f"process {rank} waited {timeout:g} s for the other {size - 1}")


def find_device(device: str | torch.device) -> torch.device:
    """The device of that name, of which there may be several: "cuda" stays without a number.

    Raises ValueError for another name than auto (CUDA where there is one), cpu, cuda or cuda:N, or one that is not there.
    """
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9]\d{0,2}))?", name, re.ASCII):
        raise ValueError(f"device is {name!r}, expected auto, cpu, cuda or cuda:N")
    chosen = torch.device(name)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {name!r}, but torch {torch.__version__} sees no CUDA device here")
    if chosen.index is not None and chosen.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ValueError(f"device is {name!r}, but the CUDA devices here are numbered 0 to {last}")
    return chosen


def choose_speed(deterministic: bool, device: torch.device) -> str:
    """Let cuDNN repeat itself bit for bit, or on a GPU choose its fastest algorithms by timing them. Returns a line that says
    what was chosen there, and which products TF32 rounds, as torch's flags have it; "" on the CPU."""
    exact = deterministic or device.type == "cpu"
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = exact, not exact
    if device.type == "cpu":
        return ""
    rounded = {"convolutions": torch.backends.cudnn.allow_tf32, "products": torch.backends.cuda.matmul.allow_tf32}
    types = ", ".join(f"{what} in {'TF32' if yes else 'float32'}" for what, yes in rounded.items())
    if exact:
        return f"deterministic: cuDNN takes algorithms that repeat themselves; {types}"
    return f"fast: cuDNN's algorithms are chosen by timing, so runs differ in rounding (else --deterministic); {types}"


def join(device: str = "auto", timeout: float = 600.0) -> World:
    """The world that torchrun's environment describes (RANK, WORLD_SIZE, LOCAL_RANK), or this process alone.

    `device`: see `find_device`. NCCL on CUDA, gloo on CPU; NCCL with several processes is not verified on hardware yet.

    A collective that takes longer than `timeout` seconds fails. Raises ValueError for a device that is not there, PeerLost
    if the others do not come.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = find_device(device)
    if chosen.type == "cuda":
        if chosen.index is None:
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(chosen)
    if size > 1 and not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        limit = datetime.timedelta(seconds=timeout)
        with _talking():
            store, rank, size = next(dist.rendezvous("env://", timeout=limit))
            store = _this_attempt(store, rank, size, timeout)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    return World(rank, size, chosen)
