"""What is StyleGAN's own in its recipes: lazy regularisers, mixed styles, running means, the blur that fades, the command line.
That both train, resume and generate by class is in test_images.py."""

import functools
import math
import shutil

import pytest
import torch
from PIL import Image
from torch.nn.functional import one_hot, softplus

from fastgan.cli import main
from fastgan.recipes import stylegan
from fastgan.training import load_checkpoint
from fastgan.training.augment import Augment
from fastgan.training.checkpoint import list_checkpoints

TINY = {"width": 2, "max_width": 4}
SMALL = {"stylegan2": TINY, "stylegan3": TINY | {"layers": 4}}
NAMES = list(SMALL)


def close(actual, expected):
    torch.testing.assert_close(actual.double(), expected.double(), atol=2e-6, rtol=2e-5)


@pytest.fixture
def plain(made):
    """A recipe without augmentation whose noise and biases are not at their initial 0."""

    def make(name, **options):
        recipe, batch = made(name, **SMALL[name] | {"augment": "none"} | options)
        for name_, p in recipe.generator.named_parameters():
            if p.dim() < 2 and "affine" not in name_:
                torch.nn.init.normal_(p, std=0.3)
        return recipe, batch

    return make


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_logistic_losses(name, conditional, plain):
    options = {"mixing": 0.0} if name == "stylegan2" else {}
    recipe, batch = plain(name, conditional=conditional, **options)
    c = one_hot(batch().labels, 3).float() if conditional else None
    z = batch().randn(8)
    torch.manual_seed(5)
    f = recipe.discriminator(recipe.generator(z, c), c)
    torch.manual_seed(5)
    close(recipe.g_step(batch())["loss"], softplus(-f).mean())
    torch.manual_seed(5)
    f, r = recipe.discriminator(recipe.generator(z, c, update_emas=True), c), recipe.discriminator(batch().real, c)
    recipe, batch = plain(name, conditional=conditional, **options)  # the running means as they were
    torch.manual_seed(5)
    logs = recipe.d_step(batch())
    close(logs["loss"], (softplus(-r) + softplus(f)).mean())
    close(logs["real"], r.mean())


@pytest.mark.parametrize(("gamma", "weight"), [(3.0, 3.0), (None, 0.0002 * 32**2 / 4)])
def test_r1_is_scaled_by_its_interval(gamma, weight, plain):
    recipe, batch = plain("stylegan2", gamma=gamma, r1_interval=7)
    real = batch().real.requires_grad_()
    (slope,) = torch.autograd.grad(recipe.discriminator(real).sum(), real)
    r1 = weight / 2 * slope.square().flatten(1).sum(1).mean()
    close(recipe.r1_step(batch())["loss"], 7 * r1)
    close(recipe.d_step(batch())["r1"], r1)
    if gamma is None:
        recipe.processes = 2
        assert recipe.gamma == pytest.approx(weight / 2)


def test_r1_reaches_every_weight(plain):
    """`no_weight_gradients` is around the inner gradient alone."""
    recipe, batch = plain("stylegan2")
    weights = [p for p in recipe.discriminator.parameters() if p.dim() > 1]
    assert all(g.any() for g in torch.autograd.grad(recipe.r1_step(batch())["loss"], weights))


def test_path_length(plain):
    """4 (|J^T y| - a)^2 times the interval on half the batch, where a is the mean after it has moved by 0.01."""
    recipe, batch = plain("stylegan2", path_weight=4.0, path_interval=3, mixing=0.0)
    recipe.memory.path_length.fill_(0.3)
    ws = recipe.generator.mapping(batch().randn(8))[:2]
    torch.manual_seed(5)
    images = recipe.generator.synthesis(ws)
    (g,) = torch.autograd.grad((images * torch.randn(images.shape) / 32).sum(), ws)
    lengths = g.square().sum(2).mean(1).sqrt()
    mean = 0.3 + 0.01 * (lengths.mean() - 0.3)
    assert (lengths - mean).abs().min() > 1e-3
    torch.manual_seed(5)
    close(recipe.path_step(batch())["loss"], 3 * 4 * (lengths - mean).square().mean())
    close(recipe.memory.path_length, mean)
    close(recipe.g_step(batch())["path_length"], mean)


