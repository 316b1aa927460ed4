"""Vocoders and their discriminators: published names, recorded numbers, forms of weight normalisation, streaming."""

import math
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import GOLDEN, golden_model
from stylegan_golden import check_gradient_norms, close
from tolerances import assert_close

from fastgan import models, nn
from fastgan.losses import vocoder as losses
from fastgan.losses.pitch import track_pitch
from fastgan.models import hifigan, source_filter, vocoder_constant_q, vocoder_discriminator
from fastgan.models.vocoder import stream
from fastgan.nn.weight_norm import fold_weight_norm, unfold_weight_norm

GENERATORS = {
    "hifigan_v1like_rb1": "hifigan",
    "hifigan_v3like_rb2": "hifigan",
    "bigvgan_rb1_snakebeta_log": "bigvgan",
    "bigvgan_rb2_snakebeta_log_notanh_nobias": "bigvgan",
}
SMALL = dict(bands=5, width=16, rates=(4, 2), up_kernels=(8, 4), kernels=(3, 5), dilations=((1, 3), (1, 2)))
NAMES = ("hifigan", "bigvgan")


def state(arrays: dict, prefix: str = "sd/") -> dict:
    return {n.removeprefix(prefix): t for n, t in arrays.items() if n.startswith(prefix)}


@pytest.mark.golden
@pytest.mark.parametrize("file", GENERATORS)
def test_golden_generator(file):
    meta, arrays = golden_model(file)
    network = models.network_class(GENERATORS[file]).from_reference(**meta["config"])
    assert sorted(n for n, _ in network.named_parameters()) == sorted(n for n, _ in meta["params"])
    network.load_state_dict(state(arrays), strict=True)
    mel = arrays["in/mel"].requires_grad_()
    y = network(mel)
    close(y, arrays["out/y"])
    s = (y * arrays["in/gy"]).sum()
    (gmel,) = torch.autograd.grad(s, mel, retain_graph=True)
    close(gmel, arrays["out/gmel"], 1e-4)
    check_gradient_norms(network, s, meta)
    fold_weight_norm(network)
    assert sorted(network.state_dict()) == sorted(n for n, _ in meta["folded"]["names"])
    close(network(mel), arrays["out/y"])


def recipe_state(network: torch.nn.Module, seed: int, stored: dict) -> dict:
    """Weights by the rule that AUDIO_SR.md's full-width networks were made with."""
    found = {}
    for name, value in sorted(network.state_dict().items()):
        r = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
        if name.endswith("weight_g"):
            value = torch.tensor(1.4 * (0.6 + 0.8 * r.random_sample(value.shape)))
        elif name in stored:
            value = stored[name]
        elif name.endswith(("weight_v", "weight_orig")):
            value = torch.tensor(0.3 * r.standard_normal(value.shape))
        elif name.endswith("bias"):
            value = torch.tensor(0.1 * r.standard_normal(value.shape))
        found[name] = value.float()
    return found


def check_discriminator(network, name, meta, arrays):
    y, y_hat = arrays["in/y"], arrays["in/y_hat"].clone().requires_grad_()
    real, real_maps = network(y)
    fake, fake_maps = network(y_hat)
    for i, (r, f) in enumerate(zip(real, fake, strict=True)):
        close(r, arrays[f"out/{name}.logits_real{i}"])
        close(f, arrays[f"out/{name}.logits_fake{i}"])
    expected = meta["losses"][name]
    g, matching = losses.sum_g(fake), losses.map_matching(real_maps, fake_maps)
    for value, key in ((losses.sum_d(real, fake), "d_loss"), (g, "g_loss"), (matching, "feature_matching")):
        assert abs(value.item() - expected[key]) <= 2e-5 * abs(expected[key]), key
    (gradient,) = torch.autograd.grad(g + matching, y_hat)
    close(gradient, arrays[f"out/{name}.g_yhat"], 1e-4)
    shapes = next(call["feature_map_shapes"] for call in meta["calls"] if call["call"].startswith(f"{name}("))
    assert [[list(m.shape) for m in maps] for maps in real_maps] == shapes


