import copy

import numpy as np
import pytest
import torch
from derivatives import derivatives
from exported import check_export
from golden import golden_cases
from stylegan_golden import build, check_calls, check_parameter_gradients, check_path_length, close
from tolerances import assert_close

from fastgan import models
from fastgan.models.stylegan2 import Config, Discriminator, DiscriminatorConfig, Generator
from fastgan.models.stylegan_layers import Conv2d, Mapping
from fastgan.nn import EqualLinear
from fastgan.ops import setup_filter

SMALL = dict(resolution=16, channel_base=128, channel_max=8)
SMALL_G = dict(**SMALL, z_dim=6, w_dim=5, mapping_layers=2)


def generator(**options):
    torch.manual_seed(0)
    network = Generator(Config(**SMALL_G | options))
    for name, p in network.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(p, 0.3)
    return network


def discriminator(**options):
    torch.manual_seed(0)
    return Discriminator(DiscriminatorConfig(**SMALL | options))


@pytest.mark.golden
@pytest.mark.parametrize("name", ["orig", "skip", "resnet", "skip_cond_clamp"])
def test_golden_generator(name):
    model, meta, arrays, c = build(Generator, f"sg2_generator_{name}")
    check_path_length(model, meta, arrays, c, noise_mode="const")
    check_calls(model, meta, arrays, c)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["orig", "skip", "resnet", "resnet_cond"])
