"""The Triton kernels' part of bench/predicted.py: they are launched as on a GPU, on tensors without memory and under a driver
that compiles and does not launch (tests/triton_stub.py), so that what is counted is what the launchers choose for a shape.
`python bench/predicted_triton.py ARCH` prints the rows as JSON: a process of its own, since a process has one active driver.
"""

import functools
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import sass
import torch
from gpu_model import estimate, resident

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

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


def _bias_act_backward(act: str, bias: bool = False) -> Callable:
    return lambda m, x, v: m.bias_act_backward(x, x, None, 1, act, 0.2, 2**0.5, -1.0, bias)


def _norm_act(m, x, v):
    m.norm_act(x, x.new_empty(x.shape[1]), x.new_empty(x.shape[1]), None, "relu", 0.0, 1e-5)


def _norm_act_backward(m, x, v):
    mean = v(x.shape[:2])
    m.norm_act_backward(x, x, x.new_empty(x.shape[1]), x.new_empty(x.shape[1]), mean, mean, "relu", 0.0, 1e-5)


def _modulated_activation(m, x, v):
    noise = x.new_empty(x.shape[0], 1, *x.shape[2:])
    m.modulated_activation(x, v(x.shape[:2]), noise, x.new_empty(x.shape[1]), 0.2, 2**0.5, -1.0)


def _modulated_activation_backward(m, x, v):
    m.modulated_activation_backward(x, x, x, v(x.shape[:2]), x.new_empty(x.shape[1]), 0.2, 2**0.5, -1.0)


def _modulate_backward(m, x, v):
    m.modulate_backward(x, x, x.new_empty(x.shape[:2]))


def _channels(a: dict) -> tuple:
    return (-(-a["channels"] // a["TILE_C"]),)


def _parts(a: dict) -> tuple:
    return (min(a["part"], a["pixels"]) / a["TILE_P"],) if "part" in a else ()


CASES = {
    "bias_act lrelu": Case("bias_act", IMAGE, _bias_act("lrelu"), 8),
    "bias_act lrelu backward": Case("bias_act", IMAGE, _bias_act_backward("lrelu"), 12),
    "bias_act lrelu backward, bias too": Case("bias_act", IMAGE, _bias_act_backward("lrelu", bias=True), 12),
    "bias_act tanh": Case("bias_act", IMAGE, _bias_act("tanh"), 8),
    "bias_act NHWC": Case("bias_act", IMAGE, _bias_act("lrelu"), 8, last=True),
    "bias_act NHWC backward, bias too": Case(
        "bias_act", IMAGE, _bias_act_backward("lrelu", bias=True), 12, last=True
    ),
    "modulated_activation": Case("modulated_activation", IMAGE, _modulated_activation, 8),
    "modulated_activation NHWC": Case("modulated_activation", IMAGE, _modulated_activation, 8, last=True),
    "modulated_activation backward": Case(
        "modulated_activation", IMAGE, _modulated_activation_backward, 16, loops=_channels
    ),
    "modulated_activation backward NHWC": Case(
        "modulated_activation", IMAGE, _modulated_activation_backward, 16, last=True, loops=_channels
    ),
    "modulate backward": Case("modulate", IMAGE, _modulate_backward, 12, loops=_parts),
    "modulate backward NHWC": Case("modulate", IMAGE, _modulate_backward, 12, last=True, loops=_parts),
    "norm_act": Case("norm_act", IMAGE, _norm_act, 8, loops=_parts),
    "norm_act backward": Case("norm_act", IMAGE, _norm_act_backward, 12, loops=_parts),
    "norm_act NHWC": Case("norm_act", IMAGE, _norm_act, 12, last=True, loops=_parts),
    "norm_act NHWC backward": Case("norm_act", IMAGE, _norm_act_backward, 20, last=True, loops=_parts),
    "norm_act 8x8": Case("norm_act", SMALL, _norm_act, 8, loops=_parts),
    "norm_act 8x8 backward": Case("norm_act", SMALL, _norm_act_backward, 12, loops=_parts),
    "norm_act 8x8 NHWC": Case("norm_act", SMALL, _norm_act, 8, last=True, loops=_parts),
    "norm_act 256x256": Case("norm_act", (1, 64, 256, 256), _norm_act, 12, loops=_parts),
    "norm_act 256x256 backward": Case("norm_act", (1, 64, 256, 256), _norm_act_backward, 20, loops=_parts),
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
    """A stub driver that keeps what is launched: (code, programs, warps and shared memory of one, arguments by name)."""
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
                launched = self.binaries[function], x * y * z, metadata.num_warps, metadata.shared
                self.launches.append((*launched, {**arguments, **constants}))

            return launch

    stub = Recorder()
    triton_stub.driver.set_active(stub)
    return stub


@functools.cache
def code(binary: bytes) -> sass.Code:
    (only,) = sass.disassemble(binary).values()
    return only


def predict(case: Case, kind: str, stub) -> dict:
    dtype = DTYPES[kind]
    x = torch.empty(case.shape, dtype=dtype, device="meta")
    x = x.contiguous(memory_format=torch.channels_last) if case.last else x
    stub.launches.clear()
    wide = functools.partial(torch.empty, dtype=torch.float32, device="meta")
    case.call(importlib.import_module(f"fastgan.ops.triton.{case.op}"), x, wide)
    counts, least = Counter(), 64
    for binary, programs, warps, shared, arguments in stub.launches:
        least = min(least, resident(32 * warps, code(binary).registers, shared, stub.arch))
        for name, n in code(binary).executed(case.loops(arguments)).items():
            counts[name] += n * programs * warps
    outputs = x.numel()
    counts = Counter({name: n / outputs for name, n in counts.items()})
    row = estimate(counts, case.bytes * dtype.itemsize / 4, stub.arch, len(stub.launches) / outputs)
    return {**row, "warps": least}


def rows(arch: int) -> dict[str, dict]:
    stub = recorder(arch)
    return {f"{name} {kind} sm_{arch}": predict(case, kind, stub) for name, case in CASES.items() for kind in DTYPES}


if __name__ == "__main__":
    import fastgan.ops.triton as kernels

    kernels.register_for_cpu()
    json.dump(rows(int(sys.argv[1])), sys.stdout)
