"""What a call costs the host: public functions on tensors so small that nothing else counts, beside the torch operations they
replace. On a GPU (`--device cuda`, "eager") it is the time in which the CPU can issue calls.

`triton_noop` is the launchers' share on a machine without a GPU: a process of its own in which kernels are compiled for sm_90 and
launched by a driver that does nothing (tests/triton_stub.py); its results are memory as it came, so nothing is compared.
`PYTHONPATH=.:tests python bench/bench_host_cost.py > bench/results/host_noop.json` keeps it for docs/gpu.md.
"""

import copy
import datetime
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from machine import processor
from torch import nn

import fastgan
from fastgan.ops import bias_act, grad_penalty, modulated_activation, norm_act, setup_filter, upfirdn2d

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
        "modulated_activation": (
            lambda x, s, n, b: modulated_activation.apply(x, s, n, b, "lrelu", None, 256.0, **options),
            lambda x, s, n, b: torch.clamp(
                F.leaky_relu(torch.addcmul(n, x, s[:, :, None, None]) + b[:, None, None], 0.2) * 2**0.5, -256.0, 256.0
            ),
            (x, x[:, :, 0, 0], x[:, :1], b),
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


def ways(ours, theirs, tensors):
    """{way: (call of ours, of theirs)}"""
    dy, plain = torch.randn_like(ours(*tensors)), [t.detach() for t in tensors]
    steps = {
        "forward": lambda f: f(*plain),
        "forward + backward": lambda f: torch.autograd.grad(f(*tensors), tensors, dy),
    }
    return {way: [functools.partial(step, f) for f in (ours, theirs)] for way, step in steps.items()}


def best(calls, rounds=400, each=10, before=lambda: None):
    """Microseconds of each of the calls, in turn, the best of all rounds; `before` waits for what is under way."""
    found = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            before()
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
    for name, case in cases("cpu", impl="triton").items():
        for way, both in ways(*case).items():
            fastgan, others = best(both)
            rows[f"{way} {name}"] = {"fastgan us": fastgan, "torch us": others}
    return rows


def bench_triton_noop(request):
    pytest.importorskip("triton")
    here = Path(__file__).resolve()
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(here.parents[1]), str(here.parents[1] / "tests")])
    run = subprocess.run([sys.executable, here], env=environment, stdout=subprocess.PIPE, check=True)
    rows = json.loads(run.stdout)["rows"]
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        for name, row in rows.items():
            print(f"\nno-op launch, {name}: " + "  ".join(f"{k} {v:.1f}" for k, v in row.items()), end="")
    assert len(rows) == 8


class Functional(nn.Module):
    """Functional activations in a loop: what `accelerate` rewrites."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 1) for _ in range(LAYERS)])

    def forward(self, x):
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return x


LAYERS, MOST = 8, 5.0  # replaced layers of a network, and microseconds of Python that each may add
ACCELERATED = {  # name: (network, shape of its input): nothing of theirs is computed in another way, for it is too small
    "instance norm": (lambda: nn.Sequential(*(nn.InstanceNorm2d(8) for _ in range(LAYERS))), (1, 8, 4, 4)),
    "convolutions with another form": (
        lambda: nn.Sequential(*(nn.ConvTranspose2d(8, 8, 1) for _ in range(LAYERS))), (1, 8, 4, 4),
    ),
    "pairs of a Sequential": (
        lambda: nn.Sequential(*(m for _ in range(LAYERS) for m in (nn.Conv2d(8, 8, 1), nn.LeakyReLU(0.2)))), (1, 8, 4, 4),
    ),
    "pairs of a rewritten forward": (Functional, (1, 8, 4, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCELERATED)
def bench_accelerated(request, name):
    """What a layer that `accelerate` replaced costs more than the original, where its kernels have nothing to do."""
    build, shape = ACCELERATED[name]
    net, x = build().eval(), torch.randn(shape)
    twin = copy.deepcopy(net)
    report = fastgan.accelerate(twin)
    torch.set_num_threads(1)
    with torch.no_grad():
        assert torch.allclose(net(x), twin(x), atol=1e-6)
        old, new = best(
            [lambda: net(x), lambda: twin(x)], rounds=40 if request.config.option.benchmark_disable else 400
        )
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(
            f"\naccelerated, {name}: {(new - old) / LAYERS:+.2f} us a layer ({len(report.replaced)} replaced)", end=""
        )
    assert report.replaced
    if not request.config.option.benchmark_disable:  # where others compute too, time says nothing
        assert (new - old) / LAYERS <= MOST


if __name__ == "__main__":
    about = f"{processor()}, one thread, torch {torch.__version__}, {datetime.date.today()}"
    json.dump({"about": about, "rows": triton_noop()}, sys.stdout, indent=1)
    print()
