"""Rounding: the float32 kernels, at the sizes of networks, against float64, beside torch's own float32. None may have more than
twice its error, at most or on average: else a leaky ReLU near its kink changes sides more often than with torch's own. Of several
ways that torch has to a result, the largest error counts: the routine depends on batch, threads and machine (oneDNN on AVX2 has
three times the error for two samples of 256x4x4 as for one sample at a time)."""

import contextlib
import functools

import pytest
import torch
import torch.nn.functional as F
from cpu_levels import LEVELS
from device import DEVICE

from fastgan.models.stylegan2 import Discriminator
from fastgan.ops import _library, conv2d, conv_forms, conv_transpose2d, filtered_lrelu, modulated_conv2d, setup_filter
from fastgan.ops.upfirdn2d import upfirdn2d

pytestmark = pytest.mark.skipif(DEVICE.type != "cpu", reason="the kernels of the CPU")


def features(*shape):
    return F.leaky_relu(torch.randn(shape), 0.2) * 2**0.5


def smooth(*shape):
    """What a low-pass filter leaves: neighbours alike, and a mean."""
    return F.avg_pool2d(features(*shape), 5, 1, 2)


def derivatives(f, inputs, weigh, orders):
    """y, its gradients and, of two orders, those of a penalty on the first of them."""
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    y = f(*inputs)
    found = [y, *torch.autograd.grad(y, inputs, weigh.to(y), create_graph=orders == 2)]
    if orders == 2:
        found += torch.autograd.grad(found[1].square().sum(), inputs[1:])
    return [t.detach() for t in found]


def compare(cpu_level, f, torchs, inputs, orders=1, layouts=(torch.contiguous_format, torch.channels_last)):
    """f at every level against each of `torchs`; orders 0: nothing is recorded."""
    weigh = torch.randn_like(torchs[0](*inputs))

    def run(f, inputs):
        return [f(*inputs)] if orders == 0 else derivatives(f, inputs, weigh, orders)

    wanted = run(torchs[0], [t.double() for t in inputs])

    def errors(found):
        """Of each tensor its root mean square error and its largest."""
        differences = [a.double() - w for a, w in zip(found, wanted, strict=True)]
        return torch.stack([torch.stack([e.square().mean().sqrt(), e.abs().max()]) for e in differences])

    for layout in layouts:
        inputs = [inputs[0].contiguous(memory_format=layout), *inputs[1:]]
        theirs = torch.stack([errors(run(way, inputs)) for way in torchs]).amax(0)
        for level in LEVELS:
            cpu_level(level)
            ours = errors(run(f, inputs))
            assert (ours <= 2 * theirs).all(), (
                f"{level}, {layout}: rms and max {ours.tolist()}, torch's {theirs.tolist()}"
            )


