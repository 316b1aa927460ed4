"""This machine: its name, and what it can do at most, measured once per run, which are the floors of the benches."""

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

FMA_LOOP = """
#ifdef __AVX512F__
typedef float V __attribute__((vector_size(64)));
#elif defined(__AVX__)
typedef float V __attribute__((vector_size(32)));
#else
typedef float V __attribute__((vector_size(16)));
#endif
const long flops = 12 * sizeof(V) / sizeof(float) * 2;
float run(long n) {
  V s[12];
  const V a = {1e-3f}, b = {1e-6f};
  for (int i = 0; i < 12; ++i) s[i] = a * (float)i;
  for (long k = 0; k < n; ++k)
    for (int i = 0; i < 12; ++i) s[i] = s[i] * a + b;
  V t = s[0];
  for (int i = 1; i < 12; ++i) t += s[i];
  return t[0];
}
"""


def processor() -> str:
    """Name, and where /proc/cpuinfo has them family and model, since virtual machines leave the rest of the name away."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = dict(tuple(map(str.strip, line.split(":", 1))) for line in lines if ":" in line)
    if "cpu family" not in facts:
        return facts.get("model name", platform.processor())
    return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"


@functools.cache
def fma_peak(threads: int) -> float | None:
    """float32 flops per second of `threads` threads, with AVX2 alone where FASTGAN_CPU_LEVEL asks for it; None without gcc."""
    if not shutil.which("gcc"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "fma.c"), Path(folder, "fma.so")
        source.write_text(FMA_LOOP)
        level = "haswell" if os.environ.get("FASTGAN_CPU_LEVEL") == "avx2" else "native"
        options = ["-O3", f"-march={level}", "-mprefer-vector-width=512", "-ffp-contract=fast", "-shared", "-fPIC"]
        subprocess.run(["gcc", *options, "-o", library, source], check=True)
        compiled = ctypes.CDLL(str(library))
    loop, flops = compiled.run, ctypes.c_long.in_dll(compiled, "flops").value  # ctypes lets go of the interpreter lock
    loop.argtypes, loop.restype = [ctypes.c_long], ctypes.c_float
    steps = 10_000_000

    def seconds(_) -> float:  # of the processor: others may use it too
        start = time.thread_time()
        loop(steps)
        return time.thread_time() - start

    with ThreadPoolExecutor(threads) as pool:
        best = min(max(pool.map(seconds, range(threads))) for _ in range(3))
    return threads * steps * flops / best


@functools.cache
def gemm_rate() -> float:
    """float32 flops per second of the fastest of ten products of 1024x1024 matrices, on torch's threads."""
    a, b = torch.randn(2, 1024, 1024)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(seconds)


@functools.cache
def copy_rate(device: torch.device) -> float:
    """Bytes read and written per second by a copy far beyond the caches."""
    source = torch.ones(2**24 if device.type == "cpu" else 2**28, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(10):
        start = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


class Replay:
    """A CUDA graph of `calls` calls, one after the other, that take `functions` in turn: what the GPU does for a call, without
    the CPU's part and with the launch of the graph shared by all. Functions whose inputs exceed the cache together read memory.
    """

    def __init__(self, functions: Sequence[Callable], calls: int = 20):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for function in functions:
                function()
        torch.cuda.current_stream().wait_stream(side)
        self._graph, self._calls = torch.cuda.CUDAGraph(), calls
        with torch.cuda.graph(self._graph):
            for call in range(calls):
                # What it returns is freed: the graph's pool holds one call's results.
                functions[call % len(functions)]()

    def seconds(self) -> float:
        """Of one of the calls of a replay."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self._graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / self._calls


def seconds_on_gpu(function: Callable) -> float:
    """Of one of ten calls in a row, launches included."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        function()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / 10
