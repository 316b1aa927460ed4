"""Augmentation: transformations against their definitions, derivatives, draws, the strength's control, and a recipe's run."""

import math

import pytest
import torch

from fastgan import recipes
from fastgan.losses import penalty
from fastgan.training import RunConfig, Trainer
from fastgan.training.augment import POLICIES, Augment, geometry, pixels
from fastgan.training.augment.diffaugment import diffaugment, translate
from fastgan.training.augment.draws import Draws
from fastgan.training.batch import Batch
from fastgan.training.distributed import World

FUNCTIONS = sorted({f for policy in POLICIES.values() for f in policy}, key=lambda f: f.__name__)
CPU = torch.device("cpu")


def batch_of(images, seed=0, update=0, rank=0, size=1):
    return Batch((images,), World(rank, size, CPU), seed, update, 0, 1)


def noise_images(*shape, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 - 1


def test_the_wavelet_is_orthonormal_and_smooth():
    """Six vanishing moments and orthogonality to shifts by two define it, up to which root goes where."""
    h = torch.tensor(geometry.SYM6, dtype=torch.float64)
    for lag in range(0, 12, 2):
        assert float(h[: 12 - lag] @ h[lag:]) == pytest.approx(float(lag == 0), abs=1e-12)
    signs = torch.tensor([1.0, -1.0] * 6, dtype=torch.float64)
    for moment in range(6):
        assert float((signs * h * torch.arange(12.0, dtype=torch.float64) ** moment).sum()) == pytest.approx(
            0, abs=1e-5
        )


@pytest.mark.parametrize("function", POLICIES["ada-full"], ids=lambda f: f.__name__)
def test_probability_zero_changes_no_bit(function):
    images = noise_images(6, 3, 17, 17, dtype=torch.float32)
    draws = Draws(batch_of(images), 1)
    assert torch.equal(function(images, draws, torch.tensor(0.0)), images)
    changed = (function(images, draws, torch.tensor(1.0)) != images).flatten(1).any(1)
    assert changed.sum() >= 5


def test_each_is_drawn_with_probability_p():
    """2000 images whose noise and cutout are drawn with p = 0.3: the share changed lies within 4 deviations."""
    images = noise_images(2000, 1, 8, 8, dtype=torch.float32)
    for function in (pixels.noise, pixels.cutout):
        out = function(images, Draws(batch_of(images), 1), torch.tensor(0.3))
        share = (out != images).flatten(1).any(1).float().mean()
        assert abs(float(share) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)
    out = geometry.geometric(images, Draws(batch_of(images), 1), torch.tensor(0.3))
    share = float((out != images).flatten(1).any(1).float().mean())
    assert abs(share - (1 - 0.7**4)) < 4 * math.sqrt(share * (1 - share) / 2000)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_blits_are_torchs(mirror, turns):
    x = noise_images(1, 2, 9, 9)
    expected = x.flip(3) if mirror else x
    expected = torch.rot90(expected, turns, (2, 3))

    def move(dx, dy):
        return geometry.move(x, torch.tensor([mirror]), torch.tensor([turns]), torch.tensor([[dx, dy]]))

    assert torch.equal(move(0, 0), expected)
    moved = move(2, -1)
    assert torch.equal(moved[..., :-1, 2:], expected[..., 1:, :-2])
    assert torch.equal(moved[..., 0, 1], expected[..., 1, 1])  # reflected at the first column: 1 - 2 = -1 -> 1


def test_fold_reflects_at_border_centres():
    assert geometry.fold(torch.arange(-9, 10), 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert geometry.fold(torch.tensor([-1.25, 3.5]), 4).tolist() == [1.25, 2.5]
    assert geometry.fold(torch.tensor([5, -2]), 1).tolist() == [0, 0]


def identity(n):
    return torch.eye(2, dtype=torch.float64).expand(n, 2, 2)


@pytest.mark.parametrize("size", [(5, 5), (16, 12), (2, 3)])
def test_warp_by_whole_pixels_is_exact(size):
    """Doubling, sampling at its own pixels and halving again is the identity; 2e-7 is the float32 of the filter."""
    x = noise_images(2, 3, *size)
    same = geometry.warp(x, identity(2), torch.zeros(2, 2, dtype=torch.float64))
    inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    torch.testing.assert_close(same[inner], x[inner], rtol=0, atol=2e-7)
    moved = geometry.warp(x, identity(2), torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=torch.float64))
    torch.testing.assert_close(moved[0, :, 3:-3, 4:-3], x[0, :, 3:-3, 3:-4], rtol=0, atol=2e-7)
    torch.testing.assert_close(moved[1, :, 3:-4, 3:-3], x[1, :, 4:-3, 3:-3], rtol=0, atol=2e-7)


@pytest.mark.parametrize("angle,scale,shift", [(0.4, 0.9, (0.3, -0.7)), (-1.1, 1.3, (-1.6, 0.25))])
def test_warp_of_a_ramp_is_the_ramp_warped(angle, scale, shift):
    """The filter reproduces linear images, so the exact answer is known wherever nothing reflected is in reach."""
    size = 40
    q = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(q, q, indexing="ij")
    ramp = (0.02 * x + 0.05 * y)[None, None]
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    inverse, t = torch.tensor([[[c, -s], [s, c]]], dtype=torch.float64), torch.tensor([shift], dtype=torch.float64)
    found = geometry.warp(ramp, inverse, t)
    u, v = x - shift[0], y - shift[1]
    expected = 0.02 * (c * u - s * v) + 0.05 * (s * u + c * v)
    middle = slice(15, 25)
    torch.testing.assert_close(found[0, 0, middle, middle], expected[middle, middle], rtol=0, atol=1e-6)


def test_colors():
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    rgb = torch.tensor([0.7, -0.2, 0.1], dtype=torch.float64)

    def apply(brightness=zero, contrast=one, flip=one, hue=zero, saturation=one):
        matrix, offset = pixels.color_matrix(brightness, contrast, flip, hue, saturation)
        return matrix[0] @ rgb + offset[0]

    grey = rgb.mean()
    close = torch.testing.assert_close
    close(apply(), rgb)
    close(apply(brightness=one / 4), rgb + 0.25)
    close(apply(contrast=one * 2), 2 * rgb)
    close(apply(flip=-one), rgb - 2 * grey)
    close(apply(saturation=zero), grey.expand(3))
    close(apply(hue=one * (2 * math.pi / 3)), rgb.roll(1))
    close(apply(brightness=one / 4, contrast=one * 2, flip=-one), 2 * (rgb - 2 * grey) - 0.5)


def test_a_grey_image_stays_grey():
    """[N, 1, H, W] gives what the same image as RGB would."""
    grey = noise_images(8, 1, 6, 6)
    found = pixels.color(grey, Draws(batch_of(grey), 1), torch.tensor(0.8))
    as_rgb = pixels.color(grey.expand(-1, 3, -1, -1), Draws(batch_of(grey), 1), torch.tensor(0.8))
    torch.testing.assert_close(as_rgb, found.expand(-1, 3, -1, -1))


def test_the_filter_bank_splits_the_spectrum():
    bank = pixels.filter_bank()
    delta = torch.zeros(43, dtype=torch.float64)
    delta[21] = 1
    torch.testing.assert_close(bank.sum(0), delta, rtol=0, atol=1e-12)
    response = torch.fft.rfft(torch.nn.functional.pad(bank, (0, 4096 - 43))).abs()
    for band, frequency in enumerate((0.0, 0.18, 0.37, 0.9)):  # in units of pi
        assert int(response[:, int(frequency * 2048)].argmax()) == band
    torch.testing.assert_close(response[0, 0], torch.tensor(1.0, dtype=torch.float64))


def test_filtering_is_separable_correlation():
    x = noise_images(2, 2, 7, 5)
    taps = noise_images(2, 9)
    wide = geometry.extend(x, 4)
    for i in range(2):
        kernel = torch.outer(taps[i], taps[i])[None, None]
        expected = torch.nn.functional.conv2d(wide[i][:, None], kernel)[:, 0]
        torch.testing.assert_close(pixels.filter_images(x, taps)[i], expected)


def test_translation_brings_in_zeros():
    x = noise_images(2, 1, 16, 16)
    moved = translate(x, torch.tensor([[0.999, 0.5], [0.0, 0.5]]))
    assert torch.equal(moved[0, :, :, 2:], x[0, :, :, :-2]) and not moved[0, :, :, :2].any()
    assert torch.equal(moved[1, :, :, :-2], x[1, :, :, 2:]) and not moved[1, :, :, -2:].any()


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_second_derivatives(function):
    """p = 0.9: taken and left branches both occur among the images."""
    images = noise_images(2, 3, 6, 6).requires_grad_(True)

    def apply(x):
        return function(x, Draws(batch_of(x.detach(), seed=3), 1), torch.tensor(0.9, dtype=torch.float64))

    assert torch.autograd.gradcheck(apply, (images,), fast_mode=True)
    assert torch.autograd.gradgradcheck(apply, (images,), fast_mode=True)


@pytest.mark.parametrize("policy", ["ada-full", "diffaugment"])
def test_r1_through_augmentation(policy):
    """R1 in the images before augmentation: its gradients in D's weights and in the images, against differences."""
    images = noise_images(3, 3, 8, 8).requires_grad_(True)
    first = (0.2 * noise_images(4, 3, 3, 3)).requires_grad_(True)
    second = noise_images(1, 4).requires_grad_(True)
    augment = Augment(policy, p=0.9)

    def r1(x, w1, w2):
        seen = augment(x, batch_of(x.detach()))
        logits = torch.nn.functional.linear(torch.nn.functional.conv2d(seen, w1).tanh().sum((2, 3)), w2)
        return penalty.r1(logits, x, gamma=2.0)

    assert torch.autograd.gradcheck(r1, (images, first, second), fast_mode=True)
    assert torch.autograd.gradgradcheck(r1, (images, first, second), fast_mode=True)


def test_two_processes_draw_what_one_draws():
    images = noise_images(8, 3, 8, 8, dtype=torch.float32)
    augment = Augment("ada-full", p=0.7)
    whole = augment(images, batch_of(images))
    shares = [augment(images[r::2], batch_of(images[r::2], rank=r, size=2)) for r in range(2)]
    torch.testing.assert_close(torch.stack(shares, 1).flatten(0, 1), whole, rtol=0, atol=1e-6)
    assert torch.equal(augment(images, batch_of(images)), whole)
    assert not torch.equal(augment(images, batch_of(images, update=1)), whole)


def test_real_and_generated_images_in_one_pass_are_drawn_apart():
    images = noise_images(4, 3, 8, 8, dtype=torch.float32)
    both = Augment("ada", p=1.0)(images.repeat(2, 1, 1, 1), batch_of(images))
    assert not torch.equal(both[:4], both[4:])


def test_strength_follows_the_overfitting():
    images = torch.zeros(25, 1, 8, 8)
    augment = Augment("ada", images=1000)

    def step(number, positive, logits=25):
        augment.adjust(number)
        augment.observe(torch.tensor([1.0] * positive + [-1.0] * (logits - positive)), batch_of(images))

    for number in range(8):
        step(number, 25)
    augment.adjust(8)
    assert float(augment.p) == pytest.approx(0.2) and float(augment.overfitting) == 1
    for number in range(8, 12):
        step(number, 20)  # r = 0.6 exactly: on target, or within rounding of it
    augment.adjust(12)
    assert float(augment.overfitting) == pytest.approx(0.6)
    before = float(augment.p)
    for number in range(12, 40):
        step(number, 15)
    augment.adjust(40)
    assert before > 0 and float(augment.p) == 0  # 7 intervals down by 0.1 each, not below 0
    assert augment.logs().keys() == {"augment_p", "overfitting"}


def test_processes_agree_on_the_strength():
    """Each process counts its own logits; the engine's averaging makes the interval's totals exact."""
    logits = torch.tensor([1.0, -1, 1, 1, -1, -1, 1, 1])
    one = Augment("ada", images=100)
    parts = [Augment("ada", images=100) for _ in range(2)]
    for _ in range(4):
        one.observe(logits, batch_of(torch.zeros(8, 1, 8, 8)))
        for rank, part in enumerate(parts):
            part.observe(logits.chunk(2)[rank], batch_of(torch.zeros(4, 1, 8, 8), rank=rank, size=2))
        for mine, other in zip(*[part.running for part in parts], strict=True):
            mean = (mine + other) / 2
            mine.copy_(mean)
            other.copy_(mean)
    for augment in (one, *parts):
        augment.p.fill_(0.5)
        augment.adjust(4)
    assert float(one.p) == pytest.approx(0.5 - 32 / 100) and parts[0].p == parts[1].p == one.p


def test_what_has_no_strength_keeps_none():
    images = noise_images(2, 3, 8, 8, dtype=torch.float32)
    none = Augment("none")
    assert none(images, batch_of(images)) is images and not none.running and none.logs() == {}
    fixed = Augment("diffaugment")
    fixed.observe(torch.ones(2), batch_of(images))
    fixed.adjust(4)
    assert float(fixed.p) == 0 and not torch.equal(fixed(images, batch_of(images)), images)


def test_16_bit_images_keep_their_type():
    images = noise_images(2, 3, 8, 8, dtype=torch.float32)
    found = Augment("ada", p=1.0)(images.bfloat16(), batch_of(images))
    assert found.dtype == torch.bfloat16 and found.shape == images.shape


def test_wrong_arguments_are_named():
    images = torch.zeros(4, 3, 8, 8)
    with pytest.raises(ValueError, match="none, ada, ada-full, diffaugment"):
        Augment("adda")
    with pytest.raises(ValueError, match="probability"):
        Augment("ada", p=1.5)
    with pytest.raises(ValueError, match="multiple of 4"):
        Augment("ada")(images[:3], batch_of(images))


def turned(images, quarters):
    angle = torch.tensor([quarters * math.pi / 2], dtype=torch.float64)
    return geometry.warp(images, geometry._rotation(-angle).expand(len(images), 2, 2), images.new_zeros(len(images), 2))


def disc(height, width, radius, soft=1.2):
    """A round spot in the middle, its edge wide enough for the filters."""
    y, x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width))
    return torch.sigmoid((radius - torch.hypot(y[:, None], x[None, :])) / soft)[None, None]


