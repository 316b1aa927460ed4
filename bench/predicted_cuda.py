"""The CUDA kernels' part of bench/predicted.py: the machine code of the FIR kernels for networks' filters, compiled by nvcc.

What is counted of the streaming kernels is the steady state: the main loop, which takes a batch of rows from shared memory and
stores what they finish. Not the rows before the first output, nor the columns beside a tile (for 64x64 images 10 to 20% more).
Loops in it load the next batch, in packs of a row or of the channels of a pixel, or else one by one, and take or store what
threads share: each runs as often as a thread has shares.

Of the kernels of tensor cores it is a step down a plane of as many columns as a warp takes at most (filtered_lrelu's: of 64), of
those beside them too; of upfirdn2d with a binomial filter, whose taps are one number of 16 bits.

Of filtered_snake all code counts, for rows of 4096 samples: threads without outputs of their own, too.
"""

import functools
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import sass
from gpu_model import GPUS, estimate, resident, seconds_of

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "cuda"), str(TESTS)]
DTYPES = {"fp32": ("If", 4), "bf16": ("IN3c108BFloat16E", 2), "fp16": ("IN3c104HalfE", 2)}


class Case(NamedTuple):
    source: str
    kernel: str  # what follows the element type in the mangled name
    outputs: float  # of a thread and batch: csrc/cuda's Shape
    bytes: float  # per output, in float32
    elements: float  # of x, of a thread and batch
    at_once: dict[str, int]  # packs of a row that a turn loads, by type
    shares: tuple[float, ...] = ()  # of a thread and batch in what the further loops work through
    per_element: float = 1.0  # outputs of an element of x
    kept: int = 0  # of csrc/cuda/filtered_lrelu.h's Pass
    mask: float = 0.0  # bytes per output
    others: tuple[str, ...] = ()  # types that another kernel has


def _shape(*numbers: int, flag: str = "") -> str:
    return "ShapeI" + "".join(f"Li{n}E" for n in numbers) + flag + "E"


_LRELU = "filtered_lrelu_stream", _shape(2, 2, 12, 12), 6, 8, 6, {"fp32": 1, "bf16": 1}
ROWS_OF_FOUR, WORDS = 6 / 4, 2 * 2 * 6 / 32  # four outputs; 32 elements of t in the mask
CASES = {
    "upfirdn2d 4x4": Case(
        "upfirdn2d_stream", _shape(1, 1, 4, flag="Lb0E"), 4 * 8, 8, 4 * 8, {"fp32": 2}, others=("bf16",)
    ),
    "upfirdn2d up 2, 12 taps": Case(
        "upfirdn2d_stream",
        _shape(2, 1, 12, flag="Lb1E"),
        2 * 8 * 2,
        5,
        8,
        {"fp32": 1, "bf16": 1},
        per_element=4,
        others=("bf16",),
    ),
    "upfirdn2d down 2": Case(
        "upfirdn2d_stream",
        _shape(1, 2, 4, flag="Lb0E"),
        2 * 8 // 2,
        20,
        2 * 2 * 8,
        {"fp32": 2},
        per_element=0.25,
        others=("bf16",),
    ),
    "filtered_lrelu": Case(*_LRELU, shares=(ROWS_OF_FOUR,), others=("bf16",)),
    "filtered_lrelu with mask": Case(*_LRELU, shares=(ROWS_OF_FOUR, WORDS), kept=1, mask=1, others=("bf16",)),
    "filtered_lrelu backward": Case(*_LRELU, shares=(WORDS, ROWS_OF_FOUR), kept=2, mask=1, others=("bf16",)),
}


class Products(NamedTuple):
    up: int
    bytes: float  # per output, in float32
    kept: int = 0
    mask: float = 0.0
    per_element: float = 1.0


COLUMNS = 64  # of y
PRODUCTS = {
    "filtered_lrelu": Products(2, 8),
    "filtered_lrelu with mask": Products(2, 8, kept=1, mask=1),
    "filtered_lrelu backward": Products(2, 8, kept=2, mask=1),
    "filtered_lrelu up 4": Products(4, 5, per_element=4),
    "filtered_lrelu up 4 with mask": Products(4, 5, kept=1, mask=1, per_element=4),
}


class Resampled(NamedTuple):
    factors: tuple[int, int]
    bytes: float  # per output, in float32
    columns: dict[str, int]  # of y, that a warp takes at most of a plane and of pixels
    per_element: float = 1.0


RESAMPLED = {
    "upfirdn2d 4x4": Resampled((1, 1), 8, {"": 64, " NHWC": 32}),
    "upfirdn2d up 2": Resampled((2, 1), 5, {"": 64, " NHWC": 64}, per_element=4),
    "upfirdn2d down 2": Resampled((1, 2), 20, {"": 32, " NHWC": 16}, per_element=0.25),
}


