"""accelerate(freeze=True): the numbers of the network, for as long as it is the network that was recorded."""

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from dispatched import Called
from tolerances import assert_close
from torch import nn

import fastgan
from fastgan import models
from fastgan.ops.conv_forms import is_fast
from fastgan.patch.frozen import Frozen, plan, tape
from fastgan.patch.frozen.convolutions import Convolution


def settle(net):
    """Norms that are not at their special initial values, evaluation mode."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            for t in (m.running_mean, m.bias):
                nn.init.normal_(t)
            for t in (m.running_var, m.weight):
                nn.init.uniform_(t, 0.5, 2)
    return net.eval()


def frozen(net, *inputs, **options):
    """The frozen twin after two calls; it must have been recorded."""
    with torch.no_grad():
        net(*inputs, **options)  # torch's weight_norm allows copies of what it made without gradients
    twin = copy.deepcopy(net)
    report = fastgan.accelerate(twin, freeze=True)
    form = vars(twin)["forward"]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            twin(*inputs, **options)
    assert form.refused == "" and all(callable(run) for run in form._kinds.values()) and form._kinds
    return twin, report


def check(net, *shapes, tolerance=1e-5):
    net = settle(net)
    inputs = [torch.randn(shape) for shape in shapes]
    twin, report = frozen(net, *inputs)
    others = [torch.randn(shape) for shape in shapes]
    kept = [x.clone() for x in others]
    with torch.no_grad():
        expected, actual = net(*others), twin(*others)
    assert_close(actual, expected, tolerance)
    assert actual.is_contiguous() == expected.is_contiguous()
    assert all(map(torch.equal, kept, others)), "an input was written to"
    return twin, report


class Residual(nn.Module):
    """Sums, products, concatenation and pre-activations around convolutions."""

    def __init__(self, cls=nn.Conv2d, slope=0.2):
        super().__init__()
        self.a, self.b, self.c = (cls(8, 8, 3, padding=1) for _ in range(3))
        self.d = cls(16, 8, 1)
        self.slope = slope

    def forward(self, x):
        y = self.b(F.leaky_relu(self.a(x), self.slope)) + x
        z = torch.add(y, self.c(F.relu(y)) * 0.3, alpha=0.2)
        return self.d(torch.cat([F.relu_(z), y], 1)).clamp(-0.5, 0.5) / 3


class Spade(nn.Module):
    """A scale and a shift for each pixel from one map (Park et al. 2019)."""

    def __init__(self, cls=nn.Conv2d):
        super().__init__()
        self.norm = nn.InstanceNorm2d(16) if cls is nn.Conv2d else nn.InstanceNorm1d(16)
        self.shared, self.gamma, self.beta = (
            cls(4, 16, 3, padding=1),
            cls(16, 16, 3, padding=1),
            cls(16, 16, 3, padding=1),
        )

    def forward(self, x):
        normalized, actv = self.norm(x), F.relu(self.shared(x[:, :4]))
        gamma = self.gamma(actv)
        beta = self.beta(actv)
        return F.leaky_relu(normalized * (1 + gamma) + beta, 0.2)


class Sums(nn.Module):
    """A convolution and a number, a vector or an image, on either side, with a factor."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(16, 16, k, padding=k // 2) for k in (3, 1, 3, 3, 1, 3, 3, 3)])
        self.vector = nn.Parameter(torch.randn(16, 1, 1))

    def forward(self, x):
        a, b, c, d, e, f, g, h = (conv(x) for conv in self.convs)
        a, b, c = torch.add(a, 3, alpha=2).relu(), (b - 0.5).tanh(), torch.sub(c, self.vector, alpha=3)
        d, e = torch.sub(x, d, alpha=1), (self.vector - e).relu()
        f, g = torch.sub(f, x, alpha=-1), torch.sub(g, x)
        return torch.cat([a, b, c, d.relu(), e, f, g, 1 - h, h - h, -h + h], 1)


