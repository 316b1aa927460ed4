import pytest
import torch
import torch.nn.functional as F
from golden import golden_cases, golden_model
from tolerances import assert_close

from fastgan.losses import adversarial, penalty
from fastgan.models import build, r3gan
from fastgan.ops import upfirdn2d

SMALL = {"resolution": 16, "latent": 6, "widths": (16, 8, 8), "groups": (4, 2, 2)}
NETWORKS = {"r3gan_generator": r3gan.Generator, "r3gan_discriminator": r3gan.Discriminator}
LAYERS = {
    "r3gan_ResidualBlock": lambda k: r3gan.ResidualBlock(
        k["InputChannels"], k["Cardinality"], k["ExpansionFactor"], k["KernelSize"], k["VarianceScalingParameter"]
    ),
    "r3gan_UpsampleLayer": lambda k: r3gan.Transition(*k.values(), up=True),
    "r3gan_DownsampleLayer": lambda k: r3gan.Transition(*k.values(), up=False),
    "r3gan_GenerativeBasis": lambda k: r3gan.GenerativeBasis(*k.values()),
    "r3gan_DiscriminativeBasis": lambda k: r3gan.DiscriminativeBasis(*k.values()),
    "r3gan_InterpolativeUpsampler": lambda k: r3gan.Resampler(k["Filter"], up=True),
    "r3gan_InterpolativeDownsampler": lambda k: r3gan.Resampler(k["Filter"], up=False),
}


def part(tensors, prefix):
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def relative(actual, expected, tolerance):
    assert_close(actual / expected.abs().max(), expected / expected.abs().max(), tolerance)


def nets(**changes):
    torch.manual_seed(0)
    config = r3gan.Config(**SMALL | changes)
    return r3gan.Generator(config), r3gan.Discriminator(config)


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["generator", "discriminator"])
@pytest.mark.parametrize("classes", ["cond", "uncond"])
def test_golden_models(classes, kind):
    meta, arrays = golden_model(f"r3gan_{kind}_{classes}")
    network = NETWORKS[meta["model"]].from_reference(**meta["constructor_kwargs"])
    network.load_state_dict(part(arrays, "sd/"), strict=True)
    assert [[name, list(p.shape)] for name, p in network.named_parameters()] == meta["params"]
    assert [[name, list(b.shape)] for name, b in network.named_buffers()] == meta["buffers"]
    for call in meta["calls"]:
        inputs = [arrays[name] for name in call["inputs"]]
        relative(network(*inputs), arrays[call["out"]], 2e-5)
    if "out/zero_centered_penalty" in arrays:
        images, *labels = inputs
        images.requires_grad_(True)
        relative(penalty.r1(network(images, *labels), images, gamma=2.0), arrays["out/zero_centered_penalty"], 2e-5)


@pytest.mark.parametrize("case, tensors", golden_cases("r3gan", *LAYERS))
def test_golden_layers(case, tensors):
    layer = LAYERS[case["op"]](case["kwargs"]).double()
    kernels = {name: f for name, f in tensors.items() if name.endswith("Kernel")}
    state = part(tensors, "sd/") or kernels
    for name, f in state.items():
        if name.endswith("Kernel"):  # made from the taps, not only loaded
            assert_close(layer.get_buffer(name).float(), f.float(), 1e-7)
    layer.load_state_dict(state, strict=True)
    x, gy = (tensors[name].requires_grad_() for name in ("x", "gy"))
    y = layer(x)
    (gx,) = torch.autograd.grad(y, x, gy, create_graph=True)
    assert_close(y, tensors["y"], 1e-7)
    assert_close(gx, tensors["gx"], 1e-7)
    second = torch.autograd.grad(gx, (x, gy), tensors["v"], allow_unused=True, materialize_grads=True)
    assert_close(second[0], tensors["ds_x"], 1e-7)
    assert_close(second[1], tensors["ds_gy"], 1e-7)


@pytest.mark.parametrize("case, tensors", golden_cases("r3gan", "r3gan_InplaceUpsampler", "r3gan_InplaceDownsampler"))
def test_golden_inplace_resamplers(case, tensors):
    """No network uses them: pixels moved to channels and back, and a filter of `upfirdn2d` at the same size."""
    half = tensors["Kernel"].shape[0] // 2
    x = tensors["x"]
    if case["op"] == "r3gan_InplaceUpsampler":
        y = upfirdn2d(F.pixel_shuffle(x, 2), tensors["Kernel"], padding=half)
    else:
        y = F.pixel_unshuffle(upfirdn2d(x, tensors["Kernel"], padding=half), 2)
    assert_close(y, tensors["y"], 1e-7)