def test_a_rectangle_turns_without_shear():
    """A circle stays a circle at any angle, and its image turned by a quarter twice is that turned by a half."""
    circle = disc(40, 64, 10)
    inner = (..., slice(8, -8), slice(20, -20))  # where nothing reflected is in reach
    for angle in (0.3, 1.0, math.pi / 2, 2.2):
        torch.testing.assert_close(turned(circle, angle / (math.pi / 2))[inner], circle[inner], rtol=0, atol=5e-3)
    spot = geometry.warp(circle, identity(1), torch.tensor([[6.0, 3.0]], dtype=torch.float64))
    twice = turned(turned(spot, 1), 1)
    torch.testing.assert_close(twice[inner], turned(spot, 2)[inner], rtol=0, atol=5e-3)
    torch.testing.assert_close(turned(spot, 2), spot.flip(2, 3), rtol=0, atol=5e-3)
    quarter = geometry.warp(circle, identity(1), torch.tensor([[-3.0, 6.0]], dtype=torch.float64))
    torch.testing.assert_close(turned(spot, 1)[inner], quarter[inner], rtol=0, atol=5e-3)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("turns", [0, 2])
def test_blits_of_rectangles_are_torchs(mirror, turns):
    x = noise_images(1, 2, 6, 11)
    expected = torch.rot90(x.flip(3) if mirror else x, turns, (2, 3))
    moved = geometry.move(x, torch.tensor([mirror]), torch.tensor([turns]), torch.tensor([[3, -2]]))
    assert torch.equal(moved[..., :-2, 3:], expected[..., 2:, :-3])