class Viewed(nn.Module):
    """A view of a sum, which lies as its first term does: not as the convolution that takes it in."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        y = torch.relu(x) * 2
        return (y + self.conv(x)).view(1, -1, *x.shape[2:]).tanh()


class Written(nn.Module):
    """Instance norm by hand."""

    def forward(self, x):
        x = x - x.mean((2, 3), True)
        return x * torch.rsqrt(x.square().mean((2, 3), True) + 1e-5)


NETWORKS = {
    "view of a sum": (Viewed, (2, 16, 14, 15)),
    "spade": (Spade, (2, 16, 14, 15)),
    "spade of signals": (lambda: Spade(nn.Conv1d), (2, 16, 33)),
    "sums": (Sums, (2, 16, 14, 15)),
    "norm by hand": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), Written(), nn.ReLU()), (2, 3, 34, 34)),
    "batch norm": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 2, 1), nn.Tanh()
        ),
        (2, 3, 9, 7),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(5, 8, 4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.ConvTranspose2d(8, 6, 4, 2, 1),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(6, 3, 3, 2, 1, output_padding=1),
            nn.Sigmoid(),
        ),
        (3, 5, 1, 1),
    ),
    "groups": (
        lambda: nn.Sequential(
            nn.Conv2d(8, 12, 3, groups=4), nn.SiLU(), nn.ConvTranspose2d(12, 8, 3, 2, groups=2), nn.BatchNorm2d(8)
        ),
        (2, 8, 7, 6),
    ),
    "dilation": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, dilation=2, padding=2),
            nn.PReLU(6),
            nn.Conv2d(6, 4, (1, 5), padding=(0, 2)),
            nn.PixelShuffle(2),
        ),
        (1, 4, 11, 8),
    ),
    "residual": (Residual, (2, 8, 6, 5)),
    "signals": (lambda: Residual(nn.Conv1d), (2, 8, 17)),
    "weight norm": (
        lambda: nn.Sequential(
            nn.utils.weight_norm(nn.Conv1d(4, 8, 3)),
            nn.LeakyReLU(0.1),
            nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(8, 4, 4, 2, 1)),
        ),
        (2, 4, 13),
    ),
    "spectral norm": (
        lambda: nn.Sequential(
            nn.utils.spectral_norm(nn.Conv2d(3, 8, 3)),
            nn.ReLU(),
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 3, 3)),
        ),
        (2, 3, 9, 9),
    ),
    "instance norm": (
        lambda: nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(3, 8, 3),
            nn.InstanceNorm2d(8),
            nn.ReLU(True),
            nn.Conv2d(8, 3, 7, padding=3),
            nn.Tanh(),
        ),
        (2, 3, 12, 12),
    ),
    "linear": (
        lambda: nn.Sequential(
            nn.Linear(8, 32), nn.ReLU(), nn.Unflatten(1, (2, 4, 4)), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 5)
        ),
        (3, 8),
    ),
    "to images by winograd": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 16, 3, padding=1),
            nn.PReLU(16),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.PReLU(),
            nn.Conv2d(16, 20, 3),
            nn.Hardtanh(),
            nn.ConvTranspose2d(20, 3, 4, 2, 1),
            nn.Tanh(),
        ),
        (2, 4, 15, 14),
    ),
    "no layer": (lambda: nn.Sequential(nn.Conv2d(1, 1, 3, bias=False)), (1, 1, 3, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*spectral_norm.*:FutureWarning")
def test_numbers(name):
    build, *shapes = NETWORKS[name]
    torch.manual_seed(0)
    check(build(), *shapes)


@pytest.mark.parametrize("name", ["spade", "sums"])
def test_every_convolution_is_packed(name):
    build, shape = NETWORKS[name]
    net, x = build().eval(), torch.randn(shape)
    with torch.no_grad():
        done = plan._Plan(tape.record(lambda: net(x), [x])[1])
    functions = [node.func for node in done.nodes]
    assert torch.ops.aten.convolution.default not in functions
    assert torch.ops.aten.add.Tensor not in functions or name == "sums"


@pytest.mark.parametrize(
    ("name", "config", "shape"),
    [
        ("dcgan.generator", {}, (3, 64)),
        ("cyclegan.generator", {"width": 8, "blocks": 2}, (1, 3, 32, 32)),
        ("pix2pix.generator", {"width": 8, "downs": 5}, (1, 3, 32, 32)),
        ("r3gan.generator", {"resolution": 16}, (2, 64)),
        ("esrgan.generator", {"width": 16, "growth": 8, "blocks": 1}, (1, 3, 9, 10)),
        ("esrgan.compact", {"width": 16, "convolutions": 2}, (1, 3, 9, 10)),
        ("resnet.generator", {}, None),
        ("biggan.generator", {}, None),
        ("stylegan2.generator", {"resolution": 32, "channel_base": 512}, (2, 512)),
        ("stylegan3.generator", {"resolution": 16, "channel_base": 512}, (1, 512)),
        ("fastgan.generator", {}, None),
        ("mlp.generator", {}, None),
    ],
)
def test_models(name, config, shape):
    torch.manual_seed(0)
    net = models.build(name, **config).eval()
    if shape is None:
        z = torch.randn(2, net.config.latent)
        labels = (torch.tensor([0, 1]),) if getattr(net.config, "num_classes", 0) else ()
    else:
        z, labels = torch.randn(shape), ()
    options = {"noise_mode": "const"} if name.startswith("stylegan2") else {}
    twin, _ = frozen(net, z, *labels, **options)
    z = torch.randn_like(z)
    with torch.no_grad():
        assert_close(twin(z, *labels, **options), net(z, *labels, **options), 1e-4)


def test_noise_is_drawn_anew_and_in_order():
    torch.manual_seed(0)
    net = models.build("stylegan2.generator", resolution=16, channel_base=256).eval()
    for m in net.modules():
        if hasattr(m, "noise_strength"):
            m.noise_strength.data.fill_(0.5)
    z = torch.randn(2, 512)
    twin, _ = frozen(net, z)
    with torch.no_grad():
        torch.manual_seed(3)
        expected = net(z)
        torch.manual_seed(3)
        first, second = twin(z), twin(z)
    assert_close(first, expected, 1e-4)
    assert (first - second).abs().max() > 1e-2


def small():
    torch.manual_seed(0)
    return settle(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3)))


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.skipif(not is_fast("conv_packed"), reason="no AVX2 or AVX-512 kernels")
def test_an_instance_norm_between_convolutions_stays_in_pixels():
    """Also where it is smaller than those that are ours in a network that is not frozen."""
    net = nn.Sequential(nn.Conv2d(16, 32, 1), nn.InstanceNorm2d(32), nn.LeakyReLU(0.2), nn.Conv2d(32, 16, 1))
    twin, _ = check(net, (1, 16, 24, 24))
    (run,) = vars(twin)["forward"]._kinds.values()
    with torch.no_grad(), Called() as called:
        run(torch.randn(1, 16, 24, 24))
    ours = [name for name in called.names if name.startswith("fastgan::")]
    assert ours == ["fastgan::to_pixels", "fastgan::conv_packed", "fastgan::norm_act", "fastgan::conv_packed"]
    assert called.names.count("aten::copy_") == 1, "the result alone is laid out as the network's"


def test_a_view_of_an_instance_norms_result_is_recorded():
    """torch's norm makes contiguous what a convolution left in pixels: the network may take a view of it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(16, 32, 1), nn.InstanceNorm2d(32)

        def forward(self, x):
            y = self.norm(self.conv(x)) + 0.1 * torch.rand(())
            return y.view(len(y), -1)

    net = Net().eval()
    x = torch.randn(2, 16, 24, 24)
    twin, _ = frozen(net, x)
    with torch.no_grad():
        for _ in range(2):
            results = []
            for n in (net, twin):
                torch.manual_seed(3)
                results.append((n(x), torch.rand(3)))
            assert_close(*(y for y, _ in results))
            assert torch.equal(*(after for _, after in results))