def golden_nets(tensors):
    """The networks of a golden training step, their sizes read off the stored weights."""
    g, d = part(tensors, "G/"), part(tensors, "D/")
    classes = d["EmbeddingLayer.weight"].shape if "EmbeddingLayer.weight" in d else (0, 0)
    block = "MainLayers.{}.Layers.{}.LinearLayer2.Layer.weight"
    first, last = d[block.format(1, 0)], d[block.format(0, 0)]
    shape = {
        "resolution": 8,
        "widths": (first.shape[0] // 2, last.shape[0] // 2),
        "groups": tuple(w.shape[0] // w.shape[1] for w in (first, last)),
        "num_classes": classes[1],
    }
    d_net = r3gan.Discriminator(r3gan.Config(**shape, embedding=classes[0])).double()
    d_net.load_state_dict(d, strict=True)
    if not g:
        return None, d_net
    embedding = g["EmbeddingLayer.weight"].shape[0] if classes[1] else 0
    g_net = r3gan.Generator(r3gan.Config(**shape, latent=tensors["z"].shape[1], embedding=embedding)).double()
    g_net.load_state_dict(g, strict=True)
    return g_net, d_net


def check_gradients(network, tensors, prefix):
    expected = part(tensors, prefix)
    assert expected.keys() == dict(network.named_parameters()).keys()
    for name, parameter in network.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert_close(gradient, expected[name], 1e-7)


@pytest.mark.parametrize("case, tensors", golden_cases("r3gan", "r3gan_generator_step"))
def test_golden_generator_step(case, tensors):
    g, d = golden_nets(tensors)
    labels = [tensors["c"]] if "c" in tensors else []
    fake = g(tensors["z"], *labels)
    loss = adversarial.rpgan.g_loss(d(tensors["real"], *labels), d(fake, *labels))
    assert_close(fake, tensors["fake"], 1e-7)
    assert_close(loss, tensors["AdversarialLoss"], 1e-7)
    (case["kwargs"]["Scale"] * loss.mean()).backward()
    check_gradients(g, tensors, "gradG/")


@pytest.mark.parametrize("case, tensors", golden_cases("r3gan", "r3gan_discriminator_step"))
def test_golden_discriminator_step(case, tensors):
    g, d = golden_nets(tensors)
    labels = [tensors["c"]] if "c" in tensors else []
    fake = g(tensors["z"], *labels).detach().requires_grad_()
    real = tensors["real"].requires_grad_()
    logits = d(real, *labels), d(fake, *labels)
    loss = adversarial.rpgan.d_loss(*logits)
    assert_close(loss, tensors["AdversarialLoss"], 1e-7)
    r1, r2 = penalty.r1_r2(logits[0], real, logits[1], fake, gamma=2.0)
    assert_close(r1, tensors["R1Penalty"], 1e-7)
    assert_close(r2, tensors["R2Penalty"], 1e-7)
    (case["kwargs"]["Scale"] * (loss + case["kwargs"]["Gamma"] / 2 * (r1 + r2)).mean()).backward()
    check_gradients(d, tensors, "gradD/")


@pytest.mark.parametrize("case, tensors", golden_cases("r3gan", "r3gan_zero_centered_gradient_penalty"))
def test_golden_zero_centered_penalty(case, tensors):
    _, d = golden_nets(tensors)
    real = tensors["real"].requires_grad_()
    labels = [tensors["c"]] if "c" in tensors else []
    value = penalty.r1(d(real, *labels), real, gamma=2.0)
    assert_close(value, tensors["penalty"], 1e-7)
    value.sum().backward()
    check_gradients(d, tensors, "gradD_of_sum/")


@pytest.mark.parametrize("resolution", [4, 8, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size(resolution, channels):
    g, d = nets(resolution=resolution, channels=channels, widths=8, groups=2)
    images = g(torch.randn(2, 6))
    assert images.shape == (2, channels, resolution, resolution)
    assert d(images).shape == (2,)


def test_blocks_start_as_the_identity_and_gradients_reach_them():
    g, _ = nets()
    block = g.MainLayers[1].Layers[1]
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(block(x), x)
    g(torch.randn(2, 6)).square().sum().backward()
    assert block.LinearLayer3.Layer.weight.grad.abs().max() > 0


def test_initial_weights_have_the_published_deviations():
    torch.manual_seed(0)
    config = r3gan.Config(resolution=8, widths=64, groups=4, blocks=(1, 2), num_classes=200, embedding=100)
    d = r3gan.Discriminator(config)
    gain = (2 / 1.04) ** 0.5 * 3**-0.25
    expected = {
        "ExtractionLayer.Layer.weight": 3**-0.5,
        "MainLayers.0.Layers.0.LinearLayer1.Layer.weight": gain * 64**-0.5,
        "MainLayers.0.Layers.1.LinearLayer2.Layer.weight": gain * (32 * 9) ** -0.5,
        "MainLayers.0.Layers.1.LinearLayer3.Layer.weight": 0.0,
        "MainLayers.1.Layers.1.Basis.weight": 0.25,
        "MainLayers.1.Layers.1.LinearLayer.weight": 64**-0.5,
        "EmbeddingLayer.weight": 200**-0.5 * 100**-0.5,
    }
    for name, deviation in expected.items():
        assert d.get_parameter(name).std().item() == pytest.approx(deviation, rel=0.15)


def test_labels_are_classes_or_weights():
    g, d = nets(num_classes=3, embedding=5)
    labels = torch.tensor([2, 0])
    z, images = torch.randn(2, 6), torch.randn(2, 3, 16, 16)
    one_hot = F.one_hot(labels, 3).float()
    torch.testing.assert_close(g(z, labels), g(z, one_hot))
    torch.testing.assert_close(d(images, labels), d(images, one_hot))
    assert (g(z, labels) - g(z, labels.flip(0))).abs().max() > 1e-3
    with pytest.raises(ValueError, match="class-conditional, and no labels were given"):
        g(z)


@pytest.mark.parametrize("stages", [1, 3])
def test_bf16_stages_run_in_bfloat16_and_stay_close(stages):
    exact = nets()
    mixed = nets(bf16_stages=stages)
    for a, b in zip(exact, mixed, strict=True):
        for name, p in a.named_parameters():
            if name.endswith("LinearLayer3.Layer.weight"):
                torch.nn.init.normal_(p, std=0.2)
        b.load_state_dict(a.state_dict())
    seen = []
    for stage in mixed[0].MainLayers:
        stage.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    z = torch.randn(4, 6)
    images, expected = mixed[0](z), exact[0](z)
    assert [dtype == torch.bfloat16 for dtype in seen] == [s >= 3 - stages for s in range(3)]
    assert images.dtype == torch.float32
    assert 0 < (images - expected).abs().max() < 0.05 * expected.abs().max()
    logits = mixed[1](expected)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact[1](expected), atol=0.05 * logits.abs().max().item(), rtol=0)
    logits.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in mixed[1].parameters())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"resolution": 24}, "resolution is 24, expected a power of two"),
        ({"widths": (8, 8)}, r"widths is \(8, 8\), expected a positive number or 3 of them"),
        ({"groups": 5}, "5 groups do not divide 16 x 2 channels"),
        ({"kernel": 4}, "kernel is 4, expected an odd number"),
        ({"bf16_stages": 4}, "bf16_stages is 4, expected 0 to 3"),
    ],
)
def test_wrong_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        r3gan.Config(**SMALL | changes)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="shrink to 8x8, expected 4x4"):
        nets()[1](torch.randn(1, 3, 32, 32))


