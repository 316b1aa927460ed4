"""accelerate: what changes afterwards, code that only looks as if it could be joined, transforms, traces, failures."""

import copy

import pytest
import torch
import torch.nn.functional as F
from accelerated import check, outcome, replaced
from dispatched import Called
from tolerances import assert_close
from torch import nn

import fastgan
from fastgan import import_hook
from fastgan.patch import layers


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch):
    monkeypatch.setattr(layers, "pays", lambda *_: True)


def pair(net, *inputs):
    """The network, and its accelerated copy that was called before."""
    twin = copy.deepcopy(net)
    report = fastgan.accelerate(twin)
    assert report.replaced
    twin(*(x.clone() for x in inputs))
    return net, twin


def fixed_filter(cls=nn.Conv2d, **options):
    layer = cls(4, 4, 3, groups=4, bias=False, **options).requires_grad_(False)
    layer.weight.copy_(torch.rand(1, 1, 3, 3).expand_as(layer.weight))
    return layer


def ring(layer):
    layer.padding_mode = "circular"


def wider(layer):
    layer.dilation = (2, 2)


def shifted(layer):
    layer.bias = nn.Parameter(torch.ones(layer.out_channels))


@pytest.mark.parametrize(
    ("layer", "shape", "change"),
    [
        (lambda: nn.Conv2d(32, 3, 7, padding=3), (1, 32, 20, 20), ring),
        (lambda: fixed_filter(padding=1), (1, 4, 9, 9), ring),
        (lambda: fixed_filter(padding=1), (1, 4, 9, 9), wider),
        (lambda: fixed_filter(padding=1), (1, 4, 9, 9), shifted),
    ],
)
def test_options_that_change_later(layer, shape, change):
    x = torch.randn(shape)
    net, twin = pair(nn.Sequential(layer()), x)
    before = net(x)
    for n in (net, twin):
        change(n[0])
    expected = net(x)
    assert_close(twin(x), expected, 1e-5)
    assert before.shape != expected.shape or (before - expected).abs().max() > 1e-2


def test_a_fixed_filter_under_autocast_and_to_no_pixels():
    x = torch.randn(1, 4, 9, 9)
    net, twin = pair(nn.Sequential(fixed_filter()), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(twin(x), net(x)) and twin(x).dtype == torch.bfloat16
    net, twin = pair(nn.Sequential(fixed_filter(nn.ConvTranspose2d, padding=1)), x)
    assert_close(twin(x), net(x), 1e-5)
    for shape in ((1, 4, 1, 1), (0, 4, 3, 3)):
        assert twin(torch.ones(shape)).shape == net(torch.ones(shape)).shape
    tall = nn.Sequential(fixed_filter(nn.ConvTranspose2d, padding=(2, 0)))
    net, twin = pair(tall, x)
    assert twin(x[:, :, :2]).shape == net(x[:, :, :2]).shape == (1, 4, 0, 11)


def test_an_ensemble_of_fixed_filters():
    x = torch.randn(1, 4, 9, 9)
    net, twin = pair(nn.Sequential(fixed_filter()), x)
    weights = torch.stack([net[0].weight, net[0].weight * 2])
    results = [
        torch.vmap(lambda w, n=n: torch.func.functional_call(n, {"0.weight": w}, (x,)))(weights) for n in (net, twin)
    ]
    assert_close(*results)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traces_are_the_originals():
    x, other = torch.randn(1, 32, 20, 20), torch.randn(2, 32, 24, 23)
    net = nn.Sequential(
        nn.Conv2d(32, 8, 3),
        nn.InstanceNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 32, 2),
        nn.Conv2d(32, 3, 7),
        nn.Tanh(),
    )
    twin = copy.deepcopy(net.eval().requires_grad_(False))
    fastgan.accelerate(twin)
    for _ in range(2):
        traced = torch.jit.trace(twin, x)
        assert_close(traced(other), net(other), 1e-5)
        twin(x)


class Remembering(nn.Conv2d):
    def __call__(self, x):
        self.last = super().__call__(x)
        return self.last


def test_a_layer_that_keeps_its_result():
    net, x = nn.Sequential(Remembering(3, 8, 1), nn.ReLU()), torch.randn(1, 3, 8, 8)
    fastgan.accelerate(net)
    net(x)
    assert (net[0].last < 0).any()


class Limited(nn.Module):
    """Instance norm written out, but not for every image."""

    def forward(self, x):
        x = x.clamp(-20.0, 20.0)
        return (x - x.mean((2, 3), True)) * torch.rsqrt(x.var((2, 3), keepdim=True, unbiased=False) + 1e-5)


