"""accelerate() on networks as other people write them (dropin_networks.py) and on those of packages of others
(dropin_packages.py, where these are installed), at 64 pixels and at their usual size.

    pytest bench/bench_dropin.py                  the table: new speed over old, in evaluation and in training mode
    pytest bench/bench_dropin.py --how example    with accelerate(network, example=x), which measures and keeps what pays
    pytest bench/bench_dropin.py --how freeze     with accelerate(network, freeze=True), in evaluation mode
    pytest bench/bench_dropin.py --benchmark-disable    the same numbers alone, not timed
    python bench/dropin_table.py out.txt ...      the table of docs/drop-in.md, of what these printed

Three copies of a network, one of them accelerated, run in turn on one thread, by CPU time. Of each round counts the ratio of the
two times, which other programs disturb alike; the gain is the median of all rounds, after "±" its standard error. "copy" is the
same of the two that are not accelerated: what of a ratio is chance. A network is said to be slower where its gain is below 0.99
and below the copy's by more than the two errors. Nothing is timed of a network of which nothing was changed.
"""

import copy
import time

import pytest
import torch
from dropin_networks import NETWORKS
from dropin_packages import ABSENT, PACKAGES
from torch import nn

from fastgan import accelerate

# Seconds of a case at least and at most: until then it goes on while the error is larger than NEAR.
SECONDS, LONG, NEAR = 1.0, 3.0, 0.01
ALL = {**NETWORKS, **PACKAGES}
CASES = [(name, usual, training) for name in ALL for usual in (False, True) for training in (False, True)]


def step(network: nn.Module, x: torch.Tensor, training: bool):
    if not training:
        with torch.no_grad():
            return [first(network(x))]
    weights = [p for p in network.parameters() if p.requires_grad]
    return torch.autograd.grad(first(network(x)).square().mean(), weights, allow_unused=True)


def first(result):
    """The image of networks that return more."""
    return result if isinstance(result, torch.Tensor) else first(result[0])


def median_and_error(values: list[float]) -> tuple[float, float]:
    """The error of a median from the quartiles, as of a normal distribution."""
    values = sorted(values)
    n = len(values)
    return values[n // 2], 1.2533 * (values[3 * n // 4] - values[n // 4]) / 1.349 / n**0.5


def timed(old: nn.Module, new: nn.Module, twin: nn.Module, x: torch.Tensor, training: bool):
    """Milliseconds of `old`; of `new` and of `twin` by how much each is faster than it, and the errors of that."""
    networks, times = [old, new, twin], ([], [], [])
    start = time.process_time()
    while True:
        order = [(len(times[0]) + i) % 3 for i in range(3)]
        for i in order:
            before = time.process_time()
            step(networks[i], x, training)
            times[i].append(time.process_time() - before)
        gain, copied = (median_and_error([a / b for a, b in zip(times[0], ts, strict=True)]) for ts in times[1:])
        spent = time.process_time() - start
        if len(times[0]) > 4 and (spent > LONG or (spent > SECONDS and max(gain[1], copied[1]) < NEAR)):
            return 1e3 * min(times[0]), gain, copied


def settled(network: nn.Module, x: torch.Tensor) -> nn.Module:
    """With running means and spectral norms of `x`, as training makes them: without, results overflow into a tanh's -1 and 1."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        for _ in range(3):
            network(x)
    for norm in norms:
        norm.momentum = 0.1
    return network


def same_numbers(old: nn.Module, new: nn.Module, x: torch.Tensor, training: bool) -> None:
    results = []
    for network in (old, new):
        torch.manual_seed(1)
        results.append(step(network, x, training))
    for expected, found in zip(*results, strict=True):
        # Of weights: a bias before a norm has no gradient but rounding. A ReLU at its kink moves a gradient by 1%.
        if expected is not None and (expected.dim() > 1 or not training):
            scale = expected.abs().max() + 1e-6
            assert (found - expected).abs().max() <= (0.1 if training else 1e-3) * scale


@pytest.mark.parametrize(("name", "usual", "training"), CASES)
def bench_dropin(request, name, usual, training):
    how = request.config.getoption("--how")
    if how == "freeze" and training:
        pytest.skip("frozen networks do not train")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    build, shape, size = ALL[name]
    size = size if usual else 64
    batch = 2 if "batch norm" in name or "few-shot" in name or "U-Net" in name else 1  # of one image no batch norm
    x = torch.randn(batch, *shape(size))
    network = settled(build(size).train(), x).train(training)
    old, new, twin = (copy.deepcopy(network) for _ in range(3))
    report = accelerate(new, example=x if how == "example" else None, freeze=how == "freeze")
    same_numbers(old, new, x, training)
    if request.config.getoption("--benchmark-disable"):
        return
    row = f"| {name} | {size}{'' if batch == 1 else f' x{batch}'} | {'train' if training else 'eval'} | {how} |"
    if not report._changes:
        row += " untouched | | | | 0 |"
    else:
        if how == "freeze":  # it is recorded when an input is seen for the second time
            same_numbers(old, new, x, training)
        before, gain, copied = timed(old, new, twin, x, training)
        slower = "slower" if gain[0] < 0.99 and gain[0] + gain[1] + copied[1] < copied[0] else ""
        row += f" {before:.1f} ms | {gain[0]:.2f} ± {gain[1]:.2f} | {copied[0]:.2f} ± {copied[1]:.2f} | {slower} |"
        row += f" {len(report.replaced)} |"
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{row}", end="")


@pytest.mark.parametrize("package", ABSENT)
def bench_package(package):
    pytest.skip(f"{package}: {ABSENT[package]}")