def test_styles_are_mixed_from_a_random_layer(made):
    recipe, batch = made("stylegan2", mixing=0.9, batch_size=400, **TINY)
    draws = batch()
    draws.size, draws.items = 400, (draws.real,)
    first, second = (recipe.generator.mapping(draws.randn(8)) for _ in range(2))
    draws._draws = 0
    ws = recipe.styles(draws)
    layers = ws.shape[1]
    own = (ws == first).all(2)
    assert torch.equal(own, own.cummin(1).values)  # none comes back
    assert torch.equal(torch.where(own[..., None], first, second), ws)
    counts = own.sum(1).bincount(minlength=layers + 1)
    assert counts[0] == 0 and (counts[1:] > 0).all()
    assert abs(counts[layers] / 400 - 0.1) < 4 * math.sqrt(0.09 / 400)
    assert (counts[1:layers] / 400 - 0.9 / (layers - 1)).abs().max() < 0.08


def test_regularisers_are_lazy(made):
    recipe, _ = made("stylegan2", r1_interval=8, path_interval=3, lr=1e-3, beta2=0.99, **TINY)
    steps = [[(u.loss.__name__, u.fresh) for u in recipe.updates(step)] for step in range(24)]
    main = [("d_step", False), ("g_step", False)]
    assert steps[0] == [("r1_step", True), main[0], ("path_step", False), main[1]]
    assert steps[1] == [("d_step", True), main[1]]
    assert steps[3] == [("d_step", True), ("path_step", False), main[1]]
    names = [name for step in steps for name, _ in step]
    counted = [names.count(name) for name in ("d_step", "g_step", "r1_step", "path_step")]
    assert counted == [24, 24, 3, 8]
    for name, interval in (("discriminator", 8), ("generator", 3)):
        group, c = recipe.optimizers[name].param_groups[0], interval / (interval + 1)
        assert (group["lr"], *group["betas"]) == pytest.approx((1e-3 * c, 0.0, 0.99**c))
    off, _ = made("stylegan2", gamma=0.0, path_weight=0.0, lr=1e-3, **TINY)
    assert [u.loss.__name__ for u in off.updates(0)] == ["d_step", "g_step"]
    assert off.optimizers["generator"].param_groups[0]["lr"] == 1e-3
    three, _ = made("stylegan3", lr=1e-3, **SMALL["stylegan3"])
    assert [u.loss.__name__ for u in three.updates(16)] == ["r1_step", "d_step", "g_step"]
    assert three.optimizers["generator"].param_groups[0]["lr"] == 1e-3
    assert three.optimizers["discriminator"].param_groups[0]["lr"] == pytest.approx(1e-3 * 16 / 17)


@pytest.mark.parametrize("name", NAMES)
def test_running_means_move_in_the_discriminators_step_alone(name, made):
    recipe, batch = made(name, **SMALL[name])
    means = {n: b for n, b in recipe.generator.named_buffers() if n.endswith(("w_avg", "magnitude_ema"))}
    assert len(means) == (1 if name == "stylegan2" else 1 + len(recipe.generator.synthesis.layer_names))
    assert {b.data_ptr() for b in means.values()} <= {b.data_ptr() for b in recipe.running}
    before = {n: b.clone() for n, b in means.items()}
    for update in recipe.updates(0):
        update.loss(batch())
        moved = {n for n, b in means.items() if not torch.equal(b, before[n])}
        assert moved == (set() if update.loss == recipe.r1_step else set(means))
        before = before if moved == set() else {n: b.clone() for n, b in means.items()}
        means = {} if update.loss == recipe.d_step else means