def test_quarter_turns_of_rectangles_are_left_out():
    """A wide image is left, mirrored, turned by a half, or both, and moved by up to 1/8 of each side."""
    x = torch.arange(16 * 32.0).view(1, 1, 16, 32).expand(200, -1, -1, -1)
    found = geometry.blit(x, Draws(batch_of(x), 1), torch.tensor(1.0))
    step_x, step_y = found[:, 0, 8, 16] - found[:, 0, 8, 15], found[:, 0, 8, 16] - found[:, 0, 7, 16]
    assert set(step_x.abs().tolist()) == {1.0} and set(step_y.abs().tolist()) == {32.0}
    kinds = torch.stack([step_x.sign(), step_y.sign()], 1).unique(dim=0, return_counts=True)
    assert len(kinds[0]) == 4
    halves = int((step_y < 0).sum())
    assert abs(halves - 50) < 4 * math.sqrt(200 * 3 / 16)  # one draw in four
    plain = found[(step_x > 0) & (step_y > 0)][:, 0, 8, 16] - x[0, 0, 8, 16]
    across, down = (plain + 16).remainder(32) - 16, ((plain + 16) / 32).floor()
    assert across.abs().max() == 4 and down.abs().max() == 2


def test_opacity_is_moved_and_never_recoloured():
    """RGBA: colours as of RGB with the same draws, opacity as it was; two or many channels are no colours."""
    images = noise_images(6, 4, 8, 12)
    for function in (pixels.color, diffaugment):
        found, rgb = (
            function(x, Draws(batch_of(images), 1), torch.tensor(1.0)) for x in (images, images[:, :3].contiguous())
        )
        torch.testing.assert_close(found[:, :3], rgb)
        moved = images[:, 3:] if function is pixels.color else translate_and_cut(images[:, 3:], batch_of(images))
        assert torch.equal(found[:, 3:], moved)
    for channels in (2, 5):
        images = noise_images(6, channels, 8, 12)
        assert pixels.color(images, Draws(batch_of(images), 1), torch.tensor(1.0)) is images
        found = diffaugment(images, Draws(batch_of(images), 1), torch.tensor(1.0))
        assert torch.equal(found, translate_and_cut(images, batch_of(images)))


