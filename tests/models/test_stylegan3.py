import math

import pytest
import torch
from exported import check_export
from golden import golden_cases
from scipy import signal
from stylegan_golden import build, check_calls, check_path_length, close
from tolerances import assert_close

from fastgan import models
from fastgan.models import stylegan3
from fastgan.models.stylegan3 import Config, Generator, SynthesisInput, lowpass_filter

SMALL = dict(resolution=16, channel_base=128, channel_max=8, z_dim=6, w_dim=5, num_layers=4, margin_size=4)


def generator(**options):
    torch.manual_seed(0)
    network = Generator(Config(**SMALL | options))
    torch.nn.init.normal_(network.synthesis.input.affine.weight, std=0.3)
    return network


# Several activations lie within rounding of a kink: in float64 the sides depend on w alone, not on the kernels' rounding.
NUDGES = {
    "sg3t_generator": (0.0, 0),
    "sg3r_generator": (3e-7, 130),
    "sg3t_generator_cond_6layers": (0.0, 0),
}


@pytest.mark.golden
@pytest.mark.parametrize("name", NUDGES)
def test_golden_generator(name):
    check_calls(*build(Generator, name))


@pytest.mark.golden
@pytest.mark.parametrize("name", NUDGES)
def test_golden_path_length(name):
    check_path_length(*build(Generator, name), NUDGES[name], torch.float64)


@pytest.mark.parametrize(("case", "tensors"), golden_cases("stylegan_misc", "sg3_design_lowpass_filter"))
def test_golden_filter(case, tensors):
    k = case["kwargs"]
    found = lowpass_filter(k["numtaps"], k["cutoff"], k["width"], k["fs"], k["radial"])
    if case["returns_none"]:
        assert found is None
    else:
        assert_close(found, tensors["y"], 1e-7)


@pytest.mark.parametrize(("case", "tensors"), golden_cases("stylegan_misc", "sg3_schedule"))
def test_golden_schedule(case, tensors):
    options = dict(case["kwargs"])
    reference = Generator.from_reference(
        8, 0, options.pop("w_dim"), options.pop("img_resolution"), options.pop("img_channels"), **options
    )
    synthesis, grids = reference.synthesis, reference.config.schedule()
    assert synthesis.layer_names == [layer["name"] for layer in case["layers"]]
    for i, expected in enumerate(case["layers"]):
        layer, before, after = getattr(synthesis, expected["name"]), grids[max(i - 1, 0)], grids[i]
        assert [before.size] * 2 == list(expected["in_size"]) and [after.size] * 2 == list(expected["out_size"])
        assert (before.channels, after.channels) == (expected["in_channels"], expected["out_channels"])
        for grid, side in ((before, "in"), (after, "out")):
            assert grid.rate == expected[f"{side}_sampling_rate"]
            assert math.isclose(grid.cutoff, expected[f"{side}_cutoff"], rel_tol=1e-12)
            assert math.isclose(grid.half_width, expected[f"{side}_half_width"], rel_tol=1e-12)
        assert (layer.up, layer.down) == (expected["up_factor"], expected["down_factor"])
        assert layer.padding == expected["padding"] and layer.kernel == expected["conv_kernel"]
        assert layer.half == expected["use_fp16"] and layer.torgb == expected["is_torgb"]
        for name in ("up_filter", "down_filter"):
            if f"{name}_{i}" in tensors:
                assert_close(getattr(layer, name), tensors[f"{name}_{i}"], 1e-7)
            else:
                assert getattr(layer, name) is None


@pytest.mark.parametrize(("case", "tensors"), golden_cases("stylegan_misc", "sg3_synthesis_input"))
def test_golden_input(case, tensors):
    k = case["kwargs"]
    layer = SynthesisInput(k["w_dim"], k["channels"], tuple(k["size"]), k["sampling_rate"], k["bandwidth"])
    layer.load_state_dict({n.removeprefix("sd/"): t for n, t in tensors.items() if n.startswith("sd/")})
    w = tensors["w"].requires_grad_()
    y = layer(w)
    close(y, tensors["y"])
    close(torch.autograd.grad(y, w, tensors["gy"])[0], tensors["gw"], 1e-4)


@pytest.mark.parametrize(
    ("taps", "cutoff", "width", "rate"), [(12, 2, 2.3, 16), (24, 7, 4, 64), (6, 1, 9, 16), (5, 1, 2, 8)]
)
def test_filter_is_the_kaiser_window_design(taps, cutoff, width, rate):
    expected = torch.tensor(signal.firwin(taps, cutoff, width=width, fs=rate)).float()
    assert_close(lowpass_filter(taps, cutoff, width, rate), expected, 1e-7)
    radial = lowpass_filter(2 * taps, cutoff, width, rate, radial=True)
    assert torch.equal(radial, radial.t()) and torch.equal(radial, radial.flip(0))
    assert abs(radial.sum() - 1) < 1e-5


