"""Machine code as `nvdisasm -c` prints it: instructions, loops, and how long the units of a multiprocessor take over them."""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# Cycles that one warp's instruction keeps a unit of its quarter of the multiprocessor busy, from the throughput table of the CUDA
# programming guide (compute capability 8.0 to 10.0): 16 lanes of integer, comparison and selection, 8 of memory, 4 of special
# functions and conversions (MOVM is in no table: as slow as these); float32 arithmetic has 32 (on 8.0 16), and every instruction
# is issued in a cycle of its own. Of tensor cores the 2048 multiply-adds of an mma.m16n8k16 at the A100's 312 TFLOP/s, or the
# 1024 of an mma.m16n8k8 of TF32 at its 156; later GPUs have twice that and more.
UNITS = {
    "integer": (
        2,
        "IADD3 IADD LOP3 SHF ISETP FSETP FSEL SEL FMNMX PRMT LEA VIADD IABS PLOP3 IMNMX VIMNMX F2FP POPC FLO HMNMX2",
    ),
    "multiply": (2, "IMAD"),
    "load/store": (4, "LDG STG LDS STS LDGSTS SHFL LDL STL LDSM ATOM ATOMG RED"),
    "tensor": (8, "HMMA"),
    "special": (8, "MUFU I2F I2FP F2I F2F FRND MOVM"),
}
WIDTH = re.compile(r"(?:LDG|STG|LDS|STS)\S*\.(128|64)|LDSM\S*\.([42])$")  # of 4 bytes, or of [8][8] numbers
WIDTHS = {"128": 4, "64": 2, "4": 4, "2": 2}
SHARED = ("LDS", "STS", "LDSM", "LDGSTS")


class Loop(NamedTuple):
    first: int
    last: int


class Code(NamedTuple):
    """Of one kernel."""

    instructions: tuple[str, ...]
    loops: tuple[Loop, ...]  # by their first instruction, outer ones before inner ones
    registers: int = 0  # of a thread

    def executed(self, trips: Sequence[float], part: range | None = None) -> Counter:
        """How often a warp issues each opcode (of `part` of the code), when loop i runs trips[i] times each time it is reached.
        All of the straight-line code counts, branches that are rarely taken too."""
        if len(trips) != len(self.loops):
            raise ValueError(f"{len(trips)} trip counts; the code has {len(self.loops)} loops: {self.loops}")
        counts = Counter()
        for i in part or range(len(self.instructions)):
            times = 1.0
            for loop, n in zip(self.loops, trips, strict=True):
                times *= n if loop.first <= i <= loop.last else 1
            counts[opcode(self.instructions[i])] += times
        return counts


def opcode(instruction: str) -> str:
    words = instruction.split()
    return words[1] if words[0].startswith("@") else words[0]


def parse(listing: str) -> Code:
    instructions, labels = [], {}
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L\w+):", line):
            labels[label.group(1)] = len(instructions)
        elif found := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(.*?)\s*;", line):
            instructions.append(found.group(1))
    loops = {}
    for i, text in enumerate(instructions):
        target = re.search(r"\.L\w+", text) if opcode(text).startswith("BRA") else None
        if target and labels[target.group()] == i:  # the branch to itself that follows a kernel's end
            instructions = instructions[:i]
            break
        if target and labels[target.group()] < i:
            loops[labels[target.group()]] = i  # of several branches back to one label the last
    return Code(tuple(instructions), tuple(Loop(*pair) for pair in sorted(loops.items())))


def cycles(counts: Counter, arch: int, conflicts: float = 1.0) -> dict[str, float]:
    """Cycles that a warp keeps each unit busy, "issue" among them. conflicts: times as long that shared memory takes for them."""
    busy = Counter(issue=sum(counts.values()))
    of = {name: (unit, cost) for unit, (cost, names) in UNITS.items() for name in names.split()}
    for name, n in counts.items():
        unit, cost = of.get(name.split(".")[0], ("float", 2 if arch < 86 else 1))
        width, shared = WIDTH.match(name), name.split(".")[0] in SHARED
        wide = WIDTHS[width[1] or width[2]] if width else 1
        busy[unit] += n * cost * wide * (conflicts if shared else 1)
    return dict(busy)


def tool(name: str) -> str:
    """A tool of the CUDA toolkit, or the one that the triton wheel brings."""
    spec = importlib.util.find_spec("triton")
    brought = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / name if spec else None
    return str(brought) if brought and brought.exists() else shutil.which(name, path="/usr/local/cuda/bin") or name


def disassemble(cubin: bytes) -> dict[str, Code]:
    """The code of each kernel, by its mangled name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        listing, usage = (
            subprocess.run([*command, path], capture_output=True, text=True, check=True).stdout
            for command in ((tool("nvdisasm"), "-c"), (tool("cuobjdump"), "-res-usage"))
        )
    parts = re.split(r"\.section\s+\.text\.(\w+),", listing)
    registers = dict(re.findall(r"Function (\w+):\s+REG:(\d+)", usage))
    return {
        name: parse(text)._replace(registers=int(registers[name]))
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }
