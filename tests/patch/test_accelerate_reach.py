"""accelerate on blocks as published networks have them, written from the papers: what of them is replaced, and equal."""

import copy
import math
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerated import check, replaced
from dispatched import Called
from tolerances import assert_close
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastgan
from fastgan.patch import layers


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch):
    monkeypatch.setattr(layers, "has_kernel", lambda op, device: True)
    monkeypatch.setattr(layers, "pays", lambda *_: True)


def calls(net, *args):
    with torch.no_grad(), Called() as called:
        net(*args)
    return called.names


class Modulated(nn.Module):
    """AdaIN (Huang and Belongie 2017), as an expression."""

    def __init__(self, channels=4):
        super().__init__()
        self.norm, self.style = nn.InstanceNorm2d(channels), nn.Linear(3, 2 * channels)

    def given(self, x):
        style = torch.linspace(-1, 1, 3, dtype=x.dtype) + torch.arange(len(x), dtype=x.dtype)[:, None]
        return self.style(style)[:, :, None, None].chunk(2, dim=1)

    def forward(self, x):
        gamma, beta = self.given(x)
        return (1 + gamma) * self.norm(x) + beta


class AfterNorm(Modulated):
    def forward(self, x):
        gamma, beta = self.given(x)
        out = self.norm(x)
        out = gamma * out + beta
        return out


class NormFirst(Modulated):
    def forward(self, x):
        gamma, beta = self.given(x)
        return self.norm(x) * gamma + beta


class Spade(Modulated):
    """A scale and a shift for each pixel (Park et al. 2019): the norm alone is ours: the map's convolutions take 98% of it."""

    def __init__(self, channels=4):
        super().__init__(channels)
        self.shared = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv2d(8, channels, 3, padding=1) for _ in range(2))

    def forward(self, x):
        normalized = self.norm(x)
        actv = self.shared(F.interpolate(x, size=x.shape[2:], mode="nearest"))
        gamma = self.mlp_gamma(actv)
        beta = self.mlp_beta(actv)
        out = normalized * (1 + gamma) + beta
        return out


@pytest.mark.parametrize("kind", [Modulated, AfterNorm, NormFirst])
def test_adain_is_one_operation(kind):
    net = kind()
    report = check(net, torch.randn(2, 4, 5, 6))
    assert "scaled and shifted" in replaced(report)["norm"]
    net.float()
    fastgan.accelerate(net)
    names = calls(net, torch.randn(2, 4, 5, 6))
    assert "aten::mul.Tensor" not in names and names.count("fastgan::norm_act") == 1
    with torch.no_grad():  # in other layouts, and what is not a pair of each image, as written
        x = torch.randn(2, 4, 5, 6).contiguous(memory_format=torch.channels_last)
        assert_close(net(x), net(x.contiguous()))
        net.norm = nn.Identity()
        gamma, beta = net.given(x)
        assert_close(net(x), (gamma + (kind is Modulated)) * x + beta)


def test_spade_reaches_its_norm_and_its_sequence():
    report = check(Spade(), torch.randn(2, 4, 5, 6))
    assert {"norm", "shared.0 + shared.1"} <= set(replaced(report))
    net = Spade()
    fastgan.accelerate(net)
    names = calls(net, torch.randn(2, 4, 5, 6))
    assert "fastgan::norm_act" in names and names.count("aten::mul.Tensor") == 1
    assert "scaled" not in replaced(report)["norm"]


class Moved(Modulated):
    """The layer's result is read once more."""

    def forward(self, x):
        gamma, beta = self.given(x)
        out = self.norm(x)
        y = gamma * out + beta
        return y + out


def test_a_norm_that_is_read_again_stays_apart():
    report = check(Moved(), torch.randn(2, 4, 5, 6))
    assert "scaled" not in replaced(report)["norm"]


class Blurred(nn.Module):
    """A fixed filter applied to every channel, by hand; `weights` may be of each channel instead."""

    def __init__(self, weights=None, transposed=False):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", (taps[:, None] * taps * torch.tensor([1.0, 2.0, 3.0, 4.0])) / 64)
        self.transposed, self.weights = transposed, weights

    def forward(self, x):
        kernel = self.kernel.expand(x.shape[1], 1, 4, 4) if self.weights is None else self.weights.to(x)
        if self.transposed:
            return F.conv_transpose2d(x, kernel, stride=2, padding=(1, 0), output_padding=1, groups=x.shape[1])
        return F.conv2d(x, kernel, stride=(2, 1), padding=1, groups=x.shape[1])


