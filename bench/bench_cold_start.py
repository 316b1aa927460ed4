"""What a fresh process waits for before its first image, each measurement in a process of its own."""

import itertools
import subprocess
import sys
import time

import pytest

ROUNDS = 5
CASES = {
    "import torch; import fastgan and build StyleGAN2, 64 px": (0, 1),
    "first image; second image: nothing compiles at first use": (2, 3),
}


def process(threads: int) -> list[float]:
    """Seconds of `import torch`, of `import fastgan` with the build, of the first image and of the second."""
    done = subprocess.run([sys.executable, __file__, str(threads)], capture_output=True, text=True, check=True)
    return [float(seconds) for seconds in done.stdout.split()]


@pytest.mark.parametrize("case", CASES)
def bench_cold_start(record, benchmark, request, case):
    threads = request.config.getoption("--threads")
    measured: list[list[float]] = []
    benchmark.pedantic(lambda: measured.append(process(threads)), rounds=ROUNDS)
    reference, ours = CASES[case]
    record(case, {"reference": [m[reference] for m in measured], "fastgan": [m[ours] for m in measured]})


def main() -> None:
    marks = [time.perf_counter()]
    import torch

    marks.append(time.perf_counter())
    from fastgan import models

    torch.set_num_threads(int(sys.argv[1]))
    generator = models.build("stylegan2", resolution=64).eval()
    marks.append(time.perf_counter())
    with torch.no_grad():
        for _ in range(2):
            generator(torch.randn(1, 512))
            marks.append(time.perf_counter())
    print(*(after - before for before, after in itertools.pairwise(marks)))


if __name__ == "__main__":
    main()
