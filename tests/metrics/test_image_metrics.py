"""Fréchet and kernel distance, Inception score, PRDC and mode metrics against numpy, scipy and definitions by brute force."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
import torch
from torch._subclasses import FakeTensorMode

from fastgan.data.source import Spread
from fastgan.metrics import fid, images, kid, modes, prdc
from fastgan.training.recipe import in_shares


def features(n, d, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + shift


def statistics(x, sizes=(1, 7, 40)):
    found = fid.Statistics(x.shape[1])
    rest = x
    for size in sizes:
        found.update(rest[:size])
        rest = rest[size:]
    found.update(rest)
    return found


@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_streamed_statistics_are_numpys(shift):
    x = features(300, 13, 0, shift)
    found = statistics(x)
    assert found.count == 300
    np.testing.assert_allclose(found.mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-6, atol=1e-6)


def test_statistics_that_were_read_stay():
    x = features(40, 5, 1)
    found = statistics(x)
    mean, scatter = found.mean, found.scatter
    kept = mean.clone(), scatter.clone()
    found.update(x + 1)
    assert found.count == 80 and found.mean is not mean
    assert torch.equal(mean, kept[0]) and torch.equal(scatter, kept[1])


def test_merging_equals_one_stream():
    x = features(200, 5, 1, 3.0)
    left, right = statistics(x[:70]), statistics(x[70:])
    left.merge(right)
    left.merge(fid.Statistics(5))
    assert left.count == 200
    torch.testing.assert_close(left.covariance, statistics(x).covariance, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [400, 20])
def test_frechet_distance_is_scipys(n):
    """n = 20 rows of 32 features: singular covariances, where the usual code adds jitter."""
    a, b = features(n, 32, 2), features(n + 3, 32, 3, 0.5)
    c1, c2 = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(c1 + c2 - 2 * np.real(root))
    assert fid.frechet_distance(statistics(a), statistics(b)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("counts", [(300, 10), (50, 60), (20, 20)])
def test_frechet_distance_of_fewer_rows_than_features(counts):
    """From the rows themselves: of A and B, centred and over the root of N - 1, tr (C1 C2)^(1/2) is the nuclear norm of A B'."""
    a, b = (features(n, 200, n) for n in counts)
    centred = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b)]
    both = sum(x.square().sum() for x in centred) + (a.mean(0) - b.mean(0)).square().sum()
    expected = both - 2 * torch.linalg.svdvals(centred[0] @ centred[1].mT).sum()
    assert abs(fid.frechet_distance(statistics(a), statistics(b)) - expected) < 1e-12 * both


def test_frechet_distance_closed_form_and_zero():
    a = features(500, 4, 4)
    assert fid.frechet_distance(statistics(a), statistics(a)) == pytest.approx(0, abs=1e-9)
    assert fid.frechet_distance(statistics(a), statistics(a + 2)) == pytest.approx(16, rel=1e-9)
    centred = a - a.mean(0)
    trace = torch.cov(a.mT).trace().item()
    assert fid.frechet_distance(statistics(centred), statistics(3 * centred)) == pytest.approx(4 * trace, rel=1e-9)


@pytest.mark.parametrize(("lowest", "route"), [(1e-1, "eigvalsh"), (1e-9, "svdvals"), (0.0, "svdvals")])
def test_frechet_distance_of_spectra(lowest, route, monkeypatch):
    """Covariances of common eigenvectors: tr (C1 C2)^(1/2) is the sum of roots of the eigenvalues' products."""
    dim, calls = 64, []
    basis = torch.linalg.qr(features(dim, dim, 5))[0]
    spectra = [torch.logspace(0, np.log10(lowest or 1e-9), dim, dtype=torch.float64) for _ in range(2)]
    spectra[1] = 0.3 * spectra[1].roll(7).contiguous()
    if not lowest:
        spectra[0][10:], spectra[1][20:] = 0, 0
    a, b = (fid.Statistics.of_moments(torch.zeros(dim), (basis * s) @ basis.mT) for s in spectra)
    expected = float(sum(s.sum() for s in spectra) - 2 * spectra[0].mul(spectra[1]).sqrt().sum())
    svdvals = torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svdvals", lambda m: calls.append(m) or svdvals(m))
    assert fid.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert bool(calls) == (route == "svdvals")