@pytest.mark.parametrize("transposed", [False, True])
def test_filters_by_hand(transposed):
    report = check(Blurred(transposed=transposed), torch.randn(2, 3, 7, 6))
    assert "upfirdn2d" in str(report)
    net = Blurred(transposed=transposed)
    fastgan.accelerate(net)
    assert "fastgan::upfirdn2d" in calls(net, torch.randn(2, 3, 7, 6))
    other = Blurred(torch.randn(3, 1, 4, 4), transposed)
    fastgan.accelerate(other)
    assert "fastgan::upfirdn2d" not in calls(other, torch.randn(2, 3, 7, 6))
    check(other, torch.randn(2, 3, 7, 6))


class PerImage(nn.Module):
    """A weight for each image (StyleGAN2, equations 1 to 3), in as many groups as there are images."""

    def __init__(self, how):
        super().__init__()
        self.weight, self.how = nn.Parameter(torch.randn(1, 4, 3, 3, 3)), how

    def forward(self, x, style):
        if self.how == "shape":
            return F.conv2d(x.flatten(0, 1)[None], self.of(style), padding=1, groups=x.shape[0]).unflatten(1, (-1, 4))[
                0
            ]
        b, c, *_ = x.shape
        return F.conv2d(x.reshape(1, b * c, *x.shape[2:]), self.of(style), padding=1, groups=b).unflatten(1, (-1, 4))[0]

    def of(self, style):
        return (self.weight * style.view(len(style), 1, -1, 1, 1)).flatten(0, 1)


@pytest.mark.parametrize("how", ["shape", "unpacked"])
def test_a_weight_for_each_image_is_no_fixed_filter(how):
    assert not fastgan.accelerate(PerImage(how)).replaced


class ByHand(nn.Module):
    """Instance norm as face swappers and style transfers write it out."""

    def __init__(self, epsilon=1e-5):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x):
        x = x - torch.mean(x, (2, 3), True)
        tmp = torch.mul(x, x)
        tmp = torch.rsqrt(torch.mean(tmp, (2, 3), True) + self.epsilon)
        return x * tmp


class ByVariance(ByHand):
    def forward(self, x):
        mean = x.mean(dim=(2, 3), keepdim=True)
        std = (x.var(dim=(2, 3), keepdim=True, unbiased=False) + 1e-6).sqrt()
        return (x - mean) / std


class Unbiased(ByHand):
    def forward(self, x):
        return (x - x.mean((2, 3), True)) / (x.var((2, 3), keepdim=True) + self.epsilon).sqrt()


class OfBatch(ByHand):
    def forward(self, x):
        return (x - x.mean((0, 2, 3), True)) / (x.var((0, 2, 3), False, keepdim=True) + self.epsilon).sqrt()


class Branching(ByHand):
    def forward(self, x):
        return super().forward(x) if x.shape[0] > 2 else ByHand.forward(self, x)


class Storing(ByHand):
    def forward(self, x):
        self.mean = x.mean((2, 3), True)
        return (x - self.mean) * torch.rsqrt((x - self.mean).square().mean((2, 3), True) + self.epsilon)


class Overwriting(ByHand):
    def forward(self, x):
        x.sub_(x.mean((2, 3), True))
        return x * torch.rsqrt(x.square().mean((2, 3), True) + self.epsilon)


@pytest.mark.parametrize("kind", [ByHand, ByVariance])
def test_instance_norm_by_hand(kind):
    net, x = nn.Sequential(nn.Conv2d(3, 4, 1), kind(), nn.ReLU()), torch.randn(2, 3, 5, 6)
    report = check(net, x)
    assert "written out" in replaced(report)["1"]
    net.float()
    fastgan.accelerate(net)
    assert "fastgan::norm_act" in calls(net, x) and "fastgan::norm_act" in calls(pickle.loads(pickle.dumps(net)), x)
    net[1].epsilon = 3.0  # no epsilon that is looked for, or another one
    with torch.no_grad():
        assert_close(net[1](x), kind(3.0)(x))
        net[1].epsilon = 0.01
        assert_close(net[1](x), kind(0.01)(x))


@pytest.mark.parametrize("kind", [Unbiased, OfBatch, Branching, Storing, Overwriting])
def test_what_is_no_instance_norm_stays(kind):
    net, x = kind(), torch.randn(2, 3, 5, 6)
    with torch.no_grad():
        expected = net(x.clone())
        assert not fastgan.accelerate(net).replaced and type(net) is kind
        assert torch.equal(net(x.clone()), expected)


