"""Work that is shared by all processes of a run: process r of n takes rows r, r + n, r + 2n, ..."""

from typing import Any

import torch
import torch.distributed as dist


def place() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) where there is no process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def share(x: torch.Tensor) -> torch.Tensor:
    """This process's rows of x; a view."""
    rank, size = place()
    return x[rank::size]


def numbers(count: int, size: int) -> list[list[int]]:
    """This process's numbers below `count`, at most `size` at a time; none of a process beyond them."""
    return [part.tolist() for part in share(torch.arange(count, device="cpu")).split(size) if len(part)]


def of_all(value: Any) -> list[Any]:
    """Each process's value, in order of ranks, on every process; sent as pickles between processes of one run."""
    values = [value] * place()[1]
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def everywhere(flag: bool) -> bool:
    """Whether `flag` is true on every process; the same answer on each."""
    return all(of_all(flag))


def gather(rows: torch.Tensor | list) -> torch.Tensor | list:
    """The inverse of `share`, on every process: what each made of its rows, in the order of the whole; on the CPU. A process
    without rows gives an empty list, whatever those of the others are."""
    rows = rows if isinstance(rows, list) else rows.cpu()
    parts = of_all(rows)
    if len(parts) == 1:
        return rows
    if isinstance(parts[0], list):
        return [part[i] for i in range(len(parts[0])) for part in parts if i < len(part)]
    parts = [part if isinstance(part, torch.Tensor) else parts[0][:0] for part in parts]
    number = torch.cat([torch.arange(len(part), device="cpu") * len(parts) + r for r, part in enumerate(parts)])
    return torch.cat(parts)[number.argsort()]