class Compared(nn.Module):
    def forward(self, x):
        x = x * (x < 20)
        return (x - x.mean((2, 3), True)) * torch.rsqrt(x.var((2, 3), keepdim=True, unbiased=False) + 1e-5)


class Cornered(nn.Module):
    def forward(self, x):
        y = x[:, :, :16, :16]
        return (x - y.mean((2, 3), True)) * torch.rsqrt(y.var((2, 3), keepdim=True, unbiased=False) + 1e-5)


class Rounded(nn.Module):
    def forward(self, x):
        x = x - (x / 64).trunc() * 64
        return (x - x.mean((2, 3), True)) * torch.rsqrt(x.var((2, 3), keepdim=True, unbiased=False) + 1e-5)


@pytest.mark.parametrize("kind", [Limited, Compared, Cornered, Rounded])
def test_norms_that_differ_on_other_images_stay(kind):
    net = nn.Sequential(kind())
    x = 60 * torch.randn(1, 4, 20, 20)
    expected = net(x)
    fastgan.accelerate(net)
    assert torch.equal(net(x), expected)


def upscaler(slopes, *last):
    """Convolutions and PReLU, as SRGAN, pSp's encoder and Real-ESRGAN's small network have them."""
    c = slopes if slopes > 1 else 8
    layers = (
        nn.Conv2d(3, c, 3, padding=1),
        nn.PReLU(slopes),
        nn.Conv2d(c, c, 3),
        nn.BatchNorm2d(c),
        nn.PReLU(slopes),
        *last,
    )
    net = nn.Sequential(*layers)
    for act in net:
        if isinstance(act, nn.PReLU):
            nn.init.uniform_(act.weight, -0.5, 0.5)
    return net


@pytest.mark.parametrize("slopes", [1, 6])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_prelu_is_torchs_to_the_second_derivative(monkeypatch, slopes, layout):
    monkeypatch.setattr(layers, "LEAST", 0)
    net = upscaler(slopes, nn.PixelShuffle(1), nn.PReLU(slopes), nn.Flatten(2), nn.PReLU(slopes))
    x = torch.randn(2, 3, 6, 5).contiguous(memory_format=layout)
    report = check(net, x)
    assert {replaced(report)[name] for name in ("1", "4", "6", "8")} == {"PReLU, its gradients in one pass"}
    assert_close(outcome(net.float(), x.float())[0], net.double()(x.double()).float(), 1e-5)


def test_prelu_by_size_and_by_whether_gradients_are_taken():
    net, small, large = nn.Sequential(nn.PReLU(4)), torch.randn(1, 4, 9, 9), torch.randn(1, 4, 64, 64)
    fastgan.accelerate(net)

    def called(x, recorded=True, dtype=None):
        with torch.set_grad_enabled(recorded), Called() as names, torch.autocast("cpu", enabled=dtype is not None):
            net(x)
        return "fastgan::prelu" in names.names

    assert called(large) and not called(small) and not called(large, recorded=False)
    assert not called(large, dtype=torch.bfloat16) and not called(large.bfloat16().float()[:, :, ::65])
    net.requires_grad_(False)
    assert not called(large) and called(large.clone().requires_grad_())


def test_prelu_has_its_slopes_as_they_are(monkeypatch):
    """Other values, another parameter, a hook, the version that autograd guards, and a transform."""
    monkeypatch.setattr(layers, "LEAST", 0)
    x = torch.randn(2, 3, 6, 5).double()
    net, twin = pair(upscaler(6).double(), x)
    for change in (
        lambda n: n[1].weight.data.mul_(-3),
        lambda n: n[4].load_state_dict({"weight": torch.linspace(-1, 1, 6)}),
        lambda n: setattr(n[4], "weight", nn.Parameter(torch.full((6,), 0.75).double())),
        lambda n: setattr(n[1], "weight", nn.Parameter(torch.full((1,), -2.0).double())),
        lambda n: n[4].register_forward_hook(lambda m, args, y: y * 2),
    ):
        before = net(x)
        for n in (net, twin):
            change(n)
        results = [outcome(n, x) for n in (net, twin)]
        assert (results[0][0] - before).abs().max() > 1e-2
        for found, expected in zip(*results, strict=True):
            assert_close(found, expected, 1e-9)
    y = twin(x)
    with torch.no_grad():
        twin[4].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    net[4].load_state_dict(twin[4].state_dict())
    acts, images = [n[4] for n in (net, twin)], torch.randn(3, 2, 6, 4, 4).double()
    each = [torch.func.vmap(torch.func.grad(lambda t, act=act: act(t).sin().sum()))(images) for act in acts]
    assert_close(*each)