class Separable(NamedTuple):
    factors: tuple[int, int]
    bytes: float  # per output, in float32
    turns: dict[str, int]  # of a row, at most
    per_element: float = 1.0


SEPARABLE = {
    "upfirdn2d up 2, 12 taps": Separable((2, 1), 5, {"": 8, " NHWC": 4}, per_element=4),
    "upfirdn2d down 2, 12 taps": Separable((1, 2), 20, {"": 4, " NHWC": 2}, per_element=0.25),
}


class Snake(NamedTuple):
    source: str
    kernel: str  # in the mangled name, before the element type
    outputs: float  # of a thread
    bytes: float  # per output, in float32
    trips: tuple[int, ...] = ()  # of its loops


# Of a row / its threads: three tiles of 171 packs, six warps each (filtered_snake_packs.cu).
PACKS = 4096 / (3 * 192)
# Of 16 pieces of 256 samples / a warp, whose loop has all but one of 8 batches (filtered_snake_mma.cu); backward there is a loop
# in it over the last three packs of a batch, and one after it.
MMA = 16 * 256 / 32
SNAKE = {
    "filtered_snake fp32": Snake("filtered_snake_packs", "14forward_kernel", PACKS, 8),
    "filtered_snake bf16": Snake("filtered_snake_mma", "10mma_kernel", MMA, 8, (7,)),
    "filtered_snake fp16": Snake("filtered_snake_mma", "10mma_kernel", MMA, 8, (7,)),
    "filtered_snake backward fp32": Snake("filtered_snake_packs", "15backward_kernel", PACKS, 12),
    "filtered_snake backward bf16": Snake("filtered_snake_mma_backward", "19mma_backward_kernel", MMA, 12, (7, 3, 3)),
    "filtered_snake backward fp16": Snake("filtered_snake_mma_backward", "19mma_backward_kernel", MMA, 12, (7, 3, 3)),
}

# A sine: turns, rounding, subtraction, square, a polynomial of degree 5, 3 or 4, and the sum.
SINES = {"fp32": 2 * 10, "bf16": 2 * 8, "fp16": 2 * 9}
# Backward a sine of degree 4, 3 or 3 and a cosine of 4, 2 or 3, a product with each, g sin, g sin cos, dt and two sums.
SINES_BACKWARD = {"fp32": 2 * 19, "bf16": 2 * 16, "fp16": 2 * 17}
# The least that is taken per output, sums in float32: {what: instructions}. Of filtered_lrelu forward, up 2, down 2, 128
# outputs take 4, 8, 12 and 4 products of the band matrices of its four filters, or with halves 4, 12, 18 and 6; of an output, 2
# numbers follow the first filter, 4 the second and 2 the third: 8 to halve.
ARITHMETIC = {
    "filtered_lrelu fp32": {"taps": 12 + 24 + 24 + 12, "activation": 4 * 4},
    "filtered_lrelu bf16, a multiply-add per tap": {"taps": 72, "activation": 16, "conversions": 1.5},
    "filtered_lrelu bf16": {"products": 28 / 4, "activation": 16, "conversions": 0.5},
    "filtered_lrelu fp16": {"products": 40 / 4, "activation": 16, "halves": 8 * 3, "conversions": 0.5},
    "filtered_snake fp32": {"taps": 24, "sines": SINES["fp32"]},
    "filtered_snake bf16, a multiply-add per tap": {"taps": 24, "sines": SINES["bf16"], "conversions": 1.5},
    "filtered_snake bf16": {"products": 12 / 4, "sines": SINES["bf16"], "halves of v": 6, "conversions": 0.5},
    "filtered_snake fp16": {"products": 10 / 4, "sines": SINES["fp16"], "halves of v": 6, "conversions": 0.5},
    "filtered_snake backward fp32": {"taps": 36, "sines and sums": SINES_BACKWARD["fp32"]},
    "filtered_snake backward bf16, a multiply-add per tap": {
        "taps": 36,
        "sines and sums": SINES_BACKWARD["bf16"],
        "conversions": 2.5,
    },
    "filtered_snake backward bf16": {
        "products": 16 / 4,
        "sines and sums": SINES_BACKWARD["bf16"],
        "halves of dt": 6,
        "conversions": 0.5,
    },
    "filtered_snake backward fp16": {
        "products": 14 / 4,
        "sines and sums": SINES_BACKWARD["fp16"],
        "halves of dt": 6,
        "conversions": 0.5,
    },
}