@pytest.mark.parametrize("processes", [1, 2])
def test_the_half_life_of_magnitudes_is_in_images_of_all_processes(made, processes):
    recipe, batch = made("stylegan3", **SMALL["stylegan3"])
    recipe.processes = processes
    *_, discriminator, _ = recipe.updates(0)
    seen = []
    synthesis = recipe.generator.synthesis
    first = getattr(synthesis, synthesis.layer_names[0])
    first.register_forward_pre_hook(lambda module, given: seen.append(given[0].square().mean()))
    discriminator.loss(batch())
    close(first.magnitude_ema, 1 + (seen[0] - 1) * (1 - 0.5 ** (4 * processes / 20_000)))


def test_without_r1_adam_is_as_the_options_say(made):
    """The correction is for a regulariser that makes updates of its own."""
    recipe, _ = made("stylegan2", gamma=0.0, lr=1e-3, path_weight=0.0, **SMALL["stylegan2"])
    for optimizer in recipe.optimizers.values():
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (1e-3, (0.0, 0.99))


def test_the_blur_fades(made):
    recipe, batch = made("stylegan3", variant="R", blur=2.0, blur_images=400, augment="none", **SMALL["stylegan3"])
    assert [recipe.sigma(n) for n in (0, 100, 300, 400, 4000)] == pytest.approx([2.0, 1.5, 0.5, 0.0, 0.0])
    point = torch.zeros(4, 3, 32, 32)
    point[:, :, 16, 16] = 1
    for step, sigma in ((0, 2.0), (25, 1.5), (75, 0.5)):  # of 4 images each
        recipe.updates(step)
        taps = torch.tensor([2 ** -((x / sigma) ** 2) if abs(x) <= int(3 * sigma) else 0 for x in range(-6, 7)])
        taps /= taps.sum()
        close(recipe.view(point, batch())[1, 2, 10:23, 10:23], taps[:, None] * taps)
    recipe.updates(100)
    assert recipe.view(point, batch()) is point
    assert made("stylegan3", **SMALL["stylegan3"])[0].blur == 0
    assert made("stylegan3", variant="R", **SMALL["stylegan3"])[0].blur == 1.25


def test_variant_r_turns(made):
    recipe, _ = made("stylegan3", variant="R", **SMALL["stylegan3"])
    config = recipe.generator.config
    assert (config.conv_kernel, config.use_radial_filters) == (1, True)
    assert (config.channel_base, config.channel_max) == (2 * 2 * 32, 8)


@pytest.mark.parametrize("options", [{}, {"num_fp16_res": 1}])
@pytest.mark.parametrize("name", NAMES)
def test_grey_folders_at_64_pixels(name, options, made, monkeypatch):
    recipe, batch = made(name, **SMALL[name], **options)
    recipe = type(recipe)(recipe.config, recipe.data | {"resolution": 64, "channels": 1})
    recipe.augment.p.fill_(0.8)
    types = set()
    network = recipe.generator.synthesis
    last = network.b64 if name == "stylegan2" else getattr(network, network.layer_names[-2])
    last.register_forward_hook(lambda m, i, o: types.add((o[0] if name == "stylegan2" else o).dtype))
    for update in recipe.updates(0):
        draws = batch()
        draws.items = (torch.rand(4, 1, 64, 64) * 2 - 1,)
        values = update.loss(draws)
        assert values["loss"].isfinite()
        values["loss"].backward()
    assert all(p.grad.isfinite().all() for net in recipe.networks.values() for p in net.parameters())
    assert types == {torch.bfloat16 if options else torch.float32}


