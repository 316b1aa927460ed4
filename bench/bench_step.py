"""A discriminator step with a gradient penalty: DCGAN's discriminator at 64 px, batch 32, loss and gradients of all weights.

`reference` is the step as it is mostly written: torch's operations on the same weights, a forward pass of its own for each
penalty. "no penalty" is fastgan's step without one; its ratio is what the penalty costs. Counted in convolutions of 32
images, a step without a penalty makes 6 (forward, by inputs, by weights), WGAN-GP 4 more, R1 on the adversarial forward
3 more, R1 and R2 6 more: 1.67, 1.5 and 2 are the floors of those ratios. `compiled_step` is no faster than fastgan
uncompiled, 0.91 to 1.0 times on two Zen 5 cores: convolutions are nearly all of the step, and it differentiates them by torch's
formulas. Of `reference`, plain eager torch, it is 1.24 to 1.65 times as fast. "channels_last" is fastgan's step on images and
weights in that layout.
"""

import copy

import pytest
import torch
import torch.nn.functional as F

from fastgan.losses import adversarial, penalty
from fastgan.models import dcgan
from fastgan.training.compiled import compiled_step, gradient_step

GAMMA, WEIGHT = 1.0, 10.0


def network(small: bool) -> dcgan.Discriminator:
    torch.manual_seed(0)
    sizes = dict(resolution=32, width=8) if small else dict(resolution=64, width=64, max_width=512)
    return dcgan.Discriminator(dcgan.Config(**sizes))


def plain(d: dcgan.Discriminator):
    """d(images) in torch's operations."""

    def forward(x):
        for layer in d.down:
            x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, 2, 1), 0.2) * 2**0.5
        return (x.flatten(1) * d.weight).sum(1) + d.bias

    return forward


def slopes(d, points):
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(d(points).sum(), points, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def wgan_gp(d, real, fake, mix, penalised):
    loss = adversarial.wasserstein.d_loss(d(real), d(fake)).mean()
    return loss + penalty.wgan_gp(d, real, fake, WEIGHT, mix=mix).mean() if penalised else loss


def wgan_gp_reference(d, real, fake, mix):
    mixed = mix[:, None, None, None] * real + (1 - mix)[:, None, None, None] * fake
    return (d(fake) - d(real)).mean() + WEIGHT * (slopes(d, mixed).sqrt() - 1).square().mean()


def r1(d, real, fake, mix, penalised):
    real = real.detach().requires_grad_(penalised)
    real_logits, fake_logits = d(real), d(fake)
    loss = adversarial.rpgan.d_loss(real_logits, fake_logits)
    return (loss + penalty.r1(real_logits, real, GAMMA)).mean() if penalised else loss.mean()


def r1_reference(d, real, fake, mix):
    return (F.softplus(d(fake) - d(real)) + GAMMA / 2 * slopes(d, real)).mean()


def r1_r2(d, real, fake, mix, penalised):
    images = torch.cat([real, fake]).requires_grad_(penalised)
    logits = d(images)
    loss = adversarial.rpgan.d_loss(*logits.chunk(2)).mean()
    return loss + 2 * penalty.r1(logits, images, GAMMA).mean() if penalised else loss


def r1_r2_reference(d, real, fake, mix):
    return r1_reference(d, real, fake, mix) + GAMMA / 2 * slopes(d, fake).mean()


# what, the most that it may cost in steps without a penalty, fastgan, as it is mostly written
STEPS = {
    "WGAN-GP": (1.75, wgan_gp, wgan_gp_reference),
    "R1, forward shared": (1.55, r1, r1_reference),
    "R1 + R2, one pass": (2.1, r1_r2, r1_r2_reference),
}


@pytest.mark.parametrize("name", STEPS)
def bench_penalty(compare, benchmark, device, name):
    small = benchmark.disabled
    d = network(small).to(device)
    parameters = list(d.parameters())
    target, ours, theirs = STEPS[name]
    real, fake = torch.randn(2, 8 if small else 32, 3, d.config.resolution, d.config.resolution, device=device)
    mix = torch.rand(len(real), device=device)
    as_written = plain(d)

    def loss(*batch):
        return {"loss": ours(d, *batch, penalised=True)}

    without = gradient_step(lambda *batch: {"loss": ours(d, *batch, penalised=False)}, parameters)
    expected = gradient_step(lambda *batch: {"loss": theirs(as_written, *batch)}, parameters)
    steps = dict(reference=expected, fastgan=gradient_step(loss, parameters))
    last = copy.deepcopy(d).to(memory_format=torch.channels_last)
    in_pixels = gradient_step(lambda *batch: {"loss": ours(last, *batch, penalised=True)}, list(last.parameters()))

    def channels_last(real, fake, mix):
        return in_pixels(*(t.contiguous(memory_format=torch.channels_last) for t in (real, fake)), mix)

    others = {"channels_last": channels_last}
    if not small and hasattr(torch._dynamo.config, "trace_autograd_ops"):  # torch 2.13
        others["compiled_step"] = compiled_step(loss, parameters)

    def step(f):
        values, gradients = f(real, fake, mix)
        return values["loss"], *[
            g for p, g in zip(parameters, gradients, strict=True) if p is not d.bias
        ]  # RpGAN's is 0

    compare(
        f"{name} (target {target} of no penalty)", step, **steps, others=others, unchecked={"no penalty": without},
        compiled=False, tolerance=2e-4, budget=25,
    )  # fmt: skip