@pytest.mark.golden
@pytest.mark.parametrize(("name", "kind"), [("mpd", "Periods"), ("mrd", "Resolutions")])
def test_golden_bigvgan_discriminators(name, kind):
    meta, arrays = golden_model("bigvgan_mpd_mrd")
    network = getattr(vocoder_discriminator, kind).from_reference(**meta["config"])
    network.load_state_dict(state(arrays, f"sd/{name}."), strict=True)
    check_discriminator(network, name, meta, arrays)


@pytest.mark.golden
@pytest.mark.parametrize(("name", "kind"), [("mpd", "Periods"), ("msd", "Scales")])
def test_golden_hifigan_discriminators(name, kind):
    meta, arrays = golden_model("hifigan_mpd_msd_recipe")
    network = getattr(vocoder_discriminator, kind).from_reference().eval()
    network.load_state_dict(recipe_state(network, meta["seed"], state(arrays, f"sd/{name}.")), strict=True)
    check_discriminator(network, name, meta, arrays)
    if name == "msd":
        logits, _ = network.train()(arrays["in/y"])
        close(logits[0], arrays["out/msd.logits_real0_train_mode"])
        for key, value in network.named_buffers():
            if f"out/msd.after_train.{key}" in arrays:
                close(value, arrays[f"out/msd.after_train.{key}"])


@pytest.mark.golden
def test_golden_band_discriminator():
    meta, arrays = golden_model("bigvgan_mbd_recipe")
    network = vocoder_discriminator.Bands.from_reference(**meta["config"])
    network.load_state_dict(recipe_state(network, meta["seed"], {}), strict=True)
    check_discriminator(network, "mbd", meta, arrays)


@pytest.mark.golden
def test_golden_constant_q_discriminator():
    """Also the transform of a network of its own filters: those of low pass are within 1e-4 of the published ones."""
    meta, arrays = golden_model("bigvgan_cqtd")
    network = vocoder_constant_q.ConstantQs.from_reference(**meta["config"])
    (one,) = network.discriminators
    y, found = arrays["in/y"], arrays["out/cqt"].permute(0, 3, 2, 1)
    close(one.resample(y), arrays["out/resampled"])
    assert (one.cqt_transform(arrays["out/resampled"]) - found).abs().max() < 2e-3 * found.abs().max()
    network.load_state_dict(state(arrays), strict=True)
    close(one.cqt_transform(arrays["out/resampled"]), found)
    logits, maps = network(y)
    close(logits[0], arrays["out/logits_real0"])
    call = next(call for call in meta["calls"] if "feature_map_shapes" in call)
    assert [[list(m.shape) for m in some] for some in maps] == call["feature_map_shapes"]


def test_constant_q_hears_each_pitch_in_its_bin():
    transform = vocoder_constant_q.ConstantQ(48000, 256, 8, 12)
    t = torch.arange(24000, dtype=torch.float64) / 48000
    for bin_ in (30, 57, 95):
        x = (2 * torch.pi * vocoder_constant_q.LOWEST * 2 ** (bin_ / 12) * t).cos().float()
        level = transform(x[None, None]).square().sum(1)[0].sqrt()
        assert level.shape == (94, 96) and (level[40:50].argmax(1) == bin_).all()


@pytest.mark.golden
@pytest.mark.parametrize("call", [0, 1])
def test_golden_dac_period_discriminator(call):
    meta, arrays = golden_model("dac_mpd_recipe")
    row = meta["calls"][call]
    network = vocoder_discriminator.PeriodDiscriminator(row["period"], dac=True)
    assert sorted(network.state_dict()) == sorted(n for n, _ in meta["params"])
    network.load_state_dict(recipe_state(network, row["seed"], {}), strict=True)
    logits, maps = network(arrays["in/x"])
    close(logits, arrays[f"out/p{row['period']}.logits"])
    assert [list(m.shape) for m in maps] == row["feature_map_shapes"]


