"""accelerate(module, example=x): what pays is kept, what does not is as it was, and nothing else changes. Without an example
size decides."""

import copy
import itertools
import pickle
import random
import types

import pytest
import torch
from tolerances import assert_close
from torch import nn

import fastgan
from fastgan.patch import layers, measure
from fastgan.patch.swap import Accelerated, Swap, accelerated


def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.InstanceNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.BatchNorm2d(16),
        nn.Tanh(),
    )


@pytest.fixture
def times(monkeypatch):
    """Ratios as told, by the name of the class that is timed; "Sequential" is a whole network."""
    told = {"Sequential": 1.1}

    def fake(module, changes, ready, least):
        ready()()
        return [told.get(type(module).__name__, 1.0)] * measure.ROUNDS

    monkeypatch.setattr(measure, "_ratios", fake)
    return told


def test_what_does_not_pay_is_as_it_was(times):
    net, x = network().train(), torch.randn(2, 3, 9, 9)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    numbers = torch.get_rng_state()
    report = fastgan.accelerate(net, example=x)
    assert not report.replaced and not any(isinstance(m, Accelerated) for m in net.modules())
    assert all("left as it was" in why for _, why in report.refused if "1.00x" in why)
    assert any("1.00x, 1.00x with gradients" in why for _, why in report.refused)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items()) and not net[4].num_batches_tracked
    assert torch.equal(torch.get_rng_state(), numbers) and all(p.grad is None for p in net.parameters())
    fastgan.unpatch(report)


def test_what_pays_is_kept_with_its_gain(times):
    times["FusedInstanceNorm2d"] = 1.5
    net, x = network(), torch.randn(2, 3, 9, 9)
    plain, attributes = copy.deepcopy(net), [set(vars(m)) for m in net.modules()]
    report = fastgan.accelerate(net, example=x)
    assert dict(report.replaced)["1"] == "instance norm -> norm_act: 1.50x, 1.50x with gradients"
    assert [type(m).__name__ for m in net] == [
        "Conv2d", "FusedInstanceNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "Tanh",
    ]  # fmt: skip
    assert "replaced 1," in str(report) and ", the whole 1.10x, 1.10x with gradients" in str(report)
    assert_close(net(x), plain(x))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert_close(twin.eval()(x), net.eval()(x))
    fastgan.unpatch(report)
    assert [set(vars(m)) for m in net.modules()] == attributes


@pytest.mark.parametrize("whole", [1.01, 0.98])
def test_pieces_that_pay_in_a_whole_that_does_not(times, whole):
    times |= {"FusedInstanceNorm2d": 1.5, "Sequential": whole}
    net = network()
    attributes = [set(vars(m)) for m in net.modules()]
    report = fastgan.accelerate(net, example=torch.randn(2, 3, 9, 9))
    assert f"with gradients, the whole {whole:.2f}x" in dict(report.refused)["1"] and not report.replaced
    assert not any(isinstance(m, Accelerated) for m in net.modules())
    assert [set(vars(m)) for m in net.modules()] == attributes
    fastgan.unpatch(report)


def test_channels_last_of_the_whole_for_its_shape_alone(times):
    times["FusedSequential"] = times["FusedFusedSequential"] = 1.2
    net, x = (
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(inplace=True), nn.Conv2d(16, 8, 3)).eval(),
        torch.randn(2, 3, 9, 9),
    )
    plain, layouts = copy.deepcopy(net), []
    report = fastgan.accelerate(net, example=x)
    assert any("channels last" in what and "1.20x" in what for _, what in report.replaced), str(report)
    handle = net[2].register_forward_pre_hook(lambda m, args: layouts.append(args[0].stride(1) == 1))
    with torch.no_grad():
        y = net(x)
        assert y.is_contiguous() and net(x[:1]).is_contiguous()
        assert_close(y, plain(x))
    assert_close(net(x), plain(x))
    assert layouts == [True, False, False]
    handle.remove()
    twin = pickle.loads(pickle.dumps(copy.deepcopy(net)))
    with torch.no_grad():
        assert_close(twin(x), plain(x))
    fastgan.unpatch(report)
    assert type(net) is nn.Sequential


def test_what_changed_twice_is_taken_back(times):
    """The outermost is joined, and then the whole runs channels last."""
    times["FusedSequential"] = times["FusedFusedSequential"] = 1.2
    net, x = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval(), torch.randn(2, 3, 9, 9)
    attributes = set(vars(net))
    with torch.no_grad():
        plain = net(x)
        report = fastgan.accelerate(net, example=x)
        assert [where for where, _ in report.replaced] == ["Sequential", "0 + 1"]
        assert_close(net(x), plain)
        again = fastgan.accelerate(net, freeze=True)
        with pytest.raises(RuntimeError, match="undo that first"):
            net.__class__ = type("Other", (type(net),), {})
            fastgan.unpatch(report)
        net.__class__ = type(net).__bases__[0]
        fastgan.unpatch(again)
        fastgan.unpatch(report)
        assert type(net) is nn.Sequential and set(vars(net)) == attributes and torch.equal(net(x), plain)


