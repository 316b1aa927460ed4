"""What a GPU takes for a kernel, from the instructions that its warps issue and the bytes that it moves."""

from collections import Counter
from typing import NamedTuple

import sass


class Gpu(NamedTuple):
    name: str
    multiprocessors: int
    ghz: float
    copy: float  # bytes per second, read and written together
    shared: int  # KiB of shared memory of a multiprocessor


# The H200's copy rate was measured (bench/results/h200.call1.json): 0.87 of its data sheet, as the others' is taken to be.
GPUS = {
    80: Gpu("A100", 108, 1.41, 0.87 * 2.039e12, 164),
    90: Gpu("H200", 132, 1.755, 4.157e12, 228),
    100: Gpu("B200", 148, 1.85, 0.87 * 8e12, 228),
}
# Seconds that a launch in a graph adds: bias_act and grad_penalty of the same file against their floors.
LAUNCH = 1.3e-6
EFFICIENCY = 0.85  # of the busiest unit: bias_act tanh bf16 and gumbel_softmax of the same file, 0.90 and 0.83


def seconds_of(cycles: float, arch: int) -> float:
    """Of cycles of a quarter of a multiprocessor, when all of the GPU works alike."""
    gpu = GPUS[arch]
    return cycles / (gpu.multiprocessors * 4 * gpu.ghz * 1e9) / EFFICIENCY


def resident(threads: int, registers: int, shared: int, arch: int) -> int:
    """Warps on a multiprocessor, by what a block has: 65,536 registers, which a warp has in units of 256; each block has a KiB of
    shared memory more than it asks for; at most 64 warps and 32 blocks."""
    warps = -(-threads // 32)
    by_registers = 65536 // (-(-registers * 32 // 256) * 256) // warps
    return warps * min(by_registers, GPUS[arch].shared * 1024 // (shared + 1024), 64 // warps, 32)


def estimate(counts: Counter, moved: float, arch: int, launches: float = 0.0, conflicts: float = 1.0) -> dict:
    """The row of a kernel, from warp instructions, bytes and launches per output: instructions (of threads), bytes, the floor
    (bytes at the copy rate), the time (the larger of floor and busiest unit, and the launches), their ratio, and what limits.
    conflicts: how many times as long as without them shared memory takes."""
    gpu, busy = GPUS[arch], sass.cycles(counts, arch, conflicts)
    unit = max(busy, key=busy.get)
    floor = moved / gpu.copy
    units = seconds_of(busy[unit], arch)
    seconds = max(floor, units) + LAUNCH * launches
    return {
        "instructions": round(32 * sum(counts.values()), 2),
        "bytes": moved,
        "floor ps": round(1e12 * floor, 3),
        "ps": round(1e12 * seconds, 3),
        "share": round(floor / seconds, 2),
        "limit": "memory" if floor > units else unit,
    }