def test_inception_score():
    assert fid.inception_score(torch.zeros(50, 10))[0] == pytest.approx(1)
    certain = 1e3 * torch.nn.functional.one_hot(torch.arange(100) % 10).float()
    mean, deviation = fid.inception_score(certain)
    assert mean == pytest.approx(10) and deviation == pytest.approx(0, abs=1e-9)
    logits = torch.randn(90, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.softmax(1).numpy()
    scores = [np.exp((q * (np.log(q) - np.log(q.mean(0)))).sum(1).mean()) for q in np.array_split(p, 9)]
    assert fid.inception_score(logits, 9) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-10)


def test_kernel_distance_by_brute_force():
    a, b = features(9, 4, 5).numpy(), features(7, 4, 6, 0.3).numpy()

    def k(x, y):
        return (x @ y / 4 + 1) ** 3

    expected = (
        sum(k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j) / (9 * 8)
        + sum(k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j) / (7 * 6)
        - 2 * sum(k(x, y) for x in a for y in b) / 63
    )
    mean, deviation = kid.kernel_distance(torch.from_numpy(a), torch.from_numpy(b), subsets=2)
    assert mean == pytest.approx(expected, rel=1e-10) and deviation == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_unbiased():
    a = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, deviation = kid.kernel_distance(a[:2000], a[2000:], subsets=50, size=200)
    assert abs(mean) < 3 * deviation / math.sqrt(10)
    assert kid.kernel_distance(a[:2000], a[2000:] + 1, subsets=5, size=200)[0] > 10 * deviation


@pytest.mark.parametrize("default", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("subsets", "size"), [(20, 1000), (2, 3)]
)  # from one kernel matrix of all rows; from one for each
def test_kernel_distance_of_features_on_two_devices(subsets, size, default, monkeypatch):
    """Of tensors that have a device but no numbers: an operation on two devices is an error of theirs, as on a GPU."""
    monkeypatch.setattr(torch.Tensor, "__float__", lambda x: 0.0)
    ways = []
    for way in ("_of_all", "_unbiased"):
        one = getattr(kid, way)
        monkeypatch.setattr(kid, way, lambda *given, one=one: ways.append(given[0].device.type) or one(*given))
    with FakeTensorMode(), torch.device(default):
        a, b = torch.empty(9, 4, device="cuda"), torch.empty(7, 4, device="cpu")
        for x, y in ((a, b), (b, a), (a, a), (b, b)):
            assert kid.kernel_distance(x, y, subsets, size) == (0.0, 0.0)
    assert len(ways) == 4 * (1 if size > 9 else subsets) and set(ways) == {"cuda", "cpu"}


def prdc_by_loops(real, fake, k):
    def d(x, y):
        return np.linalg.norm(x[:, None] - y[None], axis=2)

    real_radius, fake_radius = (np.sort(d(x, x), axis=1)[:, k] for x in (real, fake))
    cross = d(real, fake)
    inside = cross <= real_radius[:, None]
    return (
        inside.any(0).mean(),
        (cross <= fake_radius[None]).any(1).mean(),
        inside.sum() / (k * len(fake)),
        (cross.min(1) <= real_radius).mean(),
    )


@pytest.mark.parametrize("k", [3, 5])
def test_prdc_by_definition(monkeypatch, k):
    monkeypatch.setattr(prdc, "_ROWS", 17)
    real, fake = features(60, 3, 7), features(45, 3, 7, 0.4)
    assert prdc.prdc(real, fake, k) == pytest.approx(prdc_by_loops(real.numpy(), fake.numpy(), k), rel=1e-12)