def test_build_by_name():
    assert isinstance(build("r3gan.discriminator", resolution=8, widths=16), r3gan.Discriminator)


PUBLISHED = dict(WidthPerStage=[16, 8, 4], CardinalityPerStage=[4, 2, 1], BlocksPerStage=[1, 1, 1], ExpansionFactor=2)


def test_stages_in_half_precision_by_the_published_argument():
    """Numbers of stages, negative ones from the end; the generator's last and the discriminator's first are the largest."""
    for stages, count in (([], 0), ([-1], 1), ([2], 1), ([-1, -2], 2), ([0, 1, 2], 3)):
        made = r3gan.Generator.from_reference(NoiseDimension=6, **PUBLISHED, FP16Stages=stages)
        assert [stage.bf16 for stage in made.MainLayers] == [False] * (3 - count) + [True] * count
    mirrored = {name: value[::-1] if isinstance(value, list) else value for name, value in PUBLISHED.items()}
    made = r3gan.Discriminator.from_reference(**mirrored, FP16Stages=[0, 1])
    assert [stage.bf16 for stage in made.MainLayers] == [True, True, False]
    for stages in ([0], [1], [5], [-4], [-1, 2]):
        with pytest.raises(ValueError, match="FP16Stages"):
            r3gan.Generator.from_reference(**PUBLISHED, FP16Stages=stages)
