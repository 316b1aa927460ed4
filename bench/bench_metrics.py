"""Statistics for the Fréchet distance: all 3,781 emoji through EfficientNet-Lite0 at 128 px, mean and covariance in float64.

Beside the whole stands the network alone: what streaming and covariance add is the difference. The statistics are compared
with numpy's first; the distance itself is compared with scipy's in tests/metrics/test_image_metrics.py.

Figures of 5,000 rows of 2,048 features beside those of packages (extra `bench`), as far as they are installed:

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 pytest bench/bench_metrics.py -k peer -s

says seconds of CPU time of one thread, each measured once, after both have given the same number.
"""

import contextlib
import io
import time

import numpy as np
import pytest
import torch

import fastgan.data
from fastgan.metrics import fid, images, kid, prdc

ROWS, DIM = 5000, 2048


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


@pytest.fixture(scope="module")
def features(request) -> tuple[torch.Tensor, torch.Tensor]:
    torch.set_num_threads(1)
    rows = ROWS // 8 if request.config.getoption("benchmark_disable") else ROWS
    real, fake = torch.randn(2, rows, DIM, generator=torch.Generator().manual_seed(0))
    return real.relu_(), (fake * 0.98 + 0.02).relu_()


def seconds(step):
    """What `step` returns, and how long it takes; what it prints is dropped."""
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        found = step()
    return found, time.process_time() - start


def said(case: str, ours: float, theirs: float) -> None:
    print(f"\n{case}: fastgan {ours:.2f} s, peer {theirs:.2f} s, peer / fastgan {theirs / ours:.2f}")


def bench_peer_prdc(features):
    peer = pytest.importorskip("prdc")
    found, ours = seconds(lambda: prdc.prdc(*features, 5)._asdict())
    expected, theirs = seconds(lambda: peer.compute_prdc(*(x.numpy() for x in features), 5))
    assert found == pytest.approx(expected, abs=1e-9)
    said("precision, recall, density, coverage; prdc", ours, theirs)


def bench_peer_precision(features):
    peer = pytest.importorskip("torch_fidelity.metric_prc")
    found, ours = seconds(lambda: prdc.prdc(*features, 5))
    options = {"prc_neighborhood": 5, "prc_batch_size": 10000, "save_cpu_ram": False, "verbose": False}
    expected, theirs = seconds(lambda: peer.prc_features_to_metric(*reversed(features), **options))
    # float32 distances: a few rows fall on the other side
    assert found[:2] == pytest.approx((expected["precision"], expected["recall"]), abs=5 / len(features[0]))
    said("all four; torch-fidelity, precision and recall alone", ours, theirs)


def bench_peer_kernel_distance(features):
    peers = {
        "torch-fidelity (float32)": fidelity_kernel,
        "clean-fid (float32)": cleanfid_kernel,
    }
    few, size = [x[:500].double() for x in features], min(1000, len(features[0]))
    ours = seconds(lambda: kid.kernel_distance(*features, 100, size))[1]
    for name, peer in peers.items():
        kernel = peer()
        # One subset of all rows is the same subset for both.
        assert kid.kernel_distance(*few, 1, 500)[0] == pytest.approx(kernel(*few, 1, 500), rel=1e-9)
        said(
            f"kernel distance, 100 subsets of 1,000; {name}", ours, seconds(lambda k=kernel: k(*features, 100, size))[1]
        )


def fidelity_kernel():
    peer = pytest.importorskip("torch_fidelity.metric_kid")

    def distance(x, y, subsets, size):
        options = {"kid_subsets": subsets, "kid_subset_size": size, "rng_seed": 0, "verbose": False}
        return peer.kid_features_to_metric(x, y, **options)[peer.KEY_METRIC_KID_MEAN]

    return distance


def cleanfid_kernel():
    peer = pytest.importorskip("cleanfid.fid")
    return lambda x, y, subsets, size: peer.kernel_distance(x.numpy(), y.numpy(), subsets, size)


def bench_peer_frechet_distance(features):
    """From features to the distance; what is shared with no peer, the network, is not in it."""

    def ours_of(x, y):
        both = []
        for rows in (x, y):
            both.append(fid.Statistics(DIM))
            for part in rows.split(64):
                both[-1].update(part)
        return fid.frechet_distance(*both)

    found, ours = seconds(lambda: ours_of(*features))
    for name, peer in {
        "torch-fidelity": fidelity_frechet,
        "torchmetrics": torchmetrics_frechet,
        "clean-fid": cleanfid_frechet,
    }.items():
        distance = peer()
        expected, theirs = seconds(lambda d=distance: d(*features))
        assert found == pytest.approx(expected, rel=1e-4)
        said(f"Fréchet distance; {name}", ours, theirs)


def moments(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    return x.double().mean(0).numpy(), np.cov(x.double().numpy(), rowvar=False)


def fidelity_frechet():
    peer = pytest.importorskip("torch_fidelity.metric_fid")

    def distance(x, y):
        both = (dict(zip(("mu", "sigma"), moments(rows), strict=True)) for rows in (x, y))
        return peer.fid_statistics_to_metric(*both, verbose=False)[peer.KEY_METRIC_FID]

    return distance


def torchmetrics_frechet():
    peer = pytest.importorskip("torchmetrics.image.fid")

    def distance(x, y):
        both = (torch.from_numpy(part) for rows in (x, y) for part in moments(rows))
        return float(peer._compute_fid(*both))

    return distance


def cleanfid_frechet():
    peer = pytest.importorskip("cleanfid.fid")
    return lambda x, y: peer.frechet_distance(*moments(x), *moments(y))