@pytest.mark.parametrize("options", [{}, stylegan3.R | dict(channel_base=128, channel_max=8), dict(num_classes=2)])
def test_sizes(options):
    g = generator(**options)
    c = torch.eye(2) if options.get("num_classes") else None
    assert g(torch.randn(2, 6), c).shape == (2, 3, 16, 16)
    radial = [n for n, b in g.named_buffers() if n.endswith("down_filter") and b.dim() == 2]
    assert len(radial) == (2 if "use_radial_filters" in options else 0)


def test_initial_frequencies_fill_the_disc():
    torch.manual_seed(0)
    layer = SynthesisInput(4, 4000, (8, 8), 16.0, 3.0)
    share = layer.freqs.norm(dim=1) / 3.0
    assert share.max() <= 1
    assert abs((share.square()).mean() - 0.5) < 0.02  # uniform over the area: r^2 is uniform on [0, 1]
    assert layer.phases.abs().max() <= 0.5
    images = layer(torch.randn(2, 4))
    assert 0.6 < images.std() < 0.8  # mean square of a sine, a half


def test_a_translated_input_gives_the_translated_image():
    """The point of the network: moving the sinusoids by whole pixels moves the image by as many."""
    torch.manual_seed(0)
    g = Generator(Config(resolution=32, channel_base=512, channel_max=16, z_dim=6, w_dim=5)).double()
    z = torch.randn(2, 6, dtype=torch.float64)
    with torch.no_grad():
        still = g(z)
        for axis, pixels in ((0, 4), (1, 2)):
            g.synthesis.input.transform.copy_(torch.eye(3))
            g.synthesis.input.transform[axis, 2] = pixels / 32
            moved = g(z)
            dims = 3 - axis
            a = still.narrow(dims, pixels, 32 - pixels)
            b = moved.narrow(dims, 0, 32 - pixels)
            error = (a - b).square().mean() / still.square().mean()
            assert error < 1e-2, error
            assert (still - moved).square().mean() / still.square().mean() > 20 * error


def test_magnitudes_are_tracked_before_they_are_used():
    g, z = generator(magnitude_ema_beta=0.5), torch.randn(8, 6)
    first = g.synthesis.layer_names[0]
    before = g(z)
    x = g.synthesis.input(g.mapping(z)[:, 0])
    image = g(z, update_emas=True)
    layer = getattr(g.synthesis, first)
    assert_close(layer.magnitude_ema, 0.5 + 0.5 * x.square().mean().detach(), 1e-5)
    assert not torch.equal(before, image) and torch.equal(image, g(z))


def test_bfloat16_at_the_highest_resolutions():
    g, z = generator(num_fp16_res=1, precision="bfloat16"), torch.randn(2, 6)
    dtypes = []
    for name in g.synthesis.layer_names:
        getattr(g.synthesis, name).register_forward_hook(lambda m, i, o: dtypes.append((m.half, o.dtype)))
    image = g(z)
    assert image.dtype == torch.float32 and {half for half, _ in dtypes} >= {True}
    assert all(dtype == (torch.bfloat16 if half else torch.float32) for half, dtype in dtypes)
    assert_close(image, g(z, force_fp32=True), 5e-2)


CONFIGURATIONS = {"T": {}, "R": stylegan3.R | dict(channel_base=128, channel_max=8)}


@pytest.mark.slow
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_compiled_whole(configuration):
    torch._dynamo.reset()
    g, z = generator(**CONFIGURATIONS[configuration]), torch.randn(2, 6)
    compiled = torch.compile(g, fullgraph=True, backend="aot_eager")
    image = compiled(z)
    assert_close(image, g(z))
    p = g.synthesis.input.weight
    assert_close(torch.autograd.grad(image.sum(), p)[0], torch.autograd.grad(g(z).sum(), p)[0], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_export(configuration):
    check_export(generator(**CONFIGURATIONS[configuration]), torch.randn(2, 6))


def test_build():
    g = models.build("stylegan3", resolution=32, **stylegan3.R)
    assert g.config.conv_kernel == 1 and g.synthesis.L0_36_1024.weight.shape == (1024, 1024, 1, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(resolution=48), "resolution is 48"),
        (lambda: Config(num_critical=14), "num_critical is 14, expected 1 to 13"),
        (lambda: Config(first_cutoff=20.0, resolution=32), "first_cutoff is 20.0"),
        (lambda: generator().synthesis(torch.randn(1, 3, 5)), r"ws has shape \(1, 3, 5\); expected \(N, 6, 5\)"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_four_pixels():
    g = generator(resolution=4)
    assert g(torch.randn(2, 6)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("name", ["filter_size", "num_layers", "lrelu_upsampling", "margin_size", "conv_kernel"])
def test_sizes_have_limits(name):
    with pytest.raises(ValueError, match=f"{name} is 1000000000"):
        Config(**{name: 10**9})


def test_sinusoids_are_where_they_are_under_autocast():
    """In 16 bits frequencies and places move them by several roundings, and nothing of them is band-limited any more."""
    sinusoids, w = generator().synthesis.input, torch.randn(2, 5)
    for given in (w, w.bfloat16()):  # as the mapping network makes it there
        expected = sinusoids(given.float())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(sinusoids(given), expected)