class Joinable(nn.Module):
    """Something is joined, so that its forward is rewritten."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(0.2, True)
        self.drops, self.sums = nn.ModuleList([nn.Dropout()]), nn.ModuleList([Sum()])
        self.weight, self.bias, self.scale = nn.Parameter(torch.randn(8, 8, 3, 3)), nn.Parameter(torch.randn(8)), 0.5


class Sum(nn.Module):
    def forward(self, x, y):
        return x + y


class WritesOver(Joinable):
    def forward(self, x):
        y = F.relu(self.conv(x))
        y = y - 0.5
        return self.act(y) * (y + 1) + x


class Draws(Joinable):
    def forward(self, x):
        x = F.relu(self.conv(x))
        for drop, add in zip(self.drops, self.sums, strict=True):
            x = add(drop(x), torch.randn(x.shape))
        return x


class Starred(Joinable):
    def forward(self, x):
        x = F.relu(self.conv(x))
        both = (x, self.weight)
        return F.conv2d(*both, self.bias * self.scale)


@pytest.mark.parametrize("kind", [WritesOver, Draws, Starred])
def test_what_is_computed_in_another_order_stays(kind):
    x, results = torch.randn(1, 8, 9, 8), []
    net = kind()
    twin = copy.deepcopy(net)
    assert "conv" in replaced(fastgan.accelerate(twin))
    for n in (net, twin):
        torch.manual_seed(0)
        results.append(n(x))
    assert_close(results[1], results[0])


class Failing(nn.Conv2d):
    calls = 0

    def forward(self, x):
        Failing.calls += 1
        if Failing.calls > 4:
            raise RuntimeError("enough")
        return super().forward(x)


def test_a_failure_while_measuring_leaves_everything_as_it_was():
    net = nn.Sequential(Failing(8, 8, 1), nn.InstanceNorm2d(8), nn.ReLU())
    before = [(type(m), dict(vars(m))) for m in net.modules()]
    with pytest.raises(RuntimeError, match="enough"):
        fastgan.accelerate(net, example=torch.randn(1, 8, 8, 8))
    assert [(type(m), dict(vars(m))) for m in net.modules()] == before


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_scripts_and_traces_under_the_hook(monkeypatch):
    monkeypatch.setattr(nn.Module, "__call__", nn.Module.__call__)  # put back afterwards
    import_hook.accelerate_networks(nn.Module)
    x = torch.randn(1, 3, 9, 9)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU())
    for compiled in (torch.jit.trace(net, x), torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))):
        assert compiled(x).shape == (1, 4, 7, 7)
    assert net(x).shape == (1, 4, 7, 7) and type(net) is not nn.Sequential


class Flat(nn.Module):
    """A view that wants the contiguous images which torch's norm gives."""

    def __init__(self):
        super().__init__()
        self.norm, self.act = nn.InstanceNorm2d(8), nn.ReLU()

    def forward(self, x):
        return self.act(self.norm(x)).view(len(x), -1)


class Added(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.block, self.first = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8)), first

    def forward(self, x):
        if self.first:
            return self.block(x) + x
        return x + self.block(x)


STRIDED = {
    "norm": lambda: nn.Sequential(nn.InstanceNorm2d(8, affine=True)),
    "norm and activation": lambda: nn.Sequential(nn.InstanceNorm2d(8), nn.LeakyReLU(0.2)),
    "convolution": lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8), nn.ReLU(True), nn.Conv2d(8, 4, 3)),
    "view": Flat,
    "sum": lambda: Added(False),
    "sum, the norm first": lambda: Added(True),
    "transposed": lambda: nn.Sequential(
        nn.ConvTranspose2d(8, 64, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(64, 3, 4, 2, 1)
    ),
    "transposed, norm": lambda: nn.Sequential(
        nn.ConvTranspose2d(8, 64, 4, 2, 1), nn.InstanceNorm2d(64), nn.ReLU(), nn.ConvTranspose2d(64, 6, 4, 2, 1)
    ),
}
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "expanded": lambda x: x[:1, :, :, :1].expand(x.shape),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", STRIDED)
def test_results_have_the_strides_of_the_original(name, layout, training):
    net = STRIDED[name]().train(training)
    x = LAYOUTS[layout](torch.randn(2, 8, 12, 10))
    twin = copy.deepcopy(net)
    assert fastgan.accelerate(twin).replaced
    for images in (x, x.clone(memory_format=torch.preserve_format).requires_grad_()):
        expected, found = net(images), twin(images)
        assert_close(found, expected)
        assert found.stride() == expected.stride()
