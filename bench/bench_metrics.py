"""Statistics for the Fréchet distance: all 3,781 emoji through EfficientNet-Lite0 at 128 px, mean and covariance in float64.

Beside the whole stands the network alone: what streaming and covariance add is the difference. The statistics are compared
with numpy's first; the distance itself is compared with scipy's in tests/metrics/test_image_metrics.py.
"""

import time

import numpy as np
import pytest
import torch

import fastgan.data
from fastgan.metrics import images


@pytest.fixture(scope="module")
def extractor():
    return images.load_extractor("efflite0")


def check(extractor, pixels: torch.Tensor) -> None:
    found = images.collect(extractor, pixels.split(64))
    rows = found.rows.double().numpy()
    np.testing.assert_allclose(found.statistics.mean, rows.mean(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.statistics.covariance, np.cov(rows, rowvar=False), rtol=1e-6, atol=1e-9)


def bench_emoji_statistics(benchmark, record, request, extractor):
    pixels = fastgan.data.load("emoji").images
    torch.set_num_threads(request.config.getoption("--threads"))
    if request.config.getoption("--device") == "cpu":
        fastgan.tune_cpu_allocator()
    check(extractor, pixels[:80])
    if benchmark.disabled:
        return benchmark.pedantic(lambda: None, rounds=1)
    times = {"network alone": [], "fastgan": []}

    def network():
        start = time.perf_counter()
        with torch.no_grad():
            for part in pixels.split(64):
                extractor(part)
        times["network alone"].append(time.perf_counter() - start)

    def whole():
        start = time.perf_counter()
        images.collect(extractor, pixels.split(64))
        times["fastgan"].append(time.perf_counter() - start)

    benchmark.pedantic(whole, setup=network, rounds=2)
    record(f"statistics of {len(pixels)} emoji at {extractor.resolution} px", times)
