"""The training engine around the default DCGAN run on emoji: a second process instead of a second thread, and what a
checkpoint costs. Each run is `fastgan train` in processes of its own, read from its metrics.jsonl."""

import json
import os
import subprocess
import sys

import pytest

ROUNDS, BATCH = 3, 64
WARM, STEPS, INTERVAL = 10, 60, 20  # steps before timing and in all; steps between checkpoints where there are any
DEFAULT_INTERVAL = 250


def train(
    out, threads: int, processes: int = 1, checkpoint_every: int = 10**6, steps: int = STEPS
) -> tuple[float, float]:
    """Seconds per step after the first `WARM`, the last checkpoint left out, and the largest share of them that waited
    for data. The work is the same for any number of processes: BATCH images per step in all."""
    launch = (
        ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    )
    options = {
        "--steps": steps,
        "--batch-size": BATCH // processes,
        "--checkpoint-every": checkpoint_every,
        "--sample-every": 10**6,
        "--out": out,
    }
    argv = [sys.executable, "-m", *launch, "fastgan", "train", "dcgan", "--data", "emoji"]
    argv += [str(word) for option in options.items() for word in option]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads // processes)}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == steps
    rows = [row for row in rows if row["step"] >= min(WARM, steps)]
    timed = max(rows[-1]["step"] - rows[0]["step"], 1)
    waited = max(row["speed/data_wait_share"] for row in rows)
    return (rows[-1]["seconds"] - rows[0]["seconds"]) / timed, waited


@pytest.fixture
def alternate(benchmark, tmp_path):
    """alternate(reference, ours): seconds per step of both, by turns, and the worst share of waiting for data."""

    def measure(reference: dict, ours: dict) -> tuple[dict[str, list[float]], float]:
        short = {"steps": 2} if benchmark.disabled else {}
        times: dict[str, list[float]] = {"reference": [], "fastgan": []}
        waits = []

        def run(name: str, options: dict) -> None:
            seconds, wait = train(tmp_path / f"{name}{len(waits)}", **options, **short)
            times[name].append(seconds)
            waits.append(wait)

        benchmark.pedantic(
            lambda: run("fastgan", ours), setup=lambda: run("reference", reference), rounds=1 if short else ROUNDS
        )
        return times, max(waits)

    return measure


def bench_two_processes(record, alternate, request):
    threads = request.config.getoption("--threads")
    times, wait = alternate({"threads": threads}, {"threads": threads, "processes": 2})
    record(f"one process, all threads; two processes (data waited for: at most {wait:.1%})", times)


def bench_checkpoint(record, alternate, request):
    threads = request.config.getoption("--threads")
    times, wait = alternate({"threads": threads}, {"threads": threads, "checkpoint_every": INTERVAL})
    # Those of steps 20 and 40; the last row is written before the checkpoint that ends every run.
    written = (STEPS - 1) // INTERVAL
    timed = STEPS - WARM
    pairs = zip(times["reference"], times["fastgan"], strict=True)
    cost = [max(with_them - without, 0.0) * timed / written for without, with_them in pairs]
    interval = [DEFAULT_INTERVAL * seconds for seconds in times["reference"]]
    record(
        f"{DEFAULT_INTERVAL} steps; with one checkpoint (data waited for: at most {wait:.1%})",
        {"reference": interval, "fastgan": [a + b for a, b in zip(interval, cost, strict=True)]},
    )
