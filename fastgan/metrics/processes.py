"""Work that is shared by all processes of a run: process r of n takes rows r, r + n, r + 2n, ..."""

import torch
import torch.distributed as dist


def place() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) where there is no process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def share(x: torch.Tensor) -> torch.Tensor:
    """This process's rows of x; a view."""
    rank, size = place()
    return x[rank::size]


def everywhere(flag: bool) -> bool:
    """Whether `flag` is true on every process; the same answer on each."""
    size = place()[1]
    if size == 1:
        return flag
    flags: list = [None] * size
    dist.all_gather_object(flags, flag)
    return all(flags)


def gather(rows: torch.Tensor | list) -> torch.Tensor | list:
    """The inverse of `share`, on every process: what each made of its rows, in the order of the whole; on the CPU."""
    size = place()[1]
    rows = rows if isinstance(rows, list) else rows.cpu()
    if size == 1:
        return rows
    parts: list = [None] * size
    dist.all_gather_object(parts, rows)
    if isinstance(rows, list):
        return [part[i] for i in range(len(parts[0])) for part in parts if i < len(part)]
    number = torch.cat([torch.arange(len(part)) * size + r for r, part in enumerate(parts)])
    return torch.cat(parts)[number.argsort()]
