"""How the CUDA kernels use shared memory: run emulated on networks' images, each access counted (tests/cuda_emulation/banks.cpp).

Prints JSON: {layout: {kernel: {"threads" and "bytes" of a block, "conflicts": the turns that shared memory takes, over those that
it would take if no two lanes met in a bank}}}.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))
from cuda_emulation import emulated  # noqa: E402

BINOMIAL = torch.tensor([1.0, 3, 3, 1]) / 8
TAPS = {n: torch.linspace(0.5, 1, n) / n for n in (12, 24)}
HALVES = torch.bfloat16, torch.float16


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """(layout, call): of planes of 64 x 64, or of rows of 4096 samples"""
    from fastgan.ops import filtered_snake, upfirdn2d

    ops = torch.ops.fastgan_cuda
    for layout, format in (("", torch.contiguous_format), (" NHWC", torch.channels_last)):
        for dtype in (torch.float32, *HALVES):
            x = torch.randn(1, 8, 64, 64).to(dtype).contiguous(memory_format=format)
            f4 = BINOMIAL.outer(BINOMIAL)
            twelve = TAPS[12]
            for f, up, down, padding in (
                (f4, 1, 1, 2),
                (f4, 2, 1, 2),
                (f4, 1, 2, 1),
                (twelve, 2, 1, [6, 5, 6, 5]),
                (twelve, 1, 2, 5),
            ):
                yield layout, lambda x=x, rest=(f, up, down, padding): upfirdn2d(x, *rest, impl="cuda")
            for up in (2, 4)[: 1 + (dtype in HALVES)]:
                fu, t = TAPS[6 * up], 64 * up + 10
                padding = [3 * up + 5, 3 * up + 4] * 2  # t has what 32 up outputs need
                forward = (x, None, fu, TAPS[12], up, 2, padding, 1.4, 0.2, 1.0, False)
                for kept in (False, True):
                    yield layout, lambda rest=(*forward, kept): ops.filtered_lrelu(*rest)
                if up == 2:
                    mask = torch.zeros(1, 8, t, 2, -(-t // 32) * 4, dtype=torch.uint8)
                    size, offset = [t, t, 64, 64], [11, 11, 0, 0]
                    rest = (x, mask, TAPS[12], fu, 2, 2, offset, size, 1.4, 0.2, True)
                    yield layout, lambda rest=rest: ops.filtered_lrelu_backward(*rest)
    for dtype in (torch.float32, *HALVES):
        x, alpha = torch.randn(1, 2, 4096).to(dtype), torch.rand(2).to(dtype) + 0.5

        def snake(x=x, alpha=alpha, backward=False):
            x = x.detach().requires_grad_(backward)
            y = filtered_snake(x, alpha, alpha, TAPS[12], TAPS[12], 2, 2, impl="cuda")
            if backward:
                y.sum().backward()

        for backward in (False, True):
            yield "", lambda f=snake, backward=backward: f(backward=backward)


def use() -> dict[str, dict[str, dict]]:
    library = emulated.build(emulated.kernels(), "banks")
    names = emulated.kernels_of(library)
    found = {"": {}, " NHWC": {}}
    with tempfile.TemporaryDirectory() as folder:
        seen = Path(folder, "launches")
        os.environ["FASTGAN_EMULATED_BANKS"] = str(seen)
        emulated.load(sanitize="banks")
        for layout, call in calls():
            seen.write_text("")
            call()
            for line in seen.read_text().splitlines():
                kernel, threads, size, turns, least = map(int, line.split())
                found[layout][names[kernel]] = {
                    "threads": threads,
                    "bytes": size,
                    "conflicts": turns / least if least else 1.0,
                }
    return found


if __name__ == "__main__":
    json.dump(use(), sys.stdout)
