"""Processes: who we are, and the one all-reduce per optimiser step.

torch's DDP averages gradients from hooks that `autograd.grad` inside a penalty does not trigger, so gradients are averaged
here, after backward, in one buffer that also carries the logged values and the request to stop.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


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

    def average(self, gradients: list[torch.Tensor], values: list[torch.Tensor]) -> torch.Tensor:
        """Mean over all processes, in one all-reduce.

        Args:
            gradients: replaced in place by their mean; the same shapes in the same order on every process.
            values: scalars, any floating type, on the gradients' device.

        Returns: the values' means, float32 [len(values)].
        """
        packed = torch.stack([v.detach().float() for v in values])
        if self.size == 1:
            return packed
        flat = torch.cat([*[g.reshape(-1).float() for g in gradients], packed])
        dist.all_reduce(flat)
        flat /= self.size
        *means, packed = flat.split([*[g.numel() for g in gradients], len(packed)])
        if gradients:
            torch._foreach_copy_(gradients, [m.view_as(g) for m, g in zip(means, gradients, strict=True)])
        return packed

    def broadcast(self, tensors: list[torch.Tensor]) -> None:
        """Give every process rank 0's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def agree(self, text: str) -> str:
        """Rank 0's text, on every process."""
        box = [text]
        if self.size > 1:
            dist.broadcast_object_list(box, 0)
        return box[0]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join(device: str = "auto") -> World:
    """The world that torchrun's environment describes (RANK, WORLD_SIZE, LOCAL_RANK), or this process alone.

    `device`: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:<n>". NCCL on CUDA, gloo on CPU; NCCL with several
    processes is not verified on hardware yet.

    Raises ValueError if CUDA is asked for and not there.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device is {device!r}, but torch {torch.__version__} sees no CUDA device here")
        if chosen.index is None:
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(chosen)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, size, chosen)