def arithmetic(arch: int = 90) -> dict[str, dict]:
    """The rows of ARITHMETIC: what they are made of, instructions, the time of these or of the tensor cores, and how many times
    that of the bytes it is."""
    table = {}
    for name, parts in ARITHMETIC.items():
        signals, size = 3 if "backward" in name else 2, 4 if "fp32" in name else 2
        instructions, floor = sum(parts.values()), signals * size / GPUS[arch].copy
        seconds = seconds_of(max(instructions, sass.UNITS["tensor"][0] * parts.get("products", 0)) / 32, arch)
        table[name] = {
            "parts": ", ".join(f"{part} {n:g}" for part, n in parts.items()),
            "instructions": instructions,
            "ps": round(1e12 * seconds, 3),
            "of the floor": round(seconds / floor, 2),
        }
    return table


def turns(shares: float, at_once: int) -> float:
    """Of a loop that does so many shares at once, where some threads have one more than others; the mean over threads."""
    n = int(shares)
    return (shares - n) * -(-(n + 1) // at_once) + (n + 1 - shares) * -(-n // at_once)


def main_loop(code: sass.Code, case: Case, kind: str, last: bool) -> Counter:
    """What a warp issues in one turn of the loop over batches."""
    main = max(code.loops, key=lambda loop: loop.last - loop.first)
    inner = [loop for loop in code.loops if main.first < loop.first and loop.last <= main.last]
    packs = case.elements * DTYPES[kind][1] / 16
    loads = (0, packs, 0) if last else (turns(packs, case.at_once[kind]), 0, 0)
    trips = {main: 1, **dict(zip(inner, (*loads, *case.shares), strict=True))}
    return code.executed([trips.get(loop, 0) for loop in code.loops], range(main.first, main.last + 1))


def inside(code: sass.Code, *inner: float) -> Counter:
    """What a warp issues in one turn of the main loop, whose loops run `inner` times, in their order."""
    main = max(code.loops, key=lambda loop: loop.last - loop.first)
    trips = dict(zip((loop for loop in code.loops if main.first < loop.first <= main.last), inner, strict=True))
    return code.executed([trips.get(loop, 1) for loop in code.loops], range(main.first, main.last + 1))


def pixels_inside(code: sass.Code, rows_x: int, eights: int, rows_y: int, columns: int, turns: int) -> Counter:
    """Of separable_pixels.h: a block's threads share pairs of pixels, of x (in `eights` columns of 8) and of y, in loops for
    whole pixels; those for single elements are left out."""
    x, y = rows_x * 4 * eights / 256, rows_y * columns / 2 / 256
    return inside(code, x, y, 0, x, 0, turns)


def step(code: sass.Code, up: int, last: bool) -> Counter:
    """What a warp of filtered_lrelu's kernel of tensor cores issues in a step, with which it loads the rows of the next."""
    turns, tiles = COLUMNS // 16, COLUMNS // 4 // up + 2  # of 8 columns of x
    if last:
        return pixels_inside(code, 16 // up, tiles, 8, COLUMNS, turns)
    return inside(code, -(-tiles // 4), turns)


def separable_step(code: sass.Code, case: Separable, last: bool) -> tuple[Counter, float]:
    """(what a warp of upfirdn2d's separable kernel issues in a step, with copies of the next one's rows; of how many outputs)"""
    up, down = case.factors
    turns = case.turns[" NHWC" if last else ""]
    columns, rows_x, eights = 8 * up * turns, 16 * down // up, down * turns + down  # of y; of x, by 8 columns
    if last:
        counts = pixels_inside(code, rows_x, eights, 16, columns, turns)
    else:
        counts = inside(code, rows_x // 4, -(-eights // 4), turns)
    return counts, 16 * columns


def resampling_step(code: sass.Code, tiles: int, below: int, fours: int) -> Counter:
    """What a warp of upfirdn2d's kernels of tensor cores issues in a step: tiles of a row, such rows, four rows of x at a
    time. Of the loops over tiles the shorter one is that of taps of one part; others are of rows that are not whole words."""
    main = max(code.loops, key=lambda loop: loop.last - loop.first)
    inner = [loop for loop in code.loops if main.first < loop.first <= main.last]
    outer = [a for a in inner if any(a.first <= b.first and b.last <= a.last for b in inner if b != a)]

    def has(loop, name):
        return any(name in text for text in code.instructions[loop.first : loop.last + 1])

    over_tiles = [loop for loop in inner if loop not in outer and has(loop, "HMMA")]
    trips = {main: 1, min(over_tiles, key=lambda loop: loop.last - loop.first): tiles, **dict.fromkeys(outer, below)}
    trips |= {loop: fours for loop in inner if has(loop, "LDGSTS")}
    return code.executed([trips.get(loop, 0) for loop in code.loops], range(main.first, main.last + 1))


@functools.cache
def shared_memory() -> dict[str, dict[str, dict]]:
    """bench/shared_memory.py, in a process of its own: {layout: {kernel: how it uses shared memory}}."""
    script, most = Path(__file__).with_name("shared_memory.py"), {"FASTGAN_EMULATED_SHARED_KIB": "227"}
    return json.loads(subprocess.check_output([sys.executable, script], env=os.environ | most))


def unmangled(name: str) -> str:
    """As the emulation names kernels: filtered::mma_kernel<(fastgan::filtered::Pass)0, c10::Half, 2, true>."""
    name = subprocess.check_output(["c++filt", name], text=True)
    (kernel,) = re.findall(r"^void fastgan::(.*>)\(", re.sub(r"_GLOBAL__N__\w+::|\(anonymous namespace\)::", "", name))
    return kernel


def rows(arch: int) -> Iterator[tuple[str, dict]]:
    import test_machine_code
    from cuda_emulation import emulated

    @functools.cache
    def kernels(source: str) -> dict[str, sass.Code]:
        cubin = test_machine_code.compile_for(emulated.CSRC / "cuda" / f"{source}.cu", arch)
        return sass.disassemble(cubin.read_bytes())

    def kernel(source: str, pattern: str) -> tuple[str, sass.Code]:
        (found,) = [item for item in kernels(source).items() if re.search(pattern, item[0])]
        return found

    def row(case, name: str, code: sass.Code, counts: Counter, size: int, outputs: float, layout: str = "") -> dict:
        per_output = Counter({opcode: n / 32 / outputs for opcode, n in counts.items()})
        moved = case.bytes * size / 4 + getattr(case, "mask", 0.0)
        use = shared_memory()[layout][unmangled(name)]
        return {
            **estimate(per_output, moved, arch, conflicts=use["conflicts"]),
            "outputs per element": getattr(case, "per_element", 1.0),
            "warps": resident(use["threads"], code.registers, use["bytes"], arch),
            "conflicts": round(use["conflicts"], 2),
        }

    for name, case in CASES.items():
        for kind in ("fp32", "bf16"):
            mangled, size = DTYPES[kind]
            pattern = rf"stream_kernelI(?:LNS\w*?4PassE{case.kept}E)?{mangled[1:]}\w*{case.kernel}"
            found = kernel(case.source, pattern)
            for layout in ("", " NHWC"):
                if kind not in case.others:
                    counts = main_loop(found[1], case, kind, bool(layout))
                    yield f"{name}{layout} {kind} sm_{arch}", row(case, *found, counts, size, case.outputs, layout)
    for name, case in PRODUCTS.items():
        for kind in ("bf16", "fp16"):
            mangled, size = DTYPES[kind]
            for last, layout in enumerate(("", " NHWC")):
                pattern = rf"mma_kernelILNS\w*?4PassE{case.kept}E{mangled[1:]}Li{case.up}ELb{last}E"
                found = kernel("filtered_lrelu_mma", pattern)
                counts = step(found[1], case.up, bool(last))
                yield f"{name}{layout} {kind} sm_{arch}", row(case, *found, counts, size, COLUMNS * 8 / 32, layout)
    mangled, size = DTYPES["bf16"]
    for (name, case), layout in itertools.product(RESAMPLED.items(), ("", " NHWC")):
        up, down = case.factors
        found = kernel("upfirdn2d_mma", f"mma{'_pixels' if layout else ''}_kernel{mangled}Li{up}ELi{down}E")
        rows_x = 4 if layout else 16 * down
        outputs = case.columns[layout] * rows_x * up // down * (16 if layout else 1) / 32
        below = {(1, 1): 1, (2, 1): 4, (1, 2): 1}[case.factors]  # of the loop over tiles of pixels below each other
        counts = resampling_step(found[1], case.columns[layout] // (8 if layout else 16), below, rows_x // 4)
        yield f"{name}{layout} bf16 sm_{arch}", row(case, *found, counts, size, outputs, layout)
    for (name, case), layout in itertools.product(SEPARABLE.items(), ("", " NHWC")):
        up, down = case.factors
        pattern = f"mma_separable_kernel{mangled}Li{up}ELi{down}ELb{int(bool(layout))}E"
        found = kernel("upfirdn2d_separable", pattern)
        counts, outputs = separable_step(found[1], case, bool(layout))
        yield f"{name}{layout} bf16 sm_{arch}", row(case, *found, counts, size, outputs / 32, layout)
    for name, case in SNAKE.items():
        mangled, size = DTYPES[name.rsplit(" ", 1)[1]]
        found = kernel(case.source, f"{case.kernel}{mangled}")
        yield f"{name} sm_{arch}", row(case, *found, found[1].executed(case.trips), size, case.outputs)
