"""What each process of tests/metrics/test_processes.py does, in a module that a spawned process finds, whatever other package
calls itself `tests`."""

import torch
import torch.distributed as dist
from torch import nn

from fastgan.metrics import images, processes


class Pixels(nn.Module):
    """The pixels themselves as features."""

    name, dim, resolution = "pixels", 12, 2

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.flatten(1).float()

    def logits(self, features):
        return features[:, :4]


def pictures(n=101):
    return torch.randint(0, 256, (n, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    flags = [processes.everywhere(True), processes.everywhere(rank == 0)]
    found = images.collect(Pixels(), processes.share(pictures()).split(7), keep=80)
    torch.save((flags, found.rows, found.statistics.mean, found.statistics.covariance), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
