"""report.html of a long run: 100,000 logged rows, 200 grids of 64 emoji at 64 pixels. Beside the whole stands reading the log."""

import json
import random
import time

import torch

import fastgan.data
from fastgan.media import Image
from fastgan.training.log import read_metrics
from fastgan.training.report import MOST_BYTES, write_report

ROWS, GRIDS = 100_000, 200
NAMES = [f"{net}/{what}" for net in ("generator", "discriminator") for what in ("loss", "real", "fake", "gradient")]
NAMES += ["speed/images_per_second", "speed/data_wait_share", "memory/peak_mib", "seconds"]


def write_run(folder, rows: int, grids: int) -> None:
    draw = random.Random(0)
    saved = {"recipe": "dcgan", "config": {"steps": 10 * rows}, "run": {}, "data": {"name": "emoji"}}
    (folder / "samples").mkdir()
    (folder / "config.json").write_text(json.dumps(saved))
    with open(folder / "metrics.jsonl", "w") as file:
        for i in range(rows):
            file.write(json.dumps({"step": 10 * (i + 1), **{name: draw.lognormvariate(0, 1) for name in NAMES}}) + "\n")
            if i % 1000 == 999:
                file.write(json.dumps({"step": 10 * (i + 1), "fd_efflite0/dcgan": 30 + draw.random()}) + "\n")
    pictures = fastgan.data.load("emoji", resolution=64).images
    for i in range(grids):
        some = torch.randint(len(pictures), (64,), generator=torch.Generator().manual_seed(i))
        Image.save(pictures[some].float() / 127.5 - 1, folder / "samples" / f"step-{10 * rows * i // grids:08d}")


def bench_long_run(benchmark, record, tmp_path):
    size = (1000, 20) if benchmark.disabled else (ROWS, GRIDS)
    write_run(tmp_path, *size)
    log, times = tmp_path / "metrics.jsonl", {"the log alone": [], "fastgan": []}

    def timed(name: str, function, *arguments) -> None:
        start = time.process_time()
        function(*arguments)
        times[name].append(time.process_time() - start)

    benchmark.pedantic(
        timed,
        args=("fastgan", write_report, tmp_path),
        setup=lambda: timed("the log alone", read_metrics, log),
        rounds=5,
    )
    report = tmp_path / "report.html"
    assert report.stat().st_size < 1.05 * MOST_BYTES + 2**20
    record(
        f"{size[0]:,} rows, {size[1]} grids: {report.stat().st_size / 2**20:.1f} MiB of {_steps(report)} grids", times
    )


def _steps(report) -> int:
    return report.read_text(encoding="utf-8").count("data:image/png")
