"""accelerate() on networks as other people write them (dropin_networks.py), at 64 pixels and at their usual size.

    pytest bench/bench_dropin.py               the table: new speed over old, in evaluation and in training mode
    pytest bench/bench_dropin.py --example     with accelerate(network, example=x), which measures and keeps what pays
    pytest bench/bench_dropin.py --benchmark-disable    the same numbers alone

Old, new and a second, unaccelerated copy run in turn on one thread; of each counts the least CPU time of all rounds, which other
programs disturb least. "copy" is the second copy's speed over the first: what of a ratio is chance. A network is said to be
slower where its ratio is below 0.99 and below the copy's.
"""

import copy
import time

import pytest
import torch
from dropin_networks import NETWORKS
from torch import nn

from fastgan import accelerate

SECONDS, ROUNDS = 1.0, 3  # of a case at least
CASES = [(name, usual, training) for name in NETWORKS for usual in (False, True) for training in (False, True)]


def step(network: nn.Module, x: torch.Tensor, training: bool):
    if not training:
        with torch.no_grad():
            return [network(x)]
    weights = [p for p in network.parameters() if p.requires_grad]
    return torch.autograd.grad(network(x).square().mean(), weights, allow_unused=True)


def seconds(networks: list[nn.Module], x: torch.Tensor, training: bool) -> list[float]:
    least, rounds, end = [float("inf")] * len(networks), 0, time.process_time() + SECONDS
    while rounds < ROUNDS or time.process_time() < end:
        for i, network in enumerate(networks):
            start = time.process_time()
            step(network, x, training)
            least[i] = min(least[i], time.process_time() - start)
        rounds += 1
    return least


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


@pytest.mark.parametrize(("name", "usual", "training"), CASES)
def bench_dropin(request, name, usual, training):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    build, shape, size = NETWORKS[name]
    size = size if usual else 64
    batch = 2 if "batch norm" in name or "few-shot" in name or "U-Net" in name else 1  # of one image no batch norm
    x = torch.randn(batch, *shape(size))
    old = settled(build(size).train(), x).train(training)
    new, twin = copy.deepcopy(old), copy.deepcopy(old)
    report = accelerate(new, example=x if request.config.getoption("--example") else None)
    results = []
    for network in (old, new):
        torch.manual_seed(1)
        results.append(step(network, x, training))
    for expected, found in zip(*results, strict=True):
        # Of weights: a bias before a norm has no gradient but rounding. A ReLU at its kink moves a gradient by 1%.
        if expected is not None and (expected.dim() > 1 or not training):
            scale = expected.abs().max() + 1e-6
            assert (found - expected).abs().max() <= (0.1 if training else 1e-3) * scale
    del results, expected, found
    if request.config.getoption("--benchmark-disable"):
        return
    before, after, again = seconds([old, new, twin], x, training)
    gain, chance = before / after, before / again
    slower = "slower" if gain < 0.99 and gain < chance else ""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(
            f"\n| {name} | {size} px{'' if batch == 1 else f', {batch} images'} | {'train' if training else 'eval'} |"
            f" {1e3 * before:.1f} ms | {gain:.2f} | {chance:.2f} | {slower} | {len(report.replaced)} |",
            end="",
        )