@pytest.fixture(scope="module", params=NAMES)
def finished(request, image_run, tmp_path_factory):
    """Six steps with a checkpoint after each, under strong augmentation that grows stronger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stylegan, "Augment", functools.partial(Augment, p=0.6, target=-2.0, images=200))
        name = request.param
        options = SMALL[name] | ({"variant": "R", "blur_images": 14} if name == "stylegan3" else {})
        yield image_run(name, tmp_path_factory.mktemp(name) / "run", steps=6, every=1, **options)


def checkpoints(trainer):
    return [load_checkpoint(path).tensors for _, path in list_checkpoints(trainer.folder / "checkpoints")]


def test_resumes_with_its_means_and_its_augmentation(finished, image_run, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "broken")
    for _, path in list_checkpoints(tmp_path / "broken" / "checkpoints")[-2:]:
        shutil.rmtree(path)  # the update of the path length's mean and of p is among what is repeated
    config = vars(finished.config)
    resumed = image_run(finished.recipe.name, tmp_path / "broken", every=1, resume=True, **config)
    before, whole, parts = checkpoints(finished)[0], checkpoints(finished)[-1], checkpoints(resumed)[-1]
    assert whole.keys() == parts.keys()
    assert [name for name, t in whole.items() if not torch.equal(t, parts[name])] == []
    assert whole["network/augment/p"] == pytest.approx(0.6 + 4 * 4 / 200)
    if finished.recipe.name == "stylegan2":
        assert whole["network/memory/path_length"] > before["network/memory/path_length"] * 1.5 > 0


def test_the_average_ramps_up(finished):
    """A half-life of a twentieth of the images seen, 24 of them here; buffers are those of the network."""
    before, after = checkpoints(finished)[-2:]
    keep = 0.5 ** (4 / (0.05 * 24))
    for name, _ in finished.recipe.generator.named_parameters():
        mean, old, new = (
            t[f"{kind}/generator/{name}"] for t, kind in ((after, "ema"), (before, "ema"), (after, "network"))
        )
        close(mean, keep * old + (1 - keep) * new)
    for name, _ in finished.recipe.generator.named_buffers():
        assert torch.equal(after[f"ema/generator/{name}"], after[f"network/generator/{name}"])


@pytest.mark.parametrize("name", NAMES)
def test_command_line(name, tmp_path):
    out = tmp_path / "run"
    sizes = ["--width", "2", "--max-width", "4", "--latent", "8", "--batch-size", "4", "--samples", "4"]
    sizes += ["--layers", "4"] if name == "stylegan3" else []
    assert main(["train", name, "--data", "emoji", "--steps", "2", "--out", str(out), *sizes]) == 0
    assert (out / "report.html").exists() and (out / "samples" / "step-00000002.png").exists()
    assert main(["sample", str(out), "--seeds", "0-3"]) == 0
    assert main(["sample", str(out), "--seeds", "0-1", "--truncation", "0", "--out", str(tmp_path / "mean.png")]) == 0
    assert main(["sample", str(out), "--seeds", "0-1", "--mix", "2,3", "--mix-layers", "0-2"]) == 0
    assert Image.open(out / "samples" / "seeds-0-3.png").size[0] >= 64
    mean = Image.open(tmp_path / "mean.png")  # pictures of 32 pixels, enlarged twice, with margins of 2
    assert mean.crop((4, 4, 68, 68)).tobytes() == mean.crop((72, 4, 136, 68)).tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 6}, "batch_size is 6, expected a multiple of 4"),
        ({"conditional": True, "data": {"num_classes": 0, "name": "x"}}, "--conditional needs labels, and x has none"),
        ({"data": {"resolution": 48}}, "resolution is 48, expected a power of two"),
        ({"r1_interval": 0}, "interval is 0, expected at least 1"),
        ({"blur_images": 0}, "blur_images is 0, expected at least 1"),
    ],
)
def test_wrong_options(options, message, made):
    recipe, _ = made("stylegan3", **SMALL["stylegan3"])
    data = recipe.data | options.pop("data", {})
    with pytest.raises(ValueError, match=message):
        type(recipe)(type(recipe.config)(**vars(recipe.config) | options), data)