@pytest.mark.golden
def test_golden_encodec_discriminator():
    meta, arrays = golden_model("encodec_msstftd")
    network = vocoder_discriminator.Spectra.from_reference(**meta["constructor_kwargs"])
    assert [[n, list(p.shape)] for n, p in network.named_parameters()] == meta["params"]
    network.load_state_dict(state(arrays), strict=True)
    x = arrays["in/x"].requires_grad_()
    logits, maps = network(x)
    for i, found in enumerate(logits):
        close(found, arrays[f"out/logits{i}"])
    close(maps[0][0], arrays["out/fmap0_0"])
    close(maps[0][-1], arrays["out/fmap0_last"])
    s = sum(found.square().mean() for found in logits)
    (gx,) = torch.autograd.grad(s, x, retain_graph=True)
    close(gx, arrays["out/gx"], 1e-4)
    check_gradient_norms(network, s, meta)


@pytest.mark.parametrize(
    ("config", "count"), [(hifigan.V1, 13_936_130), (hifigan.V2, 928_514), (hifigan.V3, 1_464_322)]
)
def test_parameters_of_the_published_generators(config, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in hifigan.Generator(config).parameters()) == count


def test_parameters_of_bigvgan_base():
    with torch.device("meta"):
        assert sum(p.numel() for p in models.build("bigvgan").parameters()) == 13_953_474