def test_prdc_of_equal_and_nearly_equal_rows():
    """Balls of radius 0 hold what equals their centre and nothing else; a common offset costs no digits."""
    apart = features(12, 1280, 9).float() + 1000
    real = apart.repeat(6, 1)
    fake = torch.cat([apart[:5], apart[5:9] + 1e-3, apart[9:] + 10])
    found = prdc.prdc(real, fake, 5)
    assert found == pytest.approx(prdc_by_loops(real.double().numpy(), fake.double().numpy(), 5), rel=1e-12)
    assert found.precision == 5 / 12 and found.coverage == 5 / 12


def prdc_exactly(real, fake, k):
    """The definition in rational numbers: squared distances, <=."""
    real, fake = ([[Fraction(v) for v in row] for row in x.double().tolist()] for x in (real, fake))

    def d(x, y):
        return np.array([[sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) for b in y] for a in x], dtype=object)

    real_radius, fake_radius = (np.sort(d(x, x), axis=1)[:, k] for x in (real, fake))
    cross = d(real, fake)
    inside = cross <= real_radius[:, None]
    return (
        inside.any(0).mean(),
        (cross <= fake_radius[None]).any(1).mean(),
        inside.sum() / (k * len(fake)),
        (cross.min(1) <= real_radius).mean(),
    )


DRAWS = {
    "binary": lambda *shape: torch.randint(0, 2, shape).float(),
    "bytes": lambda *shape: torch.randint(0, 4, shape, dtype=torch.uint8),
    "tenths": lambda *shape: torch.randint(0, 3, shape).float() * 0.1,
    "tenths, far away": lambda *shape: torch.randint(0, 3, shape).double() * 0.1 + 1e3,
    "tiny": lambda *shape: torch.randint(0, 3, shape).double() * 1e-20,
    "normal": torch.randn,
}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("dim", [1, 4, 9])
def test_prdc_with_equal_distances(kind, dim):
    """Distances that are equal in truth count as equal, whatever rounding makes of them: of features on a grid, of
    duplicates, of points that both sets share."""
    real = DRAWS[kind](30, dim)
    fake = torch.cat([DRAWS[kind](12, dim), real[:6], real[:2]])
    for k in (1, 3, 7):
        assert prdc.prdc(real, fake, k) == pytest.approx(prdc_exactly(real, fake, k), rel=1e-14)


@pytest.mark.parametrize("rows", [7, 1024])
def test_prdc_of_copies(monkeypatch, rows):
    """Each point of a copy lies in its own ball and on the edge of k others: density (k + 1) / k without any tie."""
    monkeypatch.setattr(prdc, "_ROWS", rows)
    x = torch.randn(200, 640).relu()
    for k in (1, 4):
        assert prdc.prdc(x, x.clone(), k) == (1, 1, (k + 1) / k, 1)
    collapsed = x[:1].expand(200, -1)
    assert prdc.prdc(collapsed, collapsed, 5) == (1, 1, 40, 1)
    assert prdc.prdc(x, collapsed, 5).recall == 1 / 200


def test_prdc_computes_few_distances_twice(monkeypatch):
    """Without ties the exact arithmetic is not needed; nor for collapsed sets."""
    pairs = []
    exact = prdc._exact
    monkeypatch.setattr(prdc, "_exact", lambda a, rows, *b: pairs.append(len(rows)) or exact(a, rows, *b))
    x, y = torch.randn(2, 300, 64)
    prdc.prdc(x, y)
    prdc.prdc(x, y[:1].expand(300, -1))
    assert sum(pairs) == 0
    prdc.prdc(x.sign(), y.sign())
    assert sum(pairs) > 600