def test_unpatch_is_exact():
    net = small()
    attributes = {id(m): dict(vars(m)) for m in net.modules()}
    state = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        plain = net(X)
        report = fastgan.accelerate(net, freeze=True)
        for _ in range(4):
            assert_close(net(X), plain, 1e-5)
        assert list(net.state_dict()) == list(state)
        assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
        assert fastgan.accelerate(net, freeze=True).replaced == []
        fastgan.unpatch(report)
        assert torch.equal(net(X), plain)
    assert {id(m): dict(vars(m)) for m in net.modules()} == attributes


def test_dry_run_changes_nothing():
    net = small()
    before = dict(vars(net))
    assert "packed" in str(fastgan.accelerate(net, dry_run=True, freeze=True))
    assert vars(net) == before


def changed(change):
    """Frozen and original, both changed after three calls: they must agree."""
    net = small()
    twin, _ = frozen(net, X)
    with torch.no_grad():
        old = twin(X)
        for n in (net, twin):
            change(n)
        for _ in range(3):
            expected = net(X)
            assert_close(twin(X), expected, 1e-5)
    assert (expected - old).abs().max() > 1e-3, "the change changed nothing"


def other_state(net):
    torch.manual_seed(5)
    net.load_state_dict({k: torch.rand_like(v) if v.is_floating_point() else v for k, v in net.state_dict().items()})


