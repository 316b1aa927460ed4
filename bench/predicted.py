"""Predicted times of the GPU kernels, without a GPU: machine code x trip counts against the rates of three GPUs.

    python bench/predicted.py            prints the table and exits with 1 where a kernel exceeds its bound
    python bench/predicted.py --write    also writes bench/results/predicted.json: new figures, bounds at most 5% above them

The Triton kernels are launched as on a GPU, on tensors without memory and under a driver that compiles and does not launch
(tests/triton_stub.py), so that what is counted is what the launchers choose for a shape. Per output (an element of x):

    instructions    issued by all threads, masked lanes too, all branches of straight-line code taken
    bytes           of device memory: each tensor read or written once, 8 for float32 elementwise
    floor           bytes at the copy rate of the GPU
    time            the larger of the floor and the busiest unit of the multiprocessors, and a fixed time for each launch

A bound (of instructions per output) only ever falls by itself; to raise one, edit the JSON and say why in the commit.
"""

import argparse
import concurrent.futures
import functools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import sass
import torch

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "predicted.json"
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent)]
SLACK = 1.05  # of a new bound over the figure: what another compiler version may add


class Gpu(NamedTuple):
    name: str
    multiprocessors: int
    ghz: float
    copy: float  # bytes per second, read and written together


# The H200's copy rate was measured (bench/results/h200.call1.json): 0.87 of its data sheet, as the others' is taken to be.
GPUS = {
    80: Gpu("A100", 108, 1.41, 0.87 * 2.039e12),
    90: Gpu("H200", 132, 1.755, 4.157e12),
    100: Gpu("B200", 148, 1.85, 0.87 * 8e12),
}
LAUNCH = (
    1.3e-6  # seconds that a launch in a graph adds: bias_act and grad_penalty of the same file against their floors
)
EFFICIENCY = 0.85  # of the busiest unit: bias_act tanh bf16 and gumbel_softmax of the same file, 0.90 and 0.83

IMAGE = (8, 256, 64, 64)
SMALL = (64, 512, 8, 8)
GRADIENT = (64, 3, 256, 256)
TEXT = (2048, 5000)


class Case(NamedTuple):
    op: str  # a module of fastgan.ops.triton
    shape: tuple[int, ...]
    call: Callable  # of (module, x, a tensor of one number per channel or sample in the accumulation dtype)
    bytes: int  # per element, in float32
    last: bool = False
    loops: Callable[[dict], tuple] = lambda arguments: ()  # trips of the loops, from a launch's numbers and constants


def _bias_act(act: str) -> Callable:
    return lambda m, x, v: m.bias_act(x, x.new_empty(x.shape[1]), 1, act, 0.2, 2**0.5, -1.0)


def _bias_act_backward(act: str) -> Callable:
    return lambda m, x, v: m.bias_act_backward(x, x, None, 1, act, 0.2, 2**0.5, -1.0, False)


def _norm_act(m, x, v):
    m.norm_act(x, x.new_empty(x.shape[1]), x.new_empty(x.shape[1]), None, "relu", 0.0, 1e-5)


def _norm_act_backward(m, x, v):
    mean = v(x.shape[:2])
    m.norm_act_backward(x, x, x.new_empty(x.shape[1]), x.new_empty(x.shape[1]), mean, mean, "relu", 0.0, 1e-5)


def _parts(a: dict) -> tuple:
    return (min(a["part"], a["pixels"]) / a["TILE_P"],) if "part" in a else ()