CLOUDS = {
    "around zero": lambda n, dim: torch.randn(n, dim),
    "positive": lambda n, dim: torch.randn(n, dim).relu(),
    "clusters": lambda n, dim: torch.randn(3, dim)[torch.arange(n) % 3] * 300 + torch.randn(n, dim),
    "near one": lambda n, dim: torch.randn(n, dim).double() * 1e-7 + 1,
    "one far away": lambda n, dim: torch.cat([torch.randn(n - 1, dim), torch.full((1, dim), 1e6)]),
}


@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize("dim", [1, 3, 257])
def test_prdc_of_products_in_float32(monkeypatch, kind, dim):
    """Their error stays within the bound, and the figures are those of products in float64."""
    x, y = CLOUDS[kind](150, dim).split([80, 70])
    both = torch.cat([x, y]).double()
    points = prdc._Points.of(both / both.abs().max(), torch.arange(150))
    exact = (points.x[:, None] - points.x).square().sum(2)
    found = prdc._distance(points.norms, points.near, points.norms, points.near)
    assert found.dtype == torch.float32
    assert bool(((found - exact).abs() <= prdc._slack(points, exact.mT, torch.float32).mT).all())
    figures = prdc.prdc(x, y, 3)
    monkeypatch.setattr(prdc, "_product_dtype", lambda x: torch.float64)
    assert prdc.prdc(x, y, 3) == figures


