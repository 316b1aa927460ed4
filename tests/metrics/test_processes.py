"""Two processes measure what one does: the same rows in the same order, the same statistics."""

import torch
import torch.multiprocessing as mp
from measured_together import Pixels, pictures, work

from fastgan.data import to_uint8
from fastgan.metrics import images, processes


def test_two_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    whole = images.collect(Pixels(), pictures().split(7), keep=80)
    for rank in range(2):
        flags, rows, mean, covariance = torch.load(tmp_path / f"{rank}.pt")
        assert flags == [True, False]
        assert torch.equal(rows, whole.rows)
        torch.testing.assert_close(mean, whole.statistics.mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(covariance, whole.statistics.covariance, rtol=1e-12, atol=1e-9)
        drawn = torch.load(tmp_path / f"drawn{rank}.pt")
        for count, (samples, rows), (texts, _) in zip((1, 2, 5), drawn[::2], drawn[1::2], strict=True):
            assert torch.equal(samples[:, 0, 0, 0], torch.arange(count) / 9), "of fewer samples than processes as well"
            assert torch.equal(rows, to_uint8(samples).flatten(1).float())
            assert texts == [f"{seed}" for seed in range(count)]


def test_one_process_has_the_whole():
    x = torch.arange(5)
    assert processes.place() == (0, 1) and torch.equal(processes.gather(processes.share(x)), x)
