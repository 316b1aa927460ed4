"""Two processes measure what one does: the same rows in the same order, the same statistics."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
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


def test_two_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # A spawned process finds `work` by this module's name, "tests.metrics...", from the repository's root.
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    whole = images.collect(Pixels(), pictures().split(7), keep=80)
    for rank in range(2):
        flags, rows, mean, covariance = torch.load(tmp_path / f"{rank}.pt")
        assert flags == [True, False]
        assert torch.equal(rows, whole.rows)
        torch.testing.assert_close(mean, whole.statistics.mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(covariance, whole.statistics.covariance, rtol=1e-12, atol=1e-9)


def test_one_process_has_the_whole():
    x = torch.arange(5)
    assert processes.place() == (0, 1) and torch.equal(processes.gather(processes.share(x)), x)