@pytest.mark.parametrize(
    "change",
    [
        other_state,
        lambda net: net[0].weight.mul_(2),
        lambda net: setattr(net[3], "bias", nn.Parameter(torch.tensor([3.0, 4.0]))),
        lambda net: setattr(net[0].weight, "data", net[0].weight.data * 2),
        lambda net: net[1].running_var.fill_(9.0),
        lambda net: net.__setitem__(2, nn.Tanh()),
        lambda net: net.append(nn.Sigmoid()),
        lambda net: setattr(net[1], "eps", 3.0),
        lambda net: net.train(),
        lambda net: net[1].train(),
        lambda net: net[0].register_forward_hook(lambda m, x, y: y + 1),
        lambda net: net[3].register_forward_pre_hook(lambda m, x: (x[0] * 2,)),
        lambda net: net.register_forward_hook(lambda m, x, y: y + 1),
    ],
)
def test_what_changes_is_seen(change):
    changed(change)


class Listed(nn.Module):
    """Numbers that are read from attributes in which they lie."""

    def __init__(self):
        super().__init__()
        self.conv, self.factors, self.config = nn.Conv2d(3, 4, 1), [[1.0], 2.0], {"gain": 1.0}

    def forward(self, x):
        return self.conv(x) * self.factors[0][0] * self.factors[1] * self.config["gain"]


def test_what_lies_in_lists_and_dicts_is_seen():
    net, x = Listed().eval(), torch.randn(1, 3, 8, 8)
    twin = copy.deepcopy(net)
    fastgan.accelerate(twin, freeze=True)
    changes = (
        lambda n: n.factors.__setitem__(1, 3.0),
        lambda n: n.factors[0].__setitem__(0, 5.0),
        lambda n: n.config.update(gain=7.0),
    )
    with torch.no_grad():
        for change in changes:
            for _ in range(3):
                assert_close(twin(x), net(x), 1e-5)
            for n in (net, twin):
                change(n)
        assert_close(twin(x), net(x), 1e-5)
    assert not vars(twin)["forward"].refused