CONVOLUTIONS = {  # its form, and that of its gradient by x; function; x, weight; options
    "64 to 64 at 64": ("conv3x3", "", conv2d, features(1, 64, 64, 64), (64, 64, 3, 3), dict(padding=1)),
    "128 to 128 at 32": ("conv3x3", "", conv2d, features(1, 128, 32, 32), (128, 128, 3, 3), dict(padding=1)),
    "256 to 256 at 16, smooth": ("conv3x3", "", conv2d, smooth(1, 256, 16, 16), (256, 256, 3, 3), dict(padding=1)),
    "512 to 512 at 8, ReLU": ("conv3x3", "", conv2d, features(4, 512, 8, 8).relu(), (512, 512, 3, 3), dict(padding=1)),
    "512 to 128, transposed": ("conv3x3", "", conv_transpose2d, features(1, 512, 16, 16), (512, 128, 3, 3), {}),
    "7x7 to an image": ("columns", "", conv2d, features(1, 64, 64, 64), (3, 64, 7, 7), dict(padding=3)),
    "stride 2 to an image": ("fold", "", conv_transpose2d, features(1, 512, 32, 32), (512, 3, 4, 4), dict(stride=2, padding=1)),
    "stride 3 to an image": ("fold", "", conv_transpose2d, features(1, 512, 24, 24), (512, 3, 4, 5), dict(stride=3)),
    "4x4 to 8x8": ("rows", "", conv_transpose2d, features(4, 512, 4, 4), (512, 128, 4, 4), dict(stride=2, padding=1)),
    "from an image": ("", "fold", conv2d, features(2, 3, 64, 64), (512, 3, 4, 4), dict(stride=2, padding=1)),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(cpu_level, case, monkeypatch):
    form, form_by_x, f, x, shape, options = CONVOLUTIONS[case]
    monkeypatch.setattr(conv_forms, "is_fast", lambda op: _library.availability(op, "cpp").loaded)  # portable too
    weight = torch.randn(shape) * (shape[0 if f is conv_transpose2d else 1] * shape[2] * shape[3]) ** -0.5
    if form == "rows":
        weight = weight.contiguous(memory_format=torch.channels_last)
    taken, choose = set(), conv_forms.choose
    monkeypatch.setattr(conv_forms, "choose", lambda *a: taken.add(getattr(choose(*a), "name", "")) or choose(*a))
    torchs = F.conv2d if f is conv2d else F.conv_transpose2d
    f, torchs = functools.partial(f, **options), functools.partial(torchs, **options)
    compare(cpu_level, f, [torchs], (x, weight), orders=2 if x.shape[1] < 256 else 1)
    assert {form, form_by_x} - {""} <= taken


FIR = {  # x, filter, options
    "blur": ((2, 64, 32, 32), [1, 3, 3, 1], dict(padding=(2, 1))),
    "up": ((2, 64, 16, 16), [1, 3, 3, 1], dict(up=2, padding=(2, 1), gain=4)),
    "down": ((2, 64, 32, 32), [1, 3, 3, 1], dict(down=2, padding=1)),
    "image": ((2, 3, 64, 64), [1, 3, 3, 1], dict(up=2, padding=(2, 1), gain=4)),
    "12 taps": ((1, 40, 36, 36), list(range(1, 13)), dict(up=2, padding=(6, 5), gain=4)),
    "round": ((1, 40, 36, 36), [[1, 2, 1], [2, 5, 2], [1, 2, 1.5]], dict(down=2, padding=1)),
    "4 up": ((1, 40, 16, 16), list(range(1, 25)), dict(up=4, padding=(13, 10), gain=16)),
}


@pytest.mark.parametrize("case", FIR)
def test_fir(cpu_level, case):
    shape, taps, options = FIR[case]
    f = functools.partial(upfirdn2d, **options)
    compare(cpu_level, f, [functools.partial(f, impl="reference")], (features(*shape), setup_filter(taps)), orders=2)


LRELU = {  # x, taps up and down, options
    "2 and 2": ((1, 32, 20, 20), 12, 12, dict(up=2, down=2, padding=(11, 10, 11, 10), clamp=256)),
    "4 and 2": ((1, 16, 20, 20), 24, 12, dict(up=4, down=2, padding=(16, 14, 16, 14))),
    "1 and 1": ((1, 32, 20, 20), 1, 1, {}),
}


@pytest.mark.parametrize("case", LRELU)
def test_filtered_lrelu(cpu_level, case):
    shape, *taps, options = LRELU[case]
    filters = [h / h.sum() for h in (torch.hann_window(n + 2, periodic=False)[1:-1] for n in taps)]

    def f(x, impl="auto"):
        return filtered_lrelu(x, *(h.to(x.dtype) for h in filters), **options, impl=impl)

    compare(cpu_level, f, [functools.partial(f, impl="reference")], (torch.randn(shape),))


MODULATED = {  # x, weight, options, orders
    "shared": ((2, 256, 16, 16), (256, 256, 3, 3), dict(padding=1), 1),
    "shared, few pixels": ((2, 256, 4, 4), (128, 256, 3, 3), dict(padding=1), 1),
    "up": ((2, 128, 16, 16), (64, 128, 3, 3), dict(up=2, padding=1), 1),
    "product": ((2, 128, 32, 32), (3, 128, 1, 1), dict(demodulate=False), 2),
    "grouped": ((1, 32, 64, 64), (32, 32, 3, 3), dict(padding=1), 0),
}


@pytest.mark.parametrize("case", MODULATED)
def test_modulated_conv2d(cpu_level, case):
    shape, weight, options, orders = MODULATED[case]
    taps = setup_filter([1, 3, 3, 1])

    def f(x, w, styles):
        return modulated_conv2d(x, w, styles, resample_filter=taps.to(x.dtype), **options)

    def convolve(x, w):
        """A batch with the weights that all of it shares."""
        if "up" not in options:
            return F.conv2d(x, w, padding=options.get("padding", 0))
        y = F.conv_transpose2d(x, w.transpose(0, 1).flip((2, 3)), stride=2)
        h = 4 * taps.to(x.dtype).expand(y.shape[1], 1, 4, 4)
        return F.conv2d(F.pad(y, [1] * 4), h, groups=y.shape[1])

    def demodulation(w):
        demodulate = options.get("demodulate", True)
        return (w.square().sum((2, 3, 4)) + 1e-8).rsqrt() if demodulate else w.new_ones(w.shape[:2])

    def per_sample(x, w, styles):
        """The definition: weights of its own for every sample."""
        w = w[None] * styles[:, None, :, None, None]
        w = w * demodulation(w)[:, :, None, None, None]
        return torch.cat([convolve(*sample) for sample in zip(x.split(1), w, strict=True)])

    def shared(x, w, styles):
        d = demodulation(w[None] * styles[:, None, :, None, None])
        return convolve(x * styles[:, :, None, None], w) * d[:, :, None, None]

    def product(x, w, styles):
        """Of 1x1 weights without demodulation."""
        return (w.flatten(1) * styles[:, None] @ x.flatten(2)).unflatten(2, x.shape[2:])

    ways = [per_sample, shared, product] if case == "product" else [per_sample, shared]
    inputs = (features(*shape), torch.randn(weight), 1 + 0.3 * torch.randn(shape[:2]))
    compare(cpu_level, f, ways, inputs, orders, [torch.contiguous_format])


@contextlib.contextmanager
def torchs_own(monkeypatch):
    """Within, every op is its reference, every convolution torch's."""
    with monkeypatch.context() as patch:
        patch.setattr(_library, "select", lambda name, impl, x: _library._STATE.ops[name].reference)
        patch.setattr(conv_forms, "choose", lambda *_: None)
        yield


@torch.no_grad()
def sides(network, images):
    """On which side of its kink each leaky ReLU is."""
    found = []
    layers = [m for m in network.modules() if getattr(m, "act", None) == "lrelu"]
    hooks = [m.register_forward_hook(lambda m, i, y: found.append(y > 0)) for m in layers]
    network(images)
    for hook in hooks:
        hook.remove()
    return torch.cat([t.flatten() for t in found])


@pytest.mark.slow
def test_sides_of_leaky_relus_change_no_more_often_than_torchs(monkeypatch):
    """In a discriminator as wide as for photographs (512 channels), over 20 seeds, against float64."""
    ours = theirs = 0
    for seed in range(20):
        torch.manual_seed(seed)
        network = Discriminator(Discriminator.Config(resolution=64, num_fp16_res=0))
        images = torch.randn(1, 3, 64, 64)
        found = sides(network, images)
        with torchs_own(monkeypatch):
            torchs = sides(network, images)
        wanted = sides(network.double(), images.double())
        assert len(wanted) > 4_000_000
        ours, theirs = ours + (found != wanted).sum().item(), theirs + (torchs != wanted).sum().item()
    assert ours <= theirs