@pytest.mark.parametrize(("kind", "count"), [("Periods", 41_105_770), ("Scales", 29_618_821)])
def test_parameters_of_the_published_discriminators(kind, count):
    with torch.device("meta"):
        network = getattr(vocoder_discriminator, kind).from_reference()
    # torch's spectral normalisation keeps its vectors, and the published count, outside the parameters.
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("block", [1, 2])
def test_hifigan_against_plain_torch(block):
    network = models.build("hifigan", block=block, **SMALL).double()
    mel = torch.randn(2, 5, 7, dtype=torch.float64)

    def plain(mel):
        def conv(m, x, slope, **options):
            w = m.weight_g * m.weight_v / m.weight_v.flatten(1).norm(dim=1)[:, None, None]
            x = F.leaky_relu(x, slope)
            if isinstance(m, torch.nn.ConvTranspose1d):
                return F.conv_transpose1d(x, w, m.bias, **options)
            d = m.dilation[0]
            return F.conv1d(x, w, m.bias, padding=d * (w.shape[2] - 1) // 2, dilation=d)

        x = conv(network.conv_pre, mel, 1)
        for i, rate in enumerate((4, 2)):
            x = conv(network.ups[i], x, 0.1, stride=rate, padding=rate // 2)
            outs = []
            for b in network.resblocks[2 * i : 2 * i + 2]:
                y = x
                for q in range(2):
                    h = conv((b.convs1 if block == 1 else b.convs)[q], y, 0.1)
                    y = y + (conv(b.convs2[q], h, 0.1) if block == 1 else h)
                outs.append(y)
            x = sum(outs) / 2
        return conv(network.conv_post, x, 0.01).tanh()

    assert_close(network(mel), plain(mel))


@pytest.mark.parametrize("name", NAMES)
def test_all_three_forms_of_the_weights_load(name):
    network = models.build(name, **SMALL)
    mel = torch.randn(1, 5, 6)
    expected = network(mel)
    old = network.state_dict()
    newer = {
        n.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): t
        for n, t in old.items()
    }
    folded = fold_weight_norm(models.build(name, **SMALL))
    for form in (old, newer):
        kept = dict(form)
        folded.load_state_dict(form, strict=True)
        assert_close(folded(mel), expected)
        assert kept.keys() == form.keys()  # the caller's own dict stays as it is
    for form in (old, newer, folded.state_dict()):
        fresh = models.build(name, **SMALL)
        fresh.load_state_dict(form, strict=True)
        assert_close(fresh(mel), expected)
        assert sorted(fresh.state_dict()) == sorted(old)
    again = unfold_weight_norm(folded)
    assert sorted(again.state_dict()) == sorted(old)
    assert_close(again(mel), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("pieces", [1, 3, 50, 200])
def test_streaming_equals_the_whole(name, block, pieces):
    options = SMALL | dict(block=block, rates=(4, 2), kernels=(3, 7))
    network = models.build(name, **options).double()
    for p in network.parameters():  # every path matters
        torch.nn.init.normal_(p, 0.0, 0.3)
    mel = torch.randn(1, 5, 131, dtype=torch.float64)
    with torch.no_grad():
        whole = network(mel)
        found = list(stream(network, mel.split(pieces, 2)))
    assert_close(torch.cat(found, 2), whole)
    assert max(part.shape[2] for part in found) <= (pieces + network.context) * network.hop


@pytest.mark.parametrize(("pieces", "window"), [(1, 64), (40, 64), (5, 160)])
def test_streaming_pulses_and_noise(pieces, window):
    """Phases and noise go on where the last piece ended; they are no part of the frames in hand. Long windows reach further than
    one block's convolutions."""
    network = models.build("source_filter", bands=5, width=8, blocks=1, window=window, hop=16).double()
    for p in network.parameters():
        torch.nn.init.normal_(p, 0.0, 0.1)
    mel = torch.randn(2, 5, 131, dtype=torch.float64)
    with torch.no_grad():
        whole, begun = network(mel), network(mel, network.anywhere(torch.tensor([0.0, 0.3])))
        found = torch.cat(list(stream(network, mel.split(pieces, 2))), 2)
    assert (found - whole).abs().max() < 1e-9  # a hundred harmonics amplify the rounding of the phase
    assert_close(begun[0], whole[0])
    assert (begun[1] - whole[1]).abs().max() > 0.01


def test_pulses_have_all_harmonics_alike_and_no_aliases():
    rate, seconds = 8000, 1
    per_sample = torch.full((1, rate * seconds), 210.0 / rate, dtype=torch.float64)
    y = source_filter.pulses((per_sample.cumsum(1) - per_sample) % 1, per_sample)[0]
    assert y.argmax() == 0 and abs(y.var().item() - 1) < 0.1
    amplitudes = torch.fft.rfft(y).abs() / rate  # a hertz a bin
    harmonics = amplitudes[210::210]
    assert (harmonics[:18] / harmonics[0] - 1).abs().max() < 1e-6
    assert amplitudes.square().sum() - harmonics.square().sum() < 1e-9


def test_a_voice_without_training():
    """Filters begin as the bands are: most bands have about their levels, of a voice and for noise."""
    mel = nn.MelSpectrogram(16000)
    network = models.build("source_filter", width=16, blocks=1)
    t = torch.arange(16384)
    voice = sum((2 * torch.pi * 200 * k / 16000 * t).cos() for k in range(1, 39)) / 40
    breath = 0.1 * torch.randn(16384, generator=torch.Generator().manual_seed(1))
    grid = network.pitch.grid
    for x, voiced in ((voice, 9.0), (breath, -9.0)):
        with torch.no_grad():
            for p in network.pitch.parameters():
                p.zero_()
            last = network.pitch.layers[-1].bias
            last[:-1] = -((grid - math.log(200)) / (grid[1] - grid[0])).square()
            last[-1] = voiced
            made = network(mel(x[None]))
        difference = (mel(made) - mel(x[None]))[..., 4:-4]
        assert difference.median().abs() < 0.7 and difference.abs().median() < 0.7


def test_a_voice_in_16_bits_keeps_its_pitch():
    """9 to 18 cents were lost to the rounding of the grid."""
    network = models.build("source_filter", width=16, blocks=1)
    grid, hertz = network.pitch.grid, 200.0
    with torch.no_grad():
        for p in network.pitch.parameters():
            p.zero_()
        last = network.pitch.layers[-1].bias
        last[:-1] = -((grid - math.log(hertz)) / (grid[1] - grid[0])).square()
        last[-1] = 9.0
        made = network.bfloat16()(torch.full((1, 80, 40), -4.0, dtype=torch.bfloat16))
    pitch, _ = track_pitch(made[:, 0], 16000, 256)
    assert abs(pitch[0, 5:-5].median() / hertz - 1) < 1e-3


@pytest.mark.parametrize("name", ["resolutions", "bands", "spectra"])
def test_discriminators_of_spectra_in_16_bits(name):
    torch.manual_seed(0)
    network = models.build(f"vocoder.{name}")
    x = torch.randn(1, 1, 9000).clamp(-1, 1).bfloat16()
    with torch.no_grad():
        expected, _ = network(x.float())
        found, _ = network.bfloat16()(x)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.bfloat16 and (a - b).abs().max() < 0.1 * b.abs().max()


@pytest.mark.parametrize("name", ["vocos", "source_filter"])
def test_magnitudes_beyond_the_loudest_leave_gradients_finite(name):
    """e^200 is infinite in float32, and its gradient, where it is clamped, was 0 times that."""
    generator = models.build(name, width=16, blocks=1)
    with torch.no_grad():
        generator.head.bias[:50] = 200.0
    y = generator(torch.randn(1, 80, 6))
    y.square().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in generator.parameters())


@pytest.mark.parametrize("name", ["vocos", "source_filter"])
def test_buffers_are_made_on_the_default_device(name):
    with torch.device("meta"):
        generator = models.build(name, width=16, blocks=1)
        assert {t.device.type for t in (*generator.parameters(), *generator.buffers())} == {"meta"}
        assert generator(torch.empty(2, 80, 4)).shape == (2, 1, 4 * 256)


@pytest.mark.parametrize("name", NAMES)
def test_the_context_is_no_larger_than_it_must_be(name):
    """A frame `context` away from another one changes its samples in one direction at least; one further does not."""
    network = models.build(name, **SMALL).double()
    for p in network.parameters():
        torch.nn.init.uniform_(p, 0.01, 0.02)  # nothing cancels, and tanh is far from its ends
    mel = torch.full((1, 5, 61), 0.01, dtype=torch.float64, requires_grad=True)
    y = network(mel)[0, 0, 30 * network.hop : 31 * network.hop]
    (g,) = torch.autograd.grad(y.sum(), mel)
    reached = g[0].abs().sum(0).nonzero()[:, 0]
    reach = max(30 - reached.min().item(), reached.max().item() - 30)
    assert reach <= network.context <= reach + 1


def test_spectral_discriminators_train_and_load():
    network = models.build("vocoder.periods", periods=(2, 3), width=1, spectral=True)
    assert {"discriminators.0.convs.0.weight_orig", "discriminators.0.convs.0.weight_u"} <= network.state_dict().keys()
    logits, maps = network(torch.randn(2, 1, 97))
    assert len(logits) == len(maps) == 2 and len(maps[0]) == 6


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hifigan", dict(block=3), "block is 3, expected 1 or 2"),
        ("hifigan", dict(rates=(2,)), r"up_kernels is \(16, 16, 4, 4\), expected as many as rates"),
        ("hifigan", dict(kernels=(3, 4, 5)), "expected odd numbers"),
        ("hifigan", dict(width=24), "width a multiple of 16"),
        ("bigvgan", dict(activation="relu"), "activation is 'relu', expected snake or snakebeta"),
        ("vocoder.periods", dict(periods=(0,)), "expected positive"),
        ("vocoder.scales", dict(width=8), "expected 16, 32"),
        ("vocoder.constant_q", dict(rate=16000), "beyond the rate of 16000"),
        ("vocoder.constant_q", dict(hops=(512, 100, 256)), "hop is 100, expected a multiple of 256"),
        ("vocoder.resolutions", dict(resolutions=((64, 65, 64),)), "none above the length"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, **options)


def test_wrong_shapes_are_refused():
    network = models.build("hifigan", **SMALL)
    with pytest.raises(ValueError, match=r"expected \[N, 5, frames\]"):
        network(torch.randn(1, 4, 9))
    with pytest.raises(ValueError, match="one frame at least"):
        network(torch.randn(1, 5, 0))
    odd = models.build("hifigan", **SMALL | dict(up_kernels=(7, 4)))
    with pytest.raises(ValueError, match="must be even"):
        next(stream(odd, [torch.randn(1, 5, 9)]))


def test_golden_files_are_all_used():
    if GOLDEN.is_dir():
        assert all((GOLDEN / "models" / f"{name}.npz").is_file() for name in GENERATORS)