def test_hooks_see_what_they_see_and_it_freezes_again_without_them():
    net = small()
    twin, _ = frozen(net, X)
    seen = []
    hook = twin[1].register_forward_hook(lambda m, x, y: seen.append(y))
    with torch.no_grad():
        expected = net(X)
        assert_close(twin(X), expected, 1e-5)
        assert len(seen) == 1
        hook.remove()
        assert_close(twin(X), expected, 1e-5)
    assert len(seen) == 1 and callable(next(iter(vars(twin)["forward"]._kinds.values())))


def test_gradients_to_second_order_are_the_networks_own():
    net = small().double()
    twin = copy.deepcopy(net)
    fastgan.accelerate(twin, freeze=True)
    x = X.double()
    with torch.no_grad():
        for _ in range(3):
            twin(x)
    results = []
    for n in (net, twin):
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(n(leaf).square().sum(), leaf, create_graph=True)
        results.append([g, *torch.autograd.grad(g.square().sum(), [leaf, *n.parameters()], allow_unused=True)])
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(b, a, 1e-9)


def test_parameters_without_gradients_are_served_in_grad_mode():
    net = small().requires_grad_(False)
    twin, _ = frozen(net, X)
    assert twin(X).grad_fn is None
    leaf = X.clone().requires_grad_()
    assert twin(leaf).grad_fn is not None


def test_compiler_autocast_and_inference_mode():
    net = small()
    twin, _ = frozen(net, X)
    with torch.inference_mode():
        assert_close(twin(X), net(X), 1e-5)
    with torch.no_grad():
        assert_close(torch.export.export(twin, (X,)).module()(X), net(X), 1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert twin(X).dtype == torch.bfloat16


def test_copies_and_pickles_are_frozen_and_their_own():
    net = small()
    twin, _ = frozen(net, X)
    for other in (copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))):
        assert isinstance(vars(other)["forward"], Frozen)
        with torch.no_grad():
            other[0].weight.zero_()
            for _ in range(3):
                assert (other(X) - net(X)).abs().max() > 1e-2
                assert_close(twin(X), net(X), 1e-5)


def test_shapes_types_and_layouts_of_inputs():
    net = small()
    twin, _ = frozen(net, X)
    with torch.no_grad():
        for x in (X[:1], X[:, :, 1:], X.contiguous(memory_format=torch.channels_last), X.mT, X[:0], *X.split(1)):
            for _ in range(3):
                assert_close(twin(x), net(x), 1e-5)
    assert len(vars(twin)["forward"]._kinds) <= 4


class ByNumbers(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.conv, self.how, self.calls = nn.Conv2d(3, 3, 1), how, 0

    def forward(self, x):
        y = self.conv(x)
        return self.how(self, x, y)


def decided(self, x, y):
    return y if x.sum() > 0 else -y


def counting(self, x, y):
    self.calls += 1
    return y * self.calls


def through_numpy(self, x, y):
    return y * float(x.numpy().max())


def writing(self, x, y):
    x.mul_(1.0)
    return y


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (decided, "decides by numbers"),
        (counting, "changes its attributes"),
        (through_numpy, "out of torch"),
        (writing, "writes to an input"),
        (lambda self, x, y: y[y > 0], "shape of a result"),
    ],
)
@pytest.mark.filterwarnings("ignore:ByNumbers runs as ever")
def test_what_cannot_be_frozen_runs_as_ever(how, why):
    net = ByNumbers(how).eval()
    twin = copy.deepcopy(net)
    fastgan.accelerate(twin, freeze=True)
    with torch.no_grad():
        for sign in (1, 1, -1, 1, -1):
            assert_close(twin(sign * X), net(sign * X), 1e-6)
    assert why in vars(twin)["forward"].refused