def test_a_view_that_refuses_channels_last_leaves_the_network(times):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return self.conv(x).view(-1)

    times["FusedNet"] = 9.0
    net = Net().eval()
    report = fastgan.accelerate(net, example=torch.randn(2, 3, 9, 9))
    assert type(net) is Net and any("view" in why for _, why in report.refused), str(report)


def test_a_wrong_example_changes_nothing():
    net = network()
    kinds = [type(m) for m in net.modules()]
    with pytest.raises(RuntimeError):
        fastgan.accelerate(net, example=torch.randn(2, 5, 9, 9))
    assert [type(m) for m in net.modules()] == kinds
    for wrong in (3, (), ("x",)):
        with pytest.raises(TypeError, match="expected a tensor, or a tuple of arguments with one"):
            fastgan.accelerate(net, example=wrong)


class Original(nn.Module):
    """Counts as `seconds` of the clock that ticks."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x):
        self.clock.tick(self.seconds)
        return x


class AsFast(Accelerated):
    """Takes half of the time of the original."""

    def forward(self, x):
        self.clock.tick(self.seconds / 2)
        return x


class Clock:
    """A clock that calls alone move on: the thread's own by what they compute, the wall's also by what `others` take."""

    def __init__(self, others=lambda: 1.0):
        self.others, self.own, self.wall = others, 0.0, 0.0

    def tick(self, seconds):
        self.own += seconds
        self.wall += seconds * self.others()

    def __deepcopy__(self, memo):
        return self


@pytest.fixture
def on(monkeypatch):
    def set_to(clock, threads=1):
        names = {"thread_time": lambda: clock.own, "perf_counter": lambda: clock.wall, "monotonic": lambda: clock.wall}
        monkeypatch.setattr(measure, "time", types.SimpleNamespace(**names))
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return clock

    return set_to


class TenProducts(nn.Module):
    count = 10

    def forward(self, x):
        for _ in range(self.count):
            y = x @ x
        return y


class OneProduct(Accelerated):
    count = 1


class HundredProducts(Accelerated):
    count = 100


@pytest.mark.parametrize(("form", "pays"), [(OneProduct, True), (HundredProducts, False)])
def test_real_times(form, pays):
    module, x = TenProducts(), torch.randn(64, 64)
    change = Swap(module, TenProducts, accelerated(form, TenProducts))
    change.do()
    gain = measure.Gain.of(measure._ratios(module, [change], lambda: lambda: module(x), 0.0))
    assert gain.pays == pays and (gain.median > 2) == pays


def gain_of(clock, form=AsFast, seconds=0.01):
    module = Original(clock, seconds)
    change = Swap(module, Original, accelerated(form, Original))
    change.do()
    x = torch.zeros(1)
    ratios = measure._ratios(module, [change], lambda: lambda: module(x), measure.SECONDS)
    assert change.holds()
    return measure.Gain.of(ratios), len(ratios)


def test_a_known_gain_is_found_and_no_other(on):
    class Same(Accelerated):
        pass

    gain, rounds = gain_of(on(Clock()))
    assert gain == pytest.approx((2, 2)) and gain.pays and rounds == 14  # of 0.015 seconds, until there are 0.2
    gain, rounds = gain_of(on(Clock()), Same, seconds=1.0)
    assert gain == pytest.approx((1, 1)) and not gain.pays and rounds == measure.ROUNDS


def test_what_other_programs_take_is_not_counted_on_one_thread(on):
    turns = itertools.cycle([1.0, 1.0, 9.0, 1.0, 40.0])
    gain, _ = gain_of(on(Clock(others=lambda: next(turns))))
    assert gain == pytest.approx((2, 2))


def test_disturbed_rounds_of_several_threads_are_few_among_many(on):
    """A third of the calls takes three times as long."""
    draw = random.Random(0)
    clock = on(Clock(others=lambda: draw.choice([1.0, 1.0, 3.0])), threads=2)
    gain, rounds = gain_of(clock, seconds=0.001)
    assert gain.pays and gain.median == pytest.approx(2) and rounds > 50


def test_slower_and_slower_is_no_gain(on):
    """A processor that heats up: each call takes a tenth more than the one before; the original is neither first nor last."""

    class Same(Accelerated):
        pass

    heat = itertools.accumulate(itertools.repeat(1.1), lambda a, b: a * b)
    gain, _ = gain_of(on(Clock(others=lambda: next(heat)), threads=2), Same)
    assert not gain.pays


@pytest.mark.parametrize(("noise", "pays"), [(0.02, True), (0.5, False)])
def test_a_gain_within_the_noise_is_none(noise, pays):
    draw = random.Random(3)
    ratios = [1.06 * draw.lognormvariate(0, noise) for _ in range(measure.ROUNDS)]
    gain = measure.Gain.of(ratios)
    assert gain.pays == pays and gain.sure == sorted(ratios)[1] and gain.median == sorted(ratios)[4]


def test_of_nothing_but_noise_less_than_one_of_twenty_is_kept():
    """Of few rounds and of many."""
    draw = random.Random(0)
    for rounds in (measure.ROUNDS, 16, 25, 100):
        gains = [
            measure.Gain.of([measure.LEAST * draw.lognormvariate(0, 0.1) for _ in range(rounds)]) for _ in range(2000)
        ]
        assert 0 < sum(gain.pays for gain in gains) < 100


def test_what_is_within_the_noise_is_left(times, monkeypatch):
    times["FusedInstanceNorm2d"] = 1.5
    told = measure._ratios
    noisy = [1.0, 1.01, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5]

    def ratios(module, *rest):
        found = told(module, *rest)
        return noisy if type(module).__name__ == "FusedInstanceNorm2d" else found

    monkeypatch.setattr(measure, "_ratios", ratios)
    net = network().eval()
    report = fastgan.accelerate(net, example=torch.randn(2, 3, 9, 9))
    assert not report.replaced and not any(isinstance(m, Accelerated) for m in net.modules())
    assert "1.50x (not beyond chance: 1.01x), left as it was" in dict(report.refused)["1"]


def test_pieces_that_there_is_no_time_for_are_left(times, monkeypatch):
    """One is timed, and that takes all of the time."""
    times["FusedInstanceNorm2d"] = 1.5
    told, now, timed = measure._ratios, [0.0], []
    monkeypatch.setattr(measure, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def ratios(module, *rest):
        timed.append(module)
        now[0] += measure.WITHIN + 1
        return told(module, *rest)

    monkeypatch.setattr(measure, "_ratios", ratios)
    net = nn.Sequential(nn.InstanceNorm2d(3), nn.InstanceNorm2d(3, eps=1e-3), nn.InstanceNorm2d(3)).eval()
    report = fastgan.accelerate(net, example=torch.randn(2, 3, 9, 9))
    assert timed == [net[0], net, net], "the whole is always timed, and channels last too"
    assert [type(m).__name__ for m in net] == ["FusedInstanceNorm2d", "InstanceNorm2d", "FusedInstanceNorm2d"]
    assert "not timed within 60 seconds, left as it was" in dict(report.refused)["1"]


@pytest.mark.parametrize(
    ("channels", "side", "ours"), [(128, 16, False), (512, 8, False), (64, 32, True), (256, 16, True)]
)
@pytest.mark.parametrize("training", [False, True])
def test_without_an_example_a_small_instance_norm_is_torchs(channels, side, ours, training):
    """128x16x16: the first norm of a PatchGAN at 64 pixels, which took 0.97 of its speed."""
    net = nn.Sequential(nn.InstanceNorm2d(channels))
    fastgan.accelerate(net)
    x = torch.randn(1, channels, side, side, requires_grad=training)
    assert net[0].decided(x) is (layers.norm if ours else layers.torchs_norm)


@pytest.mark.skipif(torch.ops.fastgan.cpu_level("") != "avx512", reason="by AVX2 Winograd's algorithm does not pay")
@pytest.mark.parametrize(
    ("channels", "images", "side", "recorded", "ours"),
    [
        (64, 1, 16, False, True),
        (64, 1, 16, True, False),
        (64, 1, 32, True, False),
        (64, 2, 32, True, True),
        (64, 1, 64, True, True),
        (128, 1, 16, True, True),
    ],
)
def test_without_an_example_winograd_of_few_channels_is_for_large_images(channels, images, side, recorded, ours):
    """With gradients: RestoreFormer at 64 pixels trained at 0.96 of its speed."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    fastgan.accelerate(conv)
    x = torch.randn(images, channels, side, side)
    with torch.set_grad_enabled(recorded):
        assert (conv.decided(x) is not layers.torchs_convolution) == ours


class Before(nn.Module):
    """Activations that write over what they are given, also over what is not a layer's result."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 1)
        self.rest = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16), nn.LeakyReLU(0.2))

    def forward(self, x):
        return self.rest(self.first(x.mul_(2)))


@pytest.mark.parametrize("training", [False, True])
def test_arguments_that_are_written_to(training):
    net, x = Before().train(training), torch.randn(2, 3, 9, 9)
    plain, kept = copy.deepcopy(net), x.clone()
    report = fastgan.accelerate(net, example=x)
    assert torch.equal(x, kept), "the example was written to"
    assert not any("other numbers" in why for _, why in report.refused), str(report)
    assert_close(net(x.clone()), plain(x))