CASES = {
    "bias_act lrelu": Case("bias_act", IMAGE, _bias_act("lrelu"), 8),
    "bias_act lrelu backward": Case("bias_act", IMAGE, _bias_act_backward("lrelu"), 12),
    "bias_act tanh": Case("bias_act", IMAGE, _bias_act("tanh"), 8),
    "bias_act NHWC": Case("bias_act", IMAGE, _bias_act("lrelu"), 8, last=True),
    "norm_act": Case("norm_act", IMAGE, _norm_act, 8, loops=_parts),
    "norm_act backward": Case("norm_act", IMAGE, _norm_act_backward, 12, loops=_parts),
    "norm_act NHWC": Case("norm_act", IMAGE, _norm_act, 12, last=True, loops=_parts),
    "norm_act 8x8": Case("norm_act", SMALL, _norm_act, 8, loops=_parts),
    "norm_act 8x8 backward": Case("norm_act", SMALL, _norm_act_backward, 12, loops=_parts),
    "norm_act 8x8 NHWC": Case("norm_act", SMALL, _norm_act, 8, last=True, loops=_parts),
    "norm_act 256x256": Case("norm_act", (1, 64, 256, 256), _norm_act, 12, loops=_parts),
    "grad_penalty": Case(
        "grad_penalty", GRADIENT, lambda m, x, v: m.grad_penalty(x, "wgan-gp", 1.0), 4,
        loops=lambda a: (a["part"] / a["TILE"],) if "part" in a else (),
    ),
    "grad_penalty backward": Case(
        "grad_penalty", GRADIENT,
        lambda m, x, v: m.grad_penalty_backward(v(x.shape[:1]), x, v(x.shape[:1]), "wgan-gp", 1.0), 8,
    ),
    "gumbel_softmax": Case(
        "gumbel_softmax", TEXT,
        lambda m, x, v: m.gumbel_softmax(x, 0.5, x.new_empty(1, dtype=torch.int64)), 8,
        loops=lambda a: (-(-a["columns"] // a["TILE"]),) * 2 if "TILE" in a else (),
    ),
}  # fmt: skip
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def recorder(arch: int):
    """A stub driver that keeps what is launched: (code, programs, warps of a program, arguments by name)."""
    import triton_stub

    class Recorder(triton_stub.Driver):
        def __init__(self):
            super().__init__(arch)
            self.binaries, self.launches = [], []

        def _load_binary(self, name, binary, shared, device):
            super()._load_binary(name, binary, shared, device)
            self.binaries.append(binary)
            return (
                len(self.binaries) - 1,
                len(self.binaries) - 1,
                *super()._load_binary(name, binary, shared, device)[2:],
            )

        def launcher_cls(self, source, metadata):
            constants = {source.fn.arg_names[path[0]]: value for path, value in source.constants.items()}

            def launch(x, y, z, stream, function, *rest):
                arguments = dict(zip(source.fn.arg_names, rest[-len(source.fn.arg_names) :], strict=True))
                self.launches.append(
                    (self.binaries[function], x * y * z, metadata.num_warps, {**arguments, **constants})
                )

            return launch

    stub = Recorder()
    triton_stub.driver.set_active(stub)
    return stub


@functools.cache
def code(binary: bytes) -> sass.Code:
    (only,) = sass.disassemble(binary).values()
    return only


def predict(case: Case, kind: str, stub) -> dict:
    import importlib

    dtype = DTYPES[kind]
    x = torch.empty(case.shape, dtype=dtype, device="meta")
    x = x.contiguous(memory_format=torch.channels_last) if case.last else x
    stub.launches.clear()
    wide = functools.partial(torch.empty, dtype=torch.float32, device="meta")
    case.call(importlib.import_module(f"fastgan.ops.triton.{case.op}"), x, wide)
    counts = Counter()
    for binary, programs, warps, arguments in stub.launches:
        for name, n in code(binary).executed(case.loops(arguments)).items():
            counts[name] += n * programs * warps
    gpu, outputs = GPUS[stub.arch], x.numel()
    busy = sass.cycles(counts, stub.arch)
    unit = max(busy, key=busy.get)
    moved = case.bytes * dtype.itemsize / 4
    floor = moved / gpu.copy
    units = busy[unit] / outputs / (gpu.multiprocessors * 4 * gpu.ghz * 1e9) / EFFICIENCY
    seconds = max(floor, units) + LAUNCH * len(stub.launches) / outputs
    return {
        "instructions": round(32 * sum(counts.values()) / outputs, 2),
        "bytes": moved,
        "floor ps": round(1e12 * floor, 3),
        "ps": round(1e12 * seconds, 3),
        "share": round(floor / seconds, 2),
        "limit": "memory" if floor > units else unit,
        "launches": len(stub.launches),
    }


def triton_rows(arch: int) -> dict[str, dict]:
    stub = recorder(arch)
    return {f"{name} {kind} sm_{arch}": predict(case, kind, stub) for name, case in CASES.items() for kind in DTYPES}


def rows(archs: list[int]) -> dict[str, dict]:
    """Of all architectures, each in a process of its own: a process has one active driver."""

    def worker(arch):
        command = [sys.executable, str(Path(__file__)), "--worker", str(arch)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = {}
        for part in pool.map(worker, archs):
            found |= part
    return found


def bounded(new: dict[str, dict], old: dict[str, dict]) -> tuple[dict[str, dict], list[str]]:
    """(rows with their bounds, what exceeds one)"""
    table, over = {}, []
    for name, row in new.items():
        bound = old.get(name, {}).get("bound", float("inf"))
        if row["instructions"] > bound:
            over.append(f"{name}: {row['instructions']} instructions per output; the bound is {bound}")
        table[name] = {**row, "bound": min(bound, round(SLACK * row["instructions"], 1))}
    return table, over


def table(found: dict[str, dict], measured: dict[str, dict]) -> str:
    lines = [
        "| kernel | instructions per output | bytes | floor, ps | predicted, ps | share | limited by | measured, ps |",
        "|" + "---|" * 8,
    ]
    for name, row in found.items():
        kernel, arch = name.rsplit(" ", 1)
        seen = measured.get(f"{kernel} forward", {}).get("ps") if arch == "sm_90" else None
        cells = (
            row["instructions"],
            row["bytes"],
            row["floor ps"],
            row["ps"],
            row["share"],
            row["limit"],
            "" if seen is None else f"{seen:.2f}",
        )
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", type=int, nargs="+", choices=GPUS, default=list(GPUS), help="(default: all)")
    parser.add_argument("--write", action="store_true", help="keep the figures and lower the bounds")
    parser.add_argument(
        "--measured", type=Path, default=HERE / "results" / "h200.call1.json", help="(default: %(default)s)"
    )
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        import fastgan.ops.triton as kernels

        kernels.register_for_cpu()
        json.dump(triton_rows(arguments.worker), sys.stdout)
        return
    old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    found, over = bounded(rows(arguments.arch), old)
    measured = (
        json.loads(arguments.measured.read_text())["steps"]["times"]["numbers"] if arguments.measured.exists() else {}
    )
    print(table(found, measured))
    print(*over, sep="\n")
    if arguments.write:
        RESULTS.write_text(json.dumps({"rows": {**old, **found}}, indent=1) + "\n")
    sys.exit(bool(over))


if __name__ == "__main__":
    main()