class Slices(nn.Module):
    """Writes into tensors it made, through views."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        y = self.conv(x)
        out = y.new_zeros(y.shape[0], 4, 2 * y.shape[2], y.shape[3])
        out[:, :, ::2] = y
        y[:, 0].relu_()
        out[:, :, 1::2] = self.conv(x) + y
        table = torch.zeros(4)
        table[1] = 2.0
        return out * table[:, None, None]


def test_writes_through_views():
    check(Slices(), (2, 3, 4, 5))


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x, y, factor=1.0, *, more=None):
        a, b = self.conv(x * factor).split(2, 1)
        return {"a": a, "rest": (b + y, None, 3, x)}


def test_several_inputs_options_and_results():
    net = Several().eval()
    y = torch.randn(2, 2, 8, 8)
    twin, _ = frozen(net, X, y, factor=2.0)
    with torch.no_grad():
        for factor in (2.0, 3.0, 3.0, 3.0):
            actual, expected = twin(X, y, factor=factor), net(X, y, factor=factor)
            assert actual.keys() == expected.keys() and actual["rest"][1:3] == (None, 3)
            assert_close(actual["a"], expected["a"], 1e-5)
            assert_close(actual["rest"][0], expected["rest"][0], 1e-5)
            assert torch.equal(actual["rest"][3], X)


def test_refused_arguments():
    with pytest.raises(ValueError, match=r"eval\(\)"):
        fastgan.accelerate(nn.Sequential(nn.Conv2d(3, 3, 3)), freeze=True)
    with pytest.raises(ValueError, match="graphs=True"):
        fastgan.accelerate(nn.Linear(2, 2, device="meta").eval(), freeze=True)


def test_sampling_serves_and_takes_it_back():
    from fastgan.sampling import served

    net, trained = small(), small().train()
    before = dict(vars(net))
    with served({"generator": net, "other": trained, "engine": object()}), torch.no_grad():
        assert isinstance(vars(net)["forward"], Frozen) and "forward" not in vars(trained)
        net(X)
    assert vars(net) == before and type(net) is nn.Sequential


ORDERS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda x: x[..., :1].expand(x.shape),
}
ORDERED = {
    "convolution": lambda: nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.Tanh()),
    "after a norm": lambda: nn.Sequential(nn.InstanceNorm2d(8), nn.Conv2d(8, 8, 1)),
    "before a norm": lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8), nn.ReLU()),
    "shuffled": lambda: nn.Sequential(nn.Conv2d(8, 16, 1), nn.PixelShuffle(2)),
    "none": lambda: nn.Sequential(nn.ReLU()),
}


@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ORDERED)
def test_results_have_the_strides_of_the_network(name, order, weights):
    net, x = ORDERED[name]().eval().to(memory_format=weights), ORDERS[order](torch.randn(2, 8, 12, 10))
    twin, _ = frozen(net, x)
    with torch.no_grad():
        expected, found = net(x), twin(x)
    assert_close(found, expected)
    assert found.stride() == expected.stride()
    first = copy.deepcopy(net)
    fastgan.accelerate(first, freeze=True)
    with torch.no_grad():
        y = first(x)
    assert y.stride() == expected.stride() or "channels last" in order or weights is torch.channels_last


class FromLatent(nn.Module):
    """A latent that becomes an image, alone or with another one added."""

    def __init__(self, act, **options):
        super().__init__()
        self.first = nn.ConvTranspose2d(32, 24, (4, 3), bias=False, **options)
        self.norm, self.act, self.last = nn.BatchNorm2d(24), act, nn.Conv2d(24, 3, 3)

    def forward(self, z, other):
        return self.last(self.act(self.norm(self.first(z))) + other)


@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.PReLU(24), nn.Identity()])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 2}], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_latent_becomes_an_image(act, options, batch):
    check(FromLatent(act, **options), (batch, 32, 1, 1), (batch, 24, 4, 3))


def test_a_latent_becomes_an_image_by_packed_weights():
    made = Convolution(torch.randn(32, 24, 4, 3), None, ((1, 1), (0, 0), (1, 1), True, (0, 0), 1), (2, 32, 1, 1))
    z, weight = torch.randn(2, 32, 1, 1), made.weight.clone()
    assert_close(made(z), F.conv_transpose2d(z, weight), 1e-6)
    assert made._run == made._spread