def test_prelu_and_pixel_shuffle():
    """SRGAN's pieces (Ledig et al. 2017): in place where nothing learns, and learnt where something does."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(), nn.PixelShuffle(2), nn.PReLU(),
        nn.Conv2d(2, 8, 3), nn.PReLU(8), nn.InstanceNorm2d(8), nn.PReLU(),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 6, 5)
    report = check(net, x)
    assert {"1 + 2", "3 + 4", "7 + 8"} <= set(replaced(report)) and "5 + 6" not in replaced(report)
    assert dict(report.refused)["5 + 6"] == "Conv2d + PReLU in place: nothing to gain"
    net.float()
    expected = net(x)
    fastgan.accelerate(net)
    names = calls(net, x)
    assert names.count("aten::leaky_relu_") == 2 and names.count("aten::_prelu_kernel") == 1
    with torch.no_grad():
        assert_close(net(x), expected)
        net[2].weight.fill_(-0.5)  # of any sign, and as it is now
        assert_close(net(x), copy.deepcopy(net)(x))
        normed = net[1](net[0](x))
        assert_close(net[:3](x), torch.where(normed > 0, normed, -0.5 * normed))
    for m in net[:2]:
        m.requires_grad_(False)
    net(x).sum().backward()
    assert net[2].weight.grad.abs() > 0


class Scaled(nn.Module):
    """Equalised layers (Karras et al. 2018) of several projects: the factor in the call, before it, on the image."""

    def __init__(self, how):
        super().__init__()
        self.how, self.scale, self.lr_mul = how, 1 / math.sqrt(3 * 9), 0.01
        self.weight, self.bias = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4))
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        if self.how == "call":
            return F.conv2d(x, self.weight * self.scale, bias=self.bias, stride=1, padding=1)
        if self.how == "bias too":
            out = F.conv2d(x, self.weight * self.scale, bias=self.bias * self.lr_mul, padding=1)
            return F.leaky_relu(out, 0.2) * 2**0.5
        if self.how == "before":
            weight = self.weight * self.scale
            return F.conv2d(x, weight, self.bias, padding=1)
        return F.leaky_relu(self.conv(x * self.scale), 0.2)


@pytest.mark.parametrize("how", ["call", "bias too", "before", "image"])
@pytest.mark.parametrize("side", [2, 9])  # images smaller than the weight, and larger
def test_equalised_layers(how, side):
    report = check(Scaled(how), torch.randn(1, 3, side, side))
    assert "the factor goes to the smaller" in replaced(report)["weight"]


def equalised(module, inputs):
    """A pre-hook that scales the weight, as the first implementations of equalised layers have it."""
    module.weight = module.weight_orig * math.sqrt(2 / module.weight_orig[0].numel())


def test_weights_made_by_hooks():
    """`nn.utils.weight_norm`'s hook and an equalised layer's run at every call; copies are what torch allows."""
    net = nn.Sequential(
        nn.utils.weight_norm(nn.Conv1d(3, 6, 3, padding=1)), nn.LeakyReLU(0.1),
        nn.utils.weight_norm(nn.ConvTranspose1d(6, 5, 4, 2, 1)), nn.Tanh(),
    )  # fmt: skip
    x = torch.randn(2, 3, 7)
    expected, state = net(x), list(net.state_dict())
    report = fastgan.accelerate(net)
    assert {"0 + 1", "2 + 3"} <= set(replaced(report)) and list(net.state_dict()) == state
    assert_close(net(x), expected)
    net(x).sum().backward()
    assert net[0].weight_g.grad.abs().sum() > 0
    with torch.no_grad():
        net(x)
        twin = copy.deepcopy(net)
        net[0].weight_g *= 2
        assert_close(twin(x), expected)
        assert (net(x) - expected).abs().max() > 1e-3
        twin[0].weight_g *= 2
        assert_close(twin(x), net(x))
        for m in (net[0], net[2]):
            nn.utils.remove_weight_norm(m)
        assert_close(net(x), twin(x))
    conv = nn.Conv2d(3, 6, 3)
    conv.weight_orig = nn.Parameter(conv.weight.detach().clone())
    del conv._parameters["weight"]
    conv.register_forward_pre_hook(equalised)
    net, x = nn.Sequential(conv, nn.LeakyReLU(0.2)), torch.randn(1, 3, 5, 5)
    expected = net(x)
    fastgan.accelerate(net)
    assert_close(net(x), expected)


def test_inside_distributed_data_parallel(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.InstanceNorm2d(6), nn.LeakyReLU(0.2))
        twin, x = copy.deepcopy(net), torch.randn(2, 3, 4, 4)
        wrapped = DistributedDataParallel(net)
        report = fastgan.accelerate(wrapped)
        assert "module.1 + module.2" in replaced(report)
        for m in (wrapped, twin):
            m(x).square().sum().backward()
        assert_close(net[0].weight.grad, twin[0].weight.grad)
        fastgan.unpatch(report)
        assert type(net[1]) is nn.InstanceNorm2d
        again = DistributedDataParallel(copy.deepcopy(net))  # and one that is wrapped later
        fastgan.accelerate(again.module)
        assert_close(again(x), twin(x))
    finally:
        dist.destroy_process_group()


def test_a_compiled_whole_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU())
    report = fastgan.accelerate(torch.compile(net, backend="eager"))
    assert not report.replaced and "compiled by torch.compile, which runs no other code" in str(report)
    with pytest.raises(TypeError, match="ScriptModule"):
        fastgan.accelerate(torch.jit.script(net))
