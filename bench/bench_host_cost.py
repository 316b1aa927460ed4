"""What a call costs the host: public functions on tensors so small that nothing else counts, beside the torch operations they
replace. On a GPU (`--device cuda`, "eager") it is the time in which the CPU can issue calls.

`triton_noop` is the launchers' share on a machine without a GPU: a process of its own in which kernels are compiled for sm_90 and
launched by a driver that does nothing (tests/triton_stub.py); its results are memory as it came, so nothing is compared.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fastgan.ops import bias_act, grad_penalty, norm_act, setup_filter, upfirdn2d

SHAPE, CHANNELS = (2, 8, 4, 4), 8
F4 = setup_filter(torch.tensor([1.0, 3, 3, 1]))


def cases(device, **options):
    """name: (fastgan's function, torch's, tensors with a gradient)"""
    x, b, w = (
        torch.randn(SHAPE, device=device),
        torch.zeros(CHANNELS, device=device),
        torch.ones(CHANNELS, device=device),
    )
    f = F4.to(device)
    plane = f.expand(CHANNELS, 1, 4, 4)
    made = {
        "bias_act": (
            lambda x, b: bias_act(x, b, act="lrelu", clamp=256.0, **options),
            lambda x, b: torch.clamp(F.leaky_relu(x + b[:, None, None], 0.2) * 2**0.5, -256.0, 256.0),
            (x, b),
        ),
        "norm_act": (
            lambda x, w, b: norm_act(x, w, b, **options),
            lambda x, w, b: F.relu(F.instance_norm(x, None, None, w, b)),
            (x, w, b),
        ),
        "grad_penalty": (lambda x: grad_penalty(x, **options), lambda x: x.square().sum((1, 2, 3)), (x,)),
    }
    if not options:
        made["upfirdn2d"] = (
            lambda x: upfirdn2d(x, f, padding=2),
            lambda x: F.conv2d(x, plane, padding=2, groups=CHANNELS),
            (x,),
        )
    return {name: (ours, theirs, [t.clone().requires_grad_() for t in ts]) for name, (ours, theirs, ts) in made.items()}


@pytest.mark.parametrize("name", cases("cpu"))
def bench_forward(compare, device, name):
    ours, theirs, tensors = cases(device)[name]
    tensors = [t.detach() for t in tensors]
    compare(f"forward {name}", lambda f: f(*tensors), reference=theirs, fastgan=ours, compiled=False)


@pytest.mark.parametrize("name", cases("cpu"))
def bench_forward_backward(compare, device, name):
    ours, theirs, tensors = cases(device)[name]
    dy = torch.randn_like(ours(*tensors))

    def step(f):
        return torch.autograd.grad(f(*tensors), tensors, dy)

    compare(f"forward + backward {name}", step, reference=theirs, fastgan=ours, compiled=False)


def best(calls, rounds=400, each=10):
    """Microseconds of each of the calls, in turn, the best of all rounds."""
    found = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            for _ in range(each):
                call()
            found[i] = min(found[i], 1e6 * (time.perf_counter() - start) / each)
    return found


def triton_noop() -> dict:
    import triton_stub

    import fastgan.ops.triton as kernels

    kernels.register_for_cpu()
    triton_stub.activate(90)
    torch.set_num_threads(1)
    rows = {}
    for name, (ours, theirs, tensors) in cases("cpu", impl="triton").items():
        dy, plain = torch.randn_like(ours(*tensors)), [t.detach() for t in tensors]
        for way, step in {
            "forward": lambda f, plain=plain: f(*plain),
            "forward + backward": lambda f, tensors=tensors, dy=dy: torch.autograd.grad(f(*tensors), tensors, dy),
        }.items():
            fastgan, others = best([lambda step=step, f=f: step(f) for f in (ours, theirs)])
            rows[f"{way} {name}"] = {"fastgan us": fastgan, "torch us": others}
    return rows


def bench_triton_noop(request):
    pytest.importorskip("triton")
    here = Path(__file__).resolve()
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(here.parents[1]), str(here.parents[1] / "tests")])
    run = subprocess.run([sys.executable, here], env=environment, stdout=subprocess.PIPE, check=True)
    rows = json.loads(run.stdout)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for name, row in rows.items():
            print(f"\nno-op launch, {name}: " + "  ".join(f"{k} {v:.1f}" for k, v in row.items()), end="")
    assert len(rows) == 6


if __name__ == "__main__":
    json.dump(triton_noop(), sys.stdout)
