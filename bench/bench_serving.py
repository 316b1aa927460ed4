"""Serving generators on a CPU: fastgan.accelerate(network, freeze=True) against eager, torch.compile with freezing, AOTInductor,
ONNX Runtime and OpenVINO, all in float32.

    pytest bench/bench_serving.py --threads 1 --clock cpu              on a machine that others use
    pytest bench/bench_serving.py -k DCGAN --peers torch.compile,AOTInductor,onnxruntime      compilers take minutes per network

Each contender must give eager's numbers to 1e-4 of the largest. Time to the first image and peak memory are those of a process of
its own that has the network (or its file) and wants one image. The floor: the products of plain convolutions and matrices at the
rate of a loop of nothing but multiply-adds; Winograd's algorithm needs fewer.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from machine import fma_peak
from serving_networks import NETWORKS, build
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

import fastgan

COMPILERS = ("torch.compile", "AOTInductor")


def options(name: str) -> dict:
    return {"noise_mode": "const"} if name.startswith("StyleGAN2") else {}


class Fixed(torch.nn.Module):
    """The network with its options, as exporters take it."""

    def __init__(self, network, options: dict):
        super().__init__()
        self.network, self.options = network, options

    def forward(self, x):
        return self.network(x, **self.options)


def eager(network, x, file, threads):
    return lambda: network(x)


def channels_last(network, x, file, threads):
    twin = copy.deepcopy(network).to(memory_format=torch.channels_last)
    y = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    return lambda: twin(y)


def ours(network, x, file, threads):
    twin = copy.deepcopy(network)
    fastgan.accelerate(twin.network, freeze=True)
    return lambda: twin(x)


def compiled(network, x, file, threads):
    import torch._inductor.config as inductor

    torch.compiler.reset()  # all networks are called by one `forward`, of which only eight may be compiled
    with inductor.patch(freezing=True):
        run = torch.compile(network)
        run(x)
    return lambda: run(x)


def aot(network, x, file, threads):
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    program = torch.export.export(network, (x,)).run_decompositions(fastgan.ops.decompositions())
    package = aoti_compile_and_package(
        program, package_path=str(file.with_suffix(".pt2")), inductor_configs={"freezing": True}
    )
    run = aoti_load_package(package)
    return lambda: run(x)


def onnx_runtime(network, x, file, threads):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    name, array = session.get_inputs()[0].name, x.numpy()
    return lambda: torch.from_numpy(session.run(None, {name: array})[0])


def openvino(network, x, file, threads):
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = ov.Core().compile_model(str(file), "CPU", settings).create_infer_request()
    array = x.numpy()
    return lambda: torch.from_numpy(np.asarray(request.infer([array], share_inputs=True, share_outputs=True)[0]))


CONTENDERS: dict[str, Callable] = {
    "reference": eager,
    "eager channels_last": channels_last,
    "torch.compile": compiled,
    "AOTInductor": aot,
    "onnxruntime": onnx_runtime,
    "openvino": openvino,
    "fastgan": ours,
}


def network_of(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    network, x = build(name)
    return Fixed(network, options(name)).eval(), x


def exported(name: str, folder: Path) -> Path:
    file = folder / (name.replace(" ", "_").replace(",", "") + ".onnx")
    if not file.exists():
        network, x = network_of(name)
        logging.disable(logging.WARNING)
        torch.onnx.export(network, (x,), verbose=False).save(str(file))
        logging.disable(logging.NOTSET)
    return file


def first_image(name: str, contender: str, file: Path, threads: int, allocator: str) -> dict[str, float]:
    """Seconds to the first image, and bytes at most, of a process of its own."""
    command = [sys.executable, __file__, name, contender, str(file), str(threads), allocator]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as cache:  # nothing is compiled yet
        environment["TORCHINDUCTOR_CACHE_DIR"] = cache
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def chosen(peers: str | None) -> dict[str, Callable]:
    names = (
        [n for n in CONTENDERS if n not in COMPILERS] if peers is None else ["reference", *peers.split(","), "fastgan"]
    )
    if unknown := set(names) - set(CONTENDERS):
        raise pytest.UsageError(f"--peers: no {', '.join(sorted(unknown))}; expected some of {', '.join(CONTENDERS)}")
    return {n: CONTENDERS[n] for n in CONTENDERS if n in names}


@pytest.fixture(scope="session")
def files(request, tmp_path_factory) -> Path:
    kept = request.config.getoption("--files")
    if not kept:
        return tmp_path_factory.mktemp("serving")
    Path(kept).mkdir(parents=True, exist_ok=True)
    return Path(kept)


@pytest.mark.parametrize("name", NETWORKS)
def bench_serving(compare, benchmark, request, files, allocator, name):
    if benchmark.disabled and name.startswith(("StyleGAN", "HiFi", "CycleGAN", "RRDB")):
        pytest.skip("minutes; the quick networks are checked without timing")
    threads = request.config.getoption("--threads")
    torch.set_num_threads(threads)
    wanted = chosen(request.config.getoption("--peers"))
    file = exported(name, files)
    first, memory = {}, {}
    if not (benchmark.disabled or request.config.getoption("--steady")):
        for contender in wanted:
            found = first_image(name, contender, file, threads, allocator)
            first[contender], memory[contender] = found["seconds"], found["bytes"]
    network, x = network_of(name)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            network(x)
        runs = {n: make(network, x, file, threads) for n, make in wanted.items()}
        for _ in range(3):
            runs["fastgan"]()
        mine, plain = runs.pop("fastgan"), runs.pop("reference")
        peak = None if benchmark.disabled else fma_peak(threads)
        floor = counter.get_total_flops() / peak if peak else None
        compare(
            name, lambda f: f(), reference=plain, fastgan=mine, compiled=False, others=runs, tolerance=1e-4, floor=floor
        )
    if first:
        benchmark.extra_info.update(first=first, memory=memory)


@register_flop_formula(torch.ops.fastgan.conv3x3)
def conv3x3_flops(x, weight, bias, padding, transposed, *, out_shape, **_) -> int:
    return 2 * 9 * math.prod(out_shape) * weight[0 if transposed else 1]


@register_flop_formula(torch.ops.fastgan.conv_to_image)
def conv_to_image_flops(x, weight, padding, size, **_) -> int:
    return 2 * math.prod(x) * math.prod(weight[1:])


def peak_bytes() -> int:
    """Of this program alone: Linux counts in ru_maxrss what the process held before its exec, which is the bench's own memory."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main() -> None:
    name, contender, file, threads, allocator = sys.argv[1:]
    torch.set_num_threads(int(threads))
    if allocator == "tuned":
        fastgan.tune_cpu_allocator()
    if contender in ("onnxruntime", "openvino"):  # they have the file, not the network
        network, x = None, torch.zeros(NETWORKS[name][1])
    else:
        network, x = network_of(name)
    with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
        start = time.perf_counter()
        CONTENDERS[contender](network, x, Path(file), int(threads))()
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
