"""What `.ci/gpu` measures in a few minutes on a GPU, without pytest: `python bench/gpu.py PART --device cuda --json FILE`.

    ceilings   copy rate and bf16 matrix rate of the machine
    times      each kernel: a CUDA graph of 20 calls over inputs of 256 MB together; ps per element, share of the copy rate
    host       what an eager call costs the CPU, beside torch's own operations on the same small tensors
    inductor   six cases beside torch.compile of their references
    counters   one call of seven kernels, for a profiler to look at

With --device cpu each part runs on tiny tensors, without graphs: a rehearsal, whose numbers mean nothing.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import bench_host_cost
import torch
from machine import Replay, copy_rate

from fastgan import ops
from fastgan.ops import modulate, modulated_activation

MODEL = json.loads((Path(__file__).parent / "results" / "predicted.json").read_text())["rows"]  # bench/predicted.py
ROTATED = 256e6  # bytes of all inputs of a case together: several times the largest cache
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Case(NamedTuple):
    shape: tuple[int, ...]
    make: Callable[
        [str, torch.Tensor], Callable[[torch.Tensor], torch.Tensor]
    ]  # (impl, an input) -> function of inputs
    bytes_per_element: float | None = None  # of x in float32, forward; half of it in bf16
    last: bool = False  # channels_last


# Whatever a call needs besides x is made once, by `make`: a graph captures no copy from the CPU.
F4, F12 = (ops.setup_filter(torch.tensor(taps)) for taps in ([1.0, 3, 3, 1], [1.0, 2, 4, 7, 9, 10, 10, 9, 7, 4, 2, 1]))

K12 = ops.kaiser_sinc_filter(0.25, 0.3)


def _upfirdn2d(f: torch.Tensor, up: int = 1, down: int = 1, padding: int | list[int] = 2) -> Callable:
    def make(impl, x):
        on_device = f.to(x.device)
        return lambda x: ops.upfirdn2d(x, on_device, up, down, padding, gain=up * up, impl=impl)

    return make


def _filtered_lrelu(impl, x):
    f, b = F12.to(x.device), x.new_zeros(x.shape[1])
    return lambda x: ops.filtered_lrelu(x, f, f, b, up=2, down=2, padding=[11, 10, 11, 10], clamp=256.0, impl=impl)


def _filtered_snake(impl, x):
    f = K12.to(x.device)
    a, b = (torch.full((x.shape[1],), v, dtype=x.dtype, device=x.device) for v in (1.25, 0.5))
    return lambda x: ops.filtered_snake(x, a, b, f, f, impl=impl)


def _bias_act(act: str) -> Callable:
    def make(impl, x):
        b = x.new_zeros(x.shape[1])
        return lambda x: ops.bias_act(x, b, act=act, impl=impl)

    return make


def _modulate(impl, x):
    scale = x.new_ones(x.shape[:2]).requires_grad_()
    return lambda x: modulate.apply(x, scale, impl)


def _modulated_activation(impl, x):
    scale, noise = x.new_ones(x.shape[:2], dtype=torch.float32), x.new_zeros(x.shape[0], 1, *x.shape[2:])
    b = x.new_zeros(x.shape[1])
    return lambda x: modulated_activation.apply(x, scale, noise, b, "lrelu", None, None, impl)


def _norm_act(impl, x):
    weight, bias = x.new_ones(x.shape[1]), x.new_zeros(x.shape[1])
    return lambda x: ops.norm_act(x, weight, bias, impl=impl)


def _modulated_conv2d(impl, x):
    weight, styles = x.new_ones(256, x.shape[1], 3, 3), x.new_ones(x.shape[:2])
    return lambda x: ops.modulated_conv2d(x, weight, styles, padding=1, impl=impl)


def _modulated_weight(impl, x):
    styles = x.new_ones(16, x.shape[1])
    return lambda weight: torch.ops.fastgan.modulated_conv2d_weight(weight, styles, None, True)[0]


IMAGE = (8, 256, 64, 64)
CASES = {
    "bias_act lrelu": Case(IMAGE, _bias_act("lrelu"), 8),
    "bias_act tanh": Case(IMAGE, _bias_act("tanh"), 8),
    "bias_act NHWC": Case(IMAGE, _bias_act("lrelu"), 8, last=True),
    "modulate": Case(IMAGE, _modulate, 8),
    "modulated_activation": Case(IMAGE, _modulated_activation, 8),
    "modulated_activation NHWC": Case(IMAGE, _modulated_activation, 8, last=True),
    "norm_act": Case(IMAGE, _norm_act, 8),
    "norm_act NHWC": Case(IMAGE, _norm_act, 12, last=True),
    "norm_act 8x8": Case((64, 512, 8, 8), _norm_act, 8),
    "grad_penalty": Case((64, 3, 256, 256), lambda impl, x: lambda x: ops.grad_penalty(x, "wgan-gp", impl=impl), 4),
    "gumbel_softmax": Case((2048, 5000), lambda impl, x: lambda x: ops.gumbel_softmax(x, 0.5, impl=impl), 8),
    "upfirdn2d 4x4": Case(IMAGE, _upfirdn2d(F4), 8),
    "upfirdn2d 4x4 NHWC": Case(IMAGE, _upfirdn2d(F4), 8, last=True),
    "upfirdn2d up 2, 12 taps": Case(IMAGE, _upfirdn2d(F12, up=2, padding=[6, 5, 6, 5]), 20),
    "upfirdn2d down 2": Case(IMAGE, _upfirdn2d(F4, down=2), 5),
    "filtered_lrelu": Case(IMAGE, _filtered_lrelu, 8),
    "filtered_lrelu NHWC": Case(IMAGE, _filtered_lrelu, 8, last=True),
    "filtered_snake": Case((8, 256, 4096), _filtered_snake, 8),
    "modulated weight": Case((256, 256, 3, 3), _modulated_weight, 68),
    "modulated squares": Case((512, 512, 3, 3), lambda impl, x: torch.ops.fastgan.modulated_conv2d_squares, 4),
    "modulated_conv2d": Case(IMAGE, _modulated_conv2d),
}
SIX = ("bias_act lrelu", "norm_act", "grad_penalty", "upfirdn2d 4x4", "filtered_lrelu", "modulated_conv2d")
COUNTED = (*SIX, "filtered_snake")


def inputs(case: Case, dtype: torch.dtype, device: torch.device, count: int | None = None) -> list[torch.Tensor]:
    """As many as are ROTATED bytes together, or `count`; on a CPU one, of a few elements."""
    shape = case.shape if device.type == "cuda" else tuple(min(n, 8) for n in case.shape)
    x = torch.randn(shape, dtype=dtype, device=device)
    count = count or (max(1, round(ROTATED / x.nbytes)) if device.type == "cuda" else 1)
    layout = torch.channels_last if case.last else torch.contiguous_format
    return [torch.randn_like(x).contiguous(memory_format=layout).requires_grad_() for _ in range(count)]


def forward(f: Callable, x: torch.Tensor) -> Callable[[], object]:
    def call():
        with torch.no_grad():
            return f(x)

    return call


def with_backward(f: Callable, x: torch.Tensor) -> Callable[[], object]:
    dy = torch.ones_like(f(x))
    return lambda: torch.autograd.grad(f(x), x, dy)


def seconds(calls: list[Callable], device: torch.device) -> float:
    """Of one call, the fastest of five."""
    if device.type == "cuda":
        replay = Replay(calls)
        return min(replay.seconds() for _ in range(5))
    start = time.perf_counter()
    calls[0]()
    return time.perf_counter() - start


def ceilings(device: torch.device) -> dict:
    size = 8192 if device.type == "cuda" else 64
    a, b = torch.randn(2, size, size, dtype=torch.bfloat16, device=device)
    product = seconds([lambda: a @ b], device)
    result = {"copy TB/s": copy_rate(device) / 1e12, "bf16 TFLOP/s": 2 * size**3 / product / 1e12}
    print({k: round(v, 3) for k, v in result.items()})
    return result


def times(device: torch.device) -> dict:
    rate, rows = copy_rate(device), {}
    arch = "sm_{}{}".format(*torch.cuda.get_device_capability()) if device.type == "cuda" else "sm_90"
    for name, case in CASES.items():
        for kind, dtype in DTYPES.items():
            for way, wrap in {"forward": forward, "+ backward": with_backward}.items():
                try:
                    xs = inputs(case, dtype, device)
                    f = case.make("auto", xs[0])
                    ps = seconds([wrap(f, x) for x in xs], device) * 1e12 / xs[0].numel()
                except Exception as error:  # the next case is worth its seconds
                    rows[f"{name} {kind} {way}"] = {"error": f"{type(error).__name__}: {error}"[:300]}
                    print(f"{name} {kind} {way}: {type(error).__name__}: {error}"[:150], flush=True)
                    continue
                row = {"ps": ps}
                if way == "forward" and case.bytes_per_element:
                    floor = case.bytes_per_element * dtype.itemsize / 4 / rate * 1e12
                    row |= {"share": floor / ps, "predicted": MODEL.get(f"{name} {kind} {arch}", {}).get("share")}
                rows[f"{name} {kind} {way}"] = row
                shares = "".join(f"  {k} {row[k]:.2f}" for k in ("share", "predicted") if row.get(k))
                print(f"{name} {kind} {way}: {ps:.2f} ps{shares}", flush=True)
    return rows


def host(device: torch.device) -> dict:
    """Microseconds of the CPU per call, many in a row on tensors so small that the GPU is never the one waited for."""
    on_gpu, rows = device.type == "cuda", {}
    options = dict(rounds=4, each=200 if on_gpu else 3, before=torch.cuda.synchronize if on_gpu else lambda: None)
    for name, case in bench_host_cost.cases(device).items():
        found = {
            way.removeprefix("forward "): bench_host_cost.best(both, **options)
            for way, both in bench_host_cost.ways(*case).items()
        }
        rows[name] = {f"{who} {way}": found[way][i] for i, who in enumerate(("fastgan", "torch")) for way in found}
        print(f"host us, {name}: " + "  ".join(f"{k} {v:.0f}" for k, v in rows[name].items()), flush=True)
    return rows


def inductor(device: torch.device) -> dict:
    rows = {}
    for name in SIX:
        case = CASES[name]
        xs = inputs(case, torch.float32, device)
        compiled = case.make("reference", xs[0])
        if device.type == "cuda":
            compiled = torch.compile(compiled)
        row = {}
        for who, f in {"fastgan": case.make("auto", xs[0]), "inductor": compiled}.items():
            try:
                row[who] = seconds([forward(f, x) for x in xs], device) * 1e12 / xs[0].numel()
            except Exception as error:
                row[who] = f"{type(error).__name__}: {error}"[:300]
        rows[name] = row
        print(
            f"{name}: "
            + "  ".join(f"{k} {v:.2f} ps" if isinstance(v, float) else f"{k} {v[:90]}" for k, v in row.items()),
            flush=True,
        )
    return rows


def counters(device: torch.device) -> dict:
    for name in COUNTED:
        (x,) = inputs(CASES[name], torch.float32, device, count=1)
        CASES[name].make("auto", x)(x)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {"called": list(COUNTED)}


PARTS = {f.__name__: f for f in (ceilings, times, host, inductor, counters)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    result = PARTS[chosen.part](chosen.device)
    if chosen.json:
        chosen.json.write_text(json.dumps(result))
