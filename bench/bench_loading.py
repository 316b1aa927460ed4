"""Batches of 64 pictures of 256 px: uint8 to float, and images per second of the loader by its number of workers.

    pytest bench/bench_loading.py -s       on an idle machine: the loader's figures are by the wall

In memory a batch is gathered and mirrored; a stream's pictures are decoded (JPEG) as well. All numbers of workers give the same
batches, checked first. The floor of `to_float` is memory: a byte read and four written for each number.
"""

import io
import statistics
import tarfile
import time
from itertools import islice

import pytest
import torch
from machine import copy_rate

import fastgan
from fastgan.data import ImageDataset, Loader, to_float

BATCH, SIDE, COUNT, BATCHES = 64, 256, 512, 16
WORKERS = (0, 1, 2, 4)


def pictures(count: int) -> torch.Tensor:
    """Smooth ones, which JPEG makes as small as photographs."""
    coarse = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=SIDE, mode="bicubic").mul(255).clamp(0, 255).to(torch.uint8)


def bench_to_float(compare, device):
    x = pictures(BATCH).to(device)
    compare(
        f"to_float {BATCH}x3x{SIDE}x{SIDE}",
        lambda f: f(x),
        reference=lambda x: x.float() / 127.5 - 1,
        fastgan=to_float,
        floor=2.5 * x.nbytes / copy_rate(device) if device.type == "cpu" else None,
    )


def in_memory(folder):
    return ImageDataset(pictures(COUNT), name="pictures")


def stream(folder):
    pytest.importorskip("webdataset")
    from PIL import Image

    with tarfile.open(folder / "pictures.tar", "w") as file:
        for i, picture in enumerate(pictures(COUNT)):
            data = io.BytesIO()
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(data, "JPEG")
            entry = tarfile.TarInfo(f"{i:04d}.jpg")
            entry.size = len(data.getvalue())
            file.addfile(entry, io.BytesIO(data.getvalue()))
    return fastgan.data.load(folder / "pictures.tar", resolution=SIDE)


@pytest.mark.parametrize("source", [in_memory, stream])
def bench_workers(benchmark, request, tmp_path, source):
    data = source(tmp_path)
    loaders = {workers: Loader(data, BATCH, seed=0, workers=workers, flip=True) for workers in WORKERS}
    for batches in zip(*(islice(loader, 3) for loader in loaders.values()), strict=True):
        assert all(torch.equal(images, batches[0][0]) for images, _ in batches)
    if benchmark.disabled:
        return benchmark.pedantic(lambda: None, rounds=1)
    torch.set_num_threads(request.config.getoption("--threads"))
    rounds: dict[int, list[float]] = {workers: [] for workers in WORKERS}

    def take_turns():
        for workers, loader in loaders.items():
            start = time.perf_counter()
            for _ in islice(loader, BATCHES):
                pass
            rounds[workers].append(BATCH * BATCHES / (time.perf_counter() - start))

    benchmark.pedantic(take_turns, rounds=5)
    speeds = ", ".join(f"{workers} workers {statistics.median(found):.0f}" for workers, found in rounds.items())
    print(f"\n{source.__name__}, images/s: {speeds}")