def translate_and_cut(images, batch):
    draws = Draws(batch, 1)
    return pixels.cutout(translate(images, draws.rand(5)[:, 3:].to(images)), draws, torch.tensor(1.0))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("policy", ["ada-full", "diffaugment"])
def test_any_sides_and_channels(policy, channels):
    """Finite, drawn anew for each image, the same for the same draws, and differentiable in every pixel's neighbourhood."""
    images = noise_images(4, channels, 12, 20, dtype=torch.float32).requires_grad_(True)
    augment = Augment(policy, p=0.9)
    found = augment(images, batch_of(images.detach()))
    assert found.shape == images.shape and found.isfinite().all() and not torch.equal(found[0], images[0])
    assert torch.equal(found, augment(images, batch_of(images.detach())))
    (gradient,) = torch.autograd.grad(found.square().sum(), images)
    assert gradient.isfinite().all() and gradient.abs().sum((2, 3)).min() > 0


def test_a_resumed_run_repeats_an_unbroken_one(tiny_file, tmp_path):
    """Strength, interval and draws included: 10 steps at once against 6 (amid an interval) and 4 more."""
    recipe = recipes.get("dcgan")

    def run(name, steps, resume=False):
        sizes = {"batch_size": 4, "width": 4, "max_width": 8, "latent": 4, "augment": "ada"}
        sizes["loss"] = "hinge"  # whose logits have a sign from the first step on, so that the strength moves in ten
        config = recipe.Config(steps=steps, **sizes)
        files = {"data": str(tiny_file), "out": str(tmp_path / name), "resume": resume}
        trainer = Trainer(recipe, config, RunConfig(**files, resolution=32, samples=1, log_every=1, device="cpu"))
        trainer.recipe.augment.images = 100
        trainer.train()
        return trainer

    whole = run("whole", 10)
    run("parts", 6)
    parts = run("parts", 10, resume=True)
    assert float(whole.recipe.augment.p) > 0
    for name, network in whole.recipe.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, parts.recipe.networks[name].state_dict()[key]), (name, key)
    assert '"discriminator/augment_p"' in (tmp_path / "parts" / "metrics.jsonl").read_text()