def test_prdc_trusts_products_of_whole_digits_only():
    """Not under autocast, nor where float32 products were allowed fewer digits."""
    x = torch.zeros(3, 4, dtype=torch.float64)
    assert prdc._product_dtype(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert prdc._product_dtype(x) == torch.float64
    torch.set_float32_matmul_precision("medium")
    try:
        assert prdc._product_dtype(x) == torch.float64
    finally:
        torch.set_float32_matmul_precision("highest")


def test_prdc_extremes():
    x = features(50, 3, 8).float()
    assert prdc.prdc(x, x) == pytest.approx((1, 1, prdc.prdc(x, x).density, 1))
    assert prdc.prdc(x, x + 1e4) == (0, 0, 0, 0)


def test_modes():
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    samples = torch.tensor([[0.1, 0.0], [0.0, 0.2], [4.0, 0.1], [2.0, 2.0]])
    found = modes.gaussian_modes(samples, centres, std=0.1)
    expected_kl = 2 / 3 * math.log(2) + 1 / 3 * math.log(1)
    assert found == pytest.approx((2, 3, 0.75, expected_kl))
    nothing = modes.gaussian_modes(samples + 100, centres, std=0.1)
    assert nothing.covered == 0 and nothing.high_quality == 0 and nothing.reverse_kl == math.inf


def test_wrong_shapes_are_named():
    x = torch.randn(10, 4)
    with pytest.raises(ValueError, match=r"\[10, 4\]"):
        fid.Statistics(3).update(x)
    with pytest.raises(TypeError, match="complex"):
        fid.Statistics(4).update(x + 1j)
    with pytest.raises(ValueError, match="dim is 0"):
        fid.Statistics(0)
    with pytest.raises(ValueError, match="at least 2"):
        _ = fid.Statistics(3).covariance
    with pytest.raises(ValueError, match="expected"):
        kid.kernel_distance(x, x[:, :3])
    with pytest.raises(ValueError, match="one D"):
        kid.kernel_distance(x, x[:, :3])
    with pytest.raises(ValueError, match="N > 5"):
        prdc.prdc(x[:5], x)
    with pytest.raises(ValueError, match="k is 0"):
        prdc.prdc(x, x, 0)
    with pytest.raises(ValueError, match="of 4 numbers and b of 3"):
        fid.frechet_distance(statistics(x.double()), statistics(x[:, :3].double()))
    with pytest.raises(TypeError, match="complex"):
        kid.kernel_distance(x, x + 1j)
    with pytest.raises(ValueError, match="expected"):
        modes.gaussian_modes(x, torch.zeros(3, 2), 1.0)
    with pytest.raises(ValueError, match="negative"):
        modes.gaussian_modes(x, torch.zeros(3, 4), -1.0)
    for counts, expected in [([], None), ([1.0, -1.0], None), ([1.0, 2.0], [0.5]), ([1.0, 2.0], [1.0, 2.0])]:
        with pytest.raises(ValueError, match="expected"):
            modes.histogram_modes(torch.tensor(counts), None if expected is None else torch.tensor(expected))
    for splits in (0, 11):
        with pytest.raises(ValueError, match="splits"):
            fid.inception_score(x, splits)


@pytest.mark.parametrize(("subsets", "size"), [(0, 1000), (100, 1), (-1, 5)])
def test_kernel_distance_needs_subsets_of_two(subsets, size):
    x = torch.randn(10, 4)
    with pytest.raises(ValueError, match=f"subsets is {subsets} and size {size}"):
        kid.kernel_distance(x, x, subsets, size)


FIGURES = {
    "frechet": lambda x, y: fid.frechet_distance(statistics(x), statistics(y)),
    "kernel": kid.kernel_distance,
    "prdc": prdc.prdc,
    "inception score": lambda x, y: (fid.inception_score(x), fid.inception_score(y)),
    "modes": lambda x, y: (modes.gaussian_modes(x, y[-3:], 1.0), modes.gaussian_modes(y, x[-3:], 1.0)),
}


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
@pytest.mark.parametrize("rows", [1, 30])
def test_what_diverged_has_no_score(figure, bad, rows):
    """Comparisons with NaN are false: a generator that broke down must not be found perfect."""
    x, y = features(30, 6, 1), features(30, 6, 2)
    x[-rows:, 2] = bad
    for pair in ((x, y), (y, x)):
        with pytest.raises(ValueError, match="NaN"):
            FIGURES[figure](*pair)


def test_a_mode_holds_its_edge():
    """Exactly 3 standard deviations from its mode a sample is of high quality, far from zero and among many modes too."""
    centres = torch.arange(60, dtype=torch.float64)[:, None] * 100 + 1e6
    assert modes.gaussian_modes(centres + 3.0, centres, 1.0).high_quality == 1
    assert modes.gaussian_modes(centres + 3.001, centres, 1.0).high_quality == 0


@pytest.mark.parametrize("count", [1000, 1037, 100, 7])
@pytest.mark.parametrize("batch", [64, 7])
def test_the_rows_that_are_kept_lie_evenly_among_all(count, batch):
    """Images lie by their classes in most folders: the first ones are no sample of the set."""

    class Shade(torch.nn.Module):
        name, dim = "shade", 2

        def forward(self, x):
            return x.flatten(1)[:, :2].float()

    numbers = torch.arange(count)
    shades = torch.stack([numbers * 10 // count, numbers % 251], 1).to(torch.uint8)
    found = images.collect(Shade(), shades.repeat(1, 2)[:, None].unflatten(2, (2, 2)).split(batch), keep=100)
    assert found.statistics.count == count and len(found.rows) == min(count, 100)
    classes = found.rows[:, 0].long()
    assert (classes.diff() >= 0).all() and (torch.bincount(classes, minlength=10) - len(classes) / 10).abs().max() <= 2
    if count <= 100:
        assert torch.equal(found.rows, shades.float())


@pytest.mark.parametrize("keep", [500, 1000])
def test_rows_that_are_kept_of_drawn_samples_have_all_classes(keep):
    """Both are chosen by multiples of an irrational number: by the same, the lowest places would be of the first classes."""
    shares = torch.tensor([0.5, 0.3, 0.1, 0.1], dtype=torch.float64)
    drawn = in_shares(range(5000), shares).float()
    rows = Spread(keep)
    rows.add(drawn[:, None])
    kept = torch.bincount(rows.kept()[0][:, 0].long(), minlength=4) / keep
    assert (kept - shares).abs().max() < 0.02
