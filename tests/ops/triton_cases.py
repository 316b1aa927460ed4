"""Compiles every case of `CASES` for one architecture, given as sm number, and prints {case: [usage, disassembly]} as JSON.

A process of its own, because test_triton.py's neighbours may run with TRITON_INTERPRET=1, which Triton reads at import.
"""

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

NUMBERS = {"alpha": "fp32", "gain": "fp32", "clamp": "fp32", "target": "fp32", "eps": "fp32", "temperature": "fp32"}
INTEGERS = ("rows", "columns", "channels", "planes", "pixels", "size", "part", "parts", "distance")
WIDE_POINTERS = ("sums", "partial", "penalty", "sumsq", "dp", "means", "squares", "mean", "rstd", "mean_out", "rstd_out",
                 "sums_g", "sums_gx", "sum_g_out", "sum_gx_out", "scale", "scales", "biases")  # fmt: skip
BIAS_ROWS = {
    "ACT": "lrelu",
    "SAVES_INPUT": False,
    "CLAMP": True,
    "BY_ROW": True,
    "TILE_R": 1,
    "TILE_C": 4096,
    "WIDE": False,
}
BIAS_COLUMNS = {**BIAS_ROWS, "BY_ROW": False, "TILE_R": 16, "TILE_C": 256}
NORM = {"ACT": "relu", "SAVES_INPUT": False, "TILE_P": 4096, "TILE_C": 1, "FULL": True, "LAST": False, "WIDE": False}
NORM_LAST = {**NORM, "TILE_P": 64, "TILE_C": 64, "LAST": True}
MODULATE = {"TILE_P": 4096, "TILE_C": 1, "LAST": False, "WIDE": False}
MODULATE_LAST = {"TILE_P": 64, "TILE_C": 64, "LAST": True, "WIDE": False}
MODULATED = {"CLAMP": True, "LAST": False, "TILE_C": 32, "TILE_P": 64, "WIDE": False}
MODULATED_LAST = {**MODULATED, "LAST": True}
GUMBEL = {"DOUBLE": False, "ALIGN": 16}
# name: (module, kernel, element type, constants, 128-bit instructions that must be there)
BOTH = ("LDG.E.128", "STG.E.128")
CASES = {
    "bias_act": ("bias_act", "forward_kernel", "fp32", BIAS_ROWS, BOTH),
    "bias_act tanh": ("bias_act", "forward_kernel", "fp32", {**BIAS_ROWS, "ACT": "tanh"}, BOTH),
    "bias_act tanh bf16": ("bias_act", "forward_kernel", "bf16", {**BIAS_ROWS, "ACT": "tanh"}, BOTH),
    "bias_act bf16": ("bias_act", "forward_kernel", "bf16", BIAS_ROWS, BOTH),
    "bias_act channels_last": ("bias_act", "forward_kernel", "fp32", BIAS_COLUMNS, BOTH),
    "bias_act 64-bit": ("bias_act", "forward_kernel", "fp32", {**BIAS_ROWS, "WIDE": True}, BOTH),
    "bias_act backward": ("bias_act", "backward_kernel", "fp32", BIAS_ROWS, BOTH),
    "bias_act backward swish": ("bias_act", "backward_kernel", "fp32", {**BIAS_ROWS, "ACT": "swish", "SAVES_INPUT": True}, BOTH),
    "bias_act backward channels_last": ("bias_act", "backward_kernel", "fp16", BIAS_COLUMNS, BOTH),
    "grad_penalty": ("grad_penalty", "forward_kernel", "fp32",
                     {"KIND": "wgan-gp", "WHOLE": False, "TILE": 4096, "WIDE": False}, BOTH[:1]),
    "grad_penalty bf16": ("grad_penalty", "forward_kernel", "bf16",
                          {"KIND": "wgan-gp", "WHOLE": False, "TILE": 8192, "WIDE": False}, BOTH[:1]),
    "grad_penalty finish": ("grad_penalty", "finish_kernel", "fp32", {"KIND": "wgan-gp", "PARTS": 64, "num_warps": 1}, ()),
    "grad_penalty backward": ("grad_penalty", "backward_kernel", "fp32",
                              {"KIND": "wgan-gp", "TILE": 4096, "WIDE": False}, BOTH),
    "gumbel_softmax": ("gumbel_softmax", "forward_kernel", "fp32", {**GUMBEL, "TILE": 2048}, BOTH),
    "gumbel_softmax fp16": ("gumbel_softmax", "forward_kernel", "fp16", {**GUMBEL, "TILE": 2048}, ()),
    "gumbel_softmax whole": ("gumbel_softmax", "whole_kernel", "fp32", {**GUMBEL, "HEAD": 4096, "TAIL": 1024}, BOTH),
    "gumbel_softmax whole bf16": ("gumbel_softmax", "whole_kernel", "bf16", {**GUMBEL, "HEAD": 4096, "TAIL": 1024}, ()),
    "modulate backward": ("modulate", "backward_kernel", "fp32", MODULATE, BOTH),
    "modulate backward bf16": ("modulate", "backward_kernel", "bf16", MODULATE, BOTH),
    "modulate backward channels_last": ("modulate", "backward_kernel", "fp32", MODULATE_LAST, BOTH),
    "modulated_activation": ("modulated_activation", "forward_kernel", "fp32", MODULATED, BOTH),
    "modulated_activation bf16": ("modulated_activation", "forward_kernel", "bf16", MODULATED, BOTH),
    "modulated_activation channels_last": ("modulated_activation", "forward_kernel", "fp32", MODULATED_LAST, BOTH),
    "modulated_activation backward": ("modulated_activation", "backward_kernel", "fp32", MODULATED, BOTH),
    "modulated_activation backward bf16": ("modulated_activation", "backward_kernel", "bf16", MODULATED, BOTH),
    "modulated_activation backward channels_last": ("modulated_activation", "backward_kernel", "fp16", MODULATED_LAST, BOTH),
    "norm_act whole": ("norm_act", "whole_forward_kernel", "fp32", NORM, BOTH),
    "norm_act whole bf16": ("norm_act", "whole_forward_kernel", "bf16", {**NORM, "num_warps": 4}, BOTH),
    "norm_act whole channels_last": ("norm_act", "whole_forward_kernel", "fp32", NORM_LAST, BOTH),
    "norm_act whole 8x8": ("norm_act", "whole_forward_kernel", "fp32", {**NORM, "TILE_P": 64, "TILE_C": 64}, BOTH),
    "norm_act whole backward": ("norm_act", "whole_backward_kernel", "fp32", {**NORM, "num_warps": 16}, BOTH),
    "norm_act statistics": ("norm_act", "statistics_kernel", "fp32", NORM, BOTH[:1]),
    "norm_act": ("norm_act", "forward_kernel", "fp32", {**NORM, "PARTS": 16}, BOTH),
    "norm_act channels_last": ("norm_act", "forward_kernel", "fp32", {**NORM_LAST, "PARTS": 16}, BOTH),
    "norm_act sums": ("norm_act", "sums_kernel", "fp32", NORM, BOTH[:1]),
    "norm_act backward": ("norm_act", "backward_kernel", "fp32", {**NORM, "PARTS": 16}, BOTH),
}  # fmt: skip


def machine_code(case: str, arch: int) -> tuple[str, str]:
    """(resource usage, disassembly) of one kernel."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name, element, constants, _ = CASES[case]
    kernel = getattr(importlib.import_module(f"fastgan.ops.triton.{module}"), name)
    warps = constants.get("num_warps", 8)
    constants = {k: v for k, v in constants.items() if k in kernel.arg_names}
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in INTEGERS:
            signature[argument] = "i64" if argument == "columns" and constants.get("WIDE") else "i32"
        elif argument.removesuffix("_low") in NUMBERS:
            signature[argument] = "fp32"
        elif argument == "seed":
            signature[argument] = "*i64"
        else:
            signature[argument] = "*fp32" if argument in WIDE_POINTERS else f"*{element}"
    aligned = [i for i, a in enumerate(kernel.arg_names) if signature[a][0] in "*i" and a != "parts"]
    source = ASTSource(kernel, signature, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps})
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run([tools / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True)
        sass = subprocess.run([tools / "nvdisasm", "-c", cubin], capture_output=True, text=True, check=True)
    return usage.stdout, sass.stdout


if __name__ == "__main__":
    json.dump({case: machine_code(case, int(sys.argv[1])) for case in CASES}, sys.stdout)
