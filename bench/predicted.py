"""Predicted times of the GPU kernels, without a GPU: machine code x trip counts against the rates of three GPUs.

    python bench/predicted.py            prints the table and exits with 1 where a kernel exceeds its bound
    python bench/predicted.py --write    also writes bench/results/predicted.json and .md: new figures, bounds at most 5% above

Per output (for bias_act, norm_act, grad_penalty and gumbel_softmax an element of x):

    instructions    issued by all threads, masked lanes too, all branches of straight-line code taken
    bytes           of device memory: each tensor read or written once, 8 for float32 elementwise
    floor           bytes at the copy rate of the GPU
    time            the larger of the floor and the busiest unit of the multiprocessors, and a fixed time for each launch
    warps           on a multiprocessor at once, by registers, shared memory and threads of a block
    conflicts       of banks: how many times as long shared memory takes for them, of an emulated run (shared_memory.py)

A second table has the least instructions per output of filtered_lrelu's forward pass and of filtered_snake, sums in float32, what
they or their products on tensor cores take of an H200 (sm_90), and how many times that is of the floor.

A bound (of instructions per output) only ever falls by itself, and conflicts may not grow; to raise one, edit the JSON and say
why in the commit. The CUDA kernels need nvcc.
"""

import argparse
import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path

import predicted_cuda
from gpu_model import GPUS

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "predicted.json"
SLACK = 1.05  # of a new bound over the figure: what another compiler version may add


def triton_rows(arch: int) -> dict[str, dict]:
    command = [sys.executable, str(HERE / "predicted_triton.py"), str(arch)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def rows(archs: list[int]) -> dict[str, dict]:
    """Of all kernels, by "KERNEL DTYPE sm_ARCH"."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        parts = [*pool.map(triton_rows, archs), *pool.map(lambda arch: dict(predicted_cuda.rows(arch)), archs)]
    return {name: row for part in parts for name, row in part.items()}


def bounded(new: dict[str, dict], old: dict[str, dict]) -> tuple[dict[str, dict], list[str]]:
    """(rows with their bounds, what exceeds one)"""
    table, over = {}, []
    for name, row in new.items():
        bound = old.get(name, {}).get("bound", float("inf"))
        if row["instructions"] > bound:
            over.append(f"{name}: {row['instructions']} instructions per output; the bound is {bound}")
        before = old.get(name, {}).get("conflicts", float("inf"))
        if row.get("conflicts", 1.0) > SLACK * before:
            over.append(f"{name}: conflicts of {row['conflicts']}; there were {before}")
        table[name] = {**row, "bound": min(bound, round(SLACK * row["instructions"], 1))}
    return table, over


def table(found: dict[str, dict], measured: dict[str, dict]) -> str:
    columns = ("instructions", "bytes", "floor ps", "ps", "share", "limit", "warps", "conflicts")
    lines = [f"| kernel | {' | '.join(columns)} | measured ps |", "|" + "---|" * (len(columns) + 2)]
    for name, row in found.items():
        kernel, arch = name.rsplit(" ", 1)
        seen = measured.get(f"{kernel} forward", {}).get("ps") if arch == "sm_90" else None
        of_output = "" if seen is None else f"{seen / row.get('outputs per element', 1):.2f}"
        lines.append(f"| {name} | {' | '.join(str(row.get(c, '')) for c in columns)} | {of_output} |")
    return "\n".join(lines)


def arithmetic_table(rows: dict[str, dict]) -> str:
    lines = ["| arithmetic of sm_90 | of | instructions | ps | of the floor |", "|" + "---|" * 5]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(str(row[c]) for c in ('parts', 'instructions', 'ps', 'of the floor'))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", type=int, nargs="+", choices=GPUS, default=list(GPUS), help="(default: all)")
    parser.add_argument("--write", action="store_true", help="keep the figures and lower the bounds")
    parser.add_argument(
        "--measured", type=Path, default=HERE / "results" / "h200.call1.json", help="(default: %(default)s)"
    )
    arguments = parser.parse_args()
    old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    found, over = bounded(rows(arguments.arch), old)
    measured = (
        json.loads(arguments.measured.read_text())["steps"]["times"]["numbers"] if arguments.measured.exists() else {}
    )
    least = predicted_cuda.arithmetic()
    tables = f"{table(found, measured)}\n\n{arithmetic_table(least)}"
    print(tables)
    print(*over, sep="\n")
    if arguments.write:
        head = f"Of `python bench/predicted.py`; measured: {arguments.measured.name}, whose commit may be an older one.\n\n"
        RESULTS.with_suffix(".md").write_text(head + tables + "\n")
        RESULTS.write_text(json.dumps({"rows": {**old, **found}, "arithmetic": least}, indent=1) + "\n")
    sys.exit(bool(over))


if __name__ == "__main__":
    main()