def test_golden_discriminator(name):
    model, meta, arrays, c = build(Discriminator, f"sg2_discriminator_{name}")
    img = arrays["in/img"]
    for call in meta["calls"]:
        n = len(arrays[call["out"]])
        with torch.no_grad():
            close(model(img[:n], None if c is None else c[:n], force_fp32=True), arrays[call["out"]])
    x = img[:4].clone().requires_grad_()
    logits = model(x, None if c is None else c[:4], force_fp32=True)
    (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    close(g, arrays["out/r1_image_grad"], 1e-4)
    penalty = g.square().sum((1, 2, 3))
    close(penalty, arrays["out/r1_penalty"], 1e-4)
    check_parameter_gradients(model, 0.5 * penalty.mean(), meta["r1"]["param_grads"])


@pytest.mark.parametrize(("case", "tensors"), golden_cases("stylegan_misc", "fc_sg2", "fc_sg3", "conv2d_layer_sg2"))
def test_golden_layers(case, tensors):
    names = {"activation": "act", "conv_clamp": "clamp", "resample_filter": "taps"}
    options = {names.get(k, k): v for k, v in case["kwargs"].items() if k not in ("channels_last", "weight_init")}
    network = (Conv2d if case["op"] == "conv2d_layer_sg2" else EqualLinear)(**options).double()
    if "weight_init" in case["kwargs"] or "bias_init" in options:
        assert case["op"].startswith("fc")
    extra = {} if case["op"].startswith("fc") else {"gain": case["forward_gain"]}
    names = [n for n in ("x", "weight", "bias") if n in tensors]
    buffers = {n: b.to(tensors[n].dtype) for n, b in network.named_buffers() if n in tensors}
    assert all(torch.equal(b, tensors[n]) for n, b in buffers.items() if n == "resample_filter")

    def run(x, **state):
        return torch.func.functional_call(network, buffers | state, (x,), extra)

    found = derivatives(run, {n: tensors[n] for n in names}, tensors["gy"], tensors["v"], "x")
    for name in found:
        # The resampling filter is float32 by definition, with a gain of 4 that is exact.
        assert_close(found[name], tensors[name], 1e-10)


MAPPINGS = ["mapping_sg2", "mapping_truncation_sg2", "mapping_update_emas_sg2", "mapping_update_emas_sg3"]


@pytest.mark.parametrize(("case", "tensors"), golden_cases("stylegan_misc", *MAPPINGS))
def test_golden_mapping(case, tensors):
    options = dict(case["kwargs"])
    if case["op"].endswith("sg3"):
        options.setdefault("num_layers", 2)
    mapping = Mapping(**options)
    state = {n.removeprefix("sd/"): t for n, t in tensors.items() if n.startswith("sd/")}
    if "w_avg_before" in tensors:
        state["w_avg"] = tensors["w_avg_before"]
    mapping.load_state_dict(state, strict="w_avg" in state or mapping.num_ws is None)
    forward = case.get("forward_kwargs", {"update_emas": "w_avg_after" in tensors})
    with torch.no_grad():
        close(mapping(tensors.get("z"), tensors.get("c"), **forward), tensors["ws"])
    if "w_avg_after" in tensors:
        close(mapping.w_avg, tensors["w_avg_after"])


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_sizes_names_and_w_routing(architecture):
    g = generator(architecture=architecture, num_classes=3)
    z, c = torch.randn(2, 6), torch.eye(3)[:2]
    ws = g.mapping(z, c)
    assert ws.shape == (2, 6, 5) and g.num_ws == 6
    assert g(z, c, noise_mode="const").shape == (2, 3, 16, 16)
    # Every w matters, and the last one only through ToRGB.
    ws = ws.detach().requires_grad_()
    (grad,) = torch.autograd.grad(g.synthesis(ws, "const").square().sum(), ws)
    assert (grad.abs().sum((0, 2)) > 0).all()
    d = discriminator(architecture=architecture, num_classes=3, mapping_layers=2)
    assert d(torch.randn(4, 3, 16, 16), torch.eye(3)[[0, 1, 2, 0]]).shape == (4, 1)


def test_noise_modes():
    g, z = generator(), torch.randn(2, 6)
    assert torch.equal(g(z, noise_mode="const"), g(z, noise_mode="const"))
    assert not torch.equal(g(z), g(z))
    assert not torch.equal(g(z, noise_mode="const"), g(z, noise_mode="none"))
    silent = generator(use_noise=False)
    assert torch.equal(silent(z), silent(z)) and not any("noise" in name for name in silent.state_dict())


def test_activations_keep_their_scale_at_the_start():
    torch.manual_seed(0)
    g = Generator(Config(resolution=32, channel_base=1024, channel_max=64, z_dim=64, w_dim=64))
    d = Discriminator(DiscriminatorConfig(resolution=32, channel_base=1024, channel_max=64))
    with torch.no_grad():
        ws = g.mapping(torch.randn(64, 64))
        images = g.synthesis(ws)
        logits = d(torch.randn(64, 3, 32, 32))
    assert 0.5 < ws.std() < 1.5  # gain sqrt(2) of leaky ReLU keeps the second moment
    assert 0.3 < images.std() < 5
    assert 0.1 < logits.square().mean().sqrt() < 3


def test_truncation_moves_towards_the_mean_latent():
    g, z = generator(), torch.randn(64, 6)
    for _ in range(3):
        g(z, update_emas=True)
    mean = g.mapping.w_avg
    assert mean.abs().sum() > 0 and not mean.requires_grad
    assert torch.allclose(g.mapping(z, truncation_psi=0.0), mean.expand(64, 6, 5))
    cut = g.mapping(z, truncation_psi=0.0, truncation_cutoff=2)
    assert torch.allclose(cut[:, :2], mean.expand(64, 2, 5)) and torch.equal(cut[:, 2:], g.mapping(z)[:, 2:])


@pytest.mark.parametrize("channels_last", [False, True])
def test_bfloat16_at_the_highest_resolutions(channels_last):
    options = dict(num_fp16_res=1, precision="bfloat16", channels_last=channels_last)
    g, d = generator(**options), discriminator(**options)
    dtypes = {}
    for network in (g, d):
        for name, module in network.named_modules():
            if hasattr(module, "conv1"):
                module.conv1.register_forward_hook(lambda m, i, o, name=name: dtypes.__setitem__(name, o.dtype))
    z = torch.randn(4, 6)
    image = g(z, noise_mode="const")
    logits = d(image)
    half = [name for name, dtype in dtypes.items() if dtype == torch.bfloat16]
    assert half == ["synthesis.b16", "b16"] and image.dtype == logits.dtype == torch.float32
    full = g(z, noise_mode="const", force_fp32=True)
    assert not torch.equal(image, full)
    assert_close(image, full, 3e-2)
    assert_close(d(full), d(full, force_fp32=True), 3e-2)


def test_float16_stays_float32_on_the_cpu():
    with torch.device("cpu"):
        g, z = generator(num_fp16_res=4), torch.randn(2, 6)
    assert torch.equal(g(z, noise_mode="const"), g(z, noise_mode="const", force_fp32=True))


def test_float64_stays_float64_whatever_the_precision():
    g, z = generator(num_fp16_res=4, precision="bfloat16").double(), torch.randn(2, 6, dtype=torch.float64)
    assert torch.equal(g(z, noise_mode="const"), g(z, noise_mode="const", force_fp32=True))


def test_frozen_layers_are_buffers_with_the_same_names():
    d, frozen = discriminator(), discriminator(freeze_layers=4)
    assert list(d.state_dict()) == list(frozen.state_dict()) or set(d.state_dict()) == set(frozen.state_dict())
    missing = {n for n, _ in d.named_parameters()} - {n for n, _ in frozen.named_parameters()}
    assert {n.split(".")[1] for n in missing} == {"fromrgb", "conv0", "conv1", "skip"}
    assert all(n.startswith("b16.") for n in missing)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_compiled_whole(architecture):
    torch._dynamo.reset()
    g, d = (make(architecture=architecture, resolution=8) for make in (generator, discriminator))
    z = torch.randn(4, 6)
    image = torch.compile(g, fullgraph=True, backend="aot_eager")(z, noise_mode="const")
    assert_close(image, g(z, noise_mode="const"))
    logits = torch.compile(d, fullgraph=True, backend="aot_eager")(image)
    assert_close(logits, d(image))
    weight = d.b8.fromrgb.weight
    assert_close(torch.autograd.grad(logits.sum(), weight)[0], torch.autograd.grad(d(image).sum(), weight)[0], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_export(architecture):
    g = generator(architecture=architecture, num_classes=2, resolution=8)
    z, c = torch.randn(2, 6), torch.eye(2)
    g(z, c, update_emas=True)
    check_export(g, z, c, truncation_psi=0.7, noise_mode="const")


def test_build_and_from_reference_agree():
    torch.manual_seed(0)
    a = models.build("stylegan2", resolution=16, channel_base=128, channel_max=8, z_dim=6, w_dim=5)
    torch.manual_seed(0)
    b = Generator.from_reference(
        6, 0, 5, 16, 3, channel_base=128, channel_max=8, fused_modconv_default="inference_only"
    )
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    d = Discriminator.from_reference(
        2, 16, 3, channel_base=128, epilogue_kwargs={"mbstd_num_channels": 0}, block_kwargs={"freeze_layers": 1}
    )
    assert d.config.mbstd_num_channels == 0 and d.b16.fromrgb.weight.requires_grad is False
    assert copy.deepcopy(d)(torch.randn(2, 3, 16, 16), torch.eye(2)).shape == (2, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(resolution=24), "resolution is 24, expected a power of two"),
        (lambda: Config(architecture="u-net"), "architecture is 'u-net'"),
        (lambda: DiscriminatorConfig(channel_max=0), "channel_max is 0"),
        (lambda: Config(precision="float8"), "precision is 'float8'"),
        (lambda: generator()(torch.randn(2, 7)), r"z has shape \(2, 7\); expected \(N, 6\)"),
        (lambda: generator(num_classes=3)(torch.randn(2, 6)), "c has shape None"),
        (lambda: generator()(torch.randn(2, 6), noise_mode="loud"), "noise_mode is 'loud'"),
        (lambda: generator().synthesis(torch.randn(2, 5, 5)), "ws has shape"),
        (lambda: discriminator()(torch.randn(2, 3, 8, 8)), "img has shape"),
        (lambda: generator(w_avg_beta=None)(torch.randn(2, 6), truncation_psi=0.5), "running mean"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("taps", [(1, 2, 1), (1, 1), (1, 4, 6, 4, 1), (1,) * 9, (1,)])
def test_a_filter_is_told_to_layers_that_resample(taps):
    """As in the original, whose other layers keep the buffer of the default filter: so its state_dict loads."""
    kept, default = setup_filter(taps), setup_filter([1, 3, 3, 1])
    g = generator(architecture="resnet", resample_filter=taps)
    d = discriminator(architecture="resnet", resample_filter=taps)
    for network, resamples in ((g, ("conv0", "skip")), (d, ("conv1", "skip"))):
        for name, buffer in network.named_buffers():
            _, layer, last = ["", "", *name.split(".")][-3:]
            if last == "resample_filter":
                expected = kept if layer in resamples or (layer.startswith("b") and layer[1:].isdigit()) else default
                assert torch.equal(buffer, expected), name
    assert torch.isfinite(d(g(torch.randn(2, 6)))).all()


def test_four_pixels():
    """The least resolution: one block. A discriminator sees the image there only in architecture "skip"."""
    g = generator(resolution=4)
    assert g.num_ws == 2 and list(dict(g.synthesis.named_children())) == ["b4"]
    image = g(torch.randn(2, 6), noise_mode="const")
    assert image.shape == (2, 3, 4, 4)
    d = discriminator(resolution=4, architecture="skip")
    assert d(image).shape == (2, 1)
    c = DiscriminatorConfig(**SMALL | dict(resolution=4, architecture="skip", mbstd_num_channels=0))
    torch.manual_seed(0)
    alone = Discriminator(c)
    features = alone.b4.fc(alone.b4.conv(alone.b4.fromrgb(image)).flatten(1))
    torch.testing.assert_close(alone(image), alone.b4.out(features))
    for architecture in ("resnet", "orig"):
        with pytest.raises(ValueError, match="at resolution 4 only 'skip'"):
            discriminator(resolution=4, architecture=architecture)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(resolution=2), "resolution is 2, expected a power of two from 4"),
        (dict(resolution=2**14), "resolution is 16384"),
        (dict(resolution=16.0), "resolution is 16.0, expected a whole number"),
        (dict(resolution="16"), "resolution is '16', expected a whole number"),
        (dict(channels=True), "channels is True"),
        (dict(mapping_layers=0), "mapping_layers is 0"),
        (dict(mapping_layers=10**6), "mapping_layers is 1000000"),
        (dict(num_fp16_res=-1), "num_fp16_res is -1"),
        (dict(activation="rleu"), "activation is 'rleu', expected one of"),
        (dict(conv_clamp="1"), "conv_clamp is '1'"),
        (dict(resample_filter=()), "0 taps"),
        (dict(resample_filter=(1, "3")), "resample_filter"),
        (dict(num_classes=-1), "num_classes is -1"),
    ],
)
def test_options_of_wrong_type_or_range(change, message):
    for config in (Config, DiscriminatorConfig):
        with pytest.raises(ValueError, match=message):
            config(**change)


def test_numbers_of_numpy_and_lists_are_taken():
    config = Config(resolution=np.int64(16), resample_filter=[1, 2, 1], conv_clamp=np.float32(2.5))
    assert config.resample_filter == (1, 2, 1) and hash(config)
    assert config.width(16) == 512
